"""What can be set on the command line of a value model: when it labels, and when it is trained."""

from __future__ import annotations

from dataclasses import dataclass

from milepost.models.value.config import Normalise, Reduction, Target


@dataclass(frozen=True)
class ValueOptions:
    """For a value model."""

    reduction: Reduction | None = None
    """How the members of the ensemble become one answer: their mean, or min, the lowest (worst of M). Default: as it was trained."""


@dataclass(frozen=True)
class ValueTraining:
    """For --model value."""

    members: int | None = None
    """Networks of the ensemble; default: 3."""
    reduction: Reduction | None = None
    """How the members become one answer: their mean, or min, the lowest (worst of M). Default: mean."""
    target: Target | None = None
    """hl_gauss (default): a normal distribution around the return of a frame. two_hot: the two bins around it."""
    normalise: Normalise | None = None
    """task (default): returns are scaled by the task's longest success, and a failure is -1. lerobot: by its longest episode and C, the
    frames that a failure counts more."""
    failure_frames: int | None = None
    """C in frames; default: so many that a failure is -1 throughout, or 50 with --normalise lerobot."""
