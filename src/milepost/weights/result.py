"""Progress columns -> sample weights and the statistics behind them; and the weighted mean of a loss (eq. 7). It reads no file.

Statistics are over the rows of the call. A filtered episode and an unknown value are in no statistic.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from milepost.core import Brief, DataError, count_noun, ranges_to_type, shortlist, warn_user
from milepost.weights.config import RabcConfig
from milepost.weights.deltas import SortedRows, row_deltas, row_smoothed, sort_rows
from milepost.weights.rules import OneOrMany, groups, rabc, statistics, usual_pace


@dataclass(frozen=True, eq=False, repr=False)
class WeightResult(Brief):
    """The weights of a dataset and their statistics, in the caller's order of rows.

    delta (N,): NaN where unknown. weight (N,): float32. kappa (N,): the threshold of each frame; all are equal unless it is by task or
    pace. delta_mean (at least 0) and delta_std: over the whole dataset, as LeRobot logs them. mean, std (N,): those used for each frame.
    known_frames: the number of frames whose progress is known. filtered: episodes of weight 0 because of max_duration_s or min_final.
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
    known_frames: int
    filtered: Int[np.ndarray, "E"]
    config: RabcConfig

    @property
    def full(self) -> float:
        """Returns the proportion of frames with a known delta and a weight of 1 or more."""
        return _proportion(self.weight[~np.isnan(self.delta)] >= 1, len(self.weight))

    @property
    def soft(self) -> float:
        """Returns the proportion of frames with a known delta and a weight between 0 and 1."""
        weight = self.weight[~np.isnan(self.delta)]
        return _proportion((weight > 0) & (weight < 1), len(self.weight))

    @property
    def zero(self) -> float:
        """Returns the proportion of frames with weight exactly 0."""
        return _proportion(self.weight == 0, len(self.weight))

    @property
    def unknown(self) -> float:
        """Returns the proportion of frames without a delta: they get `fallback_weight`."""
        return _proportion(np.isnan(self.delta), len(self.weight))

    @cached_property
    def is_unknown(self) -> Bool[np.ndarray, "N"]:
        """Returns which frames have no delta, so that they get `fallback_weight`."""
        without = np.isnan(self.delta)
        return without & ~np.isin(self.episode_index, self.filtered) if len(self.filtered) and without.any() else without

    @cached_property
    def unknown_episodes(self) -> Int[np.ndarray, "E"]:
        """Returns the episodes of which no frame has a delta, such as one that could not be read."""
        without = self.is_unknown
        if not without.any():
            return np.empty(0, np.int64)
        return np.setdiff1d(self.episode_index[without], self.episode_index[~without])

    @property
    def effective(self) -> float:
        """Returns the effective sample size as a proportion: (sum w)^2 / (N sum w^2)."""
        return effective_proportion(self.weight)

    @property
    def one_kappa(self) -> float | None:
        """Returns the threshold if it is the same for every frame, else None."""
        return float(self.kappa[0]) if len(self.kappa) and np.all(self.kappa == self.kappa[0]) else None


def _proportion(mask: np.ndarray, total: int) -> float:
    return float(mask.sum()) / total if total else 0.0


def effective_proportion(weight: Float[np.ndarray, "N"]) -> float:
    """Returns the effective sample size (Kish) as a proportion of the sample: (sum w)^2 / (N sum w^2)."""
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
) -> WeightResult:
    """Computes the weight of every row of a progress file, in the file's order; rows are global indices and may be incomplete.

    task: a number for each row's task, needed by statistics="task". fps: needed by options in seconds. DataError if one of them is
    missing, an index repeats, or an episode lies in several pieces. A DataWarning names the episodes of which no frame has a delta, if
    they weigh anything.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> table = milepost.read_progress("dots/elapsed_progress.parquet")
    >>> result = milepost.weigh(table.index, table.episode_index, table.values("sparse"), config=milepost.RabcConfig(chunk_size=5))
    >>> result.weight.shape, result.unknown
    ((171,), 0.0)
    """
    if config.statistics == "task" and task is None:
        raise DataError("statistics='task' needs to know each row's task; give the dataset")
    if config.needs_fps and fps is None:
        raise DataError("durations in seconds need the frames per second; give the dataset, or fps")
    if fps is not None and not 0 < fps < np.inf:
        raise DataError(f"frames per second must be above 0, got {fps}")
    if len({len(index), len(episode_index), len(value)}) > 1:
        raise DataError(f"one index, episode and progress a row, got {len(index)}, {len(episode_index)} and {len(value)}")
    result = _computed(np.asarray(index), np.asarray(episode_index), np.asarray(value), config, task, fps)
    if config.fallback_weight and (words := in_words_unknown(result)):
        warn_user(words)
    return result


