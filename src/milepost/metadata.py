"""What meta/ says of a LeRobot dataset, v3.0 or v2.1 alike: features, tasks, and where each episode's rows and pictures are.

Reads meta/ only, and of meta/episodes never the statistics, which are most of it. Every other version is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from milepost.parquet import open_parquet, read_parquet
from milepost.types import DataError, Segment

SUPPORTED = ("v3.0", "v2.1")
HEADS = ("sparse", "dense")
_OWN = {"episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"}
_OWN_PREFIXES = ("stats/", "data/", "videos/", "meta/", "subtask_", "sparse_subtask_", "dense_subtask_")


@dataclass(frozen=True)
class VideoSpan:
    """An episode's part of an mp4: seconds [start_s, stop_s) of `path` (relative to the dataset); stop_s None: to its end."""

    path: str
    start_s: float = 0.0
    stop_s: float | None = None


@dataclass(frozen=True)
class EpisodeRecord:
    """One row of meta/episodes. row: dataset row of frame 0. data: its parquet file, relative. videos: camera -> where."""

    index: int
    row: int
    length: int
    tasks: tuple[str, ...]
    data: str
    videos: Mapping[str, VideoSpan]
    entry: Mapping[str, Any]
    fps: float

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the recorder says beyond LeRobot's own fields; nulls left out."""
        kept = (key for key in self.entry if key not in _OWN and not key.startswith(_OWN_PREFIXES))
        return {key: self.entry[key] for key in kept if self.entry[key] is not None}

    @cached_property
    def segments(self) -> dict[str, tuple[Segment, ...]]:
        """head -> its annotation, for the heads this episode has one of. DataError if lists differ in length or run backwards.

        A stage may end up to a second after the episode, because annotators round; it is cut. DataError if it ends later.
        """
        found = {}
        for head in HEADS:
            prefix = f"{head}_"
            if head == "sparse" and self.entry.get("sparse_subtask_names") is None:
                prefix = ""  # older annotators wrote the sparse head only, unprefixed
            columns = [self.entry.get(f"{prefix}subtask_{name}") for name in ("names", "start_frames", "end_frames")]
            if columns[0] is not None:
                found[head] = self._head(head, *columns)
        return found

    def _head(self, head: str, names: Any, starts: Any, ends: Any) -> tuple[Segment, ...]:
        starts, ends = starts or [], ends or []
        who = f"episode {self.index}: its {head} annotation"
        if not len(names) == len(starts) == len(ends):
            raise DataError(
                f"{who} has {len(names)} names, {len(starts)} start frames and {len(ends)} end frames; annotate this episode again"
            )
        segments = []
        for name, start, end in zip(names, starts, ends, strict=True):
            if not name or start is None or end is None or not 0 <= start <= end:
                raise DataError(f"{who} has a segment '{name}' from frame {start} to {end}; annotate this episode again")
            if end > self.length + self.fps:
                raise DataError(
                    f"{who} has a segment '{name}' up to frame {end}, and the episode has {self.length}; annotate this episode again"
                )
            segments.append(Segment(str(name), min(int(start), self.length), min(int(end), self.length)))
        return tuple(segments)


@dataclass(frozen=True)
class Metadata:
    """meta/ of one dataset. features: info.json's entries. tasks: task index -> words. episodes: number -> record, ascending."""

    version: str
    fps: float
    features: Mapping[str, Mapping[str, Any]]
    tasks: Mapping[int, str]
    episodes: Mapping[int, EpisodeRecord]

    @cached_property
    def cameras(self) -> tuple[str, ...]:
        """Keys of the features that are colour pictures; depth maps are not."""
        return tuple(key for key, feature in self.features.items() if feature.get("dtype") in ("video", "image") and not _is_depth(feature))

    def image_size(self, camera: str) -> tuple[int, int]:
        """(height, width) as info.json has it, whether the shape is written channel-first or channel-last."""
        feature = self.features[camera]
        shape, names = list(feature.get("shape") or ()), list(feature.get("names") or ())
        if len(shape) != 3:
            raise DataError(f"meta/info.json: the shape of camera '{camera}' must have three numbers, got {shape}")
        channel_first = names[0] in ("channel", "channels", "c") if len(names) == 3 else shape[0] in (1, 3) and shape[2] > 4
        return (shape[1], shape[2]) if channel_first else (shape[0], shape[1])


def read_metadata(root: Path) -> Metadata:
    """Read meta/ of the dataset in this folder. DataError if it is no dataset, a version not read here, damaged or empty."""
    info = _read_info(root)
    version = info["codebase_version"]
    episodes = dict(sorted(_by_number(_episodes_v30(root, info) if version == "v3.0" else _episodes_v21(root, info)).items()))
    if not episodes:
        raise DataError(f"{root} has no episodes; record some first")
    told = info.get("total_episodes", len(episodes))
    if isinstance(told, int) and len(episodes) < told:
        raise DataError(f"{root}: info.json counts {told} episodes, meta/episodes lists {len(episodes)}; copy or download meta/ again")
    tasks = _tasks_v30(root) if version == "v3.0" else _tasks_v21(root)
    return Metadata(version, float(info["fps"]), info["features"], dict(sorted(tasks.items())), episodes)


