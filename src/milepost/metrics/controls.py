"""Controls: edited copies of an episode that tell a reward from a clock, and faults of cameras that a reward should bear.

A reward follows what is seen. A clock follows the number of frames: it rises over a frozen image, over shuffled frames and over a repeated
one. The definitions are those that separated 24 models of known nature (docs/audit.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float, Int, UInt8

from milepost.core import EditedFrames, Episode, reordered, with_images
from milepost.metrics.curves import beside_time

Images = UInt8[np.ndarray, "N H W 3"]


def orders(length: int, rng: np.random.Generator) -> dict[str, Int[np.ndarray, "N"]]:
    """Returns by name the frame of a recording of this length that each frame of a copy shows."""
    middle, third = length // 2, max(1, length // 3)
    everything = np.arange(length)
    stalled = everything.copy()
    stalled[third : 2 * third] = third
    back = np.arange(2 * third - 1, third, -1)
    return {
        "frozen_first": np.zeros(length, dtype=np.int64),
        "frozen_middle": np.full(length, middle),
        "frozen_last": np.full(length, length - 1),
        "reversed": everything[::-1].copy(),
        "shuffled": rng.permutation(length),
        "cut_50": everything[: max(1, -(-length // 2))],
        "cut_80": everything[: max(1, -(-length * 4 // 5))],
        "stalled": stalled,
        "regressed": np.concatenate([everything[: 2 * third], back, everything[third:]]),
    }


WORDS = {
    "frozen_first": "the first frame, repeated",
    "frozen_middle": "the middle frame, repeated",
    "frozen_last": "the last frame, repeated",
    "reversed": "the frames from the last to the first",
    "shuffled": "the frames in a random order",
    "cut_50": "the first half of the episode",
    "cut_80": "the first four fifths of the episode",
    "stalled": "the second third stands still",
    "regressed": "the second third forth, back and forth again",
    "images_frozen": "the first image, repeated, with the real states",
    "states_frozen": "the real images with the first state, repeated",
    "other_camera": "each camera shows the next camera's images",
    "other_task": "another task's instruction",
    "empty_task": "no instruction",
    "half_rate": "every second frame, at half the frame rate",
    "double_rate": "every frame twice, at double the frame rate",
    "brightness_0.8": "brightness times 0.8",
    "brightness_1.2": "brightness times 1.2",
    "contrast_0.6": "contrast times 0.6",
    "hue_10": "colours turned by 10 degrees",
    "noise_10": "noise with a standard deviation of 10 of 255",
    "shift_5": "the image moved down by 5 %",
}
"""Name of each control -> what is done, for a reader."""
CONTROLS = tuple(WORDS)
FAULTS = ("brightness_0.8", "brightness_1.2", "contrast_0.6", "hue_10", "noise_10", "shift_5")
"""The controls that change images as a lamp, a camera or a knock would: a good reward changes little."""


def copies(
    episode: Episode, *, tasks: Sequence[str] = (), clocks: Collection[int] = (), seed: int = 0, only: Collection[str] | None = None
) -> dict[str, Episode]:
    """Returns the edited copies of an episode by name, those that can be made of it; no image is read.

    tasks: instructions of the dataset, of which the first other one is the wrong instruction. clocks: the channels of the state that tell
    the time (`time_channels`). only: the names that are wanted. The same seed and episode give the same copies.
    """
    rng = np.random.default_rng([seed, episode.index])
    by_name = {name: reordered(episode, order, clocks=clocks) for name, order in orders(episode.length, rng).items()}
    first = np.zeros(episode.length, dtype=np.int64)
    if episode.state.shape[1]:
        by_name["images_frozen"] = reordered(episode, first, states=False)
        if episode.cameras:  # its clocks stand still too: what a clock in the state drives is not driven by the images
            by_name["states_frozen"] = reordered(episode, first, images=False)
    if len(episode.cameras) > 1:
        names = list(episode.cameras)
        sources = dict(zip(names, [*names[1:], names[0]], strict=True))
        order = np.arange(episode.length)
        cameras = {name: EditedFrames(episode.cameras[other], other, order) for name, other in sources.items()}
        by_name["other_camera"] = dataclasses.replace(episode, cameras=cameras)
    other = next((task for task in tasks if task.strip() and task != episode.task), None)
    if other is not None:
        by_name["other_task"] = dataclasses.replace(episode, task=other)
    by_name["empty_task"] = dataclasses.replace(episode, task="")
    if episode.length > 3:
        by_name["half_rate"] = reordered(episode, np.arange(0, episode.length, 2), fps=episode.fps / 2)
    by_name["double_rate"] = reordered(episode, np.repeat(np.arange(episode.length), 2), fps=episode.fps * 2)
    by_name |= {name: with_images(episode, change) for name, change in _changes([seed, episode.index]).items()}
    return {name: by_name[name] for name in WORDS if name in by_name and (only is None or name in only)}


def _changes(seed: Sequence[int]) -> Mapping[str, Callable[[Images, Int[np.ndarray, "N"]], Images]]:
    return {
        "brightness_0.8": partial(_scaled, _table(0.8, 0.0)),
        "brightness_1.2": partial(_scaled, _table(1.2, 0.0)),
        "contrast_0.6": partial(_scaled, _table(0.6, 128.0)),
        "hue_10": _turned_hue,
        "noise_10": _Noise(seed),
        "shift_5": _lower,
    }


_SLACK = 64
"""Pixels by which a field of noise is larger than an image."""
_BYTES = 12 << 13
"""Bytes of images that are computed at once: they stay in the processor's cache."""


