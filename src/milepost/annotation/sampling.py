"""Which frames of an episode the model sees, each with its true time: evenly spaced, the first and the last always among them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from milepost.core import DataError

RATE_HZ = 2.0
"""Frames a second. Published studies of contact sheets settled on this rate (macrodata's WGO-Bench, LeRobot's language annotator)."""
BUDGET = 120
"""The most frames of an episode: one minute at 2 Hz, six contact sheets of 4:3 frames. Longer episodes are shown more coarsely."""


@dataclass(frozen=True, eq=False)
class FrameSample:
    """frames (N,): indices inside an episode of `length` frames at `fps`, strictly rising. For the model they are numbered 1..N."""

    frames: Int[np.ndarray, "N"]
    length: int
    fps: float

    def __post_init__(self) -> None:
        if self.length < 1 or not (math.isfinite(self.fps) and self.fps > 0):
            raise DataError(f"an episode has at least one frame and fps above 0, got {self.length} and {self.fps}")
        if not len(self.frames) or self.frames[0] < 0 or self.frames[-1] >= self.length or (np.diff(self.frames) < 1).any():
            raise DataError(f"the frames shown should rise inside [0, {self.length}), they are {self.frames}")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def times_s(self) -> Float[np.ndarray, "N"]:
        return self.frames / self.fps

    @property
    def duration_s(self) -> float:
        return self.length / self.fps

    @property
    def step_s(self) -> float:
        """Returns the longest time between two frames of the sample, or to the end. No boundary can be seen more finely."""
        return float(np.diff(np.append(self.frames, self.length)).max() / self.fps)


def sample_frames(
    length: int, fps: float, *, rate_hz: float = RATE_HZ, budget: int = BUDGET, rng: np.random.Generator | None = None
) -> FrameSample:
    """Returns frames of an episode at `rate_hz`, or at the rate that `budget` allows. The last time is the duration less one frame.

    rng: for repeats, moves each inner frame at random inside its own half-steps. It cannot where every frame is shown.

    >>> sample_frames(91, 30.0, rate_hz=1.0).frames.tolist()
    [0, 30, 60, 90]
    """
    if length < 1 or not fps > 0 or not rate_hz > 0:
        raise DataError(f"length, fps and rate_hz should be above 0, got {length}, {fps} and {rate_hz}")
    if budget < 2:
        raise DataError(f"the budget is at least 2 frames, the first and the last, got {budget}")
    wanted = 1 + math.ceil((length - 1) / fps * rate_hz - 1e-9)
    frames = np.rint(np.linspace(0, length - 1, min(wanted, budget, length))).astype(np.int64)
    if rng is not None and len(frames) > 2:
        gaps = np.diff(frames)
        lowest, highest = frames[1:-1] - (gaps[:-1] - 1) // 2, frames[1:-1] + gaps[1:] // 2
        highest[-1] = min(highest[-1], length - 2)  # the cells of neighbours do not meet; the last frame's is itself alone
        frames[1:-1] = rng.integers(lowest, highest + 1)
    return FrameSample(frames, length, fps)


def every_frame(length: int, fps: float) -> FrameSample:
    """Returns a sample of all frames, which is what a person with a player sees."""
    return FrameSample(np.arange(length), length, fps)
