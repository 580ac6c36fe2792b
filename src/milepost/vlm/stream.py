"""Scores while a clip grows: every second frame completes a group and lengthens the trunk, every frame is followed by the question.

A step costs its own tokens and a look at the keys and values so far, never the clip again. The numbers are those of the whole clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from milepost.types import DataError
from milepost.vlm.clip import Trunk, clip_of, middle
from milepost.vlm.pictures import PAIR, Resolution

if TYPE_CHECKING:
    from milepost.vlm.qwen3vl import Engine


class Stream:
    """Made by `Engine.stream`. `append` one frame at a time; make a new one for a new attempt."""

    def __init__(
        self, engine: Engine, *, instructions: Sequence[str], answers: Sequence[str], fps: float | None, resolution: Resolution
    ) -> None:
        """DataError if the resolution changes with the number of frames: earlier frames would have to be read again."""
        if resolution.rule != "milepost":
            raise DataError(f"under the rule '{resolution.rule}' frames change size as a clip grows; a stream needs rule='milepost'")
        if fps is not None and not fps > 0:
            raise DataError(f"fps should be above zero, it is {fps}")
        self.frames = 0
        self._engine, self._instructions, self._answers = engine, instructions, answers
        self._fps, self._resolution = fps, resolution
        self._trunk: Trunk | None = None
        self._last: tuple[UInt8[np.ndarray, "H W 3"], float] | None = None

    def append(self, frame: UInt8[np.ndarray, "H W 3"], time_s: float | None = None) -> Float[np.ndarray, "I A"]:
        """log p(answer | the frames so far, instruction). time_s: where no fps was given. DataError if a frame has another shape."""
        if (time_s is None) == (self._fps is None):
            raise DataError("when was this frame taken? give fps to stream(...), or time_s with every frame, not both")
        now = self.frames / self._fps if self._fps is not None else float(time_s or 0)
        before = self._last
        if before is not None and (frame.shape != before[0].shape or now < before[1]):
            raise DataError(
                f"a frame of {frame.shape} at {now} s follows one of {before[0].shape} at {before[1]} s; a clip has one shape, in order"
            )
        height, width = clip_of(frame[None], times_s=[now], fps=None, resolution=self._resolution).frames.shape[1:3]
        size = self._engine.pictures.size(self._resolution, frames=PAIR, height=height, width=width)
        branch = None
        if self.frames % PAIR and before is not None:
            group = np.stack([before[0], frame]), middle(before[1], now)
            self._trunk = self._engine.extend(self._trunk, size=size, group=group)
        else:
            branch = np.stack([frame, frame]), middle(now, now)
        said = self._engine.probe(self._trunk, size=size, branch=branch, instructions=self._instructions, answers=self._answers)
        self._last, self.frames = (frame.copy(), now), self.frames + 1
        return said
