"""Images of one episode, decoded into memory once for all copies of it, if they are not too large."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import UInt8

from milepost.core import ArrayFrames, EditedFrames, Episode, Frames

MEMORY = 1 << 30
"""Bytes of images of one episode that are kept in memory while its copies are computed; a larger episode is decoded for every copy."""


def with_images_in_memory(episode: Episode) -> Episode:
    """Returns the episode with its images decoded into memory, or as it is if they need more than `MEMORY`."""
    cameras = {}
    room = MEMORY
    for name, frames in episode.cameras.items():
        first = frames[np.array([0])]
        room -= first.nbytes * episode.length
        cameras[name] = ArrayFrames(_decoded(frames, first.shape[1:])) if room >= 0 else frames
    return dataclasses.replace(episode, cameras=cameras)


def _decoded(frames: Frames, shape: tuple[int, ...]) -> UInt8[np.ndarray, "T H W 3"]:
    """Returns the images that the reader gives, in one array: joining them afterwards would take as long as decoding them."""
    images = np.empty((len(frames), *shape), np.uint8)
    count = 0
    for chunk in frames.chunks():
        images[count : count + len(chunk)] = chunk
        count += len(chunk)
    return images[:count]


def with_shared_features(episode: Episode) -> Episode:
    """Returns the episode with every camera as a copy of itself: a recording's features are kept for its copies, however many there are."""
    cameras = {
        name: frames if isinstance(frames, EditedFrames) else EditedFrames(frames, name, np.arange(len(frames)))
        for name, frames in episode.cameras.items()
    }
    return dataclasses.replace(episode, cameras=cameras)
