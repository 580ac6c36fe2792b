"""What do a million episodes cost before the first frame is read? Seconds and peak memory of open, info, weigh and view's first page.

    PYTHONPATH=src:. python benchmarks/million.py [--sizes 10000 100000 1000000] [--verbs open info weigh view] [--frames 5] [--folder DIR]

Writes a v3.0 dataset of N episodes without a camera: meta/ as LeRobot lays it out (statistics columns too; 10,000 episodes a file), data
files of 50,000 rows with as many frames an episode as `--frames`, and a progress file of all rows. Each verb runs in a process of its own:
the seconds are from its first import of milepost to its end (view: to the last byte of the page's list of episodes), the memory is the
most that the process had (VmHWM; ru_maxrss where there is no /proc). "import" is a process that imports the same modules and opens
nothing. Prints a markdown table, and the growth from each size to the next. DIR keeps the datasets for another call.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from milepost.datasets.writer import DATA_PATH, VIDEO_PATH

FPS = 10
TASKS = ("put the cube in the bowl", "fold the towel", "open the drawer")
META_ROWS, DATA_ROWS = 10_000, 50_000
META_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VERBS = ("import", "open", "info", "weigh", "view")
_BODY = {
    "import": "import milepost.cli.entry, milepost.datasets.reader, milepost.progress.table",
    "open": "import milepost; dataset = milepost.open_dataset(root); assert len(dataset) == count and dataset.fingerprint",
    "info": "from milepost.cli.entry import main; code = main(['info', root]); assert not code, code",
    "weigh": "from milepost.cli.entry import main; code = main(['weigh', root, '--chunk-size', '2']); assert not code, code",
    "view": """
from milepost import datasets, viewer
from milepost.cli.view import Args, open_review
from starlette.testclient import TestClient
review = open_review(Args(root))
from milepost.viewer.server import create_app
with TestClient(create_app(review), base_url='http://127.0.0.1:8000') as client:
    pages = [client.get(path) for path in ('/', '/api/dataset', '/api/episodes')]
    assert all(page.status_code == 200 for page in pages), [page.text[:300] for page in pages]
    size = len(pages[-1].content)
    review.stop()
""",
}
_PROCESS = """
import json, os, resource, sys, time
root, count, size = sys.argv[1], int(sys.argv[2]), 0
start = time.perf_counter()
{body}
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
try:  # where it is, without what the parent had when it started this process
    peak = next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM:')) / 1024
except OSError:
    pass
