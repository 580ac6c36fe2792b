"""Edited copies of an episode, made in memory and lazily: the same frames in another order, or with images that are changed when read.

An audit shows them to a model. Nothing here writes a file, and no image is decoded before it is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from milepost.core.images import FrameIndex, frame_numbers
from milepost.core.types import Episode, Frames

EVEN = 0.9999
"""The R^2 by the frame number from which a column counts as a straight line."""
ChangeImages = Callable[[UInt8[np.ndarray, "N H W 3"], Int[np.ndarray, "N"]], UInt8[np.ndarray, "N H W 3"]]
"""(images, their frame numbers) -> changed images of the same shape. The same images at the same frames are changed in the same way."""


@dataclass(frozen=True, eq=False)
class EditedFrames:
    """The images of a camera in another order, or changed. `Frames` of length N.

    source: the camera as recorded, and its name there. order: (N,) the source's frame that each frame shows. change: what is done to an
    image when it is read. key: what stands for the change: features of such images may be kept on disk under it; "" for none.
    """

    source: Frames
    name: str
    order: Int[np.ndarray, "N"]
    change: ChangeImages | None = None
    key: str = ""

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, frames: FrameIndex) -> UInt8[np.ndarray, "N H W 3"]:
        frames = frame_numbers(frames, len(self))
        needed, places = np.unique(self.order[frames], return_inverse=True)  # a frame that is shown twice is decoded once
        images = self.source[needed][places]
        return images if self.change is None else self.change(images, frames)

    def chunks(self, size: int = 64) -> Iterator[UInt8[np.ndarray, "N H W 3"]]:
        if np.array_equal(self.order, np.arange(len(self.source))):  # in the source's order: read as a stream
            start = 0
            for images in self.source.chunks(size):
                frames = np.arange(start, start + len(images))
                start += len(images)
                yield images if self.change is None else self.change(images, frames)
            return
        for start in range(0, len(self), size):
            yield self[np.arange(start, min(start + size, len(self)))]


def reordered(
    episode: Episode,
    order: Int[np.ndarray, "N"],
    *,
    images: bool = True,
    states: bool = True,
    clocks: Collection[int] = (),
    fps: float | None = None,
) -> Episode:
    """Returns an episode whose frame i shows frame order[i]; it may be longer or shorter. Its annotation is left out.

    images, states: False leaves that input in its own order, and needs `order` to be as long as the episode. Other columns, such as the
    action, go with the states. clocks: the channels of the state that tell the time: they run on as recorded, and so does every column that
    grows evenly, such as the time stamp, since a real robot's clock would not stop or turn back. fps: of the new episode; then frames were
    left out or doubled, and clocks go with their frames.
    """
    if not (images and states) and len(order) != episode.length:
        raise ValueError(f"one input alone can be reordered only within the episode's {episode.length} frames, got {len(order)}")
    time = order if fps is not None else np.arange(len(order))
    state = episode.state[order] if states else episode.state.copy()
    for channel in clocks:
        state[:, channel] = runs_on(episode.state[:, channel], time)
    columns = {name: _running(column, time) for name, column in episode.columns.items()}
    columns |= {name: column[order] for name, column in episode.columns.items() if states and not grows_evenly(column)}
    cameras = {name: EditedFrames(frames, name, order) if images else frames for name, frames in episode.cameras.items()}
    return dataclasses.replace(
        episode, length=len(order), state=state, columns=columns, cameras=cameras, fps=fps or episode.fps, segments={}, instructions=()
    )


def _running(column: Shaped[np.ndarray, "T *D"], time: Int[np.ndarray, "N"]) -> Shaped[np.ndarray, "N *D"]:
    """Returns a column as recorded, at these frames."""
    is_number = column.ndim == 1 and np.issubdtype(column.dtype, np.floating)
    return runs_on(column, time) if is_number else column[np.minimum(time, len(column) - 1)]


def grows_evenly(column: Shaped[np.ndarray, "T *D"]) -> bool:
    """Returns whether a column is a straight line of the frame number (R^2 of 0.9999 or more): time stamps and counters are."""
    if column.ndim != 1 or len(column) < 3 or not np.issubdtype(column.dtype, np.number):
        return False
    values = column.astype(np.float64)
    time = np.arange(len(values)) - (len(values) - 1) / 2
    centred = values - values.mean()
    variance = float((centred**2).sum())
    return variance > 0 and float((centred * time).sum()) ** 2 >= EVEN * variance * float((time**2).sum())


def runs_on(values: Float[np.ndarray, "T"], time: Int[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """Returns the values at these frames; past the end they go on by the mean step.

    >>> runs_on(np.array([0.0, 2.0, 4.0]), np.arange(5))
    array([0., 2., 4., 6., 8.])
    """
    last = len(values) - 1
    step = (values[-1] - values[0]) / last if last else values.dtype.type(0)
    return (values[np.minimum(time, last)] + np.maximum(time - last, 0) * step).astype(values.dtype)


def with_images(episode: Episode, change: ChangeImages) -> Episode:
    """Returns the episode with every image of every camera changed when it is read."""
    order = np.arange(episode.length)
    return dataclasses.replace(
        episode, cameras={name: EditedFrames(frames, name, order, change) for name, frames in episode.cameras.items()}
    )
