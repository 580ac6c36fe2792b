"""Advantage labels from a progress curve: which frames were followed by more progress than usual (RECAP, pi*0.6, arXiv 2511.14759).

Progress p in [0, 1] is read as a value V = p - 1. With a reward of -1 / D for every frame before the last one, V is the return of a policy
that needs D frames more after the first, where D is the median of the task's successful episodes. So an advantage is in tasks: 0.1 is a
tenth of the task more than the time that passed would bring. numpy only; it refuses what would be one label for all frames of a task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from milepost.core import DataError

Outcome = bool | None
LISTED = 9
"""Tasks that a message names."""
_DIGITS = 6
"""Decimals of an advantage. Progress is float32: without rounding, the curve of a clock would be labelled by its rounding errors."""


@dataclass(frozen=True)
class AdvantageConfig:
    """How progress becomes labels.

    horizon: the number of frames N that an advantage looks ahead; None: to the end of the episode. positive: the proportion of each task's
    frames that becomes positive. failure: the value at the end of a failed episode, in tasks; -1 is as far from success as at the start.
    per_task: whether each task has its own threshold. ValueError for numbers outside their range.
    """

    horizon: int | None = 50
    positive: float = 0.3
    failure: float = -1.0
    per_task: bool = True

    def __post_init__(self) -> None:
        if self.horizon is not None and self.horizon < 1:
            raise ValueError(f"--horizon must be at least 1 frame, got {self.horizon}")
        if not 0 < self.positive < 1:
            raise ValueError(f"--positive must be above 0 and below 1, got {self.positive:g}")
        if not -np.inf < self.failure <= 0:
            raise ValueError(f"--failure must be 0 or less, got {self.failure:g}")


CONVENTIONS: Mapping[str, float] = {"rlinf": 0.3, "lerobot": 0.7}
"""Name of a consumer -> the proportion of frames that it makes positive: RLinf's top 30 %, the top 70 % of LeRobot's pull request 3764."""


@dataclass(frozen=True, eq=False)
class EpisodeProgress:
    """One episode's progress (T,) in [0, 1], NaN where unknown. success: None counts as a success, as LeRobot counts it.

    intervention: (T,) whether a person acted in the frame, which makes it positive; None: nobody did.
    """

    episode: int
    task: str
    progress: Float[np.ndarray, "T"]
    success: Outcome = None
    intervention: Bool[np.ndarray, "T"] | None = None

    @property
    def has_failed(self) -> bool:
        """Tells whether the episode is known to have failed."""
        return self.success is False


@dataclass(frozen=True, eq=False)
class EpisodeLabels:
    """One episode's labels. advantage: (T,) in tasks, NaN where progress is unknown. returns: (T,) in tasks. is_positive: (T,)."""

    episode: int
    advantage: Float[np.ndarray, "T"]
    returns: Float[np.ndarray, "T"]
    is_positive: Bool[np.ndarray, "T"]


@dataclass(frozen=True, eq=False)
class AdvantageLabels:
    """The labels of a dataset. episodes: in the order of what they were made from. thresholds: task -> the advantage from which a frame is
    positive; "" for all tasks. durations: task -> D, the median of its successful episodes, in frames after the first.
    """

    episodes: Sequence[EpisodeLabels]
    thresholds: Mapping[str, float]
    durations: Mapping[str, float]
    config: AdvantageConfig


def label_advantages(episodes: Sequence[EpisodeProgress], config: AdvantageConfig | None = None) -> AdvantageLabels:
    """Returns the labels of all episodes.

    A frame is positive if its advantage is at least the threshold: the quantile 1 - `positive` of the known advantages of its task, without
    the frames in which a person intervened. Those are positive. Frames of unknown progress are negative. DataError if a task has no success
    or no known advantage, or if all its frames would have one label.
    """
    config = config or AdvantageConfig()
    durations = _durations(episodes)
    advantage = [_advantage_of(each, durations[each.task], config) for each in episodes]
    groups = [each.task if config.per_task else "" for each in episodes]
    thresholds = _thresholds(episodes, advantage, groups, config)
    labels = []
    for each, values, group in zip(episodes, advantage, groups, strict=True):
        is_positive = np.nan_to_num(values, nan=-np.inf) >= thresholds[group]
        if each.intervention is not None:
            is_positive |= each.intervention
        end = config.failure if each.has_failed else 0.0
        labels.append(EpisodeLabels(each.episode, values, returns_of(len(values), end, durations[each.task]), is_positive))
    return AdvantageLabels(labels, thresholds, durations, config)


def advantages(value: Float[np.ndarray, "T"], end: float, duration: float, horizon: int | None) -> Float[np.ndarray, "T"]:
    """Returns the advantage of each frame in tasks, A_t = r_t + ... + r_{t+N-1} + V_{t+N} - V_t, with r = -1 / duration.

    value: (T,) V in tasks, NaN where unknown. end: the return of the last frame, 0 for a success. horizon: N in frames. Where t + N is
    behind the last frame, or N is None, it is the return of the frame minus V_t (source: LeRobot's pull request 3764). NaN where V_t or
    V_{t+N} is. Rounded to 1e-6.

    >>> advantages(np.array([-1.0, -0.5, -0.25]), 0.0, 2.0, 1).tolist()
    [0.0, -0.25, 0.25]
    """
    length = len(value)
    left = length - 1 - np.arange(length)
    is_whole = np.full(length, False) if horizon is None else horizon <= left
    steps = np.where(is_whole, horizon or 0, left)
    ahead = np.where(is_whole, value[np.arange(length) + steps], end)
    return np.round(ahead - value - steps / duration, _DIGITS)


