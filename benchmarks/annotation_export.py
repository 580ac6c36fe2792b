"""Writing annotations into meta/episodes: seconds, and whether anything else changed.

    PYTHONPATH=src python benchmarks/annotation_export.py [--episodes 10000] [--files 20] [--features 8]

Makes a dataset's meta/ as LeRobot writes it (row groups of ten episodes, ten statistics a feature), writes sparse and dense annotations
of every episode, then corrects one episode, then repeats. Every other column is compared before and after. For
comparison: a plain copy of the same files, and reading meta/.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from milepost.core.types import Segment
from milepost.datasets.annotations import write_annotations
from milepost.datasets.metadata import read_metadata

FPS, LENGTH, GROUP = 30, 900, 10
STATS = ("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99")
NAMES = {"sparse": tuple(f"stage {k}" for k in range(4)), "dense": tuple(f"step {k}" for k in range(10))}


def make(root: Path, episodes: int, files: int, features: int) -> None:
    """meta/ of a dataset of two cameras; the rows and videos are never looked at."""
    rng = np.random.default_rng(0)
    vectors = [f"observation.part_{i}" for i in range(features)]
    cameras = ("observation.images.top", "observation.images.wrist")
    info = {"codebase_version": "v3.0", "fps": FPS, "total_episodes": episodes, "chunks_size": 1000}
    info |= {"data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"}
    info |= {"video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"}
    info["features"] = {name: {"dtype": "float32", "shape": [14], "names": None} for name in vectors}
    info["features"] |= {camera: {"dtype": "video", "shape": [480, 640, 3], "names": None} for camera in cameras}
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    for file, numbers in enumerate(np.array_split(np.arange(episodes), files)):
        n = len(numbers)
        columns: dict[str, object] = {"episode_index": numbers, "tasks": [["fold the towel"]] * n, "length": np.full(n, LENGTH)}
        columns |= {"data/chunk_index": np.zeros(n, int), "data/file_index": numbers // 100}
        columns |= {"dataset_from_index": numbers * LENGTH, "dataset_to_index": (numbers + 1) * LENGTH}
        for camera in cameras:
            columns |= {f"videos/{camera}/chunk_index": np.zeros(n, int), f"videos/{camera}/file_index": numbers // 50}
            columns |= {f"videos/{camera}/from_timestamp": numbers * 30.0, f"videos/{camera}/to_timestamp": (numbers + 1) * 30.0}
            columns |= {f"stats/{camera}/{key}": rng.random((n, 3, 1, 1)).tolist() for key in STATS}
        columns |= {f"stats/{name}/{key}": rng.random((n, 14)).tolist() for name in vectors for key in STATS}
        table = pa.table({name: pa.array(column) for name, column in columns.items()})
        path = root / f"meta/episodes/chunk-000/file-{file:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, row_group_size=GROUP)


def annotation(number: int) -> dict[str, tuple[Segment, ...]]:
    """Boundaries that differ from episode to episode, in frames."""
    out = {}
    for head, names in NAMES.items():
        inner = np.random.default_rng([number, len(names)]).choice(np.arange(1, LENGTH), len(names) - 1, replace=False)
        edges = [0, *sorted(inner.tolist()), LENGTH]
        out[head] = tuple(Segment(name, a, b) for name, a, b in zip(names, edges, edges[1:], strict=False))
    return out


def others(root: Path) -> dict[str, object]:
    """Everything that is not an annotation: columns bit for bit, row groups, schema notes, the other files."""
    held: dict[str, object] = {}
    for path in sorted((root / "meta/episodes").glob("*/*.parquet")):
        file = pq.ParquetFile(path)
        names = [name for name in file.schema_arrow.names if "subtask_" not in name]
        held[path.name] = file.read(names).replace_schema_metadata(None).combine_chunks()
        held[f"{path.name} notes"] = file.schema_arrow.metadata
        held[f"{path.name} groups"] = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    held["info"] = (root / "meta/info.json").read_bytes()
    return held


def same(a: object, b: object) -> bool:
    return a.equals(b, check_metadata=True) if isinstance(a, pa.Table) else a == b


def timed(what: str, run: Callable[[], str]) -> None:
    start, processor = time.perf_counter(), time.process_time()
    result = run()
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    print(f"{what:30s} {seconds:6.2f} s ({processor:5.2f} s of processor time)  {result}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--features", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "dataset"
        make(root, args.episodes, args.files, args.features)
        size = sum(path.stat().st_size for path in root.rglob("*.parquet")) / 1e6
        columns = len(pq.read_schema(next((root / "meta/episodes").glob("*/*.parquet"))).names)
        print(f"{args.episodes} episodes, {args.files} meta files, {columns} columns, row groups of {GROUP}, {size:.0f} MB")
        before = others(root)
        annotations = {number: annotation(number) for number in range(args.episodes)}
        timed("copy the files", lambda: shutil.copytree(root, Path(scratch) / "copy") and "")
        timed("read meta/", lambda: read_metadata(root) and "")
        timed("write all annotations", lambda: f"{len(write_annotations(root, annotations, names=NAMES).files)} files replaced")
        after = others(root)
        print(f"other columns, row groups, notes and files the same: {all(same(before[name], after[name]) for name in before)}")
        found = {number: record.segments for number, record in read_metadata(root).episodes.items()}
        print(f"read back equal: {found == annotations}")
        one = {7: {"sparse": (Segment("stage 0", 0, 100), Segment("stage 3", 100, LENGTH))}}
        timed("correct one episode", lambda: f"{len(write_annotations(root, one, overwrite=True).files)} files replaced")
        timed("the same again", lambda: f"{len(write_annotations(root, one, overwrite=True).files)} files replaced")


if __name__ == "__main__":
    main()
