"""Images of one episode, decoded into memory once for all copies of it, if they are not too large."""

from __future__ import annotations

import dataclasses

import numpy as np

from milepost.core import ArrayFrames, EditedFrames, Episode

MEMORY = 1 << 30
"""Bytes of images of one episode that are kept in memory while its copies are computed; a larger episode is decoded for every copy."""


def with_images_in_memory(episode: Episode) -> Episode:
    """Returns the episode with its images decoded into memory, or as it is if they need more than `MEMORY`."""
    cameras = {}
    room = MEMORY
    for name, frames in episode.cameras.items():
        size = frames[np.array([0])].nbytes * episode.length
        room -= size
        cameras[name] = ArrayFrames(np.concatenate(list(frames.chunks()))) if room >= 0 else frames
    return dataclasses.replace(episode, cameras=cameras)


def with_shared_features(episode: Episode) -> Episode:
    """Returns the episode with every camera as a copy of itself: a recording's features are kept for its copies, however many there are."""
    cameras = {
        name: frames if isinstance(frames, EditedFrames) else EditedFrames(frames, name, np.arange(len(frames)))
        for name, frames in episode.cameras.items()
    }
    return dataclasses.replace(episode, cameras=cameras)
