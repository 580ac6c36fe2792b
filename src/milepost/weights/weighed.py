"""From a progress file's columns to weights, with what they rest on; and the weighted mean of a loss (eq. 7). Reads no file.

Everything is over the rows given: a filtered episode counts as if it were not there, and what is unknown is in no statistic.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from milepost.core import DataError
from milepost.weights.config import RabcConfig
from milepost.weights.deltas import Rows, row_deltas, row_smoothed, sort_rows
from milepost.weights.rules import OneOrMany, exponential, groups, keep_kappa, quantile_kappa, rabc, statistics, usual_pace


@dataclass(frozen=True, eq=False)
class Weighed:
    """The weights of a dataset and why, in the order of the rows given.

    delta (N,) NaN where unknown. weight (N,) float32. kappa (N,): the threshold of each frame, all alike unless by task or pace.
    delta_mean (at least 0) and delta_std: over the whole dataset, as LeRobot logs them. mean, std (N,): those each frame was judged by.
    known: frames whose progress is known. filtered: episodes that weigh nothing because of max_duration_s or min_final.
    """

    index: Int[np.ndarray, "N"]
    episode_index: Int[np.ndarray, "N"]
    delta: Float[np.ndarray, "N"]
    weight: Float[np.ndarray, "N"]
    kappa: Float[np.ndarray, "N"]
    mean: Float[np.ndarray, "N"]
    std: Float[np.ndarray, "N"]
    delta_mean: float
    delta_std: float
    known: int
    filtered: Int[np.ndarray, "E"]
    config: RabcConfig

    @property
    def full(self) -> float:
        """Share of frames with a known delta that weigh 1 or more."""
        return _share(self.weight[~np.isnan(self.delta)] >= 1, len(self.weight))

    @property
    def soft(self) -> float:
        """Share of frames with a known delta that weigh something, but less than 1."""
        known = self.weight[~np.isnan(self.delta)]
        return _share((known > 0) & (known < 1), len(self.weight))

    @property
    def zero(self) -> float:
        """Share of frames with weight exactly 0."""
        return _share(self.weight == 0, len(self.weight))

    @property
    def unknown(self) -> float:
        """Share of frames without a delta: they get `fallback_weight`."""
        return _share(np.isnan(self.delta), len(self.weight))

    @property
    def effective(self) -> float:
        """Effective sample size as a share: (sum w)^2 / (N sum w^2)."""
        return effective_share(self.weight)

    @property
    def one_kappa(self) -> float | None:
        """The threshold, if it is the same for every frame."""
        return float(self.kappa[0]) if len(self.kappa) and np.all(self.kappa == self.kappa[0]) else None


def _share(mask: np.ndarray, of: int) -> float:
    return float(mask.sum()) / of if of else 0.0


def effective_share(weight: Float[np.ndarray, "N"]) -> float:
    """How many equally weighted frames these are worth, as a share of them: (sum w)^2 / (N sum w^2)."""
    total, squares = float(weight.sum(dtype=np.float64)), float(np.square(weight, dtype=np.float64).sum())
    return total * total / (len(weight) * squares) if squares > 0 else 0.0


def weigh(
    index: Int[np.ndarray, "N"],
    episode_index: Int[np.ndarray, "N"],
    value: Float[np.ndarray, "N"],
    *,
    config: RabcConfig,
    task: Int[np.ndarray, "N"] | None = None,
    fps: float | None = None,
) -> Weighed:
    """Weights of every row of a progress file, in the file's order; rows are global indices and need not be complete.

    task: a number for each row's task, needed by statistics="task". fps: needed by options in seconds. DataError if one of them is
    missing, an index repeats, an episode lies in several pieces, or `kappa_keep` cannot be had.
    """
    if config.statistics == "task" and task is None:
        raise DataError("statistics='task' needs to know each row's task; give the dataset")
    if config.needs_fps and fps is None:
        raise DataError("durations in seconds need the frames per second; give the dataset, or fps")
    if fps is not None and not 0 < fps < np.inf:
        raise DataError(f"frames per second must be above 0, got {fps}")
    if len({len(index), len(episode_index), len(value)}) > 1:
        raise DataError(f"one index, episode and progress a row, got {len(index)}, {len(episode_index)} and {len(value)}")
    if infinite := int(np.isinf(value).sum()):
        raise DataError(f"progress is infinite in {infinite} rows; what is unknown is NaN")
    rows, order = sort_rows(index, episode_index)
    value, number = np.asarray(value, dtype=np.float64), None if config.statistics == "dataset" else np.asarray(task)
    if order is not None:
        value, number = value[order], None if number is None else number[order]
    if config.smooth:
        value = row_smoothed(rows, value, config.smooth)
    filtered = _filtered(rows, value, config, fps)
    out = np.repeat(np.isin(rows.episode[rows.start], filtered), rows.lengths) if len(filtered) else None
    delta = row_deltas(rows, value, config.chunk_size, config.end)
    heard = delta if out is None else np.where(out, np.nan, delta)
    basis = _basis(heard, value, config, number=number, fps=fps)
    weight = _weights(delta, basis, config, out)
    columns = {"delta": delta, "weight": weight} | {name: _spread(getattr(basis, name), len(delta)) for name in ("kappa", "mean", "std")}
    if order is not None:
        back = np.argsort(order, kind="stable")
        columns = {name: column[back] for name, column in columns.items()}
    mean, std = statistics(heard, config.epsilon)
    known = len(value) - int(np.isnan(value).sum())
    return Weighed(
        np.asarray(index),
        np.asarray(episode_index),
        delta_mean=mean,
        delta_std=std,
        known=known,
        filtered=filtered,
        config=config,
        **columns,
    )


def reweigh(weighed: Weighed, kappa: OneOrMany) -> Weighed:
    """The same deltas by another threshold, one or one a frame: what a sweep of kappa needs."""
    out = np.isin(weighed.episode_index, weighed.filtered) if len(weighed.filtered) else None
    basis = _Basis(weighed.mean, weighed.std, kappa)
    weight = _weights(weighed.delta, basis, weighed.config, out)
    return dataclasses.replace(weighed, weight=weight, kappa=_spread(kappa, len(weight)))


@dataclass(frozen=True, eq=False)
class _Basis:
    """What deltas are judged by, each one number or one a frame."""

    mean: OneOrMany
    std: OneOrMany
    kappa: OneOrMany


def _spread(number: OneOrMany, length: int) -> Float[np.ndarray, "N"]:
    return number if isinstance(number, np.ndarray) else np.broadcast_to(np.float64(number), length)


def _basis(delta: np.ndarray, value: np.ndarray, config: RabcConfig, *, number: np.ndarray | None, fps: float | None) -> _Basis:
    """Over all rows, or each task by itself. Deltas of filtered episodes come as NaN."""
    if number is None:
        return _own_basis(delta, value, config, fps)
    mean, std, kappa = (np.empty(len(delta)) for _ in range(3))
    for rows in groups(number):
        own = _own_basis(delta[rows], value[rows], config, fps)
        mean[rows], std[rows], kappa[rows] = own.mean, own.std, own.kappa
    return _Basis(mean, std, kappa)


def _own_basis(delta: np.ndarray, value: np.ndarray, config: RabcConfig, fps: float | None) -> _Basis:
    mean, std = statistics(delta, config.epsilon)
    if config.rule == "awr":
        known = delta[~np.isnan(delta)]
        return _Basis(float(known.mean()) if config.awr_centre and len(known) else 0.0, std, config.kappa)
    if config.kappa_duration_s is not None:
        return _Basis(mean, std, config.chunk_size / (float(fps or 0) * config.kappa_duration_s))
    if config.kappa_quantile is not None:
        return _Basis(mean, std, quantile_kappa(delta, config.kappa_quantile))
    if config.kappa_keep is not None:
        return _Basis(mean, std, keep_kappa(delta, mean, std, config))
    if config.kappa_pace is not None:
        return _Basis(mean, std, config.kappa_pace * usual_pace(delta, value))
    return _Basis(mean, std, config.kappa)


def _weights(delta: np.ndarray, basis: _Basis, config: RabcConfig, out: np.ndarray | None) -> np.ndarray:
    """The rule, then floor, fallback and filters, each stronger than the one before."""
    if config.rule == "uniform":
        weight = np.where(np.isnan(delta), np.float32(config.fallback_weight), np.float32(1))
    elif config.rule == "awr":
        weight = exponential(delta, basis.mean, config)
    else:
        weight = rabc(delta, basis.mean, basis.std, config, basis.kappa)
    if config.floor:
        weight = np.where(np.isnan(delta), weight, np.maximum(weight, np.float32(config.floor)))
    if out is not None:
        weight[out] = 0.0
    return weight


def _filtered(rows: Rows, value: np.ndarray, config: RabcConfig, fps: float | None) -> Int[np.ndarray, "E"]:
    """Numbers of the episodes that are too long or end too low. One without any known progress is not judged by its end."""
    wrong = np.zeros(len(rows.start), dtype=bool)
    if config.max_duration_s is not None:
        wrong |= rows.frames / float(fps or 1) > config.max_duration_s
    if config.min_final is not None and len(wrong):
        places = np.where(np.isnan(value), -1, np.arange(len(value)))
        final = np.maximum.reduceat(places, rows.start)
        wrong |= (final >= 0) & (value[final] < config.min_final)
    return rows.episode[rows.start][wrong]


def places(weighed: Weighed) -> Float[np.ndarray, "N"]:
    """Where in its episode each frame is, 0 for the first row and 1 for the last."""
    rows, order = sort_rows(weighed.index, weighed.episode_index)
    place = (rows.index - rows.index[rows.first]) / np.repeat(np.maximum(1, rows.frames - 1), rows.lengths)
    return place if order is None else place[np.argsort(order, kind="stable")]


def over_episode(weighed: Weighed, bins: int = 20) -> Float[np.ndarray, "bins"]:
    """Mean weight by share of the episode gone by: shows whether the ends of demonstrations are starved. NaN where no frame falls."""
    which = np.minimum((places(weighed) * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    total = np.bincount(which, weights=weighed.weight, minlength=bins)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def suggested_kappa(weighed: Weighed) -> float:
    """A kappa that separates: the mean delta of the dataset, so that only frames doing better than average count fully."""
    return round(weighed.delta_mean, 4)


def weighted_mean(loss_B: Any, weight_B: Any, epsilon: float = 1e-6, *, mean_weight: float | None = None) -> Any:
    """Eq. 7: sum(w l) / (sum(w) + eps). numpy arrays or torch tensors of shape (B,), imports neither; returns a scalar of the same kind.

    A batch that weighs nothing gives 0 and no gradient. With `mean_weight`, the dataset's, the batch's own sum is replaced by what a
    batch of its size weighs on average: a poor batch then counts less than a good one, and the mean over small batches, accumulated
    steps or several processes is that of one large batch. ValueError if loss and weight differ in shape.

    >>> float(weighted_mean(np.array([1.0, 3.0]), np.array([1.0, 0.0])).round(3))
    1.0
    """
    if loss_B.shape != weight_B.shape:
        raise ValueError(
            f"one loss and one weight a sample, both (B,), got {tuple(loss_B.shape)} and {tuple(weight_B.shape)}; average the loss over "
            "everything but the batch first"
        )
    total = weight_B.sum() if mean_weight is None else mean_weight * len(weight_B)
    return (loss_B * weight_B).sum() / (total + epsilon)
