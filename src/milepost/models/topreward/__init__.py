"""TOPReward, zero-shot: how sure a vision-language model is that the video so far completes the task."""

from milepost.models.topreward.config import TOPRewardConfig
from milepost.models.topreward.model import TOPRewardModel
from milepost.models.topreward.processor import TOPREWARD_FEATURE_PREFIX

__all__ = ["TOPREWARD_FEATURE_PREFIX", "TOPRewardConfig", "TOPRewardModel"]
