"""What is trained and how: the value model's one preset."""

from __future__ import annotations

from functools import partial

from milepost.models.training.config import TrainConfig
from milepost.models.value.config import ValueConfig
from milepost.models.value.options import ValueTraining
from milepost.models.value.train import ValueRecipe
from milepost.models.windowed.settings import Trainee, windowed_plan

PRESETS = {"small": (ValueConfig(), TrainConfig(steps=800, batch_size=128, lr=1e-3, weight_decay=1e-2))}
"""Minutes on a CPU, on the built-in encoder or any other."""

plan = partial(windowed_plan, Trainee("a value model", ValueRecipe, PRESETS["small"], ValueTraining))
