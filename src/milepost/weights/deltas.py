"""Progress to deltas (eq. 6): smoothing inside each episode, then how much the next H frames get done. Rows are sorted by index here.

Nothing leaks over an episode's border, and what is unknown stays unknown: a missing or NaN row makes no number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from milepost.core import DataError

LEAST = 4
"""A rescaled horizon is never shorter than a LEAST-th of the chunk, so noise grows LEAST-fold at most."""
_BLOCK = 1 << 19
"""Rows smoothed at a time: what stays in the processor's cache."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A progress file's rows in the order of their index. start, stop (E,): each episode's rows are [start, stop).

    first (N,): the row of the first frame of each row's episode.
    """

    index: Int[np.ndarray, "N"]
    episode: Int[np.ndarray, "N"]
    start: Int[np.ndarray, "E"]
    stop: Int[np.ndarray, "E"]

    @property
    def whole(self) -> bool:
        """Is no index missing between the first and the last?"""
        return int(self.index[-1] - self.index[0]) + 1 == len(self.index)

    @property
    def lengths(self) -> Int[np.ndarray, "E"]:
        return self.stop - self.start

    @property
    def first(self) -> Int[np.ndarray, "N"]:
        return np.repeat(self.start, self.lengths)

    @property
    def frames(self) -> Int[np.ndarray, "E"]:
        """Frames from each episode's first row to its last, missing ones included."""
        return self.index[self.stop - 1] - self.index[self.start] + 1


def sort_rows(index: Int[np.ndarray, "N"], episode_index: Int[np.ndarray, "N"]) -> tuple[Rows, np.ndarray | None]:
    """The rows, and their order if they were not sorted. DataError for a repeated index and for an episode in several pieces."""
    index, episode = np.asarray(index, dtype=np.int64), np.asarray(episode_index, dtype=np.int64)
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
    return Rows(index, episode, start, np.append(start[1:], len(index)).astype(np.int64)), order


def deltas(
    index: Int[np.ndarray, "N"],
    episode_index: Int[np.ndarray, "N"],
    value: Float[np.ndarray, "N"],
    horizon: int,
    end: Literal["truncate", "rescale"] = "truncate",
) -> Float[np.ndarray, "N"]:
    """Eq. 6 for every row, in the order given: value at min(index + horizon, the episode's last index) minus value now, float64.

    `end="rescale"`: within a chunk of the end, what the frames left get done, times horizon / frames left. When fewer than a quarter of
    the chunk are left, the last quarter is looked at instead, so the last frame has a delta as well: the pace it was reached at. An
    episode of one frame has none (NaN). Rows may be missing or NaN: their delta, and any delta that looks at them, is NaN.
    DataError if an index repeats or an episode lies in several pieces.
    """
    rows, order = sort_rows(index, episode_index)
    value = np.asarray(value, dtype=np.float64)
    if order is None:
        return row_deltas(rows, value, horizon, end)
    out = np.empty(len(value))
    out[order] = row_deltas(rows, value[order], horizon, end)
    return out


def row_deltas(rows: Rows, value: np.ndarray, horizon: int, end: str) -> Float[np.ndarray, "N"]:
    """`deltas` of sorted rows."""
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


def _tails(rows: Rows, horizon: int) -> tuple[Int[np.ndarray, "M"], Int[np.ndarray, "M"]]:
    """The rows whose horizon reaches or passes the end of their episode, and the place of each one's episode in `start`."""
    if rows.whole:
        count = np.minimum(rows.lengths, horizon)
    else:
        count = rows.stop - np.maximum(np.searchsorted(rows.index, rows.index[rows.stop - 1] - horizon, side="right"), rows.start)
    near = np.arange(count.sum()) + np.repeat(rows.stop - np.cumsum(count), count)
    return near, np.repeat(np.arange(len(count)), count)


