"""Finds the file of each episode's rows and the dataset row of its first frame, from the data, with meta/ as a hint.

Footers are read first (a fraction of a millisecond a file). The columns `episode_index` and `index` are read only for files whose footer
does not fit meta/. An episode's dataset row comes from LeRobot's `index`, if that rises by one inside every episode and no two episodes
share a value; otherwise rows are counted by position, episode after episode. Nothing on disk changes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from milepost.core import DataError, count_noun
from milepost.datasets.episode_arrays import EpisodeArrays
from milepost.datasets.hub import Files
from milepost.datasets.parquet import MOST_ROWS, RowSummary, read_parquet, summarise, to_numpy
from milepost.datasets.records import EpisodeRecord, Metadata


@dataclass(frozen=True)
class Part:
    """The rows of one episode in one data file. first: their `index` at frame 0, None if it does not rise by one."""

    data: str
    count: int
    first: int | None


@dataclass(frozen=True)
class Settled:
    """The places of all rows. episodes: records with the right file and row. warnings: the errors of meta/.

    by_position: whether `index` is unusable. strays: rows that no episode of meta/ has. unread: data file -> why it cannot be read.
    """

    episodes: Mapping[int, EpisodeRecord]
    warnings: tuple[str, ...] = ()
    by_position: bool = False
    strays: int = 0
    unread: Mapping[str, str] | None = None


def settle(files: Files, meta: Metadata, *, everywhere: bool = False) -> Settled:
    """Returns where each episode's rows are. Of a Hub dataset only files that are here are looked at, unless `everywhere`."""
    places = dict(meta.arrays.by_file())
    names = [name for name in places if name and (files.repo is None or everywhere or (files.root / name).is_file())]
    summaries, unreadable = _summaries(files, names)
    fitting = {name for name, summary in summaries.items() if meta.rows_fit and _fits(summary, meta.arrays, places[name])}
    if len(fitting) == len(places) or (files.repo is not None and not everywhere and len(fitting) == len(names) and meta.rows_fit):
        return Settled(meta.episodes)
    hints: dict[str, list[EpisodeRecord]] = {}
    for record in meta.episodes.values():
        hints.setdefault(record.data, []).append(record)
    others, more_unreadable = _summaries(files, [name for name in data_files(files) if name not in summaries and name not in unreadable])
    unreadable |= more_unreadable
    parts: dict[int, list[Part]] = {}
    for name in fitting:
        for record in hints[name]:
            parts.setdefault(record.index, []).append(Part(name, record.length, record.row))
    for name, summary in {**{n: s for n, s in summaries.items() if n not in fitting}, **others}.items():
        try:
            for episode_index, part in _parts(files, name, summary, hints.get(name, ())):
                parts.setdefault(episode_index, []).append(part)
        except DataError as error:
            unreadable[name] = str(error)
    return _settled(meta, parts, unreadable)


def data_files(files: Files) -> list[str]:
    """Returns the names of all data files of a folder, relative to it; of a Hub dataset none, which are not all here."""
    return [name for name in files.listed("data") if name.endswith(".parquet")] if files.repo is None else []


def _summaries(files: Files, names: Iterable[str]) -> tuple[dict[str, RowSummary], dict[str, str]]:
    """Returns what the footers say, and why some cannot be read."""
    summaries, unreadable = {}, {}
    for name in names:
        try:
            here = files.root / name  # nothing is asked of the Hub for what is here
            summaries[name] = summarise(here if here.is_file() and files.holds(name) else files.path(name))
        except DataError as error:
            unreadable[name] = str(error)
    return summaries, unreadable


def _fits(summary: RowSummary, arrays: EpisodeArrays, places: Int[np.ndarray, "N"]) -> bool:
    """Returns whether the rows are those of these episodes in meta/, as far as a footer shows."""
    row, length = arrays.row[places], arrays.length[places]
    first, last, count = int(row.min()), int((row + length).max()) - 1, int(length.sum())
    return (
        summary.count == count
        and summary.episodes in (None, (int(arrays.number[places[0]]), int(arrays.number[places[-1]])))
        and (summary.index in (None, (first, last)) or last - first + 1 != count)
    )


def _parts(files: Files, name: str, summary: RowSummary, records: Sequence[EpisodeRecord]) -> list[tuple[int, Part]]:
    """Returns the episodes in one file. One without `episode_index` is the episode that meta/ names it for."""
    if not summary.has_episodes:
        only = records[0].index if len(records) == 1 else None
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
    found_parts = []
    for episode_index, rows in zip(numbers, np.split(order, starts[1:]), strict=True):
        if np.isfinite(episode_index) and episode_index == np.floor(episode_index):
            own_index = None if index is None else index[rows]
            first = (
                int(own_index[0]) if own_index is not None and np.array_equal(own_index, own_index[0] + np.arange(len(own_index))) else None
            )
            found_parts.append((int(episode_index), Part(name, len(rows), first)))
    return found_parts


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


