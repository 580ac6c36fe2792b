"""What a value model is: sizes, window, bins, the scale of each task, statistics. Plain values, all of them in the model's config.json."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from milepost.core import refuses_unknown_options
from milepost.models.windowed.config import WindowedConfig

Reduction = Literal["mean", "min"]
Normalise = Literal["task", "lerobot"]
Target = Literal["two_hot", "hl_gauss"]
LEROBOT_FAILURE_FRAMES = 50
"""C of LeRobot's pull request 3764, in frames."""


@refuses_unknown_options()
@dataclass(frozen=True)
class ValueConfig(WindowedConfig):
    """An ensemble of small networks on cached features, each of which predicts a distribution over the return of a frame.

    >>> milepost.make_reward_model_config("value", members=5).bins
    201
    """

    TYPE = "value"
    NAME = "value"

    bins: int = 201
    """Bins of the distribution, evenly over the returns from -1 to 0."""
    target: Target = "hl_gauss"
    """hl_gauss: a normal distribution around the return. two_hot: the two bins around it."""
    sigma_bins: float = 3.0
    """Standard deviation of the hl_gauss target, in bins."""
    reduction: Reduction = "mean"
    """The members' answer: their mean, or the lowest one (worst of M)."""
    normalise: Normalise = "task"
    """task: by the longest success of the task; a failure is -1. lerobot: by the longest episode of the task and C, as LeRobot does."""
    failure_frames: int | None = None
    """C, the frames that a failure counts more. None: so many that a failure is -1 throughout ("task"), or 50 ("lerobot")."""
    scales: tuple[float, ...] = ()
    """Frames that a return of -1 is, by task."""
    durations: tuple[float, ...] = ()
    """The median success of each task, in frames after the first: how long the task takes."""
    fps: float = 0.0
    """Frames per second of the training episodes, which scales and durations count in."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 3 <= self.bins <= 10_001:
            raise ValueError(f"bins must lie in [3, 10001], got {self.bins}")
        if self.failure_frames is not None and self.failure_frames < 0:
            raise ValueError(f"failure_frames must be at least 0, got {self.failure_frames}")
        if not 0 < self.sigma_bins < math.inf:
            raise ValueError(f"sigma_bins must be above 0 and finite, got {self.sigma_bins}")
        if len({len(self.tasks), len(self.scales), len(self.durations)}) != 1:
            raise ValueError("tasks, scales and durations need as many entries")
        if any(not 0 < number < math.inf for number in (*self.scales, *self.durations)):
            raise ValueError(f"scales and durations are above 0 and finite, got {self.scales} and {self.durations}")

    def penalty(self, scale: float) -> float:
        """Returns C in frames for a task of this scale."""
        if self.failure_frames is not None:
            return float(self.failure_frames)
        return scale if self.normalise == "task" else float(LEROBOT_FAILURE_FRAMES)

    @property
    def knows_success(self) -> bool:
        """Returns whether the returns of failures and successes lie apart, so that there is a probability of success."""
        return self.normalise == "task" and all(self.penalty(scale) >= scale for scale in self.scales)

    def pace(self, task: str) -> tuple[float, float]:
        """Returns (scale, duration) of a task in frames; of one that it did not learn from, the medians of all."""
        if task in self.tasks:
            place = self.tasks.index(task)
            return self.scales[place], self.durations[place]
        return (float(np.median(self.scales)), float(np.median(self.durations))) if self.scales else (1.0, 1.0)
