"""TOPReward as one of the kinds of reward models: how it is loaded, made and made ready."""

from __future__ import annotations

from functools import partial
from typing import Any

from milepost.models.processing import BatchStep, to_cpu
from milepost.models.registry import ModelKind
from milepost.models.topreward.config import TOPRewardConfig
from milepost.models.topreward.model import TOPRewardModel
from milepost.models.topreward.options import TOPRewardOptions
from milepost.models.topreward.processor import encode_batch
from milepost.models.zero_shot.kind import prepare
from milepost.models.zero_shot.model import read_config


def make(config: TOPRewardConfig, folder: str | None) -> TOPRewardModel:
    """Returns the model of a config; a folder has nothing more than the config."""
    return TOPRewardModel(config)


def processors(config: TOPRewardConfig, **_: Any) -> tuple[BatchStep, BatchStep]:
    """Returns (before, after) of `compute_reward`; no statistics of a dataset are needed."""
    return partial(encode_batch, config=config), to_cpu


MODEL = ModelKind(
    "topreward", TOPRewardModel.from_pretrained, TOPRewardModel.bare, config=TOPRewardConfig, make=make,
    read_config=partial(read_config, TOPRewardConfig), options=TOPRewardOptions, prepare=partial(prepare, TOPRewardModel),
    processors=processors, untrainable="TOPReward is zero-shot: there is nothing to train. Use milepost label DATASET --model topreward",
)  # fmt: skip
