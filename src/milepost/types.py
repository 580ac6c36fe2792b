"""The border: a recorded attempt goes in (Episode), one number per frame comes out (Progress).

Everything here refuses bad data when it is built. Nothing here reads a file or knows a model.
Every interval is [start, stop); `frame` counts inside the episode, `row` inside the dataset (LeRobot's `index`).
Shape letters of the library: N any number, B batch, T frames of an episode, L frames a model sees at once,
K stages, E embedding, S robot state, H W 3 an RGB image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8


class DataError(ValueError):
    """The user's data, folder or file is not what it should be. The message says what was expected, what came and what to do."""


class UnreadableError(DataError):
    """One episode cannot be used: its pictures are missing, damaged or too short, or it is too long for the model. Others may be fine."""


class DataWarning(UserWarning):
    """The user's data is not as it should be, and was read all the same. The message says what is wrong and how it was taken."""


def has_words(task: str) -> bool:
    """Returns whether there is a letter or digit in it: neither spaces nor dots name a task.

    >>> has_words("open the drawer"), has_words(" ...")
    (True, False)
    """
    return any(letter.isalnum() for letter in task)


@runtime_checkable
class Frames(Protocol):
    """The images of one camera in one episode, read only when asked for. An array (T, H, W, 3) wrapped in `ArrayFrames` is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, frames: Int[np.ndarray, "N"]) -> UInt8[np.ndarray, "N H W 3"]:
        """The images at these frame numbers, in this order (repeats allowed). IndexError outside [0, len)."""
        ...

    def chunks(self, size: int = 64) -> Iterator[UInt8[np.ndarray, "N H W 3"]]:
        """Every image once, in order, at most `size` at a time: the whole episode at constant memory."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayFrames:
    """Images already in memory, as Frames."""

    images: UInt8[np.ndarray, "T H W 3"]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, frames: Int[np.ndarray, "N"]) -> UInt8[np.ndarray, "N H W 3"]:
        frames = np.asarray(frames)
        if frames.size and (frames.min() < 0 or frames.max() >= len(self)):
            raise IndexError(f"frames {frames.min()}..{frames.max()} asked of a camera with {len(self)} frames")
        return self.images[frames]

    def chunks(self, size: int = 64) -> Iterator[UInt8[np.ndarray, "N H W 3"]]:
        for start in range(0, len(self), size):
            yield self.images[start : start + size]


@dataclass(frozen=True)
class Segment:
    """Frames [start, stop) of an episode show this stage. Stages may repeat, be skipped or stop early."""

    name: str
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not self.name:
            raise DataError("a segment needs a stage name, got an empty one")
        if not 0 <= self.start <= self.stop:
            raise DataError(f"segment '{self.name}' needs 0 <= start <= stop, got [{self.start}, {self.stop})")


