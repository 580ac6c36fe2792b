"""What a success head is: sizes, window, where its labels came from, the rule by which an attempt counts as done. Plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from milepost.core import refuses_unknown_options
from milepost.metrics import SuccessRule
from milepost.models.windowed.config import WindowedConfig

Labels = Literal["auto", "next.success", "outcome"]


@refuses_unknown_options()
@dataclass(frozen=True)
class SuccessConfig(WindowedConfig):
    """A few small networks on cached features, each of which predicts whether the task is done at a frame.

    >>> milepost.make_reward_model_config("success", hold=5).success_threshold
    0.5
    """

    TYPE = "success"
    NAME = "success"

    success_labels: Labels = "auto"
    """What a frame's label is taken from. A trained model has "next.success" or "outcome"."""
    positive_s: float = 0.3
    """With "outcome": the last seconds of a success that are positive. As many before them are not learnt from."""
    without_state: bool = False
    """It looks at images and instruction alone."""
    success_threshold: float = 0.5
    """The probability from which an attempt counts as done."""
    threshold_interval: tuple[float, ...] = ()
    """The 95 % interval of the fitted one, (low, high); empty if none was fitted."""
    release: float = 0.5
    """The share of the threshold below which an attempt that counts as done does so no more."""
    hold: int = 3
    """Frames in a row that must reach the threshold."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.positive_s < math.inf:
            raise ValueError(f"positive_s must be above 0 and finite, got {self.positive_s}")
        if not 0 <= self.success_threshold <= 1:
            raise ValueError(f"success_threshold must lie in [0, 1], got {self.success_threshold}")
        if len(self.threshold_interval) not in (0, 2):
            raise ValueError(f"threshold_interval is (low, high) or empty, got {self.threshold_interval}")
        if not 0 <= self.release <= 1:
            raise ValueError(f"release must lie in [0, 1], got {self.release}")
        if self.hold < 1:
            raise ValueError(f"hold must be at least 1 frame, got {self.hold}")

    @property
    def takes_state(self) -> bool:
        return not self.without_state

    @property
    def rule(self) -> SuccessRule:
        """Returns when an attempt counts as done while it goes on."""
        return SuccessRule(self.success_threshold, self.release * self.success_threshold, self.hold)
