"""Robometer as one of the kinds of reward models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from milepost.models.robometer.config import RobometerConfig
from milepost.models.robometer.model import RobometerModel
from milepost.models.robometer.options import RobometerOptions
from milepost.models.tuning.options import TuningOptions
from milepost.models.zero_shot.kind import kind_of_class


def owns(values: Mapping[str, Any]) -> bool:
    """Returns whether a config.json is that of a Robometer's checkpoint, as its authors or LeRobot write it, and no saved model's."""
    architectures = values.get("architectures")
    published = isinstance(architectures, list) and any("RFM" in str(each) for each in architectures)
    return published or (values.get("type") == RobometerConfig.name and "vlm_config" in values)


MODEL = kind_of_class(
    RobometerModel, RobometerOptions, owns=owns, training="milepost.models.robometer.tuning", training_options=TuningOptions
)
