"""Robometer as one of the kinds of reward models: how it is loaded, made and made ready."""

from __future__ import annotations

from functools import partial

from milepost.models.registry import ModelKind
from milepost.models.robometer.config import RobometerConfig
from milepost.models.robometer.model import RobometerModel
from milepost.models.robometer.options import RobometerOptions
from milepost.models.zero_shot.kind import prepare
from milepost.models.zero_shot.model import read_config


def make(config: RobometerConfig, folder: str | None) -> RobometerModel:
    """Returns the model of a config; a folder has nothing more than the config."""
    return RobometerModel(config)


MODEL = ModelKind(
    "robometer", RobometerModel.from_pretrained, RobometerModel.bare, config=RobometerConfig, make=make,
    read_config=partial(read_config, RobometerConfig), options=RobometerOptions, prepare=partial(prepare, RobometerModel),
    untrainable="Robometer is used as it was published: there is nothing to train here. Use milepost label DATASET --model robometer",
)  # fmt: skip
