"""Controls: edited copies of an episode that tell a reward from a clock, and faults of cameras that a reward should bear.

A reward follows what is seen. A clock follows the number of frames: it rises over a frozen image, over shuffled frames and over a repeated
one. The definitions are those that separated 24 models of known nature (docs/audit.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Int, UInt8

from milepost.core import EditedFrames, Episode, reordered, with_images
from milepost.metrics.scores import order_correlation

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
    if episode.state.shape[1] and episode.cameras:
        by_name["images_frozen"] = reordered(episode, first, states=False, clocks=clocks)
        by_name["states_frozen"] = reordered(episode, first, images=False, clocks=clocks)
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
    fields: dict[tuple[int, ...], np.ndarray] = {}

    def scaled(factor: float, about: float) -> Callable[[Images, Int[np.ndarray, "N"]], Images]:
        return lambda images, frames: _per_pixel(images, lambda pixels: pixels * np.float32(factor) + np.float32(about * (1 - factor)))

    def noisy(images: Images, frames: Int[np.ndarray, "N"]) -> Images:
        height, width = images.shape[1:3]
        if images.shape[1:] not in fields:  # one field of noise for an episode: each frame has another part of it
            noise = np.random.default_rng(seed).normal(0, 10, (height + _SLACK, width + _SLACK, 3))
            fields[images.shape[1:]] = np.rint(noise).astype(np.int16)
        field, out = fields[images.shape[1:]], np.empty_like(images)
        for image, frame, place in zip(images, frames, out, strict=True):
            top, left = np.random.default_rng([*seed, int(frame)]).integers(0, _SLACK + 1, 2)
            noise = image + field[top : top + height, left : left + width]
            place[:] = np.clip(noise, 0, 255, out=noise)
        return out

    def lower(images: Images, frames: Int[np.ndarray, "N"]) -> Images:
        rows = np.maximum(np.arange(images.shape[1]) - max(1, round(images.shape[1] * 0.05)), 0)
        return images[:, rows]

    return {
        "brightness_0.8": scaled(0.8, 0.0),
        "brightness_1.2": scaled(1.2, 0.0),
        "contrast_0.6": scaled(0.6, 128.0),
        "hue_10": _turned_hue,
        "noise_10": noisy,
        "shift_5": lower,
    }


_SLACK = 64
"""Pixels by which a field of noise is larger than an image."""
_PIXELS = 1 << 15
"""Pixels that are computed at once: they stay in the processor's cache."""


def _per_pixel(images: Images, change: Callable[[np.ndarray], np.ndarray]) -> Images:
    """Returns images whose pixels, (N, 3) float32, were changed; the result is rounded and kept in [0, 255]."""
    pixels = images.reshape(-1, 3)
    out = np.empty_like(pixels)
    for start in range(0, len(pixels), _PIXELS):
        part = change(pixels[start : start + _PIXELS].astype(np.float32))
        out[start : start + _PIXELS] = np.clip(np.rint(part, out=part), 0, 255, out=part)
    return out.reshape(images.shape)


def _turned_hue(images: Images, frames: Int[np.ndarray, "N"]) -> Images:
    """Returns images whose colours are turned by 10 degrees about the grey axis."""
    angle = np.deg2rad(10)
    cosine, sine = np.cos(angle), np.sin(angle) / np.sqrt(3)
    grey = (1 - cosine) / 3
    rows = [[grey + cosine, grey - sine, grey + sine], [grey + sine, grey + cosine, grey - sine], [grey - sine, grey + sine, grey + cosine]]
    matrix = np.array(rows, dtype=np.float32).T
    return _per_pixel(images, lambda pixels: pixels @ matrix)


def time_channels(episodes: Sequence[Episode]) -> tuple[int, ...]:
    """Returns the channels of the state that tell the time, by index.

    Such a channel follows the time in nine of ten episodes: in order (Spearman 0.999 or more, up or down) and nearly in a straight line
    (R^2 0.9 or more). Or it is the same function of the frame number in all episodes: the mean of the others at the same frame explains
    0.95 of its variance, in the median episode of five or more; so a counter of whole seconds is found, and one that starts anew.
    Episodes of fewer than 10 frames are left out: nearly anything is in order there. A model that reads such a channel
    is a clock, and would look like a reward if the channel stood still with the images.
    """
    episodes = [episode for episode in episodes if episode.length >= 10]
    if not episodes:
        return ()
    return tuple(
        channel
        for channel in range(episodes[0].state.shape[1])
        if np.mean([_tells_time(episode.state[:, channel]) for episode in episodes]) >= 0.9
        or _told_by_others([episode.state[:, channel] for episode in episodes]) >= 0.95
    )


def _tells_time(values: np.ndarray) -> bool:
    order = order_correlation(values)
    return bool(abs(order) >= 0.999 and np.corrcoef(np.arange(len(values)), values)[0, 1] ** 2 >= 0.9)


def _told_by_others(channels: Sequence[np.ndarray]) -> float:
    """Returns the median R^2 of each episode's channel by the mean of the others at the same frame; 0 for fewer than five episodes.

    Frames that fewer than two other episodes reach are left out; so are episodes in which nothing varies.
    """
    table = np.full((len(channels), max(map(len, channels))), np.nan)
    for row, values in zip(table, channels, strict=True):
        row[: len(values)] = values
    count, total = (~np.isnan(table)).sum(axis=0), np.nansum(table, axis=0)
    explained = []
    for row in table:
        is_known = ~np.isnan(row) & (count >= 3)
        if is_known.sum() < 10 or np.ptp(row[is_known]) == 0:
            continue
        others = (total[is_known] - row[is_known]) / (count[is_known] - 1)
        explained.append(1 - np.mean((row[is_known] - others) ** 2) / row[is_known].var())
    return float(np.median(explained)) if len(explained) >= 5 else 0.0
