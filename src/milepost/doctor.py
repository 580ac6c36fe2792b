"""What is in a LeRobot dataset, and what is wrong with it. `examine` reads raw tables and reports; it repairs and writes nothing.

Bad content never raises: it becomes a Finding. Only a thing that is no dataset at all (no folder, no meta/info.json) does.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from milepost.checks import Expected, Finding, Span, check_rows, check_segments, check_spans
from milepost.hub import Files, find_files
from milepost.metadata import HEADS, SUPPORTED, EpisodeRecord, VideoSpan, read_metadata, read_proportions
from milepost.parquet import open_parquet, read_parquet, to_numpy
from milepost.types import DataError
from milepost.video import VideoFrames, VideoInfo, probe

_ROWS = ("episode_index", "frame_index", "index", "timestamp", "task_index")
_MEASURED = ("observation.state", "action", "next.success")
_COUNTS = ("total_episodes", "total_frames", "total_tasks")


@dataclass(frozen=True)
class Camera:
    """A camera of the dataset, as info.json describes it. kind: "video" or "image"."""

    name: str
    kind: str
    height: int | None
    width: int | None
    codec: str | None


@dataclass(frozen=True)
class Report:
    """What `examine` found. tasks: instruction -> episodes. annotated: head -> episodes. succeeded: of the `judged` episodes."""

    name: str
    version: str
    robot: str | None
    fps: float
    episodes: int
    frames: int
    tasks: Mapping[str, int] = field(default_factory=dict)
    cameras: tuple[Camera, ...] = ()
    state: int | None = None
    action: int | None = None
    annotated: Mapping[str, int] = field(default_factory=dict)
    succeeded: int = 0
    judged: int = 0
    progress_files: tuple[str, ...] = ()
    weight_files: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def duration_s(self) -> float:
        """Length of all episodes together, in seconds."""
        return self.frames / self.fps if self.fps > 0 else 0.0

    def count(self, severity: str) -> int:
        """How many findings are of this severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def healthy(self) -> bool:
        """No errors; there may be warnings and notes."""
        return not self.count("error")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "duration_s": self.duration_s, "healthy": self.healthy}


def examine(folder_or_repo: str | Path, *, deep: bool = True, revision: str | None = None) -> Report:
    """Look through a dataset: meta/, every data file once, every video's index; with `deep`, each episode's last picture too.

    Of a Hub dataset, the data files are downloaded; of its videos only those already in the cache are looked at.
    DataError only if this is no LeRobot dataset: no such folder or repository, or no meta/info.json.
    """
    files = find_files(folder_or_repo, revision)
    if not (files.root / "meta/info.json").is_file():
        raise DataError(f"{files.root} is not a LeRobot dataset: it has no meta/info.json")
    return _Examination(files, deep).report()


