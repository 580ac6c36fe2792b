"""Which frames of an episode a VLM sees, with which times, and after which of them it is asked.

Frame round(k fps_of_the_data / fps) for k = 0, 1, ..., and the last one, each at its true time: an earlier prefix never changes.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int


def grid(sample: int, *, source_fps: float, fps: float) -> int:
    """Returns the frame of sample `sample` where an episode has `source_fps` frames a second and `fps` are taken (never one twice)."""
    return math.floor(sample * max(source_fps / fps, 1.0) + 0.5)


def looked_at(length: int, source_fps: float, fps: float) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """Returns (frames, seconds) of what is taken of an episode of `length` frames; the last frame is always among them."""
    count = math.ceil(length / max(source_fps / fps, 1.0)) + 1
    frames = [frame for sample in range(count) if (frame := grid(sample, source_fps=source_fps, fps=fps)) < length]
    if frames[-1] != length - 1:
        frames.append(length - 1)
    return np.array(frames), np.array(frames) / source_fps


def anchors(count: int, num_prefixes: int | None) -> Int[np.ndarray, "P"]:
    """Returns the lengths of the prefixes asked about, of `count` frames: all (None), or so many spread evenly, first and last among them.

    >>> anchors(9, 3)
    array([1, 5, 9])
    """
    if num_prefixes is not None and (num_prefixes != int(num_prefixes) or num_prefixes < 2):
        raise ValueError(f"num_prefixes is at least 2, the first frame and the whole clip, or None for all; got {num_prefixes}")
    if num_prefixes is None or num_prefixes >= count:
        return np.arange(1, count + 1)
    return np.unique(np.linspace(1, count, num_prefixes).round().astype(int))
