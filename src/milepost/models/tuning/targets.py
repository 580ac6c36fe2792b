"""What a fine-tuned model learns at each frame: progress from stages or time, success, a grade. Pure functions on arrays; NaN is unknown.

A failed attempt teaches that it did not succeed. How far it got is known from its stages alone, up to the last stage it completed; without
stages it is unknown, and never the time that went by.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from milepost.core import MAIN_HEAD, Episode, Stages, progress, targets

NEARLY = 0.9
"""From this progress on, a frame of a success teaches neither success nor failure until progress is 1: the moment is not known exactly."""
GRADES = 5


def progress_targets(episode: Episode, stages: Stages | None) -> Float[np.ndarray, "T"]:
    """Returns the progress of each frame, float32. stages: those of the annotation; None: time.

    By time the last frame is 1, and an attempt that failed is unknown. By stages, frames are unknown where the annotation does not say.
    """
    if stages is not None:
        segments = episode.sound_segments.get(MAIN_HEAD, ())
        return progress(*targets(segments, stages.names, episode.length, episode.success), stages)
    if episode.success is False:
        return np.full(episode.length, np.nan, np.float32)
    return (np.arange(episode.length) / max(1, episode.length - 1)).astype(np.float32)


def success_targets(progress: Float[np.ndarray, "T"], success: bool | None) -> Float[np.ndarray, "T"]:
    """Returns whether the attempt has succeeded at each frame, 1 or 0, float32.

    Of a failure every frame is 0. Of a success frames of progress 1 are 1 and those below `NEARLY` are 0. Without an outcome all are
    unknown.

    >>> success_targets(np.array([0.0, 0.5, 0.95, 1.0], np.float32), True).tolist()
    [0.0, 0.0, nan, 1.0]
    """
    if success is None:
        return np.full(len(progress), np.nan, np.float32)
    if not success:
        return np.zeros(len(progress), np.float32)
    target = np.where(progress >= 1.0, 1.0, np.where(progress < NEARLY, 0.0, np.nan))
    return target.astype(np.float32)


def grades_allowed(progress: float, success: bool | None) -> Bool[np.ndarray, "5"]:
    """Returns which grades from 1 to 5 a clip that ends at this progress may have; none if nothing is known.

    5 is for progress 1 alone, and not for a failure; below it each quarter is a grade. A failure of unknown progress may have any grade
    but 5.

    >>> [int(np.flatnonzero(grades_allowed(p, True))[0]) + 1 for p in (0.0, 0.3, 0.5, 0.99, 1.0)]
    [1, 2, 3, 4, 5]
    >>> grades_allowed(float("nan"), False).tolist()
    [True, True, True, True, False]
    """
    numbers = np.arange(GRADES)
    if np.isnan(progress):
        return (numbers < GRADES - 1) if success is False else np.zeros(GRADES, bool)
    highest = GRADES - 2 if success is False else GRADES - 1
    return numbers == min(highest, GRADES - 1 if progress >= 1 else int(progress * (GRADES - 1)))
