"""Which frames of an episode TOPReward sees under each protocol, and its scores as progress.

milepost: those of `zero_shot/sampling.py`. lerobot: every frame, stamped i / fps. Anchors and min-max are LeRobot's and the TOPReward
paper's (arXiv 2602.19313, section 3).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from milepost.models.topreward.config import FrameProtocol, TOPRewardConfig
from milepost.models.zero_shot import sampling


def looked_at(length: int, source_fps: float, config: TOPRewardConfig) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """Returns (frames, seconds) of what is taken of an episode of `length` frames; the last frame is always among them."""
    if config.protocol == "lerobot":
        return np.arange(length), np.arange(length) / config.fps
    return sampling.looked_at(length, source_fps, config.fps)


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
