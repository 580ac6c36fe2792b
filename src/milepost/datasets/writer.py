"""Writes LeRobot v3.0 datasets: a Recording becomes a folder of its own (`encode_episode`), folders become a dataset (`assemble`).

The two steps let several processes encode at once, and let an interrupted run continue where it stopped. A frame is encoded once, and its
statistics are taken on the way; joining copies packets. No dataset is overwritten, and no folder is ever half-written.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Shaped, UInt8

from milepost.core import HEADS, DataError, Segment, atomic_folder, count_noun, read_json
from milepost.datasets.parquet import numbered_words
from milepost.datasets.recording import DEFAULTS, Recording
from milepost.datasets.statistics import ImageCounter, Stats, column_stats, merge
from milepost.datasets.video import concat_videos, encode_video, probe

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
FILES_PER_CHUNK = 1000  # LeRobot's chunks_size
MEGABYTE = 1024**2

_SEGMENT_FIELDS = ("names", "start_times", "end_times", "start_frames", "end_frames")


def encode_episode(folder: Path, recording: Recording, *, fps: int, codec: str = "libsvtav1") -> None:
    """Writes one episode as a folder: `<camera>.mp4`, `rows.parquet`, `episode.json`. The folder appears complete or not at all.

    It reads the recording's frames once. Raises DataError if the folder exists, or if the images of a camera are not T images of one size
    with even sides.
    """
    if fps < 1:
        raise DataError(f"fps must be a whole number of at least 1, got {fps}")
    with atomic_folder(Path(folder)) as part:
        features: dict[str, Any] = {}
        stats: dict[str, Stats] = {}
        for camera, images in recording.frames.items():
            counter = ImageCounter(len(recording))
            encode_video(part / f"{camera}.mp4", _counted(images, counter, len(recording), camera=camera), fps, codec=codec)
            features[camera], stats[camera] = _video_feature(part / f"{camera}.mp4", fps), counter.stats()
        rows = _rows(recording, fps)
        for name, column in rows.items():
            shape = [column.shape[1]] if column.ndim == 2 else [1]
            names = list(recording.names[name]) if name in recording.names else None
            features[name], stats[name] = {"dtype": column.dtype.name, "shape": shape, "names": names}, column_stats(column)
        pq.write_table(pa.table({name: _arrow(column) for name, column in rows.items()}), part / "rows.parquet")
        description = {
            "fps": fps,
            "length": len(recording),
            "task": recording.task,
            "features": features,
            "stats": {name: _lists(one) for name, one in stats.items()},
            "segments": {head: [[s.name, s.start, s.stop] for s in stages] for head, stages in recording.segments.items()},
            "facts": dict(recording.facts),
        }
        (part / "episode.json").write_text(json.dumps(description), encoding="utf-8")


def is_encoded(folder: Path) -> bool:
    """Returns whether this is a complete episode folder, as `encode_episode` leaves it."""
    return (Path(folder) / "episode.json").is_file()


def _counted(
    images: Iterable[UInt8[np.ndarray, "H W 3"]], counter: ImageCounter, length: int, *, camera: str
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Yields the images unchanged and counts them for the statistics. Raises DataError unless there are exactly `length`."""
    frame = -1
    for frame, image in enumerate(images):
        if frame >= length:
            raise DataError(f"camera '{camera}' gives more images than the recording has frames ({length})")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DataError(f"camera '{camera}', frame {frame}: an image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
        counter.add(frame, image)
        yield image
    if frame + 1 < length:
        raise DataError(f"camera '{camera}' gives {count_noun(frame + 1, 'image')}, the recording has {count_noun(length, 'frame')}")


def _video_feature(path: Path, fps: int) -> dict[str, Any]:
    """Returns the entry of a camera in `info.json`, with LeRobot's names."""
    video = probe(path)
    info = {
        "video.height": video.height,
        "video.width": video.width,
        "video.codec": video.codec,
        "video.pix_fmt": video.pix_fmt,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
        "video.g": 2,
        "video.crf": 30,
        "video.preset": 12 if video.codec == "av1" else None,
        "video.fast_decode": 0,
        "video.video_backend": "pyav",
        "video.extra_options": {},
        "is_depth_map": False,
    }
    shape = [video.height, video.width, 3]
    return {"dtype": "video", "shape": shape, "names": ["height", "width", "channels"], "info": info}


def _rows(recording: Recording, fps: int) -> dict[str, np.ndarray]:
    """Returns the columns that do not depend on the episode's place in a dataset. Empty states or actions are left out."""
    frame = np.arange(len(recording))
    vectors = {"observation.state": recording.state, "action": recording.action}
    return {
        **{name: vector for name, vector in vectors.items() if vector.shape[1]},
        **recording.columns,
        "timestamp": (frame / fps).astype(np.float32),
        "frame_index": frame.astype(np.int64),
    }


def _arrow(column: Shaped[np.ndarray, "T *D"]) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(column).reshape(-1))
    return flat if column.ndim == 1 or column.shape[1] == 1 else pa.FixedSizeListArray.from_arrays(flat, column.shape[1])


