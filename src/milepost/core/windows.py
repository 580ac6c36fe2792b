"""Which frames a model looks at, as index arrays. Pixels, states and labels are all gathered by the same array, so they cannot drift apart.

A window is (frames, valid): positions before the episode's start are padding, marked False, and stay out of attention and loss.
Frame numbers are always inside the episode, so any array of the episode can be indexed with them, padding too.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int


def gap_frames(gap_s: float, fps: float) -> int:
    """A spacing in seconds as whole frames, at least one."""
    if gap_s <= 0 or fps <= 0:
        raise ValueError(f"gap_s and fps must be above 0, got {gap_s} and {fps}")
    return max(1, round(gap_s * fps))


def causal(at: Int[np.ndarray, "N"], count: int, gap: int) -> tuple[Int[np.ndarray, "N L"], Bool[np.ndarray, "N L"]]:
    """The episode's first frame, then `count` frames `gap` apart, the last of them `at` (SARM's window: nothing after now).

    Returns frames (N, 1 + count) and valid (N, 1 + count); a position before the episode's start is frame 0 and not valid.
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
    """`count + 1` frames `gap` apart with `at` in the middle, clamped to the episode as LeRobot does: it looks ahead, so not online.

    `length`: frames in the episode, or in each one's episode.
    Returns frames (N, count + 1) and valid, all True: LeRobot repeats the border frame instead of masking it.
    """
    steps = (np.arange(count + 1) - count // 2) * gap
    frames = np.clip(np.asarray(at)[:, None] + steps[None, :], 0, length - 1)
    return frames, np.ones(frames.shape, dtype=bool)


def rewind(
    at: Int[np.ndarray, "N"], steps: Int[np.ndarray, "N"], most: int, gap: int
) -> tuple[Int[np.ndarray, "N R"], Bool[np.ndarray, "N R"]]:
    """The way back from `at`: at - gap, at - 2 gap, ..., `steps` of them, padded to `most` (the reversed tail of the causal window).

    A step that would leave the episode is padding.
    """
    order = np.arange(1, most + 1)
    frames = np.asarray(at)[:, None] - order[None, :] * gap
    valid = (order[None, :] <= np.asarray(steps)[:, None]) & (frames >= 0)
    return np.maximum(frames, 0), valid


def strided(length: int, stride: int) -> Int[np.ndarray, "N"]:
    """Frames 0, stride, 2 stride, ... and always the last one."""
    if length < 1 or stride < 1:
        raise ValueError(f"length and stride must be at least 1, got {length} and {stride}")
    frames = np.arange(0, length, stride)
    return frames if frames[-1] == length - 1 else np.append(frames, length - 1)


def interpolate(at: Int[np.ndarray, "N"], value: Float[np.ndarray, "N"], length: int) -> Float[np.ndarray, "T"]:
    """A curve known at some frames, drawn straight between them. A NaN anchor leaves NaN up to its neighbours: unknown stays unknown."""
    full = np.interp(np.arange(length), at, value)
    known = np.interp(np.arange(length), at, np.isnan(value).astype(float)) == 0
    return np.where(known, full, np.nan).astype(np.float32)


def spread(array: Float[np.ndarray, "N *K"], at: Int[np.ndarray, "N"], length: int) -> Float[np.ndarray, "T *K"]:
    """The rows of these frames at their place in the episode, NaN at all others."""
    out = np.full((length, *array.shape[1:]), np.nan, dtype=np.float32)
    out[at] = array
    return out
