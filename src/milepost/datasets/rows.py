"""Which file has each episode's rows, and which dataset row is its first: what the data say, with meta/ as a hint.

Footers are read first (a fraction of a millisecond a file); the columns `episode_index` and `index` only of files that do not hold what
meta/ says. LeRobot's `index` decides what an episode's dataset row is where it runs on by one inside every episode and no two episodes
share a number; where it does not, rows are counted by position, episode after episode. Changes nothing on disk.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from milepost.core import DataError
from milepost.datasets.findings import counted
from milepost.datasets.hub import Files
from milepost.datasets.parquet import MOST_ROWS, RowSummary, read_parquet, summarise, to_numpy
from milepost.datasets.records import EpisodeRecord, Metadata


@dataclass(frozen=True)
class Part:
    """The rows of one episode in one data file. first: their `index` at frame 0, None if it does not run on by one."""

    data: str
    count: int
    first: int | None


@dataclass(frozen=True)
class Settled:
    """Where the rows are. episodes: records with the right file and row. warnings: what meta/ says wrongly. by_position: is `index` no use?

    strays: rows that no episode of meta/ has. unread: data file -> why it cannot be read.
    """

    episodes: Mapping[int, EpisodeRecord]
    warnings: tuple[str, ...] = ()
    by_position: bool = False
    strays: int = 0
    unread: Mapping[str, str] | None = None


def settle(files: Files, meta: Metadata, *, everywhere: bool = False) -> Settled:
    """Returns where each episode's rows are. Of a Hub dataset only files that are here are looked at, unless `everywhere`."""
    hints: dict[str, list[EpisodeRecord]] = {}
    for record in meta.episodes.values():
        hints.setdefault(record.data, []).append(record)
    names = [name for name in hints if name and (files.repo is None or everywhere or (files.root / name).is_file())]
    summaries, unread = _summaries(files, names)
    fitting = {name for name, summary in summaries.items() if meta.rows_fit and _fits(summary, hints[name])}
    if len(fitting) == len(hints) or (files.repo is not None and not everywhere and len(fitting) == len(names) and meta.rows_fit):
        return Settled(meta.episodes)
    others, lost = _summaries(files, [name for name in data_files(files) if name not in summaries and name not in unread])
    unread |= lost
    parts: dict[int, list[Part]] = {}
    for name in fitting:
        for record in hints[name]:
            parts.setdefault(record.index, []).append(Part(name, record.length, record.row))
    for name, summary in {**{n: s for n, s in summaries.items() if n not in fitting}, **others}.items():
        try:
            for number, part in _parts(files, name, summary, hints.get(name, ())):
                parts.setdefault(number, []).append(part)
        except DataError as error:
            unread[name] = str(error)
    return _settled(meta, parts, unread)


def data_files(files: Files) -> list[str]:
    """Returns the names of all data files of a folder, relative to it; of a Hub dataset none, which are not all here."""
    return [name for name in files.listed("data") if name.endswith(".parquet")] if files.repo is None else []


def _summaries(files: Files, names: Iterable[str]) -> tuple[dict[str, RowSummary], dict[str, str]]:
    """Returns what the footers say, and why some cannot be read."""
    found, unread = {}, {}
    for name in names:
        try:
            here = files.root / name  # nothing is asked of the Hub for what is here
            found[name] = summarise(here if here.is_file() and files.holds(name) else files.path(name))
        except DataError as error:
            unread[name] = str(error)
    return found, unread


def _fits(summary: RowSummary, records: Sequence[EpisodeRecord]) -> bool:
    """Are these the rows that meta/ says, as far as a footer tells?"""
    first, last = min(record.row for record in records), max(record.row + record.length for record in records) - 1
    numbers = min(record.index for record in records), max(record.index for record in records)
    count = sum(record.length for record in records)
    return (
        summary.count == count
        and summary.episodes in (None, numbers)
        and (summary.index in (None, (first, last)) or last - first + 1 != count)
    )


def _parts(files: Files, name: str, summary: RowSummary, hinted: Sequence[EpisodeRecord]) -> list[tuple[int, Part]]:
    """Returns the episodes in one file. One without `episode_index` is the episode that meta/ names it for."""
    if not summary.has_episodes:
        only = hinted[0].index if len(hinted) == 1 else None
        return [] if only is None else [(only, Part(name, summary.count, _run(summary)))]
    if summary.episodes is not None and summary.episodes[0] == summary.episodes[1]:
        return [(summary.episodes[0], Part(name, summary.count, _run(summary)))]
    if summary.count > MOST_ROWS:
        raise DataError(f"parquet file {name} has {summary.count} rows; at most {MOST_ROWS} are read at once")
    path = files.path(name)
    table = read_parquet(path, ["episode_index", *(["index"] if summary.has_index else [])])
    owner = _flat(table["episode_index"], "episode_index")
    index = _flat(table["index"], "index") if summary.has_index else None
    order = np.argsort(owner, kind="stable")
    numbers, starts = np.unique(owner[order], return_index=True)
    found = []
    for number, rows in zip(numbers, np.split(order, starts[1:]), strict=True):
        if np.isfinite(number) and number == np.floor(number):
            mine = None if index is None else index[rows]
            first = int(mine[0]) if mine is not None and np.array_equal(mine, mine[0] + np.arange(len(mine))) else None
            found.append((int(number), Part(name, len(rows), first)))
    return found


