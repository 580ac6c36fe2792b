"""What stands before and after milepost's TOPReward in LeRobot's pipelines: images in, clips and instructions out."""

from __future__ import annotations

from typing import Any

from lerobot.processor import (
    PolicyProcessorPipeline,
    ProcessorStep,
    ProcessorStepRegistry,
    TransitionKey,
)
from torch import Tensor

from lerobot_policy_milepost.configuration_milepost_topreward import MilepostTOPRewardConfig
from lerobot_policy_milepost.shared import after_the_model
from milepost import TOPRewardConfig, make_reward_pre_post_processors


@ProcessorStepRegistry.register("milepost_topreward_clips")
class MilepostTOPRewardClipsStep(ProcessorStep):
    """Puts `observation.topreward.frames`, B clips, and `.task`, B sentences, in the place of the camera's images."""

    def __init__(self, topreward: dict[str, Any]) -> None:
        """topreward: milepost's config.json."""
        self.topreward = TOPRewardConfig.from_dict(topreward)
        self._before, _ = make_reward_pre_post_processors(self.topreward)

    def get_config(self) -> dict[str, Any]:
        return {"topreward": self.topreward.to_dict()}

    def transform_features(self, features: Any) -> Any:
        return features

    def __call__(self, transition: Any) -> Any:
        """Returns the transition with clips. DataError if the camera or an instruction is missing."""
        new = transition.copy()
        observation = dict(new.get(TransitionKey.OBSERVATION) or {})
        extra = new.get(TransitionKey.COMPLEMENTARY_DATA) or {}
        tasks = {self.topreward.task_key: extra[self.topreward.task_key]} if self.topreward.task_key in extra else {}
        encoded = self._before({**observation, **tasks})
        added = {name: value for name, value in encoded.items() if name.startswith("observation.topreward.")}
        new[TransitionKey.OBSERVATION] = {name: value for name, value in observation.items() if name != self.topreward.image_key} | added
        return new


def make_milepost_topreward_pre_post_processors(
    config: MilepostTOPRewardConfig, dataset_stats: Any = None
) -> tuple[PolicyProcessorPipeline[dict[str, Any], dict[str, Any]], PolicyProcessorPipeline[Tensor, Tensor]]:
    """Returns the pipelines before and after the model. dataset_stats: not used."""
    before = PolicyProcessorPipeline[dict[str, Any], dict[str, Any]](
        [MilepostTOPRewardClipsStep(config.topreward.to_dict())], name="policy_preprocessor"
    )
    return before, after_the_model()
