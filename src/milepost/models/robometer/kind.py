"""Robometer as one of the kinds of reward models."""

from __future__ import annotations

from milepost.models.robometer.model import RobometerModel
from milepost.models.robometer.options import RobometerOptions
from milepost.models.tuning.options import TuningOptions
from milepost.models.zero_shot.kind import kind_of_class

MODEL = kind_of_class(RobometerModel, RobometerOptions, training="milepost.models.robometer.tuning", training_options=TuningOptions)
