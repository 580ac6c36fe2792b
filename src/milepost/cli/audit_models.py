"""The model that `milepost audit` was given: how it is made ready for a dataset, and what is shown beside it."""

from __future__ import annotations

from typing import Any

from milepost import datasets, encoders, models
from milepost.core import RewardModel


def prepared_for(name: str, options: Any, dataset: datasets.LeRobotDataset, head: str, task: str | None, device: str) -> models.Prepared:
    """Returns the model, ready for the dataset. options: of all kinds. DataError if it does not fit."""
    run = models.Run(encoders.resolve_device(device), heads=(head,), task=task)
    prepared = models.prepare(name, models.options_for(models.kind_of(name), options), dataset, run)
    prepared.begin()
    return prepared


def beside(name: str, model: RewardModel, seed: int) -> dict[str, RewardModel]:
    """Returns what every audit shows beside the model: a clock, and an untrained model of the same shape where its kind can make one."""
    untrained = models.kind_of(name).untrained
    return {"elapsed": models.ElapsedModel(), **({} if untrained is None else {"untrained": untrained(model, seed)})}