def _lists(stats: Stats) -> dict[str, list[Any]]:
    return {key: value.tolist() for key, value in stats.items()}


def write_dataset(
    root: Path,
    recordings: Iterable[Recording],
    *,
    fps: int,
    codec: str = "libsvtav1",
    robot_type: str | None = None,
    proportions: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Writes a whole dataset in this process: `encode_episode` for each recording, then `assemble`. Raises DataError as they do."""
    root = Path(root)
    if root.exists():
        raise DataError(f"{root} exists already and is not overwritten; remove it or choose another name")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", suffix=".episodes", dir=root.parent) as encoded:
        folders = []
        for i, recording in enumerate(recordings):
            folders.append(Path(encoded) / f"{i:06d}")
            encode_episode(folders[-1], recording, fps=fps, codec=codec)
        assemble(root, folders, fps=fps, robot_type=robot_type, proportions=proportions)


@dataclass(frozen=True, eq=False)
class _Encoded:
    """An encoded episode, read back from its folder."""

    folder: Path
    fps: int
    length: int
    task: str
    features: dict[str, Any]
    stats: dict[str, Stats]
    segments: dict[str, list[Segment]]
    facts: dict[str, str | int | float | bool]

    @classmethod
    def read(cls, folder: Path) -> _Encoded:
        if not is_encoded(folder):
            raise DataError(f"{folder} is not a complete encoded episode; run encode_episode on it")
        content = read_json(folder / "episode.json")
        content["stats"] = {name: {key: np.array(value) for key, value in one.items()} for name, one in content["stats"].items()}
        content["segments"] = {head: [Segment(*stage) for stage in stages] for head, stages in content["segments"].items()}
        return cls(folder=folder, **content)


def assemble(
    root: Path,
    folders: Sequence[Path],
    *,
    fps: int,
    robot_type: str | None = None,
    proportions: Mapping[str, Mapping[str, float]] | None = None,
    data_mb: int = 100,
    video_mb: int = 200,
) -> None:
    """Joins encoded episodes, in this order, into a v3.0 dataset at `root`; it is built beside `root` and renamed when complete.

    proportions: head -> stage -> proportion, in the order of the stages, written as `meta/temporal_proportions_{head}.json`.
    data_mb, video_mb: a new file begins where the next episode would reach this size.
    Raises DataError if the root exists, a folder is incomplete, or the episodes differ in features, frame rate or stage names.
    """
    episodes = [_Encoded.read(Path(folder)) for folder in folders]
    proportions = dict(proportions or {})
    _check_alike(episodes, fps)
    _check_proportions(episodes, proportions)
    tasks = list(dict.fromkeys(episode.task for episode in episodes))
    cameras = [name for name, feature in episodes[0].features.items() if feature["dtype"] == "video"]
    defaults = {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in DEFAULTS.items()}
    features = {**episodes[0].features, **defaults}
    with atomic_folder(Path(root)) as part:
        (part / "meta").mkdir()
        stats = _place(episodes, tasks, list(features))
        columns: dict[str, list[Any]] = {
            "tasks": [[e.task] for e in episodes],
            **_write_data(part, episodes, tasks, features=features, limit_mb=data_mb),
        }
        for camera in cameras:
            columns |= _write_videos(part, episodes, camera, limit_mb=video_mb)
        _write_episodes(part, episodes, columns, stats=stats, limit_mb=data_mb)
        _write_tasks(part, tasks)
        whole = {name: _lists(merge([one[name] for one in stats])) for name in features}
        info = {
            "codebase_version": "v3.0",
            "fps": fps,
            "features": features,
            "total_episodes": len(episodes),
            "total_frames": sum(episode.length for episode in episodes),
            "total_tasks": len(tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": data_mb,
            "video_files_size_in_mb": video_mb,
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if cameras else None,
            "robot_type": robot_type,
            "splits": {"train": f"0:{len(episodes)}"},
        }
        objects = {"info": info, "stats": whole, **{f"temporal_proportions_{head}": dict(p) for head, p in proportions.items()}}
        for name, content in objects.items():
            (part / f"meta/{name}.json").write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")


def _check_alike(episodes: Sequence[_Encoded], fps: int) -> None:
    if not episodes:
        raise DataError("a dataset needs at least one episode, got none")
    for episode in episodes:
        if episode.fps != fps:
            raise DataError(f"{episode.folder} was encoded at {episode.fps} frames per second, the dataset is to have {fps}")
        for name in sorted(episode.features.keys() | episodes[0].features.keys()):
            here, first = episode.features.get(name), episodes[0].features.get(name)
            if here != first:
                raise DataError(f"{episode.folder} and {episodes[0].folder} differ in '{name}': {here} and {first}")


def _check_proportions(episodes: Sequence[_Encoded], proportions: Mapping[str, Mapping[str, float]]) -> None:
    for head, shares in proportions.items():
        if head not in HEADS or not shares or not all(math.isfinite(value) and value >= 0 for value in shares.values()):
            raise DataError(f"proportions are for {' or '.join(HEADS)}: stage -> share >= 0; got '{head}': {dict(shares)}")
        unknown = {s.name for episode in episodes for s in episode.segments.get(head, [])} - shares.keys()
        if unknown:
            raise DataError(f"{head} segments name stages without a proportion: {', '.join(sorted(unknown))}")


def _place(episodes: Sequence[_Encoded], tasks: Sequence[str], names: Sequence[str]) -> list[dict[str, Stats]]:
    """Returns each episode's statistics, with those of the columns for its place in the dataset, in the order of the features."""
    out, row = [], 0
    for i, episode in enumerate(episodes):
        where = _whereabouts(i, row, tasks.index(episode.task), episode.length)
        stats = episode.stats | {name: column_stats(column) for name, column in where.items()}
        out.append({name: stats[name] for name in names})
        row += episode.length
    return out


def _whereabouts(number: int, row: int, task: int, length: int) -> dict[str, np.ndarray]:
    return {
        "episode_index": np.full(length, number, np.int64),
        "index": np.arange(row, row + length, dtype=np.int64),
        "task_index": np.full(length, task, np.int64),
    }


def _groups(sizes: Sequence[int], limit_mb: int) -> list[range]:
    """Returns runs of consecutive items, one for each file: a new one begins where the next item would reach the limit."""
    starts, group_size = [0], 0
    for item, size in enumerate(sizes):
        if item > starts[-1] and group_size + size >= limit_mb * MEGABYTE:
            starts.append(item)
            group_size = 0
        group_size += size
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], len(sizes)], strict=True)]