def read_proportions(root: Path, head: str) -> dict[str, float] | None:
    """Stage name -> its mean share of an episode, from meta/temporal_proportions_{head}.json; None if there is none."""
    path = root / "meta" / f"temporal_proportions_{head}.json"
    if not path.exists():
        return None
    shares = _read_json(path)
    if not isinstance(shares, dict) or not all(isinstance(share, int | float) for share in shares.values()):
        raise DataError(f"{path} should map stage names to numbers")
    return {name: float(share) for name, share in shares.items()}


def _read_info(root: Path) -> dict[str, Any]:
    path = root / "meta" / "info.json"
    if not path.is_file():
        raise DataError(f"{root} is not a LeRobot dataset: it has no meta/info.json")
    info = _read_json(path)
    if not isinstance(info, dict):
        raise DataError(f"{path} should hold an object, got {type(info).__name__}")
    version = info.get("codebase_version")
    if version not in SUPPORTED:
        raise DataError(f"{root} is a LeRobot dataset of version {version}; {' and '.join(SUPPORTED)} are read here, convert it first")
    for key, kind in (("fps", int | float), ("features", dict), ("data_path", str)):
        if not isinstance(info.get(key), kind):
            raise DataError(f"{path}: '{key}' is missing or of the wrong type ({info.get(key)!r})")
    if info["fps"] <= 0:
        raise DataError(f"{path}: fps must be above 0, got {info['fps']}")
    if not all(isinstance(feature, dict) for feature in info["features"].values()):
        raise DataError(f"{path}: every feature must be an object with a dtype and a shape")
    return info


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); copy or download it again") from error


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"{path} is missing; copy or download meta/ again")
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read as JSON lines ({error}); copy or download it again") from error


def _episodes_v30(root: Path, info: Mapping[str, Any]) -> Iterator[EpisodeRecord]:
    cameras = _video_keys(info)
    for path in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
        with open_parquet(path) as file:
            names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
        entries = read_parquet(path, names).to_pylist()
        for entry in entries:
            try:
                yield _record_v30(entry, info, cameras)
            except (KeyError, TypeError) as error:
                raise DataError(f"{path}: episode {entry.get('episode_index')} lacks the field {error}") from error


def _record_v30(entry: Mapping[str, Any], info: Mapping[str, Any], cameras: Sequence[str]) -> EpisodeRecord:
    videos = {}
    for key in cameras:
        place = {name: entry[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")}
        path = info["video_path"].format(video_key=key, chunk_index=place["chunk_index"], file_index=place["file_index"])
        videos[key] = VideoSpan(path, float(place["from_timestamp"]), float(place["to_timestamp"]))
    data = info["data_path"].format(chunk_index=entry["data/chunk_index"], file_index=entry["data/file_index"])
    row, tasks = int(entry["dataset_from_index"]), tuple(entry.get("tasks") or ())
    return EpisodeRecord(int(entry["episode_index"]), row, int(entry["length"]), tasks, data, videos, entry, float(info["fps"]))


def _episodes_v21(root: Path, info: Mapping[str, Any]) -> Iterator[EpisodeRecord]:
    path = root / "meta" / "episodes.jsonl"
    row, cameras = 0, _video_keys(info)
    for entry in sorted(_read_lines(path), key=lambda entry: entry.get("episode_index", -1)):
        try:
            number, length = int(entry["episode_index"]), int(entry["length"])
            place = {"episode_chunk": number // info.get("chunks_size", 1000), "episode_index": number}
            videos = {key: VideoSpan(info["video_path"].format(video_key=key, **place)) for key in cameras}
            data = info["data_path"].format(**place)
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}: episode {entry.get('episode_index')} lacks the field {error}") from error
        yield EpisodeRecord(number, row, length, tuple(entry.get("tasks") or ()), data, videos, entry, float(info["fps"]))
        row += length


def _by_number(records: Iterator[EpisodeRecord]) -> dict[int, EpisodeRecord]:
    found: dict[int, EpisodeRecord] = {}
    for record in records:
        if record.index in found:
            raise DataError(f"meta/ lists episode {record.index} twice; copy or download meta/ again")
        found[record.index] = record
    return found


def _tasks_v30(root: Path) -> dict[int, str]:
    path = root / "meta" / "tasks.parquet"
    if not path.is_file():
        return {}
    table = read_parquet(path)
    words = next((name for name in ("task", "__index_level_0__") if name in table.column_names), None)
    if words is None:
        raise DataError(f"{path} has no column 'task'; it has {', '.join(table.column_names)}")
    numbers = table["task_index"].to_pylist() if "task_index" in table.column_names else range(table.num_rows)
    return dict(zip(numbers, map(str, table[words].to_pylist()), strict=True))


def _tasks_v21(root: Path) -> dict[int, str]:
    path = root / "meta" / "tasks.jsonl"
    entries = _read_lines(path) if path.is_file() else []
    try:
        return {int(entry["task_index"]): str(entry["task"]) for entry in entries}
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: a task lacks the field {error}") from error


def _video_keys(info: Mapping[str, Any]) -> list[str]:
    """Cameras in mp4 files, depth maps left out: they are not offered, so nothing need be known of them."""
    keys = [key for key, feature in info["features"].items() if feature.get("dtype") == "video" and not _is_depth(feature)]
    if keys and not isinstance(info.get("video_path"), str):
        raise DataError(f"meta/info.json: there are video cameras ({', '.join(keys)}) but no 'video_path'")
    return keys


def _is_depth(feature: Mapping[str, Any]) -> bool:
    notes = (feature, feature.get("info") or {}, feature.get("video_info") or {})
    return any(note.get(key) for note in notes for key in ("is_depth_map", "video.is_depth_map"))
