"""The value model as one of the kinds of reward models: how it is loaded, made and made ready."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from milepost.datasets import LeRobotDataset, find_model
from milepost.encoders import cache_folder
from milepost.models.registry import ModelKind, Prepared, Run, require_heads
from milepost.models.sarm.checkpoint import read_files
from milepost.models.value.config import ValueConfig
from milepost.models.value.model import ValueModel
from milepost.models.value.options import ValueOptions


def read_config(folder: Path | str) -> ValueConfig:
    """Returns the config of a saved model."""
    return ValueConfig.from_dict(read_files(find_model(folder))[0])


def make(config: ValueConfig, folder: str | None) -> ValueModel:
    """Returns the model of a config, with the weights in the folder, or new ones without one."""
    device = config.device or "cpu"
    if folder is not None:
        return ValueModel.from_pretrained(folder, device, config=dataclasses.replace(config, device=None))
    return ValueModel(config).to(device)


def prepare(path: str, options: ValueOptions, dataset: LeRobotDataset, run: Run) -> Prepared:
    """Returns the model ready for a dataset. DataError if it has no such head, or the dataset no such camera."""
    require_heads(path, run.heads)
    if run.precision not in ("auto", "float32"):
        raise ValueError(f"--precision {run.precision} means nothing to a value model: it computes in float32")
    model = ValueModel.from_pretrained(path, run.device, reduction=options.reduction)
    dataset = dataset.showing(model.config.cameras)
    model.prepare_for(dataset)
    return Prepared(model, dataset, {} if run.task is None else {"task": run.task}, cache=cache_folder())


def untrained(model: ValueModel, seed: int) -> ValueModel:
    """Returns a model with new weights behind the same encoder, with the same features and statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        other = ValueModel(model.config)
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("heads.")}
    other.load_state_dict(state, strict=False)
    return other.use_features(model.feature_cache).to(model.device).eval()


MODEL = ModelKind(
    "value", ValueModel.from_pretrained, config=ValueConfig, make=make, read_config=read_config, options=ValueOptions, prepare=prepare,
    untrained=untrained, training="milepost.models.value.training",
)  # fmt: skip
