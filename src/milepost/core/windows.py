"""Computes the frames that a model looks at, as index arrays. The same array indexes images, states and labels, so all three agree.

A window is (frames, valid). Positions before the start of the episode are padding: they are False in `valid`, and attention and loss leave
them out. Frame numbers of padding lie inside the episode too, so they can index any array of it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int


def gap_frames(gap_s: float, fps: float) -> int:
    """Returns a spacing in seconds as a number of frames, at least 1."""
    if gap_s <= 0 or fps <= 0:
        raise ValueError(f"gap_s and fps must be above 0, got {gap_s} and {fps}")
    return max(1, round(gap_s * fps))


def causal(at: Int[np.ndarray, "N"], count: int, gap: int) -> tuple[Int[np.ndarray, "N L"], Bool[np.ndarray, "N L"]]:
    """Returns the first frame, then `count` frames `gap` apart of which the last is `at`: SARM's window, which never looks ahead.

    Both arrays, frames and valid, are (N, 1 + count); a position before the episode's start is frame 0 and not valid.
    """
    steps = np.arange(count - 1, -1, -1) * gap
    frames = np.asarray(at)[:, None] - steps[None, :]
    valid = frames >= 0
    first = np.zeros((len(frames), 1), dtype=np.int64)
    return (
        np.concatenate([first, np.maximum(frames, 0)], axis=1),
        np.concatenate([np.ones_like(first, dtype=bool), valid], axis=1),
    )


def centred(
    at: Int[np.ndarray, "N"], count: int, gap: int, length: int | Int[np.ndarray, "N 1"]
) -> tuple[Int[np.ndarray, "N L"], Bool[np.ndarray, "N L"]]:
    """Returns `count + 1` frames `gap` apart with `at` in the middle, clamped to the episode as LeRobot does.

    The window looks ahead, so it cannot be used online. `length`: frames of the episode, or of each row's episode.
    frames and valid are (N, count + 1); valid is all True, because LeRobot repeats the first or last frame instead of masking it.
    """
    steps = (np.arange(count + 1) - count // 2) * gap
    frames = np.clip(np.asarray(at)[:, None] + steps[None, :], 0, length - 1)
    return frames, np.ones(frames.shape, dtype=bool)


def rewind(
    at: Int[np.ndarray, "N"], steps: Int[np.ndarray, "N"], most: int, gap: int
) -> tuple[Int[np.ndarray, "N R"], Bool[np.ndarray, "N R"]]:
    """Returns the frames at - gap, at - 2 gap, ..., `steps` of them, padded to `most`: SARM's rewind, a causal window played backwards.

    A step before the start of the episode is padding.
    """
    order = np.arange(1, most + 1)
    frames = np.asarray(at)[:, None] - order[None, :] * gap
    valid = (order[None, :] <= np.asarray(steps)[:, None]) & (frames >= 0)
    return np.maximum(frames, 0), valid


def strided(length: int, stride: int) -> Int[np.ndarray, "N"]:
    """Returns the frames 0, stride, 2 stride, ... and always the last one."""
    if length < 1 or stride < 1:
        raise ValueError(f"length and stride must be at least 1, got {length} and {stride}")
    frames = np.arange(0, length, stride)
    return frames if frames[-1] == length - 1 else np.append(frames, length - 1)


def interpolate(at: Int[np.ndarray, "N"], value: Float[np.ndarray, "N"], length: int) -> Float[np.ndarray, "T"]:
    """Returns a curve for all frames from its values at some, by linear interpolation.

    A NaN value makes all frames up to its neighbours NaN: unknown stays unknown.
    """
    values = np.interp(np.arange(length), at, value)
    is_known = np.interp(np.arange(length), at, np.isnan(value).astype(float)) == 0
    return np.where(is_known, values, np.nan).astype(np.float32)


def spread(array: Float[np.ndarray, "N *K"], at: Int[np.ndarray, "N"], length: int) -> Float[np.ndarray, "T *K"]:
    """Returns an array for all frames with these rows at the frames `at`, and NaN at all others."""
    out = np.full((length, *array.shape[1:]), np.nan, dtype=np.float32)
    out[at] = array
    return out
