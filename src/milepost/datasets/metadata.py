"""Parses meta/ of a LeRobot dataset, v3 and v2 alike: features, tasks, and the files of each episode's rows and images.

One parser serves reading and `milepost info`. A fault in one episode's entry stays with that episode (`EpisodeRecord.fault`, `lost`) and
becomes a `Finding`; only faults of the whole dataset are refused. The places of rows are hints: `datasets/rows.py` checks them in the data.
Only meta/ is read, and of meta/episodes never the statistics, which are most of its bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from milepost.core import DataError, parse_json, plausible, read_json, read_json_object, read_text, shown
from milepost.datasets.entries import EntryReader
from milepost.datasets.episode_arrays import EpisodeArrays
from milepost.datasets.episode_table import EpisodeTable, tabulate
from milepost.datasets.findings import Finding, Severity
from milepost.datasets.hub import find_files
from milepost.datasets.language_rows import DTYPE, LANGUAGE, LanguageColumn
from milepost.datasets.parquet import open_parquet, read_parquet
from milepost.datasets.records import EpisodeRecord, Metadata, VideoSpan

__all__ = [
    "SUPPORTED",
    "EpisodeRecord",
    "Metadata",
    "VideoSpan",
    "read_metadata",
    "read_proportions",
    "scan_metadata",
]
SUPPORTED = ("v3.0", "v2.1")
KNOWN = ("3.0", "3.0.0", "3.1", "3.1.0")
"""The newer layouts whose files are known. 3.1 is 3.0 with language columns, and with `tools` in info.json, which nobody needs here."""
TEMPLATES = {
    "v3.0": (
        "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    ),
    "v2.1": (
        "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    ),
}
"""LeRobot's own `data_path` and `video_path`, for an info.json without them."""
PROPORTIONS, STATS = "meta/temporal_proportions_{head}.json", "meta/stats.json"
QUOTE = "'"
DERIVED = "correct it, or remove it: the shares are then taken from the annotation"
_VERSION = re.compile(r"v?(\d{1,3})\.(\d{1,3})(\.\d{1,3})?")


def read_metadata(root: Path) -> Metadata:
    """Reads meta/ of the dataset in this folder. Raises DataError if it is not a dataset, of an unknown version, damaged or empty."""
    meta, fatal = scan_metadata(root)
    if fatal:
        raise DataError(fatal)
    return meta


def scan_metadata(root: Path) -> tuple[Metadata, str]:
    """Reads what there is of meta/, and why the dataset cannot be used, "" if it can. DataError only if there is no meta/info.json."""
    if not (root / "meta" / "info.json").exists():
        raise DataError(f"{root} is not a LeRobot dataset: it has no meta/info.json")
    scan = _Scan(root)
    return scan.metadata(), scan.fatal


def has_proportions(root: Path, head: str) -> bool:
    """Returns whether there is a proportions file of this head, readable or not."""
    return (root / PROPORTIONS.format(head=head)).exists()


