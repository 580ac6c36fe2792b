"""Deltas to weights: statistics, the rules, and kappa. Every function is arithmetic on arrays; none of them knows episodes.

Mean, standard deviation and kappa may each be one number, or one number per frame. Statistics by task and a kappa by pace use the second
form.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from milepost.weights.config import RabcConfig

PHASES = 20
"""Bins of progress in which the usual pace is taken."""
_PACES = 400
"""Bins of the logarithm of delta in its histogram: 2.3 % each over four decades."""

OneOrMany = float | np.ndarray


def statistics(delta: Float[np.ndarray, "N"], epsilon: float = 1e-6) -> tuple[float, float]:
    """Returns (mu, sigma) of the known deltas. mu is at least 0; sigma is the population standard deviation, at least epsilon."""
    values = delta[~np.isnan(delta)]
    if not len(values):
        return 0.0, epsilon
    return max(float(values.mean()), 0.0), max(float(values.std()), epsilon)


def rabc(delta: Float[np.ndarray, "N"], mean: OneOrMany, std: OneOrMany, config: RabcConfig, kappa: OneOrMany | None = None) -> np.ndarray:
    """Returns the weight (N,) float32 in [0, 1] of each delta by eqs. 8-9 (or another ramp), and `fallback_weight` where the delta is NaN.

    Deltas are compared in single precision, as LeRobot does, so a delta that equals kappa on paper falls on the same side.
    """
    delta32 = delta.astype(np.float32)
    threshold = np.asarray(config.kappa if kappa is None else kappa, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        slow = np.where(delta >= 0, ramp(delta32, mean, std, config, threshold), np.float32(0))
        weight = np.where(delta32 > threshold, np.float32(1), slow)
    weight[np.isnan(delta32)] = config.fallback_weight
    return weight


def ramp(delta: np.ndarray, mean: OneOrMany, std: OneOrMany, config: RabcConfig, kappa: OneOrMany) -> np.ndarray:
    """Returns the weight of deltas from 0 to kappa. A linear ramp to a kappa of 0 is 0."""
    if config.ramp == "soft":
        low, width = np.asarray(mean - 2 * std, np.float32), np.asarray(4 * std + config.epsilon, np.float32)
        return np.clip((delta - low) / width, 0.0, 1.0)
    if config.ramp == "linear":
        top = np.asarray(kappa, np.float32)
        return np.clip(delta, 0, top) / np.maximum(top, np.finfo(np.float32).tiny)
    return np.zeros_like(delta)


def usual_pace(delta: Float[np.ndarray, "N"], progress: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """Returns the usual delta at each frame's progress: half of the progress around there is made faster than this, half slower.

    It is a weighted median of the positive deltas in bins of progress; the weight of a delta is the delta itself. So frames that stand
    still do not count, however many there are, and a phase that is slow in every demonstration has a low usual pace. Between the middles of
    the bins it is interpolated; it is 0 where no frame advances.
    """
    moving = np.flatnonzero((delta > 0) & ~np.isnan(progress))
    if not len(moving):
        return np.zeros(len(delta))
    step, low, high = delta[moving], float(np.nanmin(progress)), float(np.nanmax(progress))
    width = max(high - low, np.finfo(float).tiny) / PHASES
    phase = np.minimum(((progress[moving] - low) / width).astype(np.int64), PHASES - 1)
    top = np.log(step.max())
    # A histogram over log(delta) in place of a sort: linear in the number of frames, and 2.3 % is far below the spread of paces.
    pace = np.clip(((np.log(step) - top) / np.log(1e4) + 1) * (_PACES - 1), 0, _PACES - 1).astype(np.int64)
    histogram = np.bincount(phase * _PACES + pace, weights=step, minlength=PHASES * _PACES).reshape(PHASES, _PACES)
    phases = np.flatnonzero(histogram.sum(axis=1) > 0)
    cumulative = np.cumsum(histogram[phases], axis=1)
    middle = np.argmax(cumulative >= cumulative[:, -1:] / 2, axis=1) + 0.5
    usual = np.exp(top + (middle / (_PACES - 1) - 1) * np.log(1e4))
    return np.interp(np.nan_to_num(progress, nan=low), low + (phases + 0.5) * width, usual)


def groups(number: Int[np.ndarray, "N"]) -> Iterator[Int[np.ndarray, "M"]]:
    """Yields the rows of each number in turn, ascending."""
    order = np.argsort(number, kind="stable")
    starts = np.flatnonzero(np.diff(number[order])) + 1
    yield from np.split(order, starts)
