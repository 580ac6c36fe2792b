"""The config of SARM, in LeRobot's module of this name."""

from milepost.models import SARMConfig

__all__ = ["SARMConfig"]
