"""Progress to deltas (eq. 6): smoothing inside each episode, then the progress made over the next H frames. Rows are sorted by index here.

No value crosses an episode boundary, and what is unknown stays unknown: a missing or NaN row gives NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from milepost.core import DataError

LEAST = 4
"""A rescaled horizon is at least 1 / LEAST of the chunk, so that rescaling multiplies noise by at most LEAST."""
_BLOCK = 1 << 19
"""Rows smoothed at a time: few enough for the processor's cache."""


@dataclass(frozen=True, eq=False)
class SortedRows:
    """A progress file's rows in the order of their index. start, stop (E,): each episode's rows are [start, stop).

    first (N,): the row of the first frame of each row's episode.
    """

    index: Int[np.ndarray, "N"]
    episode: Int[np.ndarray, "N"]
    start: Int[np.ndarray, "E"]
    stop: Int[np.ndarray, "E"]

    @property
    def whole(self) -> bool:
        """Returns whether every index between the first and the last is present."""
        return int(self.index[-1] - self.index[0]) + 1 == len(self.index)

    @property
    def lengths(self) -> Int[np.ndarray, "E"]:
        """Returns the number of rows of each episode."""
        return self.stop - self.start

    @property
    def first(self) -> Int[np.ndarray, "N"]:
        """Returns, for each row, the row of its episode's first frame."""
        return np.repeat(self.start, self.lengths)

    @property
    def frames(self) -> Int[np.ndarray, "E"]:
        """Returns the number of frames from each episode's first row to its last, missing ones included."""
        return self.index[self.stop - 1] - self.index[self.start] + 1


def sort_rows(index: Int[np.ndarray, "N"], episode_index: Int[np.ndarray, "N"]) -> tuple[SortedRows, np.ndarray | None]:
    """Returns the sorted rows, and the sorting order if they were not sorted. DataError for a repeated index and for an episode in several
    pieces."""
    index, episode = _whole(index, "index"), _whole(episode_index, "episode_index")
    order = None if np.all(index[1:] > index[:-1]) else np.argsort(index, kind="stable")
    if order is not None:
        index, episode = index[order], episode[order]
        twice = index[1:][index[1:] == index[:-1]]
        if len(twice):
            raise DataError(
                f"the same index appears twice in the progress file: {len(np.unique(twice))} of them, first {twice[0]}; "
                "label the dataset again, or drop the repeated rows"
            )
    start = np.flatnonzero(np.concatenate([[True], episode[1:] != episode[:-1]])) if len(index) else np.empty(0, np.int64)
    names, counts = np.unique(episode[start], return_counts=True)
    if len(names) < len(start):
        raise DataError(f"episode {names[counts > 1][0]} of the progress file lies in several pieces between other episodes; label again")
    return SortedRows(index, episode, start, np.append(start[1:], len(index)).astype(np.int64)), order


def _whole(numbers: np.ndarray, name: str) -> Int[np.ndarray, "N"]:
    """Returns the numbers as integers. DataError if one has a fraction, or is no number."""
    column = np.asarray(numbers)
    if column.dtype.kind not in "iu" and not (column.dtype.kind == "f" and np.array_equal(column, np.trunc(column))):
        raise DataError(f"{name} must be whole numbers, one a row; got {column.dtype} with other values")
    return column.astype(np.int64)


def deltas(
    index: Int[np.ndarray, "N"],
    episode_index: Int[np.ndarray, "N"],
    value: Float[np.ndarray, "N"],
    horizon: int,
    end: Literal["truncate", "rescale"] = "truncate",
) -> Float[np.ndarray, "N"]:
    """Returns eq. 6 for every row, in the caller's order: value at min(index + horizon, the episode's last index) minus value now, float64.

    `end="rescale"`: within a chunk of the end, the progress over the remaining frames is multiplied by horizon / remaining frames. When
    fewer than a quarter of the chunk remains, the last quarter is used instead. So the last frame also has a delta: the pace at which
    it was reached. An episode of one frame has none (NaN). Rows may be missing or NaN: their delta, and any delta that uses them, is NaN.
    DataError if an index repeats or an episode lies in several pieces.
    """
    rows, order = sort_rows(index, episode_index)
    value = np.asarray(value, dtype=np.float64)
    if order is None:
        return row_deltas(rows, value, horizon, end)
    out = np.empty(len(value))
    out[order] = row_deltas(rows, value[order], horizon, end)
    return out


def row_deltas(rows: SortedRows, value: np.ndarray, horizon: int, end: str) -> Float[np.ndarray, "N"]:
    """Returns `deltas` of sorted rows."""
    if not len(value):
        return np.empty(0)
    if rows.whole:
        delta = np.empty(len(value))
        np.subtract(value[horizon:], value[:-horizon], out=delta[:-horizon])
    else:
        delta = _at(rows, value, np.minimum(rows.index + horizon, rows.index[-1])) - value
    near, episode = _tails(rows, horizon)
    delta[near] = value[rows.stop[episode] - 1] - value[near] if end == "truncate" else _rescaled(rows, value, near, episode, horizon)
    return delta


