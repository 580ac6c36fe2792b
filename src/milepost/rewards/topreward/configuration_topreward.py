"""The config of TOPReward, in LeRobot's module of this name."""

from milepost.models import TOPRewardConfig

__all__ = ["TOPRewardConfig"]
