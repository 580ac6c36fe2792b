"""SARM as one of the kinds of reward models: how it is loaded, made and made ready."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from milepost.datasets import LeRobotDataset, find_model, open_dataset
from milepost.encoders import cache_folder
from milepost.models.registry import ModelKind, Prepared, Run, require_heads
from milepost.models.sarm.checkpoint import read_folder, read_state_stats
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.model import SARMModel
from milepost.models.sarm.options import SARMOptions
from milepost.models.sarm.processor import make_sarm_processors


def read_config(folder: Path | str) -> SARMConfig:
    """Returns the config of a saved model, ours or LeRobot's."""
    return read_folder(find_model(folder))[0]


def prepare(path: str, options: SARMOptions, dataset: LeRobotDataset, run: Run) -> Prepared:
    """Returns the model ready for a dataset. DataError if it has no such head, or the dataset no such camera."""
    if options.stride < 1:
        raise ValueError(f"--stride must be at least 1, got {options.stride}")
    if run.precision == "float16":
        raise ValueError("SARM computes in float32 or bfloat16, not in float16")
    precision: Any = "float32" if run.precision == "auto" else run.precision
    model = SARMModel.from_pretrained(path, run.device, encoder=options.encoder, precision=precision)
    require_heads(path, run.heads, list(model.config.heads), why=f"annotation_mode '{model.config.annotation_mode}'")
    if options.state_stats is not None:
        source = open_dataset(options.state_stats)
        model.use_state_stats(read_state_stats(source.root, model.config.state_key, source.name))
    dataset = dataset.showing(model.config.cameras)
    model.prepare_for(dataset)
    arguments: Mapping[str, Any] = {"heads": list(run.heads), "stride": options.stride}
    task = {} if run.task is None else {"task": run.task}
    cache = None if options.no_cache else cache_folder()
    return Prepared(model, dataset, {**arguments, **task}, cache=cache)


MODEL = ModelKind(
    "sarm", SARMModel.from_pretrained, config=SARMConfig, make=SARMModel.of_config, read_config=read_config,
    options=SARMOptions, prepare=prepare, processors=make_sarm_processors,
    untrained=SARMModel.untrained, training="milepost.models.sarm.settings",
)  # fmt: skip
