"""`--reward_model.type=milepost_topreward`: milepost's TOPReward config as LeRobot's programs read and write it.

The fields are `milepost.TOPRewardConfig`'s with its defaults, but for those that say where images are sent: a saved config never decides
that, so servers are asked through milepost itself.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from lerobot.configs.rewards import RewardModelConfig

from lerobot_policy_milepost.requirements import options_named
from lerobot_policy_milepost.shared import with_fields
from milepost import TOPRewardConfig

ELSEWHERE = ("device", "pretrained_path", "max_memory", "base_url", "api_key_env", "concurrency", "price_per_million")
"""Fields of milepost's config that are no part of a saved model; the first two are LeRobot's too."""


@RewardModelConfig.register_subclass("milepost_topreward")
@dataclass
@with_fields(TOPRewardConfig, without=ELSEWHERE, success_threshold=(float | None, None))
class MilepostTOPRewardConfig(RewardModelConfig):
    """milepost's TOPReward, which learns nothing: it is asked, and not trained."""

    def __post_init__(self) -> None:
        super().__post_init__()
        with options_named(self):
            _ = self.topreward  # refuses values that cannot be, before anything is read

    @property
    def topreward(self) -> TOPRewardConfig:
        """Returns milepost's config. ValueError names a value that cannot be. A threshold of None is none."""
        names = {field.name for field in dataclasses.fields(TOPRewardConfig)} - set(ELSEWHERE)
        values = {name: getattr(self, name) for name in names}
        if values["success_threshold"] is None:
            values["success_threshold"] = -math.inf
        return TOPRewardConfig(**values, device=self.device)
