"""What can be set on the command line of a Robometer model beside the options of every model that asks a VLM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from milepost.models.zero_shot.options import PrefixOptions, VLMOptions


@dataclass(frozen=True)
class RobometerOnly:
    """For --model robometer, or a folder with one."""

    frame_protocol: Literal["dense", "published", "lerobot"] | None = None
    """dense (default): ask after each frame looked at. published: one pass over 8 frames of the whole attempt. lerobot: what LeRobot 0.6.1
    does, after each frame of the episode."""


@dataclass(frozen=True)
class RobometerOptions(RobometerOnly, PrefixOptions, VLMOptions):
    """All options of a Robometer model."""