def _chunk(file: int) -> dict[str, int]:
    return {"chunk_index": file // FILES_PER_CHUNK, "file_index": file % FILES_PER_CHUNK}


def _new_file(part: Path, template: str, file: int, **names: str) -> Path:
    path = part / template.format(**_chunk(file), **names)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write_data(
    part: Path, episodes: Sequence[_Encoded], tasks: Sequence[str], *, features: Mapping[str, Any], limit_mb: int
) -> dict[str, list[int]]:
    """Writes the rows, one row group for each episode. Returns the columns of `meta/episodes` with their places."""
    metadata = {"huggingface": json.dumps({"info": {"features": _huggingface(features)}})}
    columns: dict[str, list[int]] = {name: [] for name in ("data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index")}
    row = 0
    for file, group in enumerate(_groups([(e.folder / "rows.parquet").stat().st_size for e in episodes], limit_mb)):
        tables = []
        for i in group:
            length = episodes[i].length
            table = pq.read_table(episodes[i].folder / "rows.parquet")
            for name, column in _whereabouts(i, row, tasks.index(episodes[i].task), length).items():
                table = table.append_column(name, pa.array(column))
            tables.append(table.replace_schema_metadata(metadata))
            for name, value in zip(columns, (*_chunk(file).values(), row, row + length), strict=True):
                columns[name].append(value)
            row += length
        with pq.ParquetWriter(_new_file(part, DATA_PATH, file), tables[0].schema, compression="snappy") as writer:
            for table in tables:
                writer.write_table(table, row_group_size=len(table))
    return columns


def _huggingface(features: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the features as Hugging Face `datasets` has them in the parquet schema."""
    out: dict[str, Any] = {}
    for name, feature in features.items():
        value = {"dtype": feature["dtype"], "_type": "Value"}
        if feature["dtype"] != "video":
            out[name] = value if feature["shape"] == [1] else {"feature": value, "length": feature["shape"][0], "_type": "List"}
    return out


def _write_videos(part: Path, episodes: Sequence[_Encoded], camera: str, *, limit_mb: int) -> dict[str, list[Any]]:
    """Joins the videos of one camera. Returns the columns of `meta/episodes` with each episode's part of them."""
    paths = [episode.folder / f"{camera}.mp4" for episode in episodes]
    spans: list[dict[str, Any]] = []
    for file, group in enumerate(_groups([path.stat().st_size for path in paths], limit_mb)):
        joined = concat_videos([paths[i] for i in group], _new_file(part, VIDEO_PATH, file, video_key=camera))
        spans += [_chunk(file) | {"from_timestamp": start_s, "to_timestamp": stop_s} for start_s, stop_s in joined]
    return {f"videos/{camera}/{name}": [span[name] for span in spans] for name in spans[0]}


def _write_episodes(
    part: Path, episodes: Sequence[_Encoded], columns: Mapping[str, list[Any]], *, stats: Sequence[dict[str, Stats]], limit_mb: int
) -> None:
    """Writes `meta/episodes` with one row for each episode."""
    arrays = {"episode_index": pa.array(range(len(episodes)), pa.int64()), "tasks": pa.array(columns["tasks"])}
    arrays["length"] = pa.array([episode.length for episode in episodes], pa.int64())
    arrays |= {name: pa.array(column) for name, column in columns.items() if name != "tasks"}
    for name, one in stats[0].items():
        arrays |= {f"stats/{name}/{key}": pa.array([stats_of_episode[name][key].tolist() for stats_of_episode in stats]) for key in one}
    extra = {**_segment_columns(episodes), **_fact_columns(episodes)}
    size = (sum(array.nbytes for array in arrays.values()) + sum(array.nbytes for array in extra.values())) // len(episodes)
    for file, group in enumerate(_groups([size] * len(episodes), limit_mb)):
        where = {f"meta/episodes/{name}": pa.array([value] * len(episodes)) for name, value in _chunk(file).items()}
        table = pa.table({**arrays, **where, **extra}).slice(group.start, len(group))
        pq.write_table(table, _new_file(part, EPISODES_PATH, file), compression="snappy")


def _segment_columns(episodes: Sequence[_Encoded]) -> dict[str, pa.Array]:
    """Returns LeRobot's annotation columns of each head, the sparse ones also under their old names; null where there is no annotation."""
    kinds = dict(zip(_SEGMENT_FIELDS, (pa.string(), pa.float64(), pa.float64(), pa.int64(), pa.int64()), strict=True))
    out: dict[str, pa.Array] = {}
    for head in HEADS:
        annotations = [(episode.segments.get(head), episode.fps) for episode in episodes]
        if not any(stages for stages, _ in annotations):
            continue
        rows = [
            zip(*[(s.name, s.start / fps, s.stop / fps, s.start, s.stop) for s in stages], strict=True) if stages else [None] * 5
            for stages, fps in annotations
        ]
        for name, column in zip(_SEGMENT_FIELDS, zip(*rows, strict=True), strict=True):
            out[f"{head}_subtask_{name}"] = pa.array(column, pa.list_(kinds[name]))
    legacy = {name.removeprefix("sparse_"): column for name, column in out.items() if name.startswith("sparse_")}
    return {**out, **legacy}


def _fact_columns(episodes: Sequence[_Encoded]) -> dict[str, pa.Array]:
    out = {}
    for name in dict.fromkeys(name for episode in episodes for name in episode.facts):
        values = [episode.facts.get(name) for episode in episodes]
        kinds = {type(value) for value in values if value is not None}
        if len(kinds) > 1 and kinds != {int, float}:
            raise DataError(f"the fact '{name}' is of several kinds: {', '.join(sorted(kind.__name__ for kind in kinds))}")
        out[name] = pa.array(values, pa.float64() if float in kinds else None)
    return out


def _write_tasks(part: Path, tasks: Sequence[str]) -> None:
    """Writes `meta/tasks.parquet`."""
    pq.write_table(numbered_words("task", tasks), part / "meta/tasks.parquet", compression="snappy")
