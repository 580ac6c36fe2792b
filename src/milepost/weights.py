"""Progress -> sample weights: reward-aligned behaviour cloning (RA-BC; SARM paper arXiv 2509.25358, eqs. 6-9). numpy only.

    delta  = phi(min(t + H, end)) - phi(t)                       how much the next H frames get done
    soft   = clip((delta - (mu - 2 sigma)) / (4 sigma + eps), 0, 1)    mu = max(mean delta, 0), sigma population std, over the dataset
    weight = 1 if delta > kappa; soft if 0 <= delta <= kappa; 0 if negative; `unknown` if there is no delta

These are LeRobot 0.6's numbers to 1e-6. A weight is a column, not an object: compute it once, index it with batch["index"].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class RabcConfig:
    """The knobs of RA-BC, with LeRobot's names and defaults."""

    chunk_size: int = 50
    """Horizon H in frames: the action chunk of the policy to be trained."""
    kappa: float = 0.01
    """Progress over the horizon above which a frame counts fully."""
    epsilon: float = 1e-6
    fallback_weight: float = 1.0
    """Weight of a frame whose delta is unknown (NaN progress, or not in the file)."""

    def __post_init__(self) -> None:
        if self.chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, got {self.chunk_size}")
        if self.epsilon <= 0 or self.fallback_weight < 0:
            raise ValueError(f"epsilon must be above 0 and fallback_weight >= 0, got {self.epsilon}, {self.fallback_weight}")


@dataclass(frozen=True, eq=False)
class Weighed:
    """The weights of a dataset and why: index (N,) sorted, delta (N,) NaN where unknown, weight (N,), and the statistics used."""

    index: Int[np.ndarray, "N"]
    episode_index: Int[np.ndarray, "N"]
    delta: Float[np.ndarray, "N"]
    weight: Float[np.ndarray, "N"]
    delta_mean: float
    delta_std: float
    config: RabcConfig

    @property
    def full(self) -> float:
        """Share of frames with weight 1 because delta > kappa."""
        return _share(self.delta > self.config.kappa)

    @property
    def soft(self) -> float:
        """Share of frames on the soft ramp, 0 <= delta <= kappa."""
        return _share((self.delta >= 0) & (self.delta <= self.config.kappa))

    @property
    def zero(self) -> float:
        """Share of frames with weight exactly 0: progress goes backwards, or the soft ramp reaches down to 0."""
        return _share(self.weight == 0)

    @property
    def unknown(self) -> float:
        """Share of frames without a delta: they get `fallback_weight`."""
        return _share(np.isnan(self.delta))

    @property
    def effective(self) -> float:
        """Effective sample size as a share: (sum w)^2 / (N sum w^2)."""
        total, squares = float(self.weight.sum()), float(np.square(self.weight).sum())
        return total * total / (len(self.weight) * squares) if squares > 0 else 0.0


def _share(mask: np.ndarray) -> float:
    return float(mask.mean()) if len(mask) else 0.0


def deltas(
    index: Int[np.ndarray, "N"], episode_index: Int[np.ndarray, "N"], value: Float[np.ndarray, "N"], horizon: int
) -> Float[np.ndarray, "N"]:
    """Eq. 6 for every row, in the order given: value at min(index + horizon, the episode's last index) minus value now, float64.

    Rows may be missing or NaN: their delta, and any delta that looks at them, is NaN. Raises ValueError if an index repeats.
    """
    if not len(index):
        return np.empty(0)
    index, episode_index = np.asarray(index, dtype=np.int64), np.asarray(episode_index)
    if np.all(index[1:] > index[:-1]):
        return _deltas_sorted(index, episode_index, np.asarray(value, dtype=np.float64), horizon)
    order = np.argsort(index, kind="stable")
    if np.any(index[order][1:] == index[order][:-1]):
        raise ValueError("the same index appears twice in the progress file")
    out = np.empty(len(index))
    out[order] = _deltas_sorted(index[order], episode_index[order], np.asarray(value, dtype=np.float64)[order], horizon)
    return out


def _deltas_sorted(index: np.ndarray, episode_index: np.ndarray, value: np.ndarray, horizon: int) -> np.ndarray:
    starts = np.flatnonzero(np.concatenate([[True], episode_index[1:] != episode_index[:-1]]))
    lengths = np.diff(np.append(starts, len(index)))
    last = np.repeat(starts + lengths - 1, lengths)
    if index[-1] - index[0] + 1 == len(index):
        ahead = np.minimum(np.arange(horizon, len(index) + horizon), last)
        return value[ahead] - value
    wanted = np.minimum(index + horizon, index[last])
    place = np.searchsorted(index, wanted)
    return np.where(index[place] == wanted, value[place] - value, np.nan)


def statistics(delta: Float[np.ndarray, "N"], epsilon: float = 1e-6) -> tuple[float, float]:
    """(mu, sigma) of the known deltas: mu clipped at 0 from below, sigma the population standard deviation, at least epsilon."""
    known = delta[~np.isnan(delta)]
    if not len(known):
        return 0.0, epsilon
    return max(float(known.mean()), 0.0), max(float(known.std()), epsilon)


def rabc(delta: Float[np.ndarray, "N"], mean: float, std: float, config: RabcConfig) -> Float[np.ndarray, "N"]:
    """Eqs. 8-9: weight in [0, 1] of each delta, `fallback_weight` where it is NaN. float32."""
    soft = np.clip((delta - (mean - 2 * std)) / (4 * std + config.epsilon), 0.0, 1.0)
    weight = np.where(delta > config.kappa, 1.0, np.where(delta >= 0, soft, 0.0))
    return np.where(np.isnan(delta), config.fallback_weight, weight).astype(np.float32)


def weigh(
    index: Int[np.ndarray, "N"], episode_index: Int[np.ndarray, "N"], value: Float[np.ndarray, "N"], *, config: RabcConfig
) -> Weighed:
    """Weights of every row of a progress file, in the file's order; rows are global indices and need not be complete."""
    delta = deltas(index, episode_index, value, config.chunk_size)
    mean, std = statistics(delta, config.epsilon)
    weight = rabc(delta, mean, std, config)
    return Weighed(np.asarray(index), np.asarray(episode_index), delta, weight, mean, std, config)


def over_episode(weighed: Weighed, bins: int = 20) -> Float[np.ndarray, "bins"]:
    """Mean weight by share of the episode gone by: shows whether the ends of demonstrations are starved. NaN where no frame falls."""
    _, number = np.unique(weighed.episode_index, return_inverse=True)
    first = np.full(number.max() + 1, np.iinfo(np.int64).max)
    last = np.zeros(number.max() + 1, dtype=np.int64)
    np.minimum.at(first, number, weighed.index)
    np.maximum.at(last, number, weighed.index)
    place = (weighed.index - first[number]) / np.maximum(1, last - first)[number]
    which = np.minimum((place * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    total = np.bincount(which, weights=weighed.weight, minlength=bins)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def suggested_kappa(weighed: Weighed) -> float:
    """A kappa that separates: the mean delta of the dataset, so that only frames doing better than average count fully."""
    return round(weighed.delta_mean, 4)


def weighted_mean(loss_B: Any, weight_B: Any, epsilon: float = 1e-6) -> Any:
    """Eq. 7: sum(w l) / (sum(w) + eps). numpy arrays or torch tensors of shape (B,), imports neither; returns a scalar of the same kind.

    >>> float(weighted_mean(np.array([1.0, 3.0]), np.array([1.0, 0.0])).round(3))
    1.0
    """
    return (loss_B * weight_B).sum() / (weight_B.sum() + epsilon)