class _Examination:
    """One look through a dataset; holds what was read and what was found so far."""

    def __init__(self, files: Files, deep: bool) -> None:
        self.files, self.deep = files, deep
        self.findings: list[Finding] = []
        self.info = self._info()
        self.features = self._features()
        self.fps = self._fps()
        self.tasks: dict[int, str] = {}
        self.records: list[EpisodeRecord] = []
        self.success: dict[int, bool] = {}

    def report(self) -> Report:
        version = str(self.info.get("codebase_version", "unknown"))
        if version in SUPPORTED:
            self._read_meta(version)
            self._check_meta()
            self._check_data()
            self._check_videos()
        elif self.info:
            self._error("version", f"version {version} is not read here; {' and '.join(SUPPORTED)} are: convert it with LeRobot")
        progress, weights = self._side_files()
        widths = {name: self._width(name) for name in ("observation.state", "action")}
        return Report(
            name=self.files.name,
            version=version,
            robot=robot if isinstance(robot := self.info.get("robot_type"), str) else None,
            fps=self.fps,
            episodes=len(self.records),
            frames=sum(record.length for record in self.records),
            tasks=dict(Counter(task for record in self.records for task in record.tasks)),
            cameras=tuple(self._cameras()),
            state=widths["observation.state"],
            action=widths["action"],
            annotated={head: count for head in HEADS if (count := sum(bool(self._lists(r, head)[0]) for r in self.records))},
            succeeded=sum(self.success.values()),
            judged=len(self.success),
            progress_files=progress,
            weight_files=weights,
            findings=tuple(self.findings),
        )

    def _error(self, code: str, message: str, episode: int | None = None) -> None:
        self.findings.append(Finding(code, "error", message, episode))

    def _warn(self, code: str, message: str, episode: int | None = None) -> None:
        self.findings.append(Finding(code, "warning", message, episode))

    def _note(self, code: str, message: str) -> None:
        self.findings.append(Finding(code, "note", message))

    # meta/ ------------------------------------------------------------------------------------------------------------

    def _info(self) -> dict[str, Any]:
        try:
            info = json.loads((self.files.root / "meta/info.json").read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            self._error("info", f"meta/info.json cannot be read as JSON: {error}")
            return {}
        if not isinstance(info, dict):
            self._error("info", f"meta/info.json should hold an object, got {type(info).__name__}")
            return {}
        wanted = {"features": dict, "fps": int | float, "data_path": str, "total_episodes": int, "total_frames": int}
        for key, kind in wanted.items():
            if not isinstance(info.get(key), kind):
                self._error("info", f"meta/info.json: '{key}' is missing or of the wrong type ({info.get(key)!r})")
        return info

    def _features(self) -> dict[str, dict[str, Any]]:
        features = self.info.get("features")
        return {name: f for name, f in features.items() if isinstance(f, dict)} if isinstance(features, dict) else {}

    def _fps(self) -> float:
        fps = self.info.get("fps")
        if isinstance(fps, int | float) and fps > 0:
            return float(fps)
        if fps is not None:
            self._error("info", f"meta/info.json: fps must be above 0, got {fps!r}")
        return 0.0

    def _width(self, name: str) -> int | None:
        shape = self.features.get(name, {}).get("shape")
        return int(np.prod(shape)) if isinstance(shape, list) and all(isinstance(n, int) for n in shape) else None

    def _cameras(self) -> Iterator[Camera]:
        for name, feature in self.features.items():
            if feature.get("dtype") in ("video", "image"):
                height, width = _size(feature)
                yield Camera(name, str(feature["dtype"]), height, width, _codec(feature))

    def _video_keys(self) -> list[str]:
        return [name for name, feature in self.features.items() if feature.get("dtype") == "video"]

    def _read_meta(self, version: str) -> None:
        if version == "v2.1":
            try:
                meta = read_metadata(self.files.root)
            except DataError as error:
                return self._error("meta", str(error))
            self.tasks, self.records = dict(meta.tasks), list(meta.episodes.values())
            return None
        self.tasks = self._read_tasks()
        for path in sorted((self.files.root / "meta/episodes").glob("*/*.parquet")):
            try:
                with open_parquet(path) as file:
                    names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
                entries = read_parquet(path, names).to_pylist()
            except DataError as error:
                self._error("episodes", str(error))
                continue
            self.records += [record for entry in entries if (record := self._record(entry, path)) is not None]
        return None

    def _record(self, entry: dict[str, Any], path: Path) -> EpisodeRecord | None:
        try:
            place = {"chunk_index": entry["data/chunk_index"], "file_index": entry["data/file_index"]}
            data = self.info["data_path"].format(**place)
            index, row, length = (int(entry[name]) for name in ("episode_index", "dataset_from_index", "length"))
            tasks = tuple(map(str, entry.get("tasks") or ()))
            videos = {key: self._span(entry, key) for key in self._video_keys()}
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            self._error("episodes", f"{path.name}: episode {entry.get('episode_index')} is not described well: {error}")
            return None
        return EpisodeRecord(index, row, length, tasks, data, videos, entry, self.fps)

    def _span(self, entry: Mapping[str, Any], key: str) -> VideoSpan:
        held = {name: entry[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")}
        path = self.info["video_path"].format(video_key=key, **held)
        if not (math.isfinite(held["from_timestamp"]) and math.isfinite(held["to_timestamp"])):
            raise ValueError(f"time stamps of {key} that are not finite")
        return VideoSpan(path, float(held["from_timestamp"]), float(held["to_timestamp"]))

    def _read_tasks(self) -> dict[int, str]:
        try:
            table = read_parquet(self.files.root / "meta/tasks.parquet")
        except DataError as error:
            self._error("tasks", str(error))
            return {}
        words = next((name for name in ("task", "__index_level_0__") if name in table.column_names), None)
        if words is None or "task_index" not in table.column_names:
            self._error("tasks", f"meta/tasks.parquet needs the columns task_index and task, it has {', '.join(table.column_names)}")
            return {}
        numbers = table["task_index"].to_pylist()
        if numbers != list(range(len(numbers))):
            self._error("tasks", f"meta/tasks.parquet: task_index must be 0, 1, ... in order (it is read by position), got {numbers[:9]}")
        return dict(enumerate(map(str, table[words].to_pylist())))

    def _check_meta(self) -> None:
        if not self.records:
            self._error("empty", "there are no episodes")
        found = dict(zip(_COUNTS, (len(self.records), sum(r.length for r in self.records), len(self.tasks)), strict=True))
        for name, count in found.items():
            if isinstance(self.info.get(name), int) and self.info[name] != count:
                self._error("totals", f"info.json has {name} {self.info[name]}, meta/ lists {count}")
        numbers = [record.index for record in self.records]
        if repeated := [number for number, count in Counter(numbers).items() if count > 1]:
            self._error("episode-index", f"meta/ lists these episodes more than once: {repeated[:9]}")
        elif numbers != list(range(len(numbers))):
            missing = sorted(set(range(len(numbers))) - set(numbers))
            what = f"missing {missing[:9]}" if missing else "not in ascending order"
            self._error("episode-index", f"episodes must be numbered 0 to {len(numbers) - 1} in order: {what}")
        row = 0
        for record in sorted(self.records, key=lambda record: record.index):
            stop = record.entry.get("dataset_to_index", record.row + record.length)
            if (record.row, stop) != (row, row + record.length):
                told = f"rows [{record.row}, {stop}) for {record.length} frames, expected [{row}, {row + record.length})"
                self._error("episode-rows", told, record.index)
            if unknown := set(record.tasks) - set(self.tasks.values()):
                self._error("tasks", f"the task '{min(unknown)}' is not in meta/tasks", record.index)
            row = record.row + record.length
        if not (self.files.root / "meta/stats.json").is_file() and self.info.get("codebase_version") == "v3.0":
            self._warn("stats", "meta/stats.json is missing: LeRobot's policies cannot normalise")
        for head in HEADS:
            self._check_head(head)
        features = self.info.get("features")
        if isinstance(features, dict) and "subtask_index" in features and not any(any(self._lists(r, head)) for r in self.records for head in HEADS):
            self._note(
                "subtask-index",
                "the stages are there as subtask_index, one for every frame, which SARM does not read: "
                "milepost annotate DATASET --from-subtask-index sparse brings them over",
            )

    def _lists(self, record: EpisodeRecord, head: str) -> list[Any]:
        """names, start frames, end frames as they stand in the table; the unprefixed old columns where there are no sparse ones."""
        legacy = head == "sparse" and "sparse_subtask_names" not in record.entry
        prefix = "" if legacy else f"{head}_"
        return [record.entry.get(f"{prefix}subtask_{name}") for name in ("names", "start_frames", "end_frames")]

    def _check_head(self, head: str) -> None:
        try:
            shares = read_proportions(self.files.root, head)
        except DataError as error:
            shares = None
            self._error("proportions", str(error))
        if shares is not None and not (shares and 0.999 < sum(shares.values()) < 1.001 and min(shares.values()) >= 0):
            self._warn("proportions", f"the {head} proportions should be >= 0 and sum to 1, they sum to {sum(shares.values()):.4f}")
        marked = [record for record in self.records if any(self._lists(record, head))]
        if not marked:
            return
        if shares is None:
            self._note("proportions", f"there are {head} annotations but no meta/temporal_proportions_{head}.json")
        for record in self.records:
            lists = self._lists(record, head)
            if not any(lists):
                self._warn("not-annotated", f"no {head} annotation, while {len(marked)} episodes have one", record.index)
            known = None if shares is None else tuple(shares)
            self.findings += check_segments(head, *lists, length=record.length, known=known, episode=record.index)

    # data/ ------------------------------------------------------------------------------------------------------------

    def _check_data(self) -> None:
        by_file: dict[str, list[EpisodeRecord]] = defaultdict(list)
        for record in self.records:
            by_file[record.data].append(record)
        for name, records in sorted(by_file.items()):
            try:
                columns = self._read_columns(name)
            except DataError as error:
                self._error("data-file", str(error), records[0].index if len(records) == 1 else None)
            else:
                self._check_file(name, columns, records)
        if self.files.repo is None:
            held = {str(path.relative_to(self.files.root)) for path in (self.files.root / "data").glob("*/*.parquet")}
            for name in sorted(held - by_file.keys()):
                self._warn("stray-file", f"{name} belongs to no episode")

    def _read_columns(self, name: str) -> dict[str, np.ndarray]:
        """The numbers of one data file that are looked at; what cannot be taken as numbers is a finding."""
        path = self.files.path(name)
        with open_parquet(path) as file:
            there = set(file.schema_arrow.names)
        wanted = [column for column in (*_ROWS, *_MEASURED) if column in there]
        promised = {n for n, feature in self.features.items() if feature.get("dtype") != "video"}
        if missing := sorted((set(_ROWS) | promised) - there):
            self._error("columns", f"{name} lacks the columns {', '.join(missing)}")
        table = read_parquet(path, wanted)
        columns = {}
        for column in wanted:
            try:
                values = to_numpy(column, table[column])
            except DataError as error:
                self._error("columns", f"{name}: {error}")
                continue
            if values is None or (column in _ROWS and values.size != len(values)):
                self._error("columns", f"{name}: column '{column}' holds {table[column].type}, expected numbers")
            else:
                columns[column] = values
        return columns

    def _check_file(self, name: str, columns: Mapping[str, np.ndarray], records: Sequence[EpisodeRecord]) -> None:
        if "episode_index" not in columns:
            return
        owner = columns["episode_index"].reshape(-1)
        order = np.argsort(owner, kind="stable")
        for record in records:
            first, last = np.searchsorted(owner[order], [record.index, record.index + 1])
            rows = order[first:last]
            told = Expected(record.index, record.length, record.row, self.fps or 1.0, len(self.tasks))
            mine = {column: values[rows] for column, values in columns.items()}
            self.findings += check_rows({n: v for n, v in mine.items() if self.fps or n != "timestamp"}, told)
            self._judge(record, mine.get("next.success"))
        strangers = np.setdiff1d(owner, [record.index for record in records])
        if len(strangers):
            count = int(np.isin(owner, strangers).sum())
            self._error("stray-rows", f"{name}: {count} rows belong to episodes that meta/ does not place there: {strangers[:9].tolist()}")

    def _judge(self, record: EpisodeRecord, column: np.ndarray | None) -> None:
        told = record.entry.get("success")
        if isinstance(told, bool):
            self.success[record.index] = told
        elif column is not None and column.size:
            self.success[record.index] = bool(column[-1].any())

    # videos/ ----------------------------------------------------------------------------------------------------------

    def _check_videos(self) -> None:
        if not self.fps:
            return
        for camera in self._video_keys():
            by_file: dict[str, list[EpisodeRecord]] = defaultdict(list)
            for record in self.records:
                if camera in record.videos:
                    by_file[record.videos[camera].path].append(record)
            absent = [name for name in by_file if self.files.repo is not None and not (self.files.root / name).exists()]
            if absent:
                self._note("not-downloaded", f"{camera}: {len(absent)} of {len(by_file)} videos are on the Hub only and were not examined")
            for name in sorted(by_file.keys() - set(absent)):
                self._check_video(camera, name, by_file[name])

    def _check_video(self, camera: str, name: str, records: Sequence[EpisodeRecord]) -> None:
        path = self.files.path(name)
        try:
            found = probe(path)
        except DataError as error:
            return self._error("video-file", str(error), records[0].index if len(records) == 1 else None)
        self._compare_video(camera, name, found)
        spans = [Span(r.index, r.videos[camera].start_s, r.videos[camera].stop_s, r.length) for r in records]
        wrong = list(check_spans(spans, frames=found.frames, fps=self.fps, camera=camera))
        self.findings += wrong
        if self.deep and not wrong:
            self._check_pictures(path, spans)
        return None

    def _compare_video(self, camera: str, name: str, found: VideoInfo) -> None:
        feature = self.features[camera]
        if None not in (size := _size(feature)) and size != (found.height, found.width):
            self._error("video-size", f"{name} is {found.height} x {found.width} (H x W), info.json says {size[0]} x {size[1]}")
        if abs(found.fps - self.fps) > 1e-3 * self.fps:
            self._error("video-fps", f"{name} has {found.fps:g} frames per second, info.json says {self.fps:g}")
        codec = _codec(feature)
        if codec is not None and codec != found.codec:
            self._warn("video-codec", f"{name} is {found.codec}, info.json says {codec}")

    def _check_pictures(self, path: Path, spans: Sequence[Span]) -> None:
        """Decode the last picture of each episode: what is cut off or broken shows there first."""
        for span in spans:
            if span.length > 0:
                last = VideoFrames(path, np.array([span.start_s + (span.length - 1) / self.fps]), self.fps)
                try:
                    last[np.array([0])]
                except DataError as error:
                    self._error("video-damaged", str(error), span.episode)

    # beside it --------------------------------------------------------------------------------------------------------

    def _side_files(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the progress and of the weights files in the dataset's folder."""
        progress, weights = [], []
        for path in self.files.beside("*.parquet"):
            try:
                with open_parquet(path) as file:
                    names, rows = file.schema_arrow.names, file.metadata.num_rows
            except DataError as error:
                self._warn("side-file", str(error))
                continue
            if any(name.startswith("progress_") for name in names):
                progress.append(path.name)
                frames = sum(record.length for record in self.records)
                if rows != frames:
                    self._note("progress-rows", f"{path.name} has {rows} of the dataset's {frames} frames")
            elif {"index", "weight"} <= set(names):
                weights.append(path.name)
        return tuple(progress), tuple(weights)


def _codec(feature: Mapping[str, Any]) -> str | None:
    notes = [feature.get(key) for key in ("info", "video_info")]
    return next((note["video.codec"] for note in notes if isinstance(note, dict) and isinstance(note.get("video.codec"), str)), None)


def _size(feature: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """(height, width) of a camera feature, whichever way round its shape is written; None where it does not say."""
    shape, names = feature.get("shape"), feature.get("names")
    if not isinstance(shape, list) or len(shape) != 3 or not all(isinstance(side, int) for side in shape):
        return None, None
    first = str(names[0]).startswith("c") if isinstance(names, list) and len(names) == 3 else shape[0] in (1, 3)
    return (shape[1], shape[2]) if first else (shape[0], shape[1])
