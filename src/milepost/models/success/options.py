"""What can be set on the command line of a success head: when it labels, and when it is trained."""

from __future__ import annotations

from dataclasses import dataclass

from milepost.models.success.config import Labels


@dataclass(frozen=True)
class SuccessOptions:
    """For a success head."""

    success_threshold: float | None = None
    """The probability from which an attempt counts as done; default: the threshold that was fitted when it was trained."""


@dataclass(frozen=True)
class SuccessTraining:
    """For --model success."""

    success_labels: Labels | None = None
    """next.success: the column says for each frame whether the task is done. outcome: the last frames of a success are positive. auto
    (default): the column, if it marks more than last frames."""
    positive_s: float | None = None
    """With outcome labels: the last seconds of a success that are positive; default: 0.3. As many before them are not learnt from."""
    without_state: bool = False
    """Look at images and instruction alone, not at the robot's state."""
    hold: int | None = None
    """Frames in a row that must reach the threshold before an attempt counts as done; default: 3."""
