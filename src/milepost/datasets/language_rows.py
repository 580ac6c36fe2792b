"""Rows of style `subtask` in LeRobot's column `language_persistent` (LeRobot 0.6), read into segments and checked.

Every frame of an episode holds the same list of rows {role, content, style, timestamp, camera, tool_calls}. A row is in force from the
first frame whose time is not before its own, until the next row of its style; a row without content ends a subtask. Of a data file only
the parts of the column that are needed are read, some thousand frames at a time. docs/language_columns.md has the format and its sources.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from milepost.core import DataError, Segment, count_noun, shown
from milepost.datasets.hub import Files
from milepost.datasets.parquet import guarded, open_parquet

LANGUAGE, EVENTS = "language_persistent", "language_events"
DTYPE = "language"
"""The dtype of both columns in info.json."""
STYLE = "subtask"
PERSISTENT_STYLES = frozenset({"subtask", "plan", "memory", "motion", "task_aug"})
EVENT_STYLES = frozenset({"interjection", "vqa", "trace"})
FIELDS = ("content", "style", "timestamp")
OFF_GRID = 0.01
"""The part of a frame by which a time stamp may be off without being said to be; stamps are float32 in some files."""
_BATCH = 4096


@runtime_checkable
class Placed(Protocol):
    """An episode whose rows lie in the data file `data`."""

    @property
    def index(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def fps(self) -> float: ...
    @property
    def data(self) -> str: ...


@dataclass(frozen=True)
class LanguageRow:
    """A row of style `subtask`. content: the subtask in words, "" where one ends. timestamp: seconds since the episode's start."""

    content: str
    timestamp: float


@dataclass(frozen=True)
class LanguageFault:
    """What is wrong with the rows of an episode. is_error: whether they cannot be read as segments. code: as `info` names it."""

    code: str
    message: str
    is_error: bool = False


@dataclass(frozen=True, eq=False)
class EpisodeRows:
    """The subtask rows of an episode, by time.

    times: (T,) seconds of its frames. differing: the number of frames that hold other rows than the first one. styles: how many rows of the
    first frame have which style. fault: why the rows cannot be read, "" if they can.
    """

    rows: tuple[LanguageRow, ...]
    times: Float[np.ndarray, "T"]
    differing: int = 0
    styles: Mapping[str, int] = field(default_factory=dict)
    fault: str = ""


