"""What is trained and how, for a model of one window: its one preset, and the changes that a command or a Python caller asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from milepost.core import DataError
from milepost.datasets import LeRobotDataset
from milepost.models.training.config import TrainConfig
from milepost.models.training.settings import Plan, changed_preset
from milepost.models.windowed.config import WindowedConfig
from milepost.models.windowed.recipe import WindowedRecipe

OF_OTHERS: Mapping[str, Any] = {"annotation_mode": "single_stage", "for_lerobot": False}
"""Settings of other models that a command always gives, with the value that means nothing."""
OPTIONS = (
    "image_key", "encoder", "n_obs_steps", "gap_s", "steps", "epochs", "batch_size", "lr", "seed", "device", "mixed_precision",
    "validation", "eval_every", "patience", "overwrite",
)  # fmt: skip
"""Settings that are options of `milepost train` too."""


@dataclass(frozen=True)
class Trainee:
    """A kind that can be trained. called: as messages call it, "a value model". options: its own options of `milepost train`."""

    called: str
    recipe: type[WindowedRecipe]
    preset: tuple[WindowedConfig, TrainConfig]
    options: type


@dataclass(frozen=True)
class WindowedPlan(Plan):
    """What is trained (`config`), and how (`train`)."""

    recipe_class: type[WindowedRecipe] = WindowedRecipe

    def recipe(self, dataset: LeRobotDataset) -> WindowedRecipe:
        """Returns how it is trained."""
        return self.recipe_class(self.config)


def windowed_plan(
    trainee: Trainee,
    dataset: LeRobotDataset,
    preset: str | None = None,
    *,
    image_key: str | Sequence[str] = (),
    encoder: str | None = None,
    holdout: float = 0.1,
    keep_features: bool = True,
    **changes: Any,
) -> WindowedPlan:
    """Returns the preset with changes: fields of its config or of TrainConfig by name. A change that is None leaves the preset's value.

    image_key: one camera or several; without one, all cameras of the dataset. DataError if there is no such preset, field or camera.
    """
    if preset not in (None, "small"):
        raise DataError(f"{trainee.called} has no preset '{preset}'; leave --preset out, and name another encoder with --encoder")
    changes = {name: each for name, each in changes.items() if OF_OTHERS.get(name, name) != each}
    if encoder is not None:
        changes["encoder"] = encoder
    options = (*(field.name for field in dataclasses.fields(trainee.options)), *OPTIONS)
    unknown = f"{{flag}} means nothing to {trainee.called}"
    config, train = changed_preset(trainee.preset, dataset, image_key, changes, unknown=unknown, options=options)
    return WindowedPlan(config, train, encoder or "", holdout, keep_features, trainee.recipe)
