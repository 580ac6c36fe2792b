"""Deltas to weights: statistics, the rules, and where kappa comes from. Every function is arithmetic on arrays and knows no episode.

Mean, deviation and kappa may each be one number or one a frame, which is all that statistics by task and a kappa by pace are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from milepost.types import DataError
from milepost.weights.config import RabcConfig

PHASES = 20
"""Bins of progress in which the usual pace is taken."""
_PACES = 400
"""Bins of the logarithm of delta in its histogram: 2.3 % each over four decades."""

OneOrMany = float | np.ndarray


def statistics(delta: Float[np.ndarray, "N"], epsilon: float = 1e-6) -> tuple[float, float]:
    """(mu, sigma) of the known deltas: mu clipped at 0 from below, sigma the population standard deviation, at least epsilon."""
    known = delta[~np.isnan(delta)]
    if not len(known):
        return 0.0, epsilon
    return max(float(known.mean()), 0.0), max(float(known.std()), epsilon)


def rabc(delta: Float[np.ndarray, "N"], mean: OneOrMany, std: OneOrMany, config: RabcConfig, kappa: OneOrMany | None = None) -> np.ndarray:
    """Eqs. 8-9 (or another ramp): weight (N,) float32 in [0, 1] of each delta, `fallback_weight` where it is NaN.

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
    """What a delta from 0 to kappa weighs. A linear ramp to a kappa of 0 is 0."""
    if config.ramp == "soft":
        low, width = np.asarray(mean - 2 * std, np.float32), np.asarray(4 * std + config.epsilon, np.float32)
        return np.clip((delta - low) / width, 0.0, 1.0)
    if config.ramp == "linear":
        top = np.asarray(kappa, np.float32)
        return np.clip(delta, 0, top) / np.maximum(top, np.finfo(np.float32).tiny)
    return np.zeros_like(delta)


def exponential(delta: Float[np.ndarray, "N"], centre: OneOrMany, config: RabcConfig) -> np.ndarray:
    """TOPReward's weight: min(scale * exp((delta - centre) / temperature), max), (N,) float32, `fallback_weight` where delta is NaN."""
    highest = np.log(config.awr_max / config.awr_scale)
    exponent = np.minimum((delta - centre) / config.awr_temperature, highest)
    return np.where(np.isnan(delta), config.fallback_weight, config.awr_scale * np.exp(exponent)).astype(np.float32)


def quantile_kappa(delta: Float[np.ndarray, "N"], quantile: float) -> float:
    """That quantile of known deltas, at least 0; 0 if none is known."""
    known = delta[~np.isnan(delta)]
    return max(0.0, float(np.quantile(known, quantile))) if len(known) else 0.0


def keep_kappa(delta: Float[np.ndarray, "N"], mean: float, std: float, config: RabcConfig) -> float:
    """The largest kappa at which known frames weigh `kappa_keep` on average or more. DataError, with the range there is, if none does."""
    keep, known = float(config.kappa_keep or 0.0), np.sort(delta[~np.isnan(delta)].astype(np.float32))  # as they will be compared
    if not len(known):
        return 0.0
    candidates = np.unique(np.append(known[known > 0], 0.0))
    forward = known[known >= 0]
    step = forward if config.ramp == "linear" else ramp(forward, mean, std, config, kappa=0.0)
    rising = np.concatenate([[0.0], np.cumsum(step, dtype=np.float64)])
    below = np.searchsorted(forward, candidates, side="right")
    on_ramp = rising[below] / (np.maximum(candidates, np.finfo(np.float32).tiny) if config.ramp == "linear" else 1.0)
    means = (len(forward) - below + on_ramp) / len(known)
    if means[0] < keep:
        raise DataError(f"kappa_keep {keep:g}: even with kappa 0 the mean weight is {means[0]:.3f}; ask for less")
    last = np.flatnonzero(means >= keep)[-1]
    above = len(forward) - below[last]
    if config.ramp == "linear" and keep * len(known) > above and rising[below[last]] > 0:  # beyond a delta the mean falls steadily
        return float(rising[below[last]] / (keep * len(known) - above))
    if means[-1] < keep or config.ramp == "linear":
        return float(candidates[last])
    if means[-1] > keep:
        raise DataError(
            f"kappa_keep {keep:g}: by the {config.ramp} ramp the mean weight never falls below {means[-1]:.3f}; use ramp linear"
        )
    return float(candidates[-1])


def usual_pace(delta: Float[np.ndarray, "N"], progress: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """The delta at which progress is usually made where each frame is: half of the progress there is made faster, half slower.

    A weighted median of the deltas above 0 in bins of progress, each counting as much as it gets done: however many frames stand still,
    they do not count, and a phase in which everyone is slow is slow. Lines between the bins' middles; 0 where nothing ever moves.
    """
    moving = np.flatnonzero((delta > 0) & ~np.isnan(progress))
    if not len(moving):
        return np.zeros(len(delta))
    step, low, high = delta[moving], float(np.nanmin(progress)), float(np.nanmax(progress))
    width = max(high - low, np.finfo(float).tiny) / PHASES
    phase = np.minimum(((progress[moving] - low) / width).astype(np.int64), PHASES - 1)
    top = np.log(step.max())
    pace = np.clip(((np.log(step) - top) / np.log(1e4) + 1) * (_PACES - 1), 0, _PACES - 1).astype(np.int64)
    done = np.bincount(phase * _PACES + pace, weights=step, minlength=PHASES * _PACES).reshape(PHASES, _PACES)
    filled = np.flatnonzero(done.sum(axis=1) > 0)
    total = np.cumsum(done[filled], axis=1)
    middle = np.argmax(total >= total[:, -1:] / 2, axis=1) + 0.5
    usual = np.exp(top + (middle / (_PACES - 1) - 1) * np.log(1e4))
    return np.interp(np.nan_to_num(progress, nan=low), low + (filled + 0.5) * width, usual)


def groups(number: Int[np.ndarray, "N"]) -> Iterator[Int[np.ndarray, "M"]]:
    """The rows of each number in turn, ascending."""
    order = np.argsort(number, kind="stable")
    cuts = np.flatnonzero(np.diff(number[order])) + 1
    yield from np.split(order, cuts)
