"""What a success head learns: for every frame whether the task is done. Pure functions; it says where the labels come from.

LeRobot's `next.success` is such a label if it is true as long as the task is done. Many recordings mark the last frame alone, which looks
like the frames before it. Then the outcome of the episode is the label of its last frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from milepost.core import SUCCESS, Episode
from milepost.models.success.config import Labels, SuccessConfig

EARLY_S = 0.3
"""An attempt may be called done so many seconds before the first frame that is labelled so: the moment of success is a matter of frames."""


def marked(episode: Episode) -> Bool[np.ndarray, "T"] | None:
    """Returns the `next.success` column, None if the episode has none."""
    column = episode.columns.get(SUCCESS)
    if column is None:
        return None
    return np.asarray(np.asarray(column).reshape(episode.length, -1).astype(bool).any(axis=1))


def label_source(episodes: Sequence[Episode], requested: Labels) -> Labels:
    """Returns "next.success" or "outcome". "auto" is "next.success" if every episode has the column, and more than a last frame is true."""
    if requested != "auto":
        return requested
    columns = [marked(episode) for episode in episodes]
    is_state = bool(columns) and all(column is not None for column in columns) and any(column[:-1].any() for column in columns)  # type: ignore[index]
    return "next.success" if is_state else "outcome"


def outcome_labels(length: int, is_success: bool, frames: int) -> Float[np.ndarray, "T"]:
    """Returns 0 for every frame of a failure; for a success 1 for the last `frames`, NaN for as many before them, 0 for the others.

    At most half of a success is positive.

    >>> outcome_labels(6, True, 2).tolist()
    [0.0, 0.0, nan, nan, 1.0, 1.0]
    """
    labels = np.zeros(length, dtype=np.float32)
    if is_success:
        frames = max(1, min(frames, length // 2))
        labels[max(0, length - 2 * frames) : length - frames] = np.nan
        labels[length - frames :] = 1.0
    return labels


def frames_too_early(episode: Episode, config: SuccessConfig) -> int | None:
    """Returns how many first frames of a success are too early to call it done: all but the last `EARLY_S` before the first that is done.

    None if nobody knows, because the outcome was the label.
    """
    column = marked(episode)
    if config.success_labels != "next.success" or column is None or not column.any():
        return None
    return max(0, int(np.argmax(column)) - round(EARLY_S * episode.fps))


def frame_labels(episode: Episode, config: SuccessConfig) -> Float[np.ndarray, "T"]:
    """Returns 1 where the task is done, 0 where it is not, NaN where nobody knows. The outcome, or the column, must be known."""
    column = marked(episode)
    if config.success_labels == "next.success" and column is not None:
        return column.astype(np.float32)
    return outcome_labels(episode.length, bool(episode.success), max(1, round(config.positive_s * episode.fps)))
