"""RoboReward as one of the kinds of reward models: how it is loaded, made and made ready."""

from __future__ import annotations

from functools import partial

from milepost.models.registry import ModelKind
from milepost.models.roboreward.config import RoboRewardConfig
from milepost.models.roboreward.model import RoboRewardModel
from milepost.models.roboreward.options import RoboRewardOptions
from milepost.models.zero_shot.kind import prepare
from milepost.models.zero_shot.model import read_config


def make(config: RoboRewardConfig, folder: str | None) -> RoboRewardModel:
    """Returns the model of a config; a folder has nothing more than the config."""
    return RoboRewardModel(config)


MODEL = ModelKind(
    "roboreward", RoboRewardModel.from_pretrained, RoboRewardModel.bare, config=RoboRewardConfig, make=make,
    read_config=partial(read_config, RoboRewardConfig), options=RoboRewardOptions, prepare=partial(prepare, RoboRewardModel),
    untrainable="RoboReward is used as it was published: there is nothing to train here. Use milepost label DATASET --model roboreward",
)  # fmt: skip