def in_words_unknown(result: WeightResult, leave_out: str = "") -> str:
    """Returns a warning that names the episodes of which no frame has a delta, what they weigh, and what to do; "" if there is none.

    leave_out: the command that makes a dataset without them.
    """
    numbers, weight = result.unknown_episodes, result.config.fallback_weight
    if not len(numbers):
        return ""
    some, those = shortlist(numbers.tolist()), ranges_to_type(numbers.tolist())
    words = f"no frame of {count_noun(len(numbers), 'episode')} has a delta, because the progress is unknown there: {some}. "
    if not weight:
        return f"{words}Each frame of them weighs 0"
    others = result.weight[~np.isin(result.episode_index, numbers)]
    mean = f". Without them the mean weight is {others.mean(dtype=np.float64):.2f}" if len(others) else ""
    leave_out = leave_out or f"milepost copy --without {those} (of LeRobot v2.0 or v2.1: milepost import --without {those})"
    return (
        f"{words}Each frame of them weighs {weight:g}{', as much as the best frames' if weight == 1 else ''}. Give them no weight with "
        f"--fallback-weight 0 (in Python fallback_weight=0), or make a dataset without them with {leave_out}{mean}"
    )


def _computed(
    index: np.ndarray, episode_index: np.ndarray, value: np.ndarray, config: RabcConfig, task: np.ndarray | None, fps: float | None
) -> WeightResult:
    """Computes as `weigh`, which has checked the arguments."""
    _require_progress(value)
    rows, order = sort_rows(index, episode_index)
    value, tasks = value.astype(np.float64), None if config.statistics == "dataset" else np.asarray(task)
    if order is not None:
        value, tasks = value[order], None if tasks is None else tasks[order]
    if config.smooth:
        value = row_smoothed(rows, value, config.smooth)
    filtered = _filtered(rows, value, config, fps)
    dropped = np.repeat(np.isin(rows.episode[rows.start], filtered), rows.lengths) if len(filtered) else None
    delta = row_deltas(rows, value, config.chunk_size, config.end)
    unfiltered = delta if dropped is None else np.where(dropped, np.nan, delta)
    basis = _basis(unfiltered, value, config, number=tasks, fps=fps)
    weight = _weights(delta, basis, config, dropped)
    columns = {"delta": delta, "weight": weight} | {name: _spread(getattr(basis, name), len(delta)) for name in ("kappa", "mean", "std")}
    if order is not None:
        back = np.argsort(order, kind="stable")
        columns = {name: column[back] for name, column in columns.items()}
    mean, std = statistics(unfiltered, config.epsilon)
    count = len(value) - int(np.isnan(value).sum())
    return WeightResult(
        index,
        episode_index,
        delta_mean=mean,
        delta_std=std,
        known_frames=count,
        filtered=filtered,
        config=config,
        **columns,
    )


def _require_progress(value: np.ndarray) -> None:
    """Raises DataError unless every value is progress, from 0 to 1, or NaN."""
    if infinite := int(np.isinf(value).sum()):
        raise DataError(f"progress is infinite in {infinite} rows; what is unknown is NaN")
    outside = ~(np.isnan(value) | ((value >= 0) & (value <= 1)))
    if outside.any():
        raise DataError(f"progress is from 0 to 1, or NaN; {int(outside.sum())} rows are not, the first is {value[outside][0]:g}")


def reweigh(result: WeightResult, kappa: OneOrMany) -> WeightResult:
    """Returns the weights of the same deltas by another threshold, one number or one per frame, as a sweep of kappa needs."""
    dropped = np.isin(result.episode_index, result.filtered) if len(result.filtered) else None
    basis = _Basis(result.mean, result.std, kappa)
    weight = _weights(result.delta, basis, result.config, dropped)
    return dataclasses.replace(result, weight=weight, kappa=_spread(kappa, len(weight)))


@dataclass(frozen=True, eq=False)
class _Basis:
    """The statistics that turn deltas into weights, each one number or one per frame."""

    mean: OneOrMany
    std: OneOrMany
    kappa: OneOrMany


def _spread(number: OneOrMany, length: int) -> Float[np.ndarray, "N"]:
    return number if isinstance(number, np.ndarray) else np.broadcast_to(np.float64(number), length)


