"""Computes the statistics of a LeRobot dataset (`stats/*`, `meta/stats.json`): min, max, mean, std, count and five quantiles.

Shapes and rules are LeRobot 0.6's, because its policies normalise with these numbers. A quantile comes from a histogram of 5000 bins,
images count on a 0..1 scale from a sample of frames, and a dataset's quantile is the mean of its episodes'. Sums are in float64, LeRobot's
are in float32: means and deviations differ from LeRobot's by that rounding only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

Stats = dict[str, np.ndarray]

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
KEYS = ("min", "max", "mean", "std", "count", *QUANTILES)
BINS = 5000
PADDING = 1e-10
LEVELS = 256
# As LeRobot thins images: from a side of 300 pixels on, to about 150 on the longer side. Other sizes would give other quantiles.
LARGE_IMAGE = 300
SMALL_IMAGE = 150


def column_stats(column: Shaped[np.ndarray, "T *D"]) -> Stats:
    """Returns the statistics of a column of numbers or bools, (T,) or (T, D): each (D,) float64 ((1,) for a scalar), count (1,) int64."""
    values = np.asarray(column, dtype=np.float64).reshape(len(column), -1)
    columns = [_weighted(channel, np.ones(len(channel))) for channel in values.T]
    return _collect(columns, count=len(values), shape=(len(columns),))


def _collect(channels: Sequence[Mapping[str, float]], *, count: int, shape: tuple[int, ...]) -> Stats:
    """Returns the channels' numbers as one array for each key, in LeRobot's order of keys."""
    stats = {key: np.array([channel[key] for channel in channels]).reshape(shape) for key in channels[0]}
    stats["count"] = np.array([count], dtype=np.int64)
    return {key: stats[key] for key in KEYS}


def _weighted(values: Float[np.ndarray, "N"], weight: Float[np.ndarray, "N"]) -> dict[str, float]:
    """Returns the statistics of values that occur `weight` times each (every weight above 0)."""
    mean = float(np.average(values, weights=weight))
    out = {"min": float(values.min()), "max": float(values.max()), "mean": mean}
    out["std"] = float(np.sqrt(np.average((values - mean) ** 2, weights=weight)))
    if weight.sum() < 2:
        return {**out, **dict.fromkeys(QUANTILES, mean)}
    return {**out, **_quantiles(values, weight)}


def _quantiles(values: Float[np.ndarray, "N"], weight: Float[np.ndarray, "N"]) -> dict[str, float]:
    """Returns quantiles from a histogram, by linear interpolation inside a bin."""
    edges = np.maximum.accumulate(np.linspace(values.min() - PADDING, values.max() + PADDING, BINS + 1))
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, BINS - 1)
    count = np.bincount(place, weights=weight, minlength=BINS)
    below = np.cumsum(count)
    out = {}
    for name, fraction in QUANTILES.items():
        target = fraction * weight.sum()
        k = min(int(np.searchsorted(below, target)), BINS - 1)
        # LeRobot's rule: the first bin is never interpolated into, its lower edge stands for it.
        inside = (target - below[k - 1]) / count[k] if k and count[k] else 0.0
        out[name] = float(edges[k] + inside * (edges[k + 1] - edges[k]))
    return out


def sampled_frames(length: int) -> Int[np.ndarray, "N"]:
    """Returns the frames whose images enter an episode's statistics: length ** 0.75 of them, at least 100 (or all), at most 10 000."""
    number = max(min(100, length), min(int(length**0.75), 10_000))
    return np.round(np.linspace(0, length - 1, number)).astype(np.int64)


class ImageCounter:
    """A counter of the 256 levels of each colour over a camera's sampled frames. The statistics follow from it exactly."""

    def __init__(self, length: int) -> None:
        self._sampled = set(sampled_frames(length).tolist())
        self._counts = np.zeros((3, LEVELS), dtype=np.int64)

    def add(self, frame: int, image: UInt8[np.ndarray, "H W 3"]) -> None:
        """Counts image number `frame` if it is one of the sampled ones. Large images are thinned to about 150 pixels a side."""
        if frame not in self._sampled:
            return
        height, width = image.shape[:2]
        step = 1 if max(height, width) < LARGE_IMAGE else max(height, width) // SMALL_IMAGE
        small = image[::step, ::step]
        for channel in range(3):
            self._counts[channel] += np.bincount(small[..., channel].ravel(), minlength=LEVELS)

    def stats(self) -> Stats:
        """Returns the statistics, (3, 1, 1) float64 per colour on a 0..1 scale; count (1,) is the number of sampled frames."""
        levels = [np.flatnonzero(counts) for counts in self._counts]
        channels = [
            _weighted(level.astype(np.float64), counts[level].astype(np.float64))
            for level, counts in zip(levels, self._counts, strict=True)
        ]
        scaled = [{key: value / 255 for key, value in one.items()} for one in channels]
        return _collect(scaled, count=len(self._sampled), shape=(3, 1, 1))


def merge(episodes: Sequence[Mapping[str, np.ndarray]]) -> Stats:
    """Returns one feature's statistics over several episodes: exact, except that quantiles are count-weighted means."""
    stack = {key: np.stack([stats[key] for stats in episodes]) for key in episodes[0]}
    weight = stack["count"].reshape(-1, *[1] * (stack["mean"].ndim - 1)) / stack["count"].sum()
    mean = (stack["mean"] * weight).sum(axis=0)
    variance = ((stack["std"] ** 2 + (stack["mean"] - mean) ** 2) * weight).sum(axis=0)
    return {
        "min": stack["min"].min(axis=0),
        "max": stack["max"].max(axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": stack["count"].sum(axis=0),
        **{key: (stack[key] * weight).sum(axis=0) for key in QUANTILES},
    }