def read_column_stats(root: Path, column: str, *, name: str = "") -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Returns mean and standard deviation of each number of a column, from meta/stats.json, and where they come from.

    name: what the dataset is called; default: its folder's name. DataError if the file is missing or says nothing of the kind.
    """
    path = root / STATS
    if not path.exists():
        raise DataError(f"{path} is missing: there are no state statistics to take from this dataset")
    stats = read_json_object(path, what="statistics").get(column)
    if not isinstance(stats, dict) or not all(isinstance(stats.get(key), list) for key in ("mean", "std")):
        raise DataError(f"{path} has no mean and std of '{column}'")
    numbers = [value for key in ("mean", "std") for value in stats[key]]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf for value in numbers):
        raise DataError(f"{path}: mean and std of '{column}' should be finite numbers, one for each channel")
    mean, std = (tuple(map(float, stats[key])) for key in ("mean", "std"))
    return mean, std, f"{name or root.resolve().name}/{STATS}"


def stamps_of(root: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Returns what changes when somebody writes into meta/: each file's name, time, size and number on the disk."""
    meta, stamps = root / "meta", []
    for path in (*sorted(meta.glob("episodes/*/*.parquet")), *sorted(meta.glob("*.json*"))):
        try:
            status = path.stat()
        except FileNotFoundError:  # renamed at this moment
            continue
        stamps.append((path.name, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(stamps)


def read_proportions(root: Path, head: str) -> dict[str, float] | None:
    """Returns stage name -> proportion, from meta/temporal_proportions_{head}.json; None if there is no such file."""
    if not has_proportions(root, head):
        return None
    path = root / PROPORTIONS.format(head=head)
    shares = read_json(path, what="proportions file")
    if not isinstance(shares, dict) or not all(isinstance(value, int | float) and not isinstance(value, bool) for value in shares.values()):
        raise DataError(f"{path} should map stage names to numbers; {DERIVED}")
    if bad := [name for name, value in shares.items() if not 0 <= value < math.inf]:
        raise DataError(
            f"{path}: the share of stage {shown(bad[0])} should be a number from 0 on, it is {shown(shares[bad[0]])}; {DERIVED}"
        )
    return {name: float(value) for name, value in shares.items()}


class _Scan:
    """The state of one parse of meta/: the content, the findings, and the first fault that makes the dataset unusable."""

    def __init__(self, root: Path) -> None:
        self.root, self.fatal = root, ""
        self.findings: list[Finding] = []
        self.info = self._read_info()
        features = self.info.get("features")
        self.features = {n: f for n, f in features.items() if isinstance(f, dict)} if isinstance(features, dict) else {}
        self.version = self._version() if self.info else "unknown"
        self.fps = self._fps() if self.info else 0.0
        self.data_path, self.video_path = self._templates()

    def metadata(self) -> Metadata:
        """Returns all that could be read."""
        records: Mapping[int, EpisodeRecord] = {}
        tasks: dict[int, str] = {}
        if self.version in SUPPORTED and self.info:
            records = self._episodes_v3() if self.version == "v3.0" else self._episodes_v2()
            self._check_all(records)
            tasks = self._tasks()
        rows_fit, records = _settle_rows(records, self.version)
        if self.features.get(LANGUAGE, {}).get("dtype") == DTYPE:
            records = _with_language(records, self.root)
        findings = tuple(self.findings)
        return Metadata(self.version, self.fps, self.features, dict(sorted(tasks.items())), records, rows_fit, findings, self.info)

    def _say(self, code: str, message: str, episode: int | None = None, severity: Severity = "error") -> None:
        self.findings.append(Finding(code, severity, message, episode))

    def _stop(self, code: str, message: str) -> None:
        self._say(code, message)
        self.fatal = self.fatal or f"{self.root}: {message}"

    def _read_info(self) -> dict[str, Any]:
        try:
            return read_json_object(self.root / "meta" / "info.json")
        except DataError as error:
            self._say("info", str(error))
            self.fatal = str(error)
            return {}

    def _version(self) -> str:
        """Returns the layout, "v3.0" or "v2.1"; what it says itself if that is neither."""
        text = self.info.get("codebase_version")
        parts = _VERSION.fullmatch(text.strip()) if isinstance(text, str) else None
        layouts = {("2", "0"): "v2.1", ("2", "1"): "v2.1"}
        layout = None if parts is None else "v3.0" if parts[1] == "3" else layouts.get((parts[1], parts[2]))
        if layout is None:
            self._stop(
                "version",
                f"a LeRobot dataset of version {shown(text).strip(QUOTE) if text is not None else None}; "
                f"{' and '.join(SUPPORTED)} are read here, convert it with LeRobot first",
            )
            return text if isinstance(text, str) else "unknown"
        if text != layout:
            is_known = layout == "v2.1" or str(text).strip().removeprefix("v") in KNOWN
            new = "" if is_known else "; whatever is new in it is not read"
            self._say("version", f"the version is written '{text}'; it is read as {layout}{new}", severity="note")
        return layout

    def _fps(self) -> float:
        fps = self.info.get("fps")
        if isinstance(fps, int | float) and not isinstance(fps, bool) and fps <= 0:
            self._stop("info", f"meta/info.json: fps must be above 0, got {shown(fps)}")
            return 0.0
        try:
            return float(plausible("fps", fps, source="meta/info.json"))
        except DataError as error:
            self._stop("info", str(error))
            return 0.0

    def _templates(self) -> tuple[str, str]:
        """Returns where data and videos are, by LeRobot's defaults where info.json does not say."""
        features = self.info.get("features")
        if self.info and not isinstance(features, dict):
            self._stop("info", f"meta/info.json: 'features' should be an object, it is {shown(features)}")
        for name in sorted(set(features) - self.features.keys()) if isinstance(features, dict) else ():
            self._stop("info", f"meta/info.json: the feature {shown(name)} must be an object with a dtype and a shape")
        templates = []
        for name, usual in zip(("data_path", "video_path"), TEMPLATES.get(self.version, TEMPLATES["v3.0"]), strict=True):
            template = self.info.get(name)
            if template is not None and not isinstance(template, str):
                self._stop("info", f"meta/info.json: '{name}' should be a path template, it is {shown(template)}")
            has_videos = any(feature.get("dtype") == "video" for feature in self.features.values())
            if self.info and template is None and (name == "data_path" or has_videos):
                self._say("info", f"meta/info.json has no '{name}': LeRobot's usual one is taken, {usual}", severity="note")
            templates.append(template if isinstance(template, str) else usual)
        return templates[0], templates[1]

    # episodes ---------------------------------------------------------------------------------------------------------

    def _episodes_v3(self) -> Mapping[int, EpisodeRecord]:
        """Returns the episodes as a table, which makes records when they are asked for; as records if an entry is odd."""
        tables = []
        for path in sorted((self.root / "meta" / "episodes").glob("*/*.parquet")):
            try:
                with open_parquet(path) as file:
                    names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
                tables.append((path.relative_to(self.root).as_posix(), read_parquet(path, names)))
            except DataError as error:
                self._stop("episodes", str(error))
        table = tabulate(tables, self._entries())
        return table if table is not None else self._by_number(self._read((s, entry) for s, each in tables for entry in each.to_pylist()))

    def _episodes_v2(self) -> dict[int, EpisodeRecord]:
        return self._by_number(self._read(("meta/episodes.jsonl", entry) for entry in self._lines("episodes")))

    def _entries(self) -> EntryReader:
        size = self.info.get("chunks_size", 1000)
        return EntryReader(self.version, self.fps, self.features, self.data_path, self.video_path, size)

    def _read(self, entries: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[EpisodeRecord]:
        reader = self._entries()
        for source, entry in entries:
            if (record := reader.record(entry, source, self._say)) is not None:
                yield record

    def _lines(self, name: str) -> list[dict[str, Any]]:
        """Returns the objects of a JSON lines file. A line ends at a line feed and nowhere else; one that is no object is left out."""
        path = self.root / "meta" / f"{name}.jsonl"
        try:
            lines = [line for line in read_text(path).split("\n") if line.strip()]
        except DataError as error:
            self._stop(name, f"{error}; copy or download meta/ again")
            return []
        entries = []
        for number, line in enumerate(lines, start=1):
            try:
                entry = parse_json(line, source=f"meta/{name}.jsonl, line {number}")
            except DataError as error:
                self._say(name, str(error))
                continue
            if isinstance(entry, dict):
                entries.append(entry)
            else:
                self._say(name, f"meta/{name}.jsonl, line {number} should be an object, it is {shown(entry)}")
        if lines and not entries:
            self._stop(name, f"{path} cannot be read as JSON lines; copy or download it again")
        return entries

    def _by_number(self, records: Iterable[EpisodeRecord]) -> dict[int, EpisodeRecord]:
        by_index: dict[int, EpisodeRecord] = {}
        for record in records:
            first = by_index.get(record.index)
            if first is not None and not first.fault and dict(first.entry) != dict(record.entry):
                record = replace(first, fault=f"meta/ lists episode {record.index} twice, and not alike; copy or download meta/ again")
            if first is not None:
                self._say("episode-index", f"meta/ lists episode {record.index} more than once", record.index)
            by_index[record.index] = record
        return dict(sorted(by_index.items()))

    def _check_all(self, records: Mapping[int, EpisodeRecord]) -> None:
        """Adds the faults of the whole dataset: no episodes, missing episodes, or none that can be read."""
        total = self.info.get("total_episodes")
        if not records:
            messages = [finding.message for finding in self.findings if finding.code == "episodes" and finding.severity == "error"]
            self._stop("empty", f"no episode can be read: {messages[0]}" if messages else "the dataset has no episodes; record some first")
        elif all(record.fault for record in records.values()):
            self.fatal = self.fatal or f"{self.root}: no episode can be read: {next(iter(records.values())).fault}"
        elif isinstance(total, int) and len(records) < total and self.version == "v3.0":
            self.fatal = self.fatal or (
                f"{self.root}: info.json counts {total} episodes, meta/episodes lists {len(records)}; copy or download meta/ again"
            )

    # tasks ------------------------------------------------------------------------------------------------------------

    def _tasks(self) -> dict[int, str]:
        try:
            return self._tasks_v3() if self.version == "v3.0" else self._tasks_v2()
        except DataError as error:
            self._stop("tasks", str(error))
            return {}

    def _tasks_v2(self) -> dict[int, str]:
        path = self.root / "meta" / "tasks.jsonl"
        if not path.exists():
            return {}
        source, tasks = "meta/tasks.jsonl", {}
        for entry in self._lines("tasks"):
            if not isinstance(entry.get("task"), str):
                raise DataError(f"{source}: a task lacks the field 'task'")
            tasks[int(plausible("task_index", entry.get("task_index"), source=source))] = entry["task"]
        return tasks

    def _tasks_v3(self) -> dict[int, str]:
        path = self.root / "meta" / "tasks.parquet"
        if not path.exists():
            self._say("tasks", "meta/tasks.parquet is missing")
            return {}
        table = read_parquet(path)
        index = _pandas_index((table.schema.pandas_metadata or {}).get("index_columns"))
        words = next((name for name in ("task", "__index_level_0__", index) if name in table.column_names), None)
        if words is None:
            raise DataError(f"{path} has no column 'task'; it has {', '.join(table.column_names)}")
        numbers = table["task_index"].to_pylist() if "task_index" in table.column_names else list(range(table.num_rows))
        if numbers != list(range(len(numbers))):
            what = "must be 0, 1, ... in order (it is read by position)"
            self._say("tasks", f"meta/tasks.parquet: task_index {what}, got {', '.join(map(shown, numbers[:9]))}")
        whole = [plausible("task_index", number, source="meta/tasks.parquet") for number in numbers]
        return dict(zip(map(int, whole), map(str, table[words].to_pylist()), strict=True))


def _with_language(records: Mapping[int, EpisodeRecord], root: Path) -> Mapping[int, EpisodeRecord]:
    """Returns the records with a reader of the language column, whose subtasks count if meta/ has no columns of annotations at all.

    Columns that are all empty count: whoever removes the last annotation has none.
    """
    read = LanguageColumn(find_files(root)).segments
    if isinstance(records, EpisodeTable):
        return records.with_language(read)
    counts = not any(record.has_columns for record in records.values())
    return {number: replace(record, language=read, from_language=counts) for number, record in records.items()}


def _pandas_index(columns: Any) -> str | None:
    """Returns the name of the column that pandas takes for the index: LeRobot keeps the words there, whatever it is called."""
    return columns[0] if isinstance(columns, list) and len(columns) == 1 and isinstance(columns[0], str) else None


def _settle_rows(records: Mapping[int, EpisodeRecord], version: str) -> tuple[bool, Mapping[int, EpisodeRecord]]:
    """Returns whether meta/ says where all rows are, one episode after another; where it does not, rows are counted by it."""
    if isinstance(records, EpisodeTable) and _are_apart(records.arrays):
        return True, records
    row, fits, renumbered = 0, True, {}
    for record in records.values():
        fits = fits and record.row == row and record.entry.get("dataset_to_index", row + record.length) == row + record.length
        renumbered[record.index] = replace(record, row=row)
        row += record.length
    disjoint = fits or _disjoint(list(records.values()))
    return version == "v2.1" or disjoint, renumbered if version == "v2.1" or not disjoint else dict(records)


def _are_apart(arrays: EpisodeArrays) -> bool:
    """Returns whether no row of the dataset is in two episodes."""
    order = np.lexsort((arrays.length, arrays.row))
    row, stop = arrays.row[order], (arrays.row + arrays.length)[order]
    return bool((row[1:] >= stop[:-1]).all())


def _disjoint(records: Sequence[EpisodeRecord]) -> bool:
    row = 0
    for record in sorted(records, key=lambda record: (record.row, record.length)):
        if record.row < row:
            return False
        row = record.row + record.length
    return True