class LanguageColumn:
    """The column `language_persistent` of a dataset. A data file is read when one of its episodes is asked for, and once."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._by_file: dict[str, dict[int | None, EpisodeRows] | str] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A worker process reads its own; sending the rows along would cost more.
        return {"_files": self._files, "_by_file": {}}

    def rows(self, episode: Placed) -> EpisodeRows:
        """Returns the rows of an episode. DataError if its file has no such column or another number of frames, or cannot be read."""
        if not episode.data:
            raise DataError("meta/ does not say where the episode's rows are")
        if episode.data not in self._by_file:
            try:
                self._by_file[episode.data] = _read(self._files.path(episode.data), episode.fps)
            except DataError as error:
                self._by_file[episode.data] = str(error)
        by_episode = self._by_file[episode.data]
        if isinstance(by_episode, str):
            raise DataError(by_episode)
        rows = by_episode.get(episode.index, by_episode.get(None))
        if rows is None or len(rows.times) != episode.length:
            count = 0 if rows is None else len(rows.times)
            raise DataError(f"parquet file {episode.data} has {count} of {count_noun(episode.length, 'frame')} of episode {episode.index}")
        return rows

    def segments(self, episode: Placed) -> tuple[Segment, ...]:
        """Returns the subtasks of an episode as segments; empty if it has none. DataError if its rows cannot be read as segments."""
        rows = self.rows(episode)
        for fault in language_faults(rows, episode.fps):
            if fault.is_error:
                raise DataError(fault.message)
        return segments_of_rows(rows, episode.fps)


def segments_of_rows(rows: EpisodeRows, fps: float) -> tuple[Segment, ...]:
    """Returns the rows as segments: each lasts until the next one, and the last until the episode ends."""
    starts = starts_of_rows(rows, fps).tolist()
    spans = zip(rows.rows, starts, [*starts, len(rows.times)][1:], strict=True)
    return tuple(Segment(row.content, start, stop) for row, start, stop in spans if row.content.strip() and start < stop)


def starts_of_rows(rows: EpisodeRows, fps: float) -> Int[np.ndarray, "R"]:
    """Returns the first frame in which each row is in force; the number of frames where there is none."""
    stamps = _stamps(rows)
    return np.searchsorted(rows.times, stamps - _slack(stamps, fps), side="left")


def language_faults(rows: EpisodeRows, fps: float) -> list[LanguageFault]:
    """Returns what is wrong with the rows of an episode."""
    faults, length = [], len(rows.times)
    if rows.fault:
        return [LanguageFault("language-column", rows.fault, is_error=True)]
    if rows.differing:
        message = f"{count_noun(rows.differing, 'frame')} of {length} hold other language rows than the first frame"
        faults.append(LanguageFault("language-differs", message, is_error=True))
    if strange := sorted(EVENT_STYLES & set(rows.styles)):
        faults.append(LanguageFault("language-style", f"rows of style '{strange[0]}' belong into the column {EVENTS}"))
    if rows.rows:
        faults += [*_order_faults(rows, fps), *_cover_faults(rows, fps)]
    return faults


def _order_faults(rows: EpisodeRows, fps: float) -> Iterator[LanguageFault]:
    """Yields what is wrong with the time stamps."""
    stamps, starts, length = _stamps(rows), starts_of_rows(rows, fps), len(rows.times)
    slack = _slack(stamps, fps)
    outside = np.flatnonzero((starts >= length) | (stamps < rows.times[0] - slack))
    if len(outside):
        row = rows.rows[outside[0]]
        message = (
            f"the subtask {shown(row.content)} begins at {row.timestamp:g} s, outside the {count_noun(length, 'frame')} of the episode"
        )
        yield LanguageFault("language-outside", message, is_error=True)
    twice = 1 + np.flatnonzero(np.diff(stamps) <= slack[1:])
    if len(twice):
        begin = f"{count_noun(len(twice), 'subtask')} {'begins' if len(twice) == 1 else 'begin'}"
        message = f"{begin} at the same time as another one, first at {stamps[twice[0]]:g} s, so it is not known which is in force"
        yield LanguageFault("language-overlap", message, is_error=True)
    hidden = np.flatnonzero((np.diff(starts) == 0) & (np.diff(stamps) > slack[1:]) & (starts[1:] < length))
    if len(hidden):
        message = f"{count_noun(len(hidden), 'subtask')} ended before the next frame, first at {stamps[hidden[0]]:g} s, so no frame has it"
        yield LanguageFault("language-hidden", message)
    near = np.minimum(starts, length - 1)
    inside = (starts < length) & (stamps >= rows.times[0] - slack)
    off = np.flatnonzero((np.abs(rows.times[near] - stamps) > slack) & inside)
    if len(off):
        begin = f"{len(off)} of {count_noun(len(stamps), 'subtask')} {'begins' if len(off) == 1 else 'begin'} between two frames"
        message = f"{begin}, first at {stamps[off[0]]:g} s; in force from the next frame on"
        yield LanguageFault("language-stamp", message)


def _cover_faults(rows: EpisodeRows, fps: float) -> Iterator[LanguageFault]:
    """Yields where no subtask is in force."""
    starts, length = starts_of_rows(rows, fps).tolist(), len(rows.times)
    if starts[0] > 0:
        yield LanguageFault("language-start", f"the first {starts[0] / fps:.2f} s have no subtask")
    spans = zip(rows.rows, starts, [*starts[1:], length], strict=True)
    empty = sum(stop - start for row, start, stop in spans if not row.content.strip())
    if empty > 0:
        yield LanguageFault("language-gap", f"{empty / fps:.2f} s between subtasks or after them have none")


def _stamps(rows: EpisodeRows) -> Float[np.ndarray, "R"]:
    return np.array([row.timestamp for row in rows.rows], dtype=np.float64)


def _slack(stamps: Float[np.ndarray, "R"], fps: float) -> Float[np.ndarray, "R"]:
    """Returns the seconds by which a stamp may be off: a part of a frame, and the rounding of float32."""
    return OFF_GRID / fps + np.abs(stamps) * 2.0**-22


# The file --------------------------------------------------------------------------------------------------------------


def require_rows(path: Path, kind: pa.DataType, *, name: str = LANGUAGE, fields: Sequence[str] = FIELDS) -> bool:
    """Returns whether a column of this type can hold rows; a list of nothing is what LeRobot writes into a file without any.

    Raises DataError if it is no list of rows with these fields.
    """
    if pa.types.is_null(kind) or (_is_list(kind) and pa.types.is_null(kind.value_type)):
        return False
    if not _is_list(kind) or not pa.types.is_struct(kind.value_type) or not {*fields} <= {each.name for each in kind.value_type}:
        raise DataError(f"parquet file {path}: {name} is {kind}; a list of rows with {', '.join(fields)} is expected")
    for each in kind.value_type:
        is_number = pa.types.is_floating(each.type) or pa.types.is_integer(each.type)
        is_text = pa.types.is_string(each.type) or pa.types.is_large_string(each.type)
        if each.name in FIELDS and not pa.types.is_null(each.type) and not (is_number if each.name == "timestamp" else is_text):
            raise DataError(f"parquet file {path}: '{each.name}' of {name} is {each.type}; text or, for timestamp, a number is expected")
    return True


def count_styles(path: Path, name: str = EVENTS) -> Counter[str]:
    """Returns style -> how many rows of a language column have it. DataError if the file or the column is no such one."""
    counts: Counter[str] = Counter()
    with open_parquet(path) as file:
        schema = file.schema_arrow
        if name not in schema.names or not require_rows(path, schema.field(name).type, name=name, fields=("style",)):
            return counts
        for batch in _batches(path, file, _leaves(file, name, ("style",))):
            for each in pc.value_counts(pc.struct_field(batch[name].flatten(), "style")).to_pylist():
                counts[str(each["values"])] += each["counts"]
    return counts


def _read(path: Path, fps: float) -> dict[int | None, EpisodeRows]:
    """Returns the rows of the episodes of one data file; of a file without `episode_index`, under None."""
    with open_parquet(path) as file:
        names = file.schema_arrow.names
        if LANGUAGE not in names:
            raise DataError(f"parquet file {path} has no column '{LANGUAGE}'; it has {', '.join(names)}")
        has_rows = require_rows(path, file.schema_arrow.field(LANGUAGE).type)
        others = [name for name in ("episode_index", "timestamp") if name in names]
        readers: dict[int | None, _Reader] = {}
        for batch in _batches(path, file, [*(_leaves(file, LANGUAGE, FIELDS) if has_rows else ()), *others]):
            owner = batch["episode_index"].to_numpy(zero_copy_only=False) if "episode_index" in others else np.full(len(batch), -1)
            cells = _Cells(batch[LANGUAGE]) if has_rows else None
            times = _flat_times(batch["timestamp"]) if "timestamp" in others else None
            for number in np.unique(owner):
                at = np.flatnonzero(owner == number)
                reader = readers.setdefault(int(number) if "episode_index" in others else None, _Reader())
                reader.add(cells, at, times)
    return {number: reader.result(fps) for number, reader in readers.items()}


def _batches(path: Path, file: pq.ParquetFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    batches = guarded(path, lambda: iter(file.iter_batches(_BATCH, columns=list(columns))))
    while (batch := guarded(path, partial(next, batches, None))) is not None:
        yield batch


def _leaves(file: pq.ParquetFile, name: str, fields: Sequence[str]) -> list[str]:
    """Returns the paths of these fields of the rows, so that the others are not read."""
    paths = [file.schema.column(place).path for place in range(len(file.schema))]
    return [path for path in paths if (steps := path.split("."))[0] == name and len(steps) == 4 and steps[3] in fields]


def _flat_times(column: pa.Array) -> Float[np.ndarray, "T"] | None:
    is_number = pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
    return column.to_numpy(zero_copy_only=False).astype(np.float64) if is_number else None


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


class _Cells:
    """The lists of one batch as numbers: texts have a number of their own in the batch, -1 is none."""

    def __init__(self, cells: pa.Array) -> None:
        self.counts = pc.list_value_length(cells).fill_null(0).to_numpy(zero_copy_only=False)
        self.starts = np.cumsum(self.counts) - self.counts
        flat = cells.flatten()
        self.stamps = _numbers(pc.struct_field(flat, "timestamp"))
        self.codes, self.words = zip(*(_encoded(pc.struct_field(flat, name)) for name in FIELDS[:2]), strict=True)

    def cell(self, frame: int) -> tuple[tuple[Any, ...], ...]:
        """Returns the rows of one frame: content, style, time stamp."""
        places = range(self.starts[frame], self.starts[frame] + self.counts[frame])
        return tuple((*(words[codes[at]] for words, codes in zip(self.words, self.codes, strict=True)), self.stamps[at]) for at in places)

    def equal(self, frames: Int[np.ndarray, "N"], cell: Sequence[Sequence[Any]]) -> int:
        """Returns how many of these frames hold these rows."""
        alike = frames[self.counts[frames] == len(cell)]
        places = self.starts[alike][:, None] + np.arange(len(cell))
        if not places.size:
            return len(alike)
        same = np.ones(places.shape, dtype=bool)
        for part, (words, codes) in enumerate(zip(self.words, self.codes, strict=True)):
            numbers = {word: number for number, word in words.items()}
            same &= codes[places] == np.array([numbers.get(row[part], -2) for row in cell])
        stamps, expected = self.stamps[places], np.array([row[2] for row in cell], dtype=np.float64)
        same &= (stamps == expected) | (np.isnan(stamps) & np.isnan(expected))
        return int(same.all(axis=1).sum())


def _numbers(column: pa.Array) -> Float[np.ndarray, "R"]:
    return pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)


def _encoded(column: pa.Array) -> tuple[Int[np.ndarray, "R"], dict[int, str | None]]:
    """Returns the texts as numbers, and which number is which text."""
    if pa.types.is_null(column.type):
        return np.full(len(column), -1), {-1: None}
    encoded = pc.dictionary_encode(column)
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False), {-1: None, **dict(enumerate(encoded.dictionary.to_pylist()))}


class _Reader:
    """The rows of one episode while its file is read."""

    def __init__(self) -> None:
        self._cell: tuple[tuple[Any, ...], ...] | None = None
        self._frames, self._differing = 0, 0
        self._times: list[np.ndarray | None] = []

    def add(self, cells: _Cells | None, frames: Int[np.ndarray, "N"], times: Float[np.ndarray, "B"] | None) -> None:
        """Adds some frames, which are numbers in a batch."""
        self._frames += len(frames)
        self._times.append(None if times is None else times[frames])
        if cells is not None:
            self._cell = cells.cell(int(frames[0])) if self._cell is None else self._cell
            self._differing += len(frames) - cells.equal(frames, self._cell)

    def result(self, fps: float) -> EpisodeRows:
        """Returns the rows; those of the first frame, where frames differ."""
        by_count = np.arange(self._frames) / fps
        parts = [part for part in self._times if part is not None]
        times = np.concatenate(parts) if len(parts) == len(self._times) else by_count
        times = times if np.isfinite(times).all() and (np.diff(times) > 0).all() else by_count
        cell = self._cell or ()
        styles = Counter(str(style) for _, style, _ in cell)
        subtasks = [(content, stamp) for content, style, stamp in cell if style == STYLE]
        bad = next((stamp for _, stamp in subtasks if not np.isfinite(stamp)), None)
        if bad is not None:
            fault = f"a row of style '{STYLE}' has the time stamp {shown(bad)}; a number of seconds is expected"
            return EpisodeRows((), times, self._differing, styles, fault)
        rows = sorted((LanguageRow(content or "", float(stamp)) for content, stamp in subtasks), key=lambda row: row.timestamp)
        return EpisodeRows(tuple(rows), times, self._differing, styles)