print("\\n" + json.dumps([seconds, peak, size]), file=sys.stderr, flush=True)
os._exit(0)
"""


def build(root: Path, count: int, frames: int) -> None:
    """Writes a dataset of `count` episodes of `frames` frames, and a progress file beside it. A finished one is left as it is."""
    if (root / "elapsed_progress.parquet").exists():
        return
    (root / "meta").mkdir(parents=True, exist_ok=True)
    per_file = DATA_ROWS // frames
    for number, first in enumerate(range(0, count, META_ROWS)):
        _write_meta(root, number, np.arange(first, min(count, first + META_ROWS)), frames, per_file)
    for number, first in enumerate(range(0, count, per_file)):
        _write_data(root, number, np.arange(first, min(count, first + per_file)), frames)
    pq.write_table(pa.table({"task_index": range(len(TASKS)), "task": TASKS}), root / "meta" / "tasks.parquet")
    vector, number_ = {"dtype": "float32", "shape": [6], "names": None}, {"shape": [1], "names": None}
    features = {"observation.state": vector, "action": vector, "timestamp": {"dtype": "float32", **number_}}
    features |= {name: {"dtype": "int64", **number_} for name in ("frame_index", "episode_index", "index", "task_index")}
    info = {"codebase_version": "v3.0", "fps": FPS, "features": features, "total_episodes": count, "total_frames": count * frames}
    info |= {"total_tasks": len(TASKS), "chunks_size": 1000, "data_path": DATA_PATH, "video_path": VIDEO_PATH}
    (root / "meta" / "info.json").write_text(json.dumps(info))
    (root / "meta" / "stats.json").write_text(
        json.dumps({name: {"mean": [0.5] * 6, "std": [0.3] * 6} for name in ("observation.state", "action")})
    )
    _write_progress(root / "elapsed_progress.parquet", count, frames)


def _write_meta(root: Path, number: int, episodes: np.ndarray, frames: int, per_file: int) -> None:
    chunk, file = np.divmod(episodes // per_file, 1000)
    columns = {
        "episode_index": episodes,
        "tasks": pa.array([[TASKS[e % len(TASKS)]] for e in episodes.tolist()]),
        "length": np.full(len(episodes), frames),
        "data/chunk_index": chunk,
        "data/file_index": file,
        "dataset_from_index": episodes * frames,
        "dataset_to_index": (episodes + 1) * frames,
        "meta/episodes/chunk_index": np.full(len(episodes), number // 1000),
        "meta/episodes/file_index": np.full(len(episodes), number % 1000),
    }
    row = pa.array([[0.1] * 6] * len(episodes))
    columns |= {f"stats/{name}/{of}": row for name in ("observation.state", "action") for of in ("min", "max", "mean", "std")}
    path = root / META_PATH.format(chunk_index=number // 1000, file_index=number % 1000)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=1000)


def _write_data(root: Path, number: int, episodes: np.ndarray, frames: int) -> None:
    rng, owner = np.random.default_rng(number), np.repeat(episodes, frames)
    frame = np.tile(np.arange(frames), len(episodes))
    rows = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(rng.random(len(owner) * 6, np.float32)), 6)
        for name in ("observation.state", "action")
    }
    rows |= {"timestamp": (frame / FPS).astype(np.float32), "frame_index": frame, "episode_index": owner}
    rows |= {"index": owner * frames + frame, "task_index": owner % len(TASKS)}
    path = root / DATA_PATH.format(chunk_index=number // 1000, file_index=number % 1000)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows), path, row_group_size=5000)


def _write_progress(path: Path, count: int, frames: int) -> None:
    """Writes a curve that rises in each episode, by another amount in each."""
    schema = pa.schema([(name, pa.int64()) for name in ("index", "episode_index", "frame_index")] + [("progress_sparse", pa.float32())])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, count, 100_000):
            owner = np.repeat(np.arange(first, min(count, first + 100_000)), frames)
            frame = np.arange(len(owner)) % frames
            value = (frame / (frames - 1) * (0.5 + (owner % 50) / 100)).astype(np.float32)
            writer.write_table(pa.table([owner * frames + frame, owner, frame, value], schema=schema))


def measure(verb: str, root: Path, count: int) -> tuple[float, float, int]:
    """Returns the seconds, the most memory in MB, and the bytes of the list of episodes (view)."""
    process = subprocess.run(
        [sys.executable, "-c", _PROCESS.format(body=_BODY[verb]), str(root), str(count)], capture_output=True, text=True, check=False
    )
    lines = process.stderr.strip().splitlines()
    if process.returncode or not lines or not lines[-1].startswith("["):
        raise SystemExit(f"{verb} of {count} episodes ended with {process.returncode}:\n{process.stdout[-2000:]}\n{process.stderr[-4000:]}")
    seconds, peak, size = json.loads(lines[-1])
    return float(seconds), float(peak), int(size)


def main() -> None:
    """Builds, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=VERBS)
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, results = args.folder or Path(temporary), {}
        for count in args.sizes:
            build(folder / f"{count}", count, args.frames)
            for verb in args.verbs:
                results[verb, count] = measure(verb, folder / f"{count}", count)
                print(f"{verb} {count:,}: {results[verb, count]}", file=sys.stderr, flush=True)
    print("| verb | " + " | ".join(f"{count:,} episodes" for count in args.sizes) + " | growth |\n|" + "---|" * (len(args.sizes) + 2))
    for verb in args.verbs:
        runs = [results[verb, count] for count in args.sizes]
        cells = [f"{seconds:.1f} s, {peak:.0f} MB" + (f", {size / 1e6:.1f} MB sent" if size else "") for seconds, peak, size in runs]
        growth = ", ".join(f"{after[0] / before[0]:.1f}x s, {after[1] - before[1]:+.0f} MB" for before, after in itertools.pairwise(runs))
        print(f"| {verb} | " + " | ".join(cells) + f" | {growth} |")


if __name__ == "__main__":
    main()
