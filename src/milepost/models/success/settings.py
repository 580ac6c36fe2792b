"""What is trained and how: the success head's one preset."""

from __future__ import annotations

from functools import partial

from milepost.models.success.config import SuccessConfig
from milepost.models.success.options import SuccessTraining
from milepost.models.success.train import SuccessRecipe
from milepost.models.training.config import TrainConfig
from milepost.models.windowed.settings import Trainee, windowed_plan

PRESETS = {"small": (SuccessConfig(), TrainConfig(steps=600, batch_size=128, lr=1e-3, weight_decay=1e-2))}
"""Seconds on a CPU, once the frames are encoded."""

plan = partial(windowed_plan, Trainee("a success head", SuccessRecipe, PRESETS["small"], SuccessTraining))
