"""RoboReward as one of the kinds of reward models."""

from __future__ import annotations

from milepost.models.roboreward.model import RoboRewardModel
from milepost.models.roboreward.options import RoboRewardOptions
from milepost.models.tuning.options import TuningOptions
from milepost.models.zero_shot.kind import kind_of_class

MODEL = kind_of_class(RoboRewardModel, RoboRewardOptions, training="milepost.models.roboreward.tuning", training_options=TuningOptions)
