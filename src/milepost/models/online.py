"""The past that a causal window needs, one frame at a time: the episode's first frame and a ring buffer of the latest ones. Memory does not
grow.

It uses `windows.causal`, the index array of the offline curve, so both see the same frames.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from milepost.core import DataError, causal, rgb_image

Windows = tuple[Float[np.ndarray, "B L C E"], Float[np.ndarray, "B L Z"], Bool[np.ndarray, "B L"]]
"""Features, state and validity of windows, one of each attempt."""


class History:
    """One attempt: features (C, E) and state (Z,) of frame 0 and of the last (n_obs_steps - 1) * gap + 1 frames.

    text: (M,) the instruction's features. task: the instruction. memory: what else a model remembers of an attempt.
    """

    def __init__(self, n_obs_steps: int, gap: int, text: Float[np.ndarray, "M"], *, task: str = "", memory: Any = None) -> None:
        self.n_obs_steps, self.gap, self.text, self.task, self.memory = n_obs_steps, gap, text, task, memory
        self.count, self._missing = 0, 0
        self.size = (n_obs_steps - 1) * gap + 1
        self.features: Float[np.ndarray, "N C E"] = np.zeros((0, 0, 0), dtype=np.float32)
        self.state: Float[np.ndarray, "N Z"] = np.zeros((0, 0), dtype=np.float32)

    def push(self, features: Float[np.ndarray, "C E"], state: Float[np.ndarray, "Z"]) -> None:
        """Adds the next frame, after those that `hold` says. ValueError if it has another shape than the first."""
        if not self.count:  # slot 0 keeps frame 0 for good, the ring follows it
            self.features = np.zeros((1 + self.size, *features.shape), dtype=np.float32)
            self.state = np.zeros((1 + self.size, *state.shape), dtype=np.float32)
            self.features[0], self.state[0] = features, state
        if features.shape != self.features.shape[1:]:
            raise ValueError(f"frame {self.count} has features {features.shape}, the first had {self.features.shape[1:]}")
        self._fill(self._missing)
        self._missing = 0
        slot = 1 + self.count % self.size
        self.features[slot], self.state[slot] = features, state
        self.count += 1

    def hold(self, frames: int) -> None:
        """Says that so many frames before the next one never came: the newest is then there so many times more. Of several calls before
        one frame the last counts, so a frame that was refused changes nothing. ValueError before the first frame.
        """
        if not self.count:
            raise ValueError("an attempt has no frame to hold before its first")
        self._missing = frames

    def snapshot(self) -> tuple[Any, ...]:
        """Returns what `restore` needs after the next frame: the rows that it overwrites, and no others."""
        if not self.count:
            return 0, self._missing, [], None, None, copy.copy(self.memory)
        slots = [1 + (self.count + step) % self.size for step in range(min(self._missing + 1, self.size))]
        return self.count, self._missing, slots, self.features[slots], self.state[slots], copy.copy(self.memory)

    def restore(self, snapshot: tuple[Any, ...]) -> None:
        """Makes the attempt what it was at this snapshot, which is the newest, with at most one frame since."""
        self.count, self._missing, slots, features, state, self.memory = snapshot
        if slots:
            self.features[slots], self.state[slots] = features, state

    def _fill(self, frames: int) -> None:
        """Adds the newest frame so many times more."""
        newest = 1 + (self.count - 1) % self.size
        for _ in range(min(frames, self.size)):  # the ring has no more slots
            self.count += 1
            slot = 1 + (self.count - 1) % self.size
            self.features[slot], self.state[slot] = self.features[newest], self.state[newest]
        self.count += max(0, frames - self.size)

    def window(self) -> tuple[Float[np.ndarray, "1 L C E"], Float[np.ndarray, "1 L Z"], Bool[np.ndarray, "1 L"]]:
        """Returns what the model sees at the frame pushed last: features, state, valid."""
        frames, valid = causal(np.array([self.count - 1]), self.n_obs_steps, self.gap)
        slots = np.where(frames == 0, 0, 1 + frames % self.size)
        return self.features[slots], self.state[slots], valid


def camera_image(image: Shaped[np.ndarray, "..."], camera: str) -> UInt8[np.ndarray, "H W 3"]:
    """Returns a camera's image as the encoders take it, as `core.rgb_image`. DataError names the camera of one that does not fit."""
    return rgb_image(np.asarray(image), f"the image of camera '{camera}'")


def windows_of(attempts: Sequence[History]) -> Windows:
    """Returns what a model sees at the newest frame of each attempt."""
    features, state, valid = zip(*(attempt.window() for attempt in attempts), strict=True)
    return np.concatenate(features), np.concatenate(state), np.concatenate(valid)


FARTHEST_STATE = 1e12
"""Standard deviations from the training episodes' mean beyond which the squares in a network overflow."""


def computable(row: Float[np.ndarray, "Z"]) -> Float[np.ndarray, "Z"]:
    """Returns a normalised state as it is. DataError if it is so far from the training episodes that a network has no number of it."""
    farthest = float(np.abs(row).max(initial=0.0))
    if not farthest <= FARTHEST_STATE:
        raise DataError(
            f"this model cannot use the robot state: number {int(np.abs(row).argmax())} of it lies {farthest:.3g} standard deviations from "
            "what the model learnt with; give the state in the units of the training dataset"
        )
    return row


def live_state(state: Float[np.ndarray, "S"] | None, width: int) -> Float[np.ndarray, "1 S"]:
    """Returns a robot state as one row. DataError if it has another width than the model learnt with, or is not finite."""
    row = np.zeros((1, 0), dtype=np.float32) if state is None else np.asarray(state, dtype=np.float32).reshape(1, -1)
    if row.shape[1] != width:
        raise DataError(f"this model takes a robot state of {width} numbers, got {'none' if state is None else row.shape[1]}")
    if not np.isfinite(row).all():
        raise DataError("the robot state has NaN or infinite numbers")
    return row