def _table(factor: float, about: float) -> UInt8[np.ndarray, "256"]:
    return np.clip(np.rint(np.arange(256) * factor + about * (1 - factor)), 0, 255).astype(np.uint8)


def _scaled(table: UInt8[np.ndarray, "256"], images: Images, frames: Int[np.ndarray, "N"]) -> Images:
    return table[images]


@dataclasses.dataclass(frozen=True)
class _Noise:
    """Adds noise: one field of it for an episode, of which each frame has another part."""

    seed: Sequence[int]
    _fields: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=dict)

    def __call__(self, images: Images, frames: Int[np.ndarray, "N"]) -> Images:
        size = images.shape[1:]
        height, width = size[:2]
        if size not in self._fields:
            noise = np.rint(np.random.default_rng(self.seed).normal(0, 10, (height + _SLACK, width + _SLACK, 3)))
            self._fields[size] = (np.clip(noise, 0, 255).astype(np.uint8), np.clip(-noise, 0, 255).astype(np.uint8))
        out = np.empty_like(images)
        for image, frame, place in zip(images, frames, out, strict=True):
            top, left = np.random.default_rng([*self.seed, int(frame)]).integers(0, _SLACK + 1, 2)
            up, down = (field[top : top + height, left : left + width] for field in self._fields[size])
            np.minimum(image, 255 - up, out=place)  # bytes alone: what would pass 255 or 0 is cut off first
            place += up
            np.maximum(place, down, out=place)
            place -= down
        return out


def _lower(images: Images, frames: Int[np.ndarray, "N"]) -> Images:
    rows = np.maximum(np.arange(images.shape[1]) - max(1, round(images.shape[1] * 0.05)), 0)
    return images[:, rows]


def _turned_hue(images: Images, frames: Int[np.ndarray, "N"]) -> Images:
    """Returns images whose colours are turned by 10 degrees about the grey axis."""
    angle = np.deg2rad(10)
    cosine, sine = np.cos(angle), np.sin(angle) / np.sqrt(3)
    grey = (1 - cosine) / 3
    rows = [[grey + cosine, grey - sine, grey + sine], [grey + sine, grey + cosine, grey - sine], [grey - sine, grey + sine, grey + cosine]]
    matrix = np.array(rows, dtype=np.float32).T
    four = np.kron(np.eye(4, dtype=np.float32), matrix)  # four pixels in a row: a product of 12 columns takes a third of the time of 3
    flat, out = images.reshape(-1), np.empty(images.size, np.uint8)
    for start in range(0, flat.size, _BYTES):
        part = flat[start : start + _BYTES].astype(np.float32)
        whole = part.size - part.size % 12
        turned = np.concatenate([(part[:whole].reshape(-1, 12) @ four).reshape(-1), (part[whole:].reshape(-1, 3) @ matrix).reshape(-1)])
        np.rint(turned, out=turned)
        out[start : start + _BYTES] = np.clip(turned, 0, 255, out=turned)
    return out.reshape(images.shape)


def time_channels(episodes: Sequence[Episode]) -> tuple[int, ...]:
    """Returns the channels of the state that tell the time, by index: counters, and whatever is the same in every episode.

    A counter grows by the same step at every frame, in nine of ten episodes (R^2 by the frame number 0.9999 or more, and slopes within 1 %
    of their median). A channel is the same in every episode if the mean of the others at the same frame explains 0.9999 of its variance, in
    the median episode of five or more; so whole seconds are found, and a counter that starts anew. A real movement is never so equal.
    Episodes of fewer than 10 frames are left out. A model that reads such a channel is a clock, and would look like a reward if the channel
    stood still with the images. A clock that is noisy is not found here: see `is not driven by states that tell the time`.
    """
    channels = [episode.state for episode in episodes if episode.length >= 10]
    if not channels:
        return ()
    return tuple(place for place in range(channels[0].shape[1]) if _is_clock([state[:, place].astype(float) for state in channels]))


def steady_channels(episodes: Sequence[Episode]) -> tuple[int, ...]:
    """Returns the channels of the state that grow evenly in nine of ten episodes (R^2 0.9999 or more), at a pace of each episode's own.

    They may be clocks that run at several rates, or a script that moves a joint evenly from end to end. Those of `time_channels`, which
    have one pace, are not among them.
    """
    channels = [episode.state for episode in episodes if episode.length >= 10]
    if not channels:
        return ()
    steady = [
        place
        for place in range(channels[0].shape[1])
        if np.mean([not np.isnan(_steady_slope(state[:, place].astype(float))) for state in channels]) >= 0.9
    ]
    return tuple(place for place in steady if place not in time_channels(episodes))


_EQUAL = 0.9999


def _is_clock(values: Sequence[Float[np.ndarray, "_"]]) -> bool:
    slopes = np.array([_steady_slope(each) for each in values])
    is_steady = ~np.isnan(slopes)
    if is_steady.mean() >= 0.9 and np.mean(np.abs(slopes / np.median(slopes[is_steady]) - 1) <= 0.01) >= 0.9:
        return True
    beside = beside_time(values)["frames"]
    explained = [1 - residual / variance for residual, variance in beside if variance > 0]
    return len(explained) >= 5 and float(np.median(explained)) >= _EQUAL


def _steady_slope(values: Float[np.ndarray, "T"]) -> float:
    """Returns the step from frame to frame of values that grow steadily, up or down; NaN for others."""
    time = np.arange(len(values)) - (len(values) - 1) / 2
    centred = values - values.mean()
    variance = float((centred**2).sum())
    slope = float((centred * time).sum() / (time**2).sum())
    return slope if variance > 0 and slope**2 * (time**2).sum() / variance >= _EQUAL else float("nan")
