"""How a model of one window is made ready for a dataset, and how its config is read: the same for every kind of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from milepost.datasets import LeRobotDataset, find_model
from milepost.encoders import cache_folder
from milepost.models.registry import Prepared, Run, require_heads
from milepost.models.saved import read_files
from milepost.models.windowed.model import WindowedModel


def read_config(model: type[WindowedModel], folder: Path | str) -> Any:
    """Returns the config of a saved model."""
    return model.CONFIG.from_dict(read_files(find_model(folder))[0])


def prepared(model: type[WindowedModel], path: str, dataset: LeRobotDataset, run: Run, **changes: Any) -> Prepared:
    """Returns the model at a path ready for a dataset. changes: of `from_pretrained`. DataError if it has no such head, or the dataset no
    such camera. ValueError for another precision.
    """
    require_heads(path, run.heads)
    if run.precision not in ("auto", "float32"):
        raise ValueError(f"--precision {run.precision} means nothing to a {model.CONFIG.NAME} model: it computes in float32")
    ready = model.from_pretrained(path, run.device, **changes)
    dataset = dataset.showing(ready.config.cameras)
    ready.prepare_for(dataset)
    if run.task is not None:
        ready.warn_of_unlearnt([run.task])
    return Prepared(ready, dataset, {} if run.task is None else {"task": run.task}, cache=cache_folder())