def _flat(column: pa.ChunkedArray, name: str) -> np.ndarray:
    values = to_numpy(name, column)
    if values is None or values.size != len(values):
        raise DataError(f"column '{name}' should hold one number a row")
    return values.reshape(-1)


def _run(summary: RowSummary) -> int | None:
    """Returns the first `index` of a file whose rows have as many as they are."""
    if summary.index is None or summary.index[1] - summary.index[0] + 1 != summary.count:
        return None
    return summary.index[0]


def _settled(meta: Metadata, parts: Mapping[int, Sequence[Part]], unread: Mapping[str, str]) -> Settled:
    warnings: list[str] = []
    chosen = {record.index: _chosen(record, parts.get(record.index, ())) for record in meta.episodes.values()}
    moved = [(record, part) for record in meta.episodes.values() if (part := chosen[record.index]) is not None and part.data != record.data]
    if moved:
        record, part = moved[0]
        there = f"in {record.data}" if record.data else "nowhere"
        warnings.append(
            f"meta/ misplaces the rows of {counted(len(moved), 'episode')}, first of episode {record.index}: {there} by meta/, they are "
            f"in {part.data} and read from there"
        )
    firsts = {number: part.first for number, part in chosen.items() if part is not None}
    sound = _shared_by_none(firsts, meta)
    episodes = {}
    for number, record in meta.episodes.items():
        part, row = chosen[number], firsts.get(number)
        record = record if part is None else replace(record, data=part.data)
        episodes[number] = replace(record, row=row) if sound and row is not None else record
    episodes = _apart(episodes, {number for number, row in firsts.items() if row is not None} if sound else set())
    if not sound and any(part is not None for part in chosen.values()):
        warnings.append(
            "'index' in the data does not count the dataset's rows (it is missing, restarts or repeats): rows are counted by position, "
            "episode after episode; renumber it before LeRobot looks weights up by it"
        )
    elif wrong := [number for number, row in firsts.items() if row is not None and row != _said_row(meta.episodes[number])]:
        warnings.append(
            f"'index' in the data and meta/ do not agree on the dataset rows of {counted(len(wrong), 'episode')}, first episode "
            f"{wrong[0]}; 'index' counts without fault, and is taken"
        )
    known = set(meta.episodes)
    strays = sum(part.count for number, places in parts.items() if number not in known for part in places)
    return Settled(episodes, tuple(warnings), not sound, strays, dict(unread))


def _said_row(record: EpisodeRecord) -> int:
    """Returns the row that meta/ says itself, else the one counted from lengths."""
    said = record.entry.get("dataset_from_index")
    return int(said) if isinstance(said, int | float) and said == said // 1 else record.row


def _chosen(record: EpisodeRecord, parts: Sequence[Part]) -> Part | None:
    """Returns where the episode is read from: where meta/ says if its rows are there, else the one file that has as many."""
    there = [part for part in parts if part.data == record.data]
    whole = [part for part in parts if part.count == record.length]
    if there and (there[0].count == record.length or not whole):
        return there[0]
    return whole[0] if len(whole) == 1 else None


def _shared_by_none(firsts: Mapping[int, int | None], meta: Metadata) -> bool:
    """Does `index` number the rows: known for every episode that has rows, no number twice, none beyond reason?"""
    if not firsts or any(first is None for first in firsts.values()):
        return False
    rows = sorted((first, meta.episodes[number].length) for number, first in firsts.items() if first is not None)
    apart = all(first + length <= following for (first, length), (following, _) in itertools.pairwise(rows))
    return apart and rows[0][0] >= 0 and rows[-1][0] <= 100 * sum(length for _, length in rows) + 10**6


def _apart(episodes: Mapping[int, EpisodeRecord], sure: set[int]) -> dict[int, EpisodeRecord]:
    """Returns the records with no dataset row in two episodes: those whose rows were not found make way, behind all others."""
    taken = sorted((episodes[number].row, episodes[number].row + episodes[number].length) for number in sure)
    end = max((stop for _, stop in taken), default=0)
    out = {}
    for number, record in episodes.items():
        collides = sure and number not in sure and any(start < record.row + record.length and record.row < stop for start, stop in taken)
        out[number] = replace(record, row=end) if collides else record
        end = max(end, out[number].row + record.length)
    return out
