"""The value model as one of the kinds of reward models: how it is loaded, made and made ready."""

from __future__ import annotations

from pathlib import Path

from milepost.datasets import LeRobotDataset, find_model
from milepost.encoders import cache_folder
from milepost.models.registry import ModelKind, Prepared, Run, require_heads
from milepost.models.saved import read_files
from milepost.models.value.config import ValueConfig
from milepost.models.value.model import ValueModel
from milepost.models.value.options import ValueOptions, ValueTraining


def read_config(folder: Path | str) -> ValueConfig:
    """Returns the config of a saved model."""
    return ValueConfig.from_dict(read_files(find_model(folder))[0])


def prepare(path: str, options: ValueOptions, dataset: LeRobotDataset, run: Run) -> Prepared:
    """Returns the model ready for a dataset. DataError if it has no such head, or the dataset no such camera."""
    require_heads(path, run.heads)
    if run.precision not in ("auto", "float32"):
        raise ValueError(f"--precision {run.precision} means nothing to a value model: it computes in float32")
    model = ValueModel.from_pretrained(path, run.device, reduction=options.reduction)
    dataset = dataset.showing(model.config.cameras)
    model.prepare_for(dataset)
    return Prepared(model, dataset, {} if run.task is None else {"task": run.task}, cache=cache_folder())


MODEL = ModelKind(
    "value", ValueModel.from_pretrained, config=ValueConfig, make=ValueModel.of_config, read_config=read_config,
    options=ValueOptions, prepare=prepare, untrained=ValueModel.untrained, training="milepost.models.value.settings",
    training_options=ValueTraining,
)  # fmt: skip
