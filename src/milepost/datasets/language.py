"""LeRobot's newest form of subtasks (0.6): rows of style `subtask` in the column `language_persistent`, which `lerobot-annotate` writes.

Every frame of an episode holds the same list of rows {role, content, style, timestamp, camera, tool_calls}. A row is in force from its time
stamp until the next row of its style; one without content ends a subtask. Here the rows are read into segments. Source: LeRobot's
documentation of language columns, and its 0.6.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from milepost.core import DataError, Segment, count_noun, shown
from milepost.datasets.hub import Files, find_files
from milepost.datasets.metadata import read_metadata
from milepost.datasets.parquet import open_parquet, read_parquet
from milepost.datasets.records import EpisodeRecord, Metadata

LANGUAGE = "language_persistent"
STYLE = "subtask"
FIELDS = ("content", "style", "timestamp")
OFF_GRID = 0.01
"""The part of a frame by which a time stamp may be off before it is said; stamps are float32."""


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


def read_language_subtasks(folder_or_repo: str | Path, head: str = "sparse") -> dict[int, dict[str, tuple[Segment, ...]]]:
    """Returns the subtasks of `language_persistent` as segments of `head`, without episodes that have none.

    A time stamp between two frames counts for the nearest. Raises DataError if there is no such column, if no episode has a subtask, or if
    the rows of an episode contradict each other.
    """
    files = find_files(folder_or_repo)
    meta = read_metadata(files.root)
    out = {}
    for record, rows, differing in read_language_rows(files, meta):
        faults = [fault for fault in language_faults(rows, record.length, record.fps, differing) if fault.is_error]
        if faults:
            raise DataError(f"episode {record.index}: {faults[0].message}")
        if segments := segments_of_rows(rows, record.length, record.fps):
            out[record.index] = {head: segments}
    if not out:
        raise DataError(f"{files.root} has no row of style '{STYLE}' in {LANGUAGE}")
    return out


def read_language_rows(files: Files, meta: Metadata) -> Iterator[tuple[EpisodeRecord, tuple[LanguageRow, ...], int]]:
    """Yields each episode with its rows of style `subtask`, by time, and the number of its frames whose rows are not those of the first.

    A data file is read once, that column alone. DataError if the column is missing or is no list of rows.
    """
    by_file: dict[str, list[EpisodeRecord]] = {}
    for record in meta.episodes.values():
        by_file.setdefault(record.data, []).append(record)
    for name, records in by_file.items():
        path = files.path(name)
        with open_parquet(path) as file:
            if LANGUAGE not in file.schema_arrow.names:
                raise DataError(f"parquet file {path} has no column '{LANGUAGE}'; it has {', '.join(file.schema_arrow.names)}")
        table = read_parquet(path, [LANGUAGE, "episode_index"])
        episode, cells = table["episode_index"].to_numpy(), _lists(path, table[LANGUAGE])
        for record in records:
            frames = np.flatnonzero(episode == record.index)
            yield record, *_rows(cells.take(pa.array(frames)))


def _lists(path: Path, column: pa.ChunkedArray) -> pa.Array:
    kind = column.type
    whole = column.combine_chunks()
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list or not pa.types.is_struct(kind.value_type) or not {*FIELDS} <= {field.name for field in kind.value_type}:
        raise DataError(f"parquet file {path}: {LANGUAGE} is {kind}; a list of rows with {', '.join(FIELDS)} is expected")
    return whole


def _rows(cells: pa.Array) -> tuple[tuple[LanguageRow, ...], int]:
    """Returns the rows of the first frame, and the number of frames that hold others."""
    if not len(cells):
        return (), 0
    counts = pc.list_value_length(cells).fill_null(0).to_numpy(zero_copy_only=False)
    flat, starts = cells.flatten(), np.cumsum(counts) - counts
    values = {name: np.array(flat.field(name).to_pylist(), dtype=object) for name in FIELDS}
    alike = counts == counts[0]
    for place in range(counts[0] if len(counts) else 0):
        at = np.minimum(starts + place, max(len(flat) - 1, 0))
        for each in values.values():
            alike &= each[at] == each[place]
    first = zip(*(values[name][: counts[0]] for name in FIELDS), strict=True)
    rows = [LanguageRow(str(content or ""), _seconds(stamp)) for content, style, stamp in first if style == STYLE]
    return tuple(sorted(rows, key=lambda row: row.timestamp)), int((~alike).sum())


def _seconds(stamp: object) -> float:
    if isinstance(stamp, int | float) and np.isfinite(stamp):
        return float(stamp)
    raise DataError(f"a row of style '{STYLE}' has the time stamp {shown(stamp)}; a number of seconds is expected")


def segments_of_rows(rows: Sequence[LanguageRow], length: int, fps: float) -> tuple[Segment, ...]:
    """Returns the rows, ordered by time, as segments: each lasts until the next one, and the last until the episode ends."""
    starts = [round(row.timestamp * fps) for row in rows]
    spans = zip(rows, starts, [*starts, length][1:], strict=True)
    return tuple(Segment(row.content, start, stop) for row, start, stop in spans if row.content.strip() and start < stop)


def language_faults(rows: Sequence[LanguageRow], length: int, fps: float, differing: int = 0) -> list[LanguageFault]:
    """Returns what is wrong with the rows of an episode, ordered by time. differing: frames that hold other rows than the first one."""
    faults = []
    if differing:
        message = f"{count_noun(differing, 'frame')} of {length} hold other language rows than the first frame"
        faults.append(LanguageFault("language-differs", message, is_error=True))
    if not rows:
        return faults
    frames = [row.timestamp * fps for row in rows]
    outside = [row for row, frame in zip(rows, frames, strict=True) if not -0.5 <= frame < length - 0.5]
    if outside:
        message = (
            f"the subtask {shown(outside[0].content)} begins at {outside[0].timestamp:g} s, outside the {length} frames of the episode"
        )
        faults.append(LanguageFault("language-outside", message, is_error=True))
    whole = [round(frame) for frame in frames]
    twice = [row for row, before, frame in zip(rows[1:], whole[:-1], whole[1:], strict=True) if before == frame]
    if twice:
        begin = "begins" if len(twice) == 1 else "begin"
        what = f"{count_noun(len(twice), 'subtask')} {begin} in the same frame as another one"
        message = f"{what}, first at {twice[0].timestamp:g} s"
        faults.append(LanguageFault("language-overlap", message, is_error=True))
    off = [row for row, frame in zip(rows, frames, strict=True) if abs(frame - round(frame)) > OFF_GRID + frame * 2.0**-22]
    if off:
        message = f"{len(off)} of {len(rows)} subtasks begin between two frames, first at {off[0].timestamp:g} s; LeRobot finds no such row"
        faults.append(LanguageFault("language-stamp", message))
    if whole[0] > 0:
        faults.append(LanguageFault("language-start", f"the first {whole[0] / fps:.2f} s have no subtask"))
    empty = sum(stop - start for row, start, stop in zip(rows, whole, [*whole[1:], length], strict=True) if not row.content.strip())
    if empty > 0:
        faults.append(LanguageFault("language-gap", f"{empty / fps:.2f} s between subtasks or after them have none"))
    return faults
