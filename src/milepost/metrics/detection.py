"""Detects success while an attempt runs: one threshold to pass for a while, and a lower one that takes it back. numpy only.

Two thresholds keep a noisy curve from switching on and off (hysteresis, as in a Schmitt trigger). Source of the need: LeRobot issue 2184.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from milepost.core import require_integers
from milepost.metrics.inputs import Values, numbers, without_nan

_SLACK = 1e-6
"""Curves are float32: its 0.9 is a little less than 0.9."""


@dataclass(frozen=True)
class SuccessRule:
    """When an attempt counts as successful. threshold, release: of progress in [0, 1], or of another score. hold: frames.

    Success begins at the frame that completes `hold` frames in a row at or above `threshold`. It ends at the first frame below `release`.
    A frame whose score is unknown (NaN) changes nothing: it neither counts nor interrupts. ValueError if the thresholds are not finite,
    `release` is above `threshold`, or `hold` is no whole number of at least one frame.
    """

    threshold: float = 0.9
    release: float = 0.8
    hold: int = 5

    def __post_init__(self) -> None:
        require_integers(self)
        if not (np.isfinite(self.threshold) and np.isfinite(self.release)):
            raise ValueError(f"threshold and release must be finite numbers, got {self.threshold} and {self.release}")
        if self.release > self.threshold:
            raise ValueError(f"release ({self.release:g}) must not be above threshold ({self.threshold:g})")
        if self.hold < 1:
            raise ValueError(f"hold must be at least 1 frame, got {self.hold}")


class SuccessDetector:
    """Follows one attempt, score by score.

    >>> detector = SuccessDetector(SuccessRule(threshold=0.9, release=0.5, hold=2))
    >>> [detector.update(score) for score in (0.95, 0.2, 0.95, 0.95, 0.6, 0.4)]
    [False, False, False, True, True, False]
    """

    def __init__(self, rule: SuccessRule | None = None) -> None:
        self.rule = rule or SuccessRule()
        self.reset()

    def reset(self) -> None:
        """Begins a new attempt."""
        self._frames, self._is_success = 0, False

    def update(self, score: float) -> bool:
        """Returns whether the attempt counts as successful at this frame."""
        if np.isnan(score):
            return self._is_success
        self._frames = self._frames + 1 if score >= self.rule.threshold - _SLACK else 0
        is_kept = self._is_success and bool(score >= self.rule.release - _SLACK)
        self._is_success = is_kept or self._frames >= self.rule.hold
        return self._is_success


def detect_success(curve: Values, rule: SuccessRule | None = None) -> Bool[np.ndarray, "T"]:
    """Returns for each frame what a detector says there, which has seen nothing after it."""
    detector = SuccessDetector(rule)
    return np.array([detector.update(float(score)) for score in numbers(curve)], dtype=bool)


def sustained_score(curve: Values, hold: int) -> float:
    """Returns the highest threshold at which an attempt counts as successful at any moment, if it must be reached for `hold` frames.

    Unknown frames (NaN) count as in `SuccessDetector`. NaN if fewer than `hold` frames are known.

    >>> sustained_score([0.1, 0.9, 0.2, 0.6, 0.7, 0.3], hold=2)
    0.6
    """
    known_frames = without_nan(curve)
    if len(known_frames) < hold:
        return float("nan")
    return float(np.lib.stride_tricks.sliding_window_view(known_frames, hold).min(axis=1).max())
