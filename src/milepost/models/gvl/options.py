"""What can be set on the command line of a GVL model beside the options of every model that asks a VLM."""

from __future__ import annotations

from dataclasses import dataclass

from milepost.models.zero_shot.options import VLMOptions


@dataclass(frozen=True)
class GVLOnly:
    """For --model gvl, or a folder with one."""

    shuffles: int | None = None
    """Ask so often about an episode, each time in another order, and average. Default: 1."""
    max_frames: int | None = None
    """Show at most so many frames of an episode. Default: 30."""


@dataclass(frozen=True)
class GVLOptions(GVLOnly, VLMOptions):
    """All options of a GVL model."""
