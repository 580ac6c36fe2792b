"""The prefix of TOPReward's batch keys, in LeRobot's module of this name."""

from milepost.models import TOPREWARD_FEATURE_PREFIX

__all__ = ["TOPREWARD_FEATURE_PREFIX"]
