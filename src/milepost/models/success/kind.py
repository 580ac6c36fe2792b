"""The success head as one of the kinds of reward models: how it is loaded, made and made ready."""

from __future__ import annotations

from functools import partial

from milepost.datasets import LeRobotDataset
from milepost.models.registry import ModelKind, Prepared, Run
from milepost.models.success.config import SuccessConfig
from milepost.models.success.model import SuccessModel
from milepost.models.success.options import SuccessOptions, SuccessTraining
from milepost.models.windowed.kind import prepared, read_config


def prepare(path: str, options: SuccessOptions, dataset: LeRobotDataset, run: Run) -> Prepared:
    """Returns the model ready for a dataset, with the threshold that was asked for."""
    return prepared(SuccessModel, path, dataset, run, success_threshold=options.success_threshold)


MODEL = ModelKind(
    "success", SuccessModel.from_pretrained, config=SuccessConfig, make=SuccessModel.of_config, options=SuccessOptions, prepare=prepare,
    read_config=partial(read_config, SuccessModel), untrained=SuccessModel.untrained, training="milepost.models.success.settings",
    training_options=SuccessTraining,
)  # fmt: skip
