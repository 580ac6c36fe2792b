"""Who became positive: advantage labels by task, outcome and part of the episode, and how much of them a clock would have made.

It has no opinion: the thresholds from which something is said are in the verb `advantage`. numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

from milepost.metrics import beside_time
from milepost.weights.advantage import EpisodeLabels, EpisodeProgress


@dataclass(frozen=True)
class PositiveGroup:
    """Frames of one kind. name: the task, the outcome, or the part of the episode. positive: the proportion of them that is positive."""

    name: str
    frames: int
    positive: float


def by_group(labels: Sequence[EpisodeLabels], names: Sequence[str | Int[np.ndarray, "_"]]) -> list[PositiveGroup]:
    """Returns the proportion of positive frames by group. names: each episode's group, or the number of each frame's."""
    parts: dict[str, list[np.ndarray]] = {}
    for each, name in zip(labels, names, strict=True):
        if isinstance(name, str):
            parts.setdefault(name, []).append(each.is_positive)
            continue
        for group in np.unique(name):
            parts.setdefault(str(group), []).append(each.is_positive[name == group])
    return [PositiveGroup(name, sum(map(len, of_group)), float(np.concatenate(of_group).mean())) for name, of_group in parts.items()]


def tenths(length: int) -> Int[np.ndarray, "T"]:
    """Returns the tenth of the episode that each frame lies in, 0 to 9."""
    return np.arange(length) * 10 // max(1, length)


def between_episodes(labels: Sequence[EpisodeLabels]) -> float:
    """Returns the part of the labels' variance that lies between episodes: 1 if all frames of an episode have one label.

    A clock has the same advantage in nearly every frame of an episode, so its labels choose episodes by their length. NaN for one label.
    """
    values = np.concatenate([each.is_positive for each in labels]).astype(float)
    means = np.concatenate([np.full(len(each.is_positive), each.is_positive.mean()) for each in labels])
    variance = float(values.var())
    return float(means.var() / variance) if variance > 0 else float("nan")


def explained_by_time(episodes: Sequence[EpisodeProgress]) -> float:
    """Returns the R^2 of progress by the time over the successful episodes: 1 for a clock of whatever shape.

    The prediction of a curve is the mean of the task's other curves at the same time, counted as the elapsed part of the episode or in
    frames; the larger R^2 of the two is returned. It is below 0 where time says nothing, and NaN where no task has two successes.
    """
    rows: dict[str, list[np.ndarray]] = {}
    for task in dict.fromkeys(each.task for each in episodes):
        curves = [each.progress.astype(np.float64) for each in episodes if each.task == task and not each.has_failed]
        for counted, of_task in beside_time(curves).items():
            rows.setdefault(counted, []).append(of_task[~np.isnan(of_task).any(axis=1)])
    r2 = [1 - table[:, 0].sum() / table[:, 1].sum() for table in map(np.concatenate, rows.values()) if table[:, 1].sum() > 0]
    return float(max(r2, default=float("nan")))


def agreement(one: Sequence[EpisodeLabels], other: Sequence[EpisodeLabels]) -> dict[Literal["same", "kappa"], float]:
    """Returns how far two models agree about the same episodes: the proportion of frames with one label, and Cohen's kappa."""
    a, b = (np.concatenate([each.is_positive for each in labels]) for labels in (one, other))
    same = float((a == b).mean())
    chance = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    return {"same": same, "kappa": (same - chance) / (1 - chance) if chance < 1 else float("nan")}