def returns_of(length: int, end: float, duration: float) -> Float[np.ndarray, "T"]:
    """Returns the return of each frame in tasks: (t - (T - 1)) / duration + end.

    >>> returns_of(3, 0.0, 2.0).tolist()
    [-1.0, -0.5, 0.0]
    """
    return (np.arange(length) - (length - 1)) / duration + end


def _advantage_of(each: EpisodeProgress, duration: float, config: AdvantageConfig) -> Float[np.ndarray, "T"]:
    return advantages(each.progress.astype(np.float64) - 1, config.failure if each.has_failed else 0.0, duration, config.horizon)


def _durations(episodes: Sequence[EpisodeProgress]) -> dict[str, float]:
    """Returns task -> the median of the episodes that succeeded, or may have, in frames after the first, at least 1."""
    lengths: dict[str, list[int]] = {each.task: [] for each in episodes}
    if unsolved := unsolved_tasks(episodes):
        names = _listed(list(map(repr, unsolved)))
        which = f"the task {names} has" if len(unsolved) == 1 else f"{len(unsolved)} of {len(lengths)} tasks ({names}) have"
        raise DataError(
            f"{which} no successful episode, so nobody knows how long it takes; record one, leave such tasks without labels with "
            "--skip-unsolved, or choose other episodes with --episodes"
        )
    for each in episodes:
        if not each.has_failed:
            lengths[each.task].append(len(each.progress) - 1)
    return {task: max(1.0, float(np.median(of_task))) for task, of_task in lengths.items()}


def unlabelled(each: EpisodeProgress) -> EpisodeLabels:
    """Returns the labels of an episode that gets none: every frame is negative, the advantage and the return are unknown."""
    unknown = np.full(len(each.progress), np.nan)
    return EpisodeLabels(each.episode, unknown, unknown, np.zeros(len(each.progress), bool))


def unsolved_tasks(episodes: Sequence[EpisodeProgress]) -> list[str]:
    """Returns the tasks of which every episode has failed, in the order of their first episodes."""
    solved = {each.task for each in episodes if not each.has_failed}
    return list(dict.fromkeys(each.task for each in episodes if each.task not in solved))


def _thresholds(
    episodes: Sequence[EpisodeProgress],
    advantage: Sequence[Float[np.ndarray, "_"]],
    groups: Sequence[str],
    config: AdvantageConfig,
) -> dict[str, float]:
    """Returns each group's threshold. DataError that names every group that has none."""
    thresholds, refusals = {}, {}
    for group in dict.fromkeys(groups):
        try:
            thresholds[group] = _threshold(group, episodes, advantage, groups, config)
        except DataError as error:
            refusals[group] = str(error)
    if not refusals:
        return thresholds
    first = next(iter(refusals.values()))
    rest = list(map(repr, refusals))[1:]
    more = f" The same or alike is so of {_listed(rest)}." if rest else ""
    is_one_of_many = len(set(groups)) > 1
    together = " One threshold for all tasks together (--no-per-task) may divide their frames." if is_one_of_many else ""
    raise DataError(f"{first}{'.' if more or together else ''}{more}{together}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def _threshold(
    group: str,
    episodes: Sequence[EpisodeProgress],
    advantage: Sequence[Float[np.ndarray, "_"]],
    groups: Sequence[str],
    config: AdvantageConfig,
) -> float:
    """Returns the threshold of a group of episodes. DataError if no advantage is known, or if it would not divide them."""
    of_group = f" of the task {group!r}" if group else ""
    here = [each for each, name in zip(episodes, groups, strict=True) if name == group]
    parts = [
        values if each.intervention is None else values[~each.intervention]
        for each, values, name in zip(episodes, advantage, groups, strict=True)
        if name == group
    ]
    values = np.concatenate(parts)
    values = values[~np.isnan(values)]
    if not len(values) and all(each.intervention is not None and each.intervention.all() for each in here):
        raise DataError(
            f"every frame{of_group} is an intervention, so there is nothing to divide: leave these episodes out with --episodes"
        )
    if not len(values):
        raise DataError(f"no frame{of_group} has a known advantage; label the dataset again with milepost label")
    threshold = round(float(np.quantile(values, 1 - config.positive)), _DIGITS)
    if values.min() == values.max():
        raise DataError(
            f"every frame{of_group} has the same advantage ({values.min():g}), so no --positive divides them: choose another --horizon, or "
            "look at the curves with milepost plot"
        )
    if threshold <= values.min():
        above = float((values > values.min()).mean())
        raise DataError(
            f"every frame{of_group} would be positive, because {1 - above:.0%} of them have the lowest advantage ({values.min():g}): "
            f"choose a smaller --positive, below {above:.2g}, or look at the curves with milepost plot"
        )
    if threshold > values.max():  # rounding up
        threshold = float(values.max())
    return threshold
