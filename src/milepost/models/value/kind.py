"""The value model as one of the kinds of reward models: how it is loaded, made and made ready."""

from __future__ import annotations

from functools import partial

from milepost.datasets import LeRobotDataset
from milepost.models.registry import ModelKind, Prepared, Run
from milepost.models.value.config import ValueConfig
from milepost.models.value.model import ValueModel
from milepost.models.value.options import ValueOptions, ValueTraining
from milepost.models.windowed.kind import prepared, read_config


def prepare(path: str, options: ValueOptions, dataset: LeRobotDataset, run: Run) -> Prepared:
    """Returns the model ready for a dataset, with the reduction that was asked for."""
    return prepared(ValueModel, path, dataset, run, reduction=options.reduction)


MODEL = ModelKind(
    "value", ValueModel.from_pretrained, config=ValueConfig, make=ValueModel.of_config, read_config=partial(read_config, ValueModel),
    options=ValueOptions, prepare=prepare, untrained=ValueModel.untrained, training="milepost.models.value.settings",
    training_options=ValueTraining,
)  # fmt: skip
