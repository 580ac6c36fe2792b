"""The model TOPReward, in LeRobot's module of this name."""

from milepost.models import TOPRewardModel

__all__ = ["TOPRewardModel"]
