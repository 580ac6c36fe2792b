"""Images of one episode, decoded into memory once for all copies of it, or for all models that read it, if they are not too large."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int, UInt8

from milepost.core import ArrayFrames, EditedFrames, Episode, FrameIndex, Frames, frame_numbers

MEMORY = 1 << 30
"""Bytes of images of one episode that are kept in memory while its copies, or its curves by several models, are computed; what is beyond is
decoded each time."""
READ_AT_ONCE = 64
"""Frames that are read in one call where some of an episode's images are in memory already."""


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


def with_shared_images(episode: Episode) -> Episode:
    """Returns the episode for several models to read: an image that one of them has read is not decoded again, as long as all that are read
    need no more than `MEMORY`."""
    room = _Room(MEMORY)
    return dataclasses.replace(episode, cameras={name: SharedFrames(frames, room) for name, frames in episode.cameras.items()})


class _Room:
    """Bytes that are left."""

    def __init__(self, left: int) -> None:
        self._left = left

    def has(self, size: int) -> bool:
        """Takes so many bytes, if that many are left. Returns whether they are."""
        if size > self._left:
            return False
        self._left -= size
        return True


class SharedFrames:
    """The images of one camera, as Frames. Each is decoded when it is first read, and kept while there is room."""

    def __init__(self, source: Frames, room: _Room) -> None:
        self._source, self._room = source, room
        self._images: dict[int, UInt8[np.ndarray, "H W 3"]] = {}
        self._lock = threading.Lock()  # models may look at one episode from two threads

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, frames: FrameIndex) -> UInt8[np.ndarray, "N H W 3"]:
        numbers = frame_numbers(frames, len(self))
        with self._lock:
            missing = np.array([number for number in np.unique(numbers).tolist() if number not in self._images], np.int64)
            if len(missing) == len(np.unique(numbers)):
                images = self._source[numbers]
                self._keep(numbers, images)
                return images
            fresh = dict(zip(missing.tolist(), self._source[missing], strict=True)) if len(missing) else {}
            images = np.stack([fresh[number] if number in fresh else self._images[number] for number in numbers.tolist()])
            self._keep(numbers, images)
            return images

    def chunks(self, size: int = 64) -> Iterator[UInt8[np.ndarray, "N H W 3"]]:
        """Yields every image once, in order, at most `size` at a time."""
        if not self._images:  # nothing to save: a stream opens the video once
            start = 0
            for images in self._source.chunks(size):
                with self._lock:
                    self._keep(np.arange(start, start + len(images)), images)
                start += len(images)
                yield images
            return
        step = max(READ_AT_ONCE // size, 1) * size
        for start in range(0, len(self), step):
            images = self[np.arange(start, min(start + step, len(self)))]
            yield from (images[place : place + size] for place in range(0, len(images), size))

    def _keep(self, numbers: Int[np.ndarray, "N"], images: UInt8[np.ndarray, "N H W 3"]) -> None:
        for number, image in zip(numbers.tolist(), images, strict=True):
            if number not in self._images and self._room.has(image.nbytes):
                self._images[number] = image
