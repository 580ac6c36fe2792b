"""Which frames of an episode a VLM sees, with which times, and after which of them it is asked; and scores as progress.

milepost: frame round(k fps_of_the_data / fps) for k = 0, 1, ..., and the last one, each at its true time: an earlier prefix never changes.
lerobot: every frame, stamped i / fps. Anchors and min-max are LeRobot's and the TOPReward paper's (arXiv 2602.19313, section 3).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from milepost.models.topreward.config import FrameProtocol, TOPRewardConfig


def grid(sample: int, *, source_fps: float, fps: float) -> int:
    """Returns the frame of sample `sample` where an episode has `source_fps` frames a second and `fps` are taken (never one twice)."""
    return math.floor(sample * max(source_fps / fps, 1.0) + 0.5)


def looked_at(length: int, source_fps: float, config: TOPRewardConfig) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """Returns (frames, seconds) of what is taken of an episode of `length` frames; the last frame is always among them."""
    if config.protocol == "lerobot":
        return np.arange(length), np.arange(length) / config.fps
    count = math.ceil(length / max(source_fps / config.fps, 1.0)) + 1
    frames = [frame for sample in range(count) if (frame := grid(sample, source_fps=source_fps, fps=config.fps)) < length]
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


def min_max(raw: Float[np.ndarray, "P"], protocol: FrameProtocol) -> Float[np.ndarray, "P"]:
    """Returns scores of one episode as float32 in [0, 1], its lowest 0 and its highest 1.

    Where all are equal there is no telling: NaN. LeRobot says 1.
    """
    finite = raw[~np.isnan(raw)].astype(np.float64)
    low, high = (finite.min(), finite.max()) if len(finite) else (math.nan, math.nan)
    if not high > low:
        constant = 1.0 if protocol == "lerobot" else math.nan
        return np.where(np.isnan(raw), np.nan, constant).astype(np.float32)
    return ((raw - low) / (high - low)).astype(np.float32)