def _basis(delta: np.ndarray, value: np.ndarray, config: RabcConfig, *, number: np.ndarray | None, fps: float | None) -> _Basis:
    """Returns the statistics over all rows, or by task. The deltas of filtered episodes must be NaN."""
    if number is None:
        return _own_basis(delta, value, config, fps)
    mean, std, kappa = (np.empty(len(delta)) for _ in range(3))
    for rows in groups(number):
        own = _own_basis(delta[rows], value[rows], config, fps)
        mean[rows], std[rows], kappa[rows] = own.mean, own.std, own.kappa
    return _Basis(mean, std, kappa)


def _own_basis(delta: np.ndarray, value: np.ndarray, config: RabcConfig, fps: float | None) -> _Basis:
    mean, std = statistics(delta, config.epsilon)
    if config.kappa_duration_s is not None:
        return _Basis(mean, std, config.chunk_size / (float(fps or 0) * config.kappa_duration_s))
    if config.kappa_pace is not None:
        return _Basis(mean, std, config.kappa_pace * usual_pace(delta, value))
    return _Basis(mean, std, config.kappa)


def _weights(delta: np.ndarray, basis: _Basis, config: RabcConfig, dropped: np.ndarray | None) -> np.ndarray:
    """Applies the rule, then floor, fallback and filters; each overrides the ones before."""
    if config.rule == "uniform":
        weight = np.where(np.isnan(delta), np.float32(config.fallback_weight), np.float32(1))
    else:
        weight = rabc(delta, basis.mean, basis.std, config, basis.kappa)
    if config.floor:
        weight = np.where(np.isnan(delta), weight, np.maximum(weight, np.float32(config.floor)))
    if dropped is not None:
        weight[dropped] = 0.0
    return weight


def _filtered(rows: SortedRows, value: np.ndarray, config: RabcConfig, fps: float | None) -> Int[np.ndarray, "E"]:
    """Returns the indices of episodes that take too long or end too low. An episode without any known progress is not judged by its end."""
    wrong = np.zeros(len(rows.start), dtype=bool)
    if config.max_duration_s is not None:
        wrong |= rows.frames / float(fps or 1) > config.max_duration_s
    if config.min_final is not None and len(wrong):
        places = np.where(np.isnan(value), -1, np.arange(len(value)))
        final = np.maximum.reduceat(places, rows.start)
        wrong |= (final >= 0) & (value[final] < config.min_final)
    return rows.episode[rows.start][wrong]


def places(result: WeightResult) -> Float[np.ndarray, "N"]:
    """Returns the position of each frame in its episode: 0 for the first row, 1 for the last."""
    rows, order = sort_rows(result.index, result.episode_index)
    place = (rows.index - rows.index[rows.first]) / np.repeat(np.maximum(1, rows.frames - 1), rows.lengths)
    return place if order is None else place[np.argsort(order, kind="stable")]


def over_episode(result: WeightResult, bins: int = 20) -> Float[np.ndarray, "bins"]:
    """Returns the mean weight by position in the episode, in bins; it shows whether the ends of demonstrations get low weights. NaN where
    no frame falls."""
    place = np.minimum((places(result) * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    total = np.bincount(place, weights=result.weight, minlength=bins)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def suggested_kappa(result: WeightResult) -> float:
    """Returns a kappa that separates: the mean delta of the dataset, so that only frames better than average get weight 1."""
    return round(result.delta_mean, 4)


def weighted_mean(loss_B: Any, weight_B: Any, epsilon: float = 1e-6, *, mean_weight: float | None = None) -> Any:
    """Computes eq. 7: sum(w l) / (sum(w) + eps), for numpy arrays or torch tensors of shape (B,). It imports neither and returns a scalar
    of the same kind.

    A batch that weighs nothing gives 0 and no gradient. With `mean_weight`, the dataset's, the batch's own sum is replaced by what a
    batch of its size weighs on average: a poor batch then counts less than a good one, and the mean over small batches, accumulated
    steps or several processes is that of one large batch. ValueError if loss and weight differ in shape.

    >>> import numpy as np
    >>> float(milepost.weighted_mean(np.array([1.0, 3.0]), np.array([1.0, 0.0])).round(3))
    1.0
    """
    if loss_B.shape != weight_B.shape:
        raise ValueError(
            f"one loss and one weight a sample, both (B,), got {tuple(loss_B.shape)} and {tuple(weight_B.shape)}; average the loss over "
            "everything but the batch first"
        )
    total = weight_B.sum() if mean_weight is None else mean_weight * len(weight_B)
    return (loss_B * weight_B).sum() / (total + epsilon)