@dataclass(frozen=True, eq=False)
class Episode:
    """One recorded attempt at a task.

    index: its number in the dataset. row: the dataset row of its frame 0. task: the instruction, in words.
    fps: frames per second. length: frames (T). state: robot state (T, S) float32, finite, raw units (S may be 0).
    cameras: full LeRobot key -> Frames of length T. segments: "sparse" / "dense" -> its annotation, absent if none.
    columns: every other per-frame column, name -> (T, ...). facts: what meta/episodes says beyond LeRobot's own fields.
    instructions: where the frames have several tasks, which holds for which frames; `task` is the first of them. Empty for one task.
    annotation_faults: head -> why nobody can learn or judge by its annotation, which `segments` has where it can be read at all.
    """

    index: int
    row: int
    task: str
    fps: float
    length: int
    state: Float[np.ndarray, "T S"]
    cameras: Mapping[str, Frames] = field(default_factory=dict)
    segments: Mapping[str, tuple[Segment, ...]] = field(default_factory=dict)
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    instructions: tuple[Segment, ...] = ()
    annotation_faults: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        who = f"episode {self.index}"
        if self.length < 1:
            raise UnreadableError(f"{who}: an episode has at least one frame, got {self.length}")
        if self.fps <= 0:
            raise DataError(f"{who}: fps must be above 0, got {self.fps}")
        if self.state.ndim != 2 or len(self.state) != self.length:
            raise DataError(f"{who}: state must be ({self.length}, S), got {self.state.shape}")
        bad = ~np.isfinite(self.state)
        if bad.any():
            frame, channel = np.argwhere(bad)[0]
            raise UnreadableError(
                f"{who}: the robot state has {int(bad.any(axis=1).sum())} frames that are NaN or infinite, first at frame "
                f"{frame}, channel {channel}; repair the recording, or leave the episode out with --episodes"
            )
        for name, frames in self.cameras.items():
            if len(frames) != self.length:
                raise UnreadableError(f"{who}: camera '{name}' has {len(frames)} frames, the episode has {self.length}")
        for name, column in self.columns.items():
            if len(column) != self.length:
                raise UnreadableError(f"{who}: column '{name}' has {len(column)} rows, the episode has {self.length}")
        for head, segments in self.segments.items():
            for segment in segments:
                if segment.stop > self.length:
                    raise UnreadableError(
                        f"{who}: {head} segment '{segment.name}' [{segment.start}, {segment.stop}) ends after the episode's "
                        f"{self.length} frames"
                    )

    def __len__(self) -> int:
        return self.length

    @property
    def success(self) -> bool | None:
        """Did the attempt end in success? From `facts["success"]`, else from the `next.success` column; None if neither says."""
        if "success" in self.facts:
            return bool(self.facts["success"])
        if "next.success" in self.columns:
            return bool(np.asarray(self.columns["next.success"]).reshape(self.length, -1)[-1].any())
        return None

    @property
    def sound_segments(self) -> dict[str, tuple[Segment, ...]]:
        """`segments` of the heads without a fault."""
        return {head: segments for head, segments in self.segments.items() if head not in self.annotation_faults}

    def camera(self, name: str) -> Frames:
        """The camera of that name; DataError lists the right names."""
        if name not in self.cameras:
            raise DataError(f"no camera '{name}'; this dataset has: {', '.join(self.cameras) or 'none'}")
        return self.cameras[name]


@dataclass(frozen=True, eq=False)
class Progress:
    """What a reward model says of one episode.

    value: (T,) float32 in [0, 1], NaN where unknown. raw: (T,) the model's own number in its own units (log-probability, k + tau).
    raws: every raw number by name, `raw` among them, where a model has several (TOPReward's log-probability and log-odds).
    stage: (T, K) probability of each stage. dense: the same from a second, finer head where the model has one (SARM's dense head).
    """

    episode: int
    value: Float[np.ndarray, "T"]
    raw: Float[np.ndarray, "T"] | None = None
    stage: Float[np.ndarray, "T K"] | None = None
    dense: Progress | None = None
    raws: Mapping[str, Float[np.ndarray, "T"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.value.ndim != 1 or self.value.dtype != np.float32:
            raise ValueError(f"progress must be a float32 array of shape (T,), got {self.value.dtype} {self.value.shape}")
        if not np.all(np.isnan(self.value) | ((self.value >= 0) & (self.value <= 1))):
            raise ValueError(f"progress must lie in [0, 1] or be NaN, got {np.nanmin(self.value)}..{np.nanmax(self.value)}")
        for name, array in (("raw", self.raw), ("stage", self.stage), ("dense", self.dense), *self.raws.items()):
            if array is not None and len(array) != len(self.value):
                raise ValueError(f"'{name}' has {len(array)} frames, the curve has {len(self.value)}")

    def __len__(self) -> int:
        return len(self.value)


@runtime_checkable
class Dataset(Protocol):
    """A collection of episodes. `milepost.open_dataset` makes one from a LeRobot folder or Hub repository."""

    @property
    def name(self) -> str: ...
    @property
    def fps(self) -> float: ...
    @property
    def tasks(self) -> Sequence[str]: ...
    @property
    def cameras(self) -> Sequence[str]: ...
    @property
    def fingerprint(self) -> str:
        """Changes when frames, states or videos change; stays when annotations or progress files are added."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Episode: ...


def number_at(dataset: Dataset, position: int) -> int:
    """Returns the number in the dataset of the episode at this position, without reading it; the position if there are no numbers."""
    return int(getattr(dataset, "episode_indices", range(len(dataset)))[position])


@runtime_checkable
class RewardModel(Protocol):
    """Episode -> Progress. The only thing a reward model has to do."""

    def predict(self, episode: Episode) -> Progress: ...
