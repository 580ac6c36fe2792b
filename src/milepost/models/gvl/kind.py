"""GVL as one of the kinds of reward models: how it is loaded, made and made ready."""

from __future__ import annotations

from functools import partial

from milepost.models.gvl.config import GVLConfig
from milepost.models.gvl.model import GVLModel
from milepost.models.gvl.options import GVLOptions
from milepost.models.registry import ModelKind
from milepost.models.zero_shot.kind import prepare
from milepost.models.zero_shot.model import read_config


def make(config: GVLConfig, folder: str | None) -> GVLModel:
    """Returns the model of a config; a folder has nothing more than the config."""
    return GVLModel(config)


MODEL = ModelKind(
    "gvl", GVLModel.from_pretrained, GVLModel.bare, config=GVLConfig, make=make, read_config=partial(read_config, GVLConfig),
    options=GVLOptions, prepare=partial(prepare, GVLModel),
    untrainable="GVL is zero-shot: there is nothing to train. Use milepost label DATASET --model gvl",
)  # fmt: skip
