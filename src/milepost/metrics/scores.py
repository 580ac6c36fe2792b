"""The measures of a curve: error, stage accuracy, order, separation, and their bootstrap intervals over episodes. numpy only.

Order correlation alone proves nothing: a clock has a perfect 1. Every table therefore has a row for the `elapsed` model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from milepost.core import DataError
from milepost.metrics.inputs import Values, numbers, same_frames, without_nan
from milepost.metrics.outcomes import auc, of_one


def ranks(value: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """Returns ranks that start at 1; equal values have the mean of their ranks."""
    _, place, counts = np.unique(value, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[place]


def order_correlation(value: Values, reference: Values | None = None) -> float:
    """Returns the Spearman correlation with time (VOC, value-order correlation, arXiv 2411.04549), or with a reference curve.

    Frames that are NaN are left out. The result is NaN if fewer than two frames are known or either side is constant.
    """
    value = numbers(value)
    value, reference = same_frames(value, np.arange(len(value)) if reference is None else reference)
    is_known = ~(np.isnan(value) | np.isnan(reference))
    if is_known.sum() < 2:
        return float("nan")
    a, b = ranks(value[is_known]), ranks(reference[is_known])
    spread = a.std() * b.std()
    return float(np.mean((a - a.mean()) * (b - b.mean())) / spread) if spread > 0 else float("nan")


def mean_error(value: Values, truth: Values) -> float:
    """Returns the mean absolute error over the frames known on both sides; NaN if there is none."""
    value, truth = same_frames(value, truth, "the truth")
    gap = np.abs(value - truth)
    return float(np.nanmean(gap)) if not np.all(np.isnan(gap)) else float("nan")


def stage_accuracy(probability: Float[np.ndarray, "T K"], stage: Int[np.ndarray, "T"]) -> float:
    """Returns the proportion of frames whose most probable stage is the true one, over frames with a known true stage (>= 0).

    DataError if the two have another number of frames.
    """
    if len(probability) != len(stage):
        raise DataError(f"probabilities and stages have a row for each frame, got {len(probability)} and {len(stage)}")
    is_known = stage >= 0
    return float(np.mean(probability[is_known].argmax(axis=1) == stage[is_known])) if is_known.any() else float("nan")


def final(value: Values, frames: int = 3) -> float:
    """Returns where a curve ends: the mean of its last known frames (3, so that one odd frame does not decide); NaN if none is known.

    A straight line of more known frames ends at the last one, because no frame of it is odd. The mean would end a line over a long episode
    higher than the same line over a short one, and so tell the episodes apart by their length.

    >>> final(np.array([0.0, 0.2, 0.9, 0.8, 1.0])), final(np.linspace(0, 0.5, 11))
    (0.9, 0.5)
    """
    finite = without_nan(value)
    if len(finite) > frames and np.abs(finite - np.linspace(finite[0], finite[-1], len(finite))).max() < 1e-5:
        return float(finite[-1])
    return float(finite[-frames:].mean()) if len(finite) else float("nan")


def separation(success: Values, failure: Values) -> float:
    """Returns the AUC: the probability that a successful episode ends above a failed one; ties count half.

    Values that are NaN are left out. The result is NaN if nothing is left on one side.
    """
    return of_one(auc, without_nan(success, "the successes"), without_nan(failure, "the failures"))


BLOCK = 1_000_000
"""Most values that are drawn at once, so that the memory of an interval does not grow with its draws."""


def interval(
    statistic: Callable[..., Any],
    *groups: Sequence[float] | np.ndarray,
    rng: np.random.Generator,
    draws: int = 1000,
    vectorized: bool = False,
) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of a statistic of one or more groups of episodes; each group is resampled on its own.

    Draws whose statistic is NaN are left out. The interval is (NaN, NaN) if all are. vectorized: the statistic takes many draws at once,
    each group as (D, N), and returns (D,); the numbers drawn are the same.
    """
    arrays = [np.asarray(group, dtype=float) for group in groups]
    if not all(len(array) for array in arrays):
        return float("nan"), float("nan")
    sizes = [len(array) for array in arrays]
    parts, at_once = [], max(1, BLOCK // sum(sizes))
    for start in range(0, draws, at_once):
        count = min(at_once, draws - start)
        places = np.split(rng.integers(np.repeat(sizes, sizes), size=(count, sum(sizes))), np.cumsum(sizes)[:-1], axis=1)
        samples = [array[rows] for array, rows in zip(arrays, places, strict=True)]
        parts.append(statistic(*samples) if vectorized else [statistic(*each) for each in zip(*samples, strict=True)])
    values = np.concatenate(parts)
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def in_words(value: float, low: float, high: float) -> str:
    """Returns a number with its interval, for a table; "-" for NaN. The interval has two decimals, or three where two would leave
    the number outside.

    >>> in_words(0.123, 0.05, 0.2), in_words(0.468, 0.4672, 0.4688), in_words(-0.0001, -0.01, 0.01)
    ('0.123 [0.05, 0.20]', '0.468 [0.467, 0.469]', '0.000 [-0.01, 0.01]')
    """
    if np.isnan(value):
        return "-"
    digits = 2 if round(low, 2) <= round(value, 3) <= round(high, 2) else 3
    return f"{value:z.3f} [{low:z.{digits}f}, {high:z.{digits}f}]"  # z: a rounded zero has no minus sign


def clock(length: int) -> Float[np.ndarray, "T"]:
    """Returns t / (T - 1) for every frame: progress as a clock tells it. NaN for one frame, of which a clock can say nothing.

    >>> clock(3)
    array([0. , 0.5, 1. ], dtype=float32)
    """
    return np.linspace(0, 1, length, dtype=np.float32) if length > 1 else np.full(length, np.nan, dtype=np.float32)
