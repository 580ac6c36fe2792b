"""RoboReward as one of the kinds of reward models."""

from __future__ import annotations

from milepost.models.roboreward.model import RoboRewardModel
from milepost.models.roboreward.options import RoboRewardOptions
from milepost.models.zero_shot.kind import kind_of_class

MODEL = kind_of_class(RoboRewardModel, RoboRewardOptions, reason="is used as it was published")