def _tails(rows: SortedRows, horizon: int) -> tuple[Int[np.ndarray, "M"], Int[np.ndarray, "M"]]:
    """Returns the rows whose horizon reaches the end of their episode, and the position of each one's episode in `start`."""
    if rows.whole:
        count = np.minimum(rows.lengths, horizon)
    else:
        count = rows.stop - np.maximum(np.searchsorted(rows.index, rows.index[rows.stop - 1] - horizon, side="right"), rows.start)
    near = np.arange(count.sum()) + np.repeat(rows.stop - np.cumsum(count), count)
    return near, np.repeat(np.arange(len(count)), count)


def _rescaled(rows: SortedRows, value: np.ndarray, near: np.ndarray, episode: np.ndarray, horizon: int) -> np.ndarray:
    """Returns rescaled deltas of the rows within a horizon of their episode's end."""
    final, here = rows.index[rows.stop[episode] - 1], rows.index[near]
    begin = np.maximum(np.minimum(here, final - -(-horizon // LEAST)), rows.index[rows.start[episode]])
    span = final - begin
    gain = value[rows.stop[episode] - 1] - _at(rows, value, begin)
    gain[np.isnan(value[near]) | (span == 0)] = np.nan
    return gain * (horizon / np.maximum(span, 1))


def _at(rows: SortedRows, value: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Returns the values at these indices, NaN where the file has no row."""
    place = at - rows.index[0] if rows.whole else np.searchsorted(rows.index, at)
    return value[place] if rows.whole else np.where(rows.index[place] == at, value[place], np.nan)


def smoothed(
    index: Int[np.ndarray, "N"], episode_index: Int[np.ndarray, "N"], value: Float[np.ndarray, "N"], window: int
) -> Float[np.ndarray, "N"]:
    """Replaces each known value by a local line: least squares over the known values at most window // 2 frames away, evaluated at its
    frame.

    Inside an episode without gaps this is a Savitzky-Golay filter of degree 1. At boundaries and around gaps the window has one side only;
    a straight curve is unchanged everywhere. NaN stays NaN. The result is in the caller's order, float64.
    """
    rows, order = sort_rows(index, episode_index)
    value = np.asarray(value, dtype=np.float64)
    out = np.empty(len(value))
    out[slice(None) if order is None else order] = row_smoothed(rows, value if order is None else value[order], window)
    return out


def row_smoothed(rows: SortedRows, value: np.ndarray, window: int) -> Float[np.ndarray, "N"]:
    """Returns `smoothed` of sorted rows, computed in blocks of episodes."""
    out = np.array(value, dtype=np.float64)
    begin = 0
    while begin < len(rows.start):
        end = max(begin + 1, int(np.searchsorted(rows.start, rows.start[begin] + _BLOCK)))
        block = slice(rows.start[begin], rows.stop[end - 1])
        part = SortedRows(rows.index[block], rows.episode[block], rows.start[begin:end] - block.start, rows.stop[begin:end] - block.start)
        out[block] = _lines(part, value[block], window // 2)
        begin = end
    return out


def _lines(rows: SortedRows, value: np.ndarray, radius: int) -> np.ndarray:
    """Returns the local line at every row. In the middle of a complete window the line equals the window's mean, which running sums give;
    only the other rows are fitted."""
    uneven = _uneven(rows, value, radius)
    out = np.array(value, dtype=np.float64)
    if len(uneven) < len(value):
        running = np.concatenate([[0.0], np.cumsum(np.nan_to_num(value))])
        out[radius : len(value) - radius] = (running[2 * radius + 1 :] - running[: -2 * radius - 1]) / (2 * radius + 1)
    out[uneven] = _fitted(rows, value, uneven, radius)
    return out


def _uneven(rows: SortedRows, value: np.ndarray, radius: int) -> Int[np.ndarray, "M"]:
    """Returns the rows whose window contains an episode boundary or a gap."""
    if not rows.whole:
        return np.arange(len(value))
    marked = np.zeros(len(value), dtype=bool)
    unknown = np.flatnonzero(np.isnan(value))
    for step in range(radius + 1):
        marked[np.minimum(rows.start + step, rows.stop - 1)] = marked[np.maximum(rows.stop - 1 - step, rows.start)] = True
        marked[np.minimum(unknown + step, len(value) - 1)] = marked[np.maximum(unknown - step, 0)] = True
    return np.flatnonzero(marked)


def _fitted(rows: SortedRows, value: np.ndarray, here: np.ndarray, radius: int) -> np.ndarray:
    """Returns the line through the known values around each of these rows, evaluated at the row; x counts frames from there."""
    episode = np.searchsorted(rows.start, here, side="right") - 1
    first, last = rows.start[episode], rows.stop[episode] - 1
    n, sum_x, sum_xx, sum_y, sum_xy = (np.zeros(len(here)) for _ in range(5))
    for step in range(-radius, radius + 1):
        place = np.clip(here + step, first, last)
        x, y = (rows.index[place] - rows.index[here]).astype(np.float64), value[place]
        used = (place == here + step) & (np.abs(x) <= radius) & ~np.isnan(y)
        x, y = np.where(used, x, 0.0), np.where(used, y, 0.0)
        for total, each in ((n, used), (sum_x, x), (sum_xx, x * x), (sum_y, y), (sum_xy, x * y)):
            total += each
    determinant = n * sum_xx - sum_x * sum_x
    level = sum_y / np.maximum(n, 1)
    line = np.divide(sum_xx * sum_y - sum_x * sum_xy, determinant, out=level, where=determinant > 0)
    return np.where(np.isnan(value[here]), np.nan, line)