def _settled(meta: Metadata, parts: Mapping[int, Sequence[Part]], unreadable: Mapping[str, str]) -> Settled:
    warnings: list[str] = []
    chosen_parts = {record.index: _chosen(record, parts.get(record.index, ())) for record in meta.episodes.values()}
    moves = [
        (record, part) for record in meta.episodes.values() if (part := chosen_parts[record.index]) is not None and part.data != record.data
    ]
    if moves:
        record, part = moves[0]
        place = f"in {record.data}" if record.data else "nowhere"
        warnings.append(
            f"meta/ misplaces the rows of {count_noun(len(moves), 'episode')}, first of episode {record.index}: {place} by meta/, they are "
            f"in {part.data} and read from there"
        )
    firsts = {episode_index: part.first for episode_index, part in chosen_parts.items() if part is not None}
    sound = _shared_by_none(firsts, meta)
    episodes = {}
    for episode_index, record in meta.episodes.items():
        part, row = chosen_parts[episode_index], firsts.get(episode_index)
        record = record if part is None else replace(record, data=part.data)
        episodes[episode_index] = replace(record, row=row) if sound and row is not None else record
    episodes = _apart(episodes, {episode_index for episode_index, row in firsts.items() if row is not None} if sound else set())
    if not sound and any(part is not None for part in chosen_parts.values()):
        warnings.append(
            "'index' in the data does not count the dataset's rows (it is missing, restarts or repeats): rows are counted by position, "
            "episode after episode; renumber it before LeRobot looks weights up by it"
        )
    elif wrong := [
        episode_index for episode_index, row in firsts.items() if row is not None and row != _listed_row(meta.episodes[episode_index])
    ]:
        warnings.append(
            f"'index' in the data and meta/ do not agree on the dataset rows of {count_noun(len(wrong), 'episode')}, first episode "
            f"{wrong[0]}; 'index' counts without fault, and is taken"
        )
    episode_indices = set(meta.episodes)
    strays = sum(part.count for episode_index, places in parts.items() if episode_index not in episode_indices for part in places)
    return Settled(episodes, tuple(warnings), not sound, strays, dict(unreadable))


def _listed_row(record: EpisodeRecord) -> int:
    """Returns the row that meta/ says itself, else the one counted from lengths."""
    value = record.entry.get("dataset_from_index")
    return int(value) if isinstance(value, int | float) and value == value // 1 else record.row


def _chosen(record: EpisodeRecord, parts: Sequence[Part]) -> Part | None:
    """Returns where the episode is read from: where meta/ says if its rows are there, else the one file that has as many."""
    same_file = [part for part in parts if part.data == record.data]
    whole = [part for part in parts if part.count == record.length]
    if same_file and (same_file[0].count == record.length or not whole):
        return same_file[0]
    return whole[0] if len(whole) == 1 else None


def _shared_by_none(firsts: Mapping[int, int | None], meta: Metadata) -> bool:
    """Returns whether `index` numbers the rows: it is known for every episode with rows, no number repeats, and none is implausible."""
    if not firsts or any(first is None for first in firsts.values()):
        return False
    rows = sorted((first, meta.episodes[episode_index].length) for episode_index, first in firsts.items() if first is not None)
    apart = all(first + length <= following for (first, length), (following, _) in itertools.pairwise(rows))
    return apart and rows[0][0] >= 0 and rows[-1][0] <= 100 * sum(length for _, length in rows) + 10**6


def _apart(episodes: Mapping[int, EpisodeRecord], sure: set[int]) -> dict[int, EpisodeRecord]:
    """Returns the records with no dataset row in two episodes: those whose rows were not found make way, behind all others."""
    ranges = sorted((episodes[episode_index].row, episodes[episode_index].row + episodes[episode_index].length) for episode_index in sure)
    end = max((stop for _, stop in ranges), default=0)
    out = {}
    for episode_index, record in episodes.items():
        is_overlapping = (
            sure and episode_index not in sure and any(start < record.row + record.length and record.row < stop for start, stop in ranges)
        )
        out[episode_index] = replace(record, row=end) if is_overlapping else record
        end = max(end, out[episode_index].row + record.length)
    return out
