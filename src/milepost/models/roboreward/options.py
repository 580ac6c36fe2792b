"""What can be set on the command line of a RoboReward model beside the options of every model that asks a VLM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from milepost.models.zero_shot.options import VLMOptions


@dataclass(frozen=True)
class RoboRewardOnly:
    """For --model roboreward, or a folder with one."""

    grading: Literal["expectation", "greedy"] | None = None
    """expectation (default): the mean grade under the model's probabilities of 1 to 5. greedy: the grade in the words that it answers
    with, as published."""


@dataclass(frozen=True)
class RoboRewardOptions(RoboRewardOnly, VLMOptions):
    """All options of a RoboReward model."""