def _rescaled(rows: Rows, value: np.ndarray, near: np.ndarray, episode: np.ndarray, horizon: int) -> np.ndarray:
    """Deltas of the rows within a horizon of their episode's end, made good."""
    final, here = rows.index[rows.stop[episode] - 1], rows.index[near]
    begin = np.maximum(np.minimum(here, final - -(-horizon // LEAST)), rows.index[rows.start[episode]])
    span = final - begin
    done = value[rows.stop[episode] - 1] - _at(rows, value, begin)
    done[np.isnan(value[near]) | (span == 0)] = np.nan
    return done * (horizon / np.maximum(span, 1))


def _at(rows: Rows, value: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Values at these indices, NaN where the file has no row."""
    place = wanted - rows.index[0] if rows.whole else np.searchsorted(rows.index, wanted)
    return value[place] if rows.whole else np.where(rows.index[place] == wanted, value[place], np.nan)


def smoothed(
    index: Int[np.ndarray, "N"], episode_index: Int[np.ndarray, "N"], value: Float[np.ndarray, "N"], window: int
) -> Float[np.ndarray, "N"]:
    """Each known value replaced by the line of least squares through the known values at most window // 2 frames away, read at its frame.

    Inside an episode without gaps this is Savitzky-Golay of degree 1. At borders and around gaps the line leans on one side; a straight
    curve is left as it is everywhere. NaN stays NaN. In the order given, float64.
    """
    rows, order = sort_rows(index, episode_index)
    value = np.asarray(value, dtype=np.float64)
    out = np.empty(len(value))
    out[slice(None) if order is None else order] = row_smoothed(rows, value if order is None else value[order], window)
    return out


def row_smoothed(rows: Rows, value: np.ndarray, window: int) -> Float[np.ndarray, "N"]:
    """`smoothed` of sorted rows, some episodes at a time."""
    out = np.array(value, dtype=np.float64)
    begin = 0
    while begin < len(rows.start):
        end = max(begin + 1, int(np.searchsorted(rows.start, rows.start[begin] + _BLOCK)))
        block = slice(rows.start[begin], rows.stop[end - 1])
        part = Rows(rows.index[block], rows.episode[block], rows.start[begin:end] - block.start, rows.stop[begin:end] - block.start)
        out[block] = _lines(part, value[block], window // 2)
        begin = end
    return out


def _lines(rows: Rows, value: np.ndarray, radius: int) -> np.ndarray:
    """A line at every row. In the middle of a whole window it is the window's mean, which running sums give; the rest are fitted."""
    uneven = _uneven(rows, value, radius)
    out = np.array(value, dtype=np.float64)
    if len(uneven) < len(value):
        running = np.concatenate([[0.0], np.cumsum(np.nan_to_num(value))])
        out[radius : len(value) - radius] = (running[2 * radius + 1 :] - running[: -2 * radius - 1]) / (2 * radius + 1)
    out[uneven] = _fitted(rows, value, uneven, radius)
    return out


def _uneven(rows: Rows, value: np.ndarray, radius: int) -> Int[np.ndarray, "M"]:
    """The rows whose window is cut by a border of their episode or has a gap in it."""
    if not rows.whole:
        return np.arange(len(value))
    marked = np.zeros(len(value), dtype=bool)
    unknown = np.flatnonzero(np.isnan(value))
    for step in range(radius + 1):
        marked[np.minimum(rows.start + step, rows.stop - 1)] = marked[np.maximum(rows.stop - 1 - step, rows.start)] = True
        marked[np.minimum(unknown + step, len(value) - 1)] = marked[np.maximum(unknown - step, 0)] = True
    return np.flatnonzero(marked)


def _fitted(rows: Rows, value: np.ndarray, here: np.ndarray, radius: int) -> np.ndarray:
    """The line through the known values around each of these rows, read at it; x counts frames from there."""
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
    across = n * sum_xx - sum_x * sum_x
    level = sum_y / np.maximum(n, 1)
    line = np.divide(sum_xx * sum_y - sum_x * sum_xy, across, out=level, where=across > 0)
    return np.where(np.isnan(value[here]), np.nan, line)
