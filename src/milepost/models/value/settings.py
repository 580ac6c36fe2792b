"""What is trained and how: the value model's one preset, and the changes to it that a command or a Python caller asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from milepost.core import DataError
from milepost.datasets import LeRobotDataset
from milepost.models.training.config import TrainConfig
from milepost.models.training.settings import Plan, changed_preset
from milepost.models.value.config import ValueConfig
from milepost.models.value.options import ValueTraining
from milepost.models.value.train import ValueRecipe

PRESETS = {"small": (ValueConfig(), TrainConfig(steps=800, batch_size=128, lr=1e-3, weight_decay=1e-2))}
"""Minutes on a CPU, on the built-in encoder or any other."""
OF_OTHERS: Mapping[str, Any] = {"annotation_mode": "single_stage", "for_lerobot": False}
"""Settings of other models that a command always gives, with the value that means nothing."""
OPTIONS = (
    *(field.name for field in dataclasses.fields(ValueTraining)), "image_key", "encoder", "n_obs_steps", "gap_s", "steps", "epochs",
    "batch_size", "lr", "seed", "device", "mixed_precision", "validation", "eval_every", "patience", "overwrite",
)  # fmt: skip
"""Settings that are options of `milepost train` too."""


@dataclass(frozen=True)
class ValuePlan(Plan):
    """What is trained (`config`), and how (`train`)."""

    def recipe(self, dataset: LeRobotDataset) -> ValueRecipe:
        """Returns how it is trained."""
        return ValueRecipe(self.config)


def plan(
    dataset: LeRobotDataset,
    preset: str | None = None,
    *,
    image_key: str | Sequence[str] = (),
    encoder: str | None = None,
    holdout: float = 0.1,
    keep_features: bool = True,
    **changes: Any,
) -> ValuePlan:
    """Returns the preset with changes: fields of ValueConfig or of TrainConfig by name. A change that is None leaves the preset's value.

    image_key: one camera or several; without one, all cameras of the dataset. DataError if there is no such preset, field or camera.
    """
    if preset not in (None, *PRESETS):
        raise DataError(f"a value model has no preset '{preset}'; leave --preset out, and name another encoder with --encoder")
    changes = {name: each for name, each in changes.items() if OF_OTHERS.get(name, name) != each}
    if encoder is not None:
        changes["encoder"] = encoder
    value, train = changed_preset(
        PRESETS["small"], dataset, image_key, changes, unknown="{flag} means nothing to a value model", options=OPTIONS
    )
    return ValuePlan(value, train, encoder or "", holdout, keep_features)
