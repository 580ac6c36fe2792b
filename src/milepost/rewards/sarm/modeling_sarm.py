"""The model SARM, in LeRobot's module of this name."""

from milepost.models import SARMModel

__all__ = ["SARMModel"]
