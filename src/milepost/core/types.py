"""The contract of all rooms: a recorded attempt goes in (Episode), one number per frame comes out (Progress).

Every type here refuses bad data when it is built. Nothing here reads a file or knows a model.
Every interval is [start, stop); `frame` counts inside the episode, `row` inside the dataset (LeRobot's `index`).
Shape letters of the library: N any number, B batch, T frames of an episode, L frames a model sees at once,
K stages, E embedding, S robot state, H W 3 an RGB image.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from milepost.core.brief import Brief
from milepost.core.calls import require_whole
from milepost.core.contract import require_progress, require_signal, require_sound, require_stages
from milepost.core.errors import DataError, ModelError, UnreadableError
from milepost.core.files import count_noun
from milepost.core.images import FrameIndex, frame_numbers, require_cameras


def has_words(task: str) -> bool:
    """Returns whether a task contains a letter or a digit: spaces and dots alone name no task.

    >>> has_words("open the drawer"), has_words(" ...")
    (True, False)
    """
    return any(letter.isalnum() for letter in task)


SUCCESS = "next.success"
"""LeRobot's column that says for each frame whether the task is done."""


def success_in(facts: Mapping[str, Any]) -> bool | None:
    """Returns the success in an episode's facts; None if they have none."""
    fact = facts.get("success")
    return None if fact is None else bool(fact)


def ends_well(column: Shaped[np.ndarray, "T ..."]) -> bool:
    """Returns whether the last frame of a success column, (T,) or (T, 1), is a success."""
    return bool(np.any(np.asarray(column)[-1]))


@runtime_checkable
class Frames(Protocol):
    """The images of one camera in one episode, decoded on demand. `ArrayFrames` makes one of an array (T, H, W, 3)."""

    def __len__(self) -> int: ...

    def __getitem__(self, frames: FrameIndex) -> UInt8[np.ndarray, "N H W 3"]:
        """Returns the images at these frames, in this order; a frame may repeat. A mask of all frames and a slice name frames too.

        Raises IndexError outside [0, len).
        """
        ...

    def chunks(self, size: int = 64) -> Iterator[UInt8[np.ndarray, "N H W 3"]]:
        """Yields every image once, in order, at most `size` at a time: a whole episode needs no more memory than one chunk."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayFrames:
    """Images in memory as Frames."""

    images: UInt8[np.ndarray, "T H W 3"]

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[-1] != 3:
            raise DataError(f"images in memory should be uint8 (T, H, W, 3), got {self.images.dtype} {self.images.shape}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, frames: FrameIndex) -> UInt8[np.ndarray, "N H W 3"]:
        frames = frame_numbers(frames, len(self))
        return self.images[frames]

    def chunks(self, size: int = 64) -> Iterator[UInt8[np.ndarray, "N H W 3"]]:
        for start in range(0, len(self), size):
            yield self.images[start : start + size]


@dataclass(frozen=True)
class Segment:
    """Frames [start, stop) of an episode show this stage. Stages may repeat, be skipped or stop early.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> milepost.open_dataset("dots")[0].segments["sparse"][0]
    Segment(name='reach', start=0, stop=12)
    """

    name: str
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not self.name:
            raise DataError("a segment needs a stage name, got an empty one")
        require_whole((self.start, self.stop), f"start and stop of the segment '{self.name}'")
        if not 0 <= self.start <= self.stop:
            raise DataError(f"segment '{self.name}' needs 0 <= start <= stop, got [{self.start}, {self.stop})")


@dataclass(frozen=True, eq=False, repr=False)
class Episode(Brief):
    """One recorded attempt at a task.

    index: LeRobot's episode_index. row: the dataset row of its frame 0. task: the instruction, in words.
    fps: frames per second. length: frames (T). state: robot state (T, S) float32, finite, raw units (S may be 0).
    cameras: full LeRobot key -> Frames of length T. segments: "sparse" / "dense" -> its annotation, absent if none.
    columns: every other per-frame column, name -> (T, ...). facts: the fields of meta/episodes beyond LeRobot's own.
    instructions: the task of each range of frames if there are several, else empty; `task` is the first one.
    annotation_faults: head -> why its annotation cannot be used for training or evaluation. `segments` has it if it can be read.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> import numpy as np
    >>> episode = milepost.open_dataset("dots")[0]
    >>> episode.task, episode.length, episode.state.shape
    ('visit the places with dot 0', 33, (33, 2))
    >>> episode.cameras["observation.images.top"][np.array([0, 10, 20])].shape
    (3, 32, 32, 3)
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
        is_bad = ~np.isfinite(self.state)
        if is_bad.any():
            frame, channel = np.argwhere(is_bad)[0]
            raise UnreadableError(
                f"{who}: the robot state is NaN or infinite in {count_noun(int(is_bad.any(axis=1).sum()), 'frame')}, first at frame "
                f"{frame}, channel {channel}; repair the recording, or leave the episode out with --episodes"
            )
        for name, frames in self.cameras.items():
            if len(frames) != self.length:
                raise UnreadableError(f"{who}: camera '{name}' has {count_noun(len(frames), 'frame')}, the episode has {self.length}")
        for name, column in self.columns.items():
            if len(column) != self.length:
                raise UnreadableError(f"{who}: column '{name}' has {len(column)} rows, the episode has {self.length}")
        for head, segments in self.segments.items():
            for segment in segments:
                if segment.stop > self.length:
                    raise UnreadableError(
                        f"{who}: {head} segment '{segment.name}' [{segment.start}, {segment.stop}) ends after the episode's "
                        f"{count_noun(self.length, 'frame')}"
                    )

    def __len__(self) -> int:
        return self.length

    @property
    def success(self) -> bool | None:
        """Returns whether the attempt ended in success: `facts["success"]`, else the `next.success` column; None if there is neither."""
        fact = success_in(self.facts)
        return ends_well(self.columns[SUCCESS]) if fact is None and SUCCESS in self.columns else fact

    @property
    def sound_segments(self) -> dict[str, tuple[Segment, ...]]:
        """Returns `segments` of the heads whose annotation has no fault."""
        return {head: segments for head, segments in self.segments.items() if head not in self.annotation_faults}

    def camera(self, name: str) -> Frames:
        """Returns the camera of that name. Raises DataError, which lists the cameras, if there is none."""
        require_cameras([name], self.cameras)
        return self.cameras[name]


@dataclass(frozen=True, eq=False, repr=False)
class Signal(Brief):
    """A raw number of the model for every frame, before it is scaled to progress.

    values: (T,) float32, NaN where the model did not compute it. unit: "nats", "stages", or empty for a plain number. low, high: the
    bounds of the values. rises: whether higher values mean more progress.
    """

    values: Float[np.ndarray, "T"]
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    rises: bool = True

    def with_values(self, values: Float[np.ndarray, "N"]) -> Signal:
        """Returns the same signal for other frames."""
        return dataclasses.replace(self, values=values)


@dataclass(frozen=True, eq=False, repr=False)
class Curve(Brief):
    """The output of one head of a model for T frames: those of one episode, or all rows of a progress file.

    value: (T,) float32 in [0, 1], NaN where unknown. stage: (T, K) probability of each stage, NaN rows where unknown. stage_names: the K
    names, empty if unknown. signals: the model's raw numbers by name. score: the name of the signal that was scaled to [0, 1] over each
    episode to make `value`, empty if none was. That signal, unlike `value`, can be compared between episodes.
    """

    value: Float[np.ndarray, "T"]
    stage: Float[np.ndarray, "T K"] | None = None
    stage_names: tuple[str, ...] = ()
    signals: Mapping[str, Signal] = field(default_factory=dict)
    score: str = ""

    def __post_init__(self) -> None:
        require_progress(self.value)
        for name, signal in self.signals.items():
            if not isinstance(signal, Signal):
                raise ModelError(f"the signal '{name}' must be a milepost.core.Signal, got {type(signal).__name__}")
            require_signal(name, signal.values, signal.unit, len(self.value))
        if self.stage is not None:
            require_stages(self.stage, self.stage_names, len(self.value))
        if self.score and self.score not in self.signals:
            raise ModelError(f"the score '{self.score}' is no signal of this curve; it has: {', '.join(self.signals) or 'none'}")

    def __len__(self) -> int:
        return len(self.value)


MAIN_HEAD = "sparse"
"""LeRobot's name for the head that a model with one head has."""
HEADS = (MAIN_HEAD, "dense")
"""The heads that annotations can have, in LeRobot's names. A new one is added here and in `models/sarm/config.py`."""
RAW = "raw"
"""The usual name of the signal of a head that has one."""


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Progress(Brief):
    """The output of a reward model for one episode: one curve for each head. The first head is the main one.

    >>> import numpy as np
    >>> milepost.Progress(7, np.array([0.0, 0.5, 1.0], np.float32)).value
    array([0. , 0.5, 1. ], dtype=float32)
    """

    episode: int
    heads: Mapping[str, Curve]

    def __init__(self, episode: int, heads: Mapping[str, Curve] | Curve | Float[np.ndarray, "T"]) -> None:
        """heads: name ("sparse", "dense", ...) -> curve. One curve alone, or its values (T,) float32, become the head "sparse"."""
        if not isinstance(episode, int | np.integer):
            raise ModelError(f"progress is of the episode with a number, episode.index; got {type(episode).__name__}")
        if not isinstance(heads, Mapping):
            heads = {MAIN_HEAD: heads if isinstance(heads, Curve) else Curve(heads)}
        if not heads:
            raise ModelError("progress needs at least one head")
        if wrong := [name for name, curve in heads.items() if not (name and isinstance(name, str) and isinstance(curve, Curve))]:
            raise ModelError(f"the heads of progress are curves by name: name -> milepost.core.Curve; not so: {wrong[0]!r}")
        require_sound(heads)
        object.__setattr__(self, "episode", int(episode))
        object.__setattr__(self, "heads", dict(heads))

    @property
    def main(self) -> Curve:
        """Returns the curve of the first head."""
        return next(iter(self.heads.values()))

    @property
    def value(self) -> Float[np.ndarray, "T"]:
        """Returns the main head's progress in [0, 1], NaN where unknown."""
        return self.main.value

    @property
    def stage(self) -> Float[np.ndarray, "T K"] | None:
        """Returns the main head's stage probabilities."""
        return self.main.stage

    def head(self, name: str) -> Curve:
        """Returns the curve of a head. Raises DataError, which lists the heads, if there is none of that name."""
        if name not in self.heads:
            raise DataError(f"there is no head '{name}'; there is: {', '.join(self.heads)}")
        return self.heads[name]

    def __len__(self) -> int:
        return len(self.main)


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
        """Returns a text that changes with frames, states or videos, and stays the same if annotations or progress files are added."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Episode: ...


@runtime_checkable
class KnowsRows(Protocol):
    """A dataset that knows an episode's rows without reading the episode."""

    def row_range(self, episode_index: int) -> tuple[int, int]:
        """Returns the episode's rows [start, stop). Raises UnreadableError if they are unknown."""
        ...


@runtime_checkable
class KnowsEpisodes(Protocol):
    """A dataset that knows its episodes and their tasks without reading them."""

    @property
    def episode_indices(self) -> Sequence[int]: ...
    @property
    def total_frames(self) -> int: ...

    def task_of(self, episode_index: int) -> str:
        """Returns the episode's task in words, "" if it has none."""
        ...


def number_at(dataset: Dataset, position: int) -> int:
    """Returns the episode_index of the episode at this position, without reading it; the position itself if the dataset has none."""
    return int(getattr(dataset, "episode_indices", range(len(dataset)))[position])


def read_episodes(dataset: Dataset) -> tuple[list[Episode], dict[int, str]]:
    """Returns the episodes whose rows can be read, and why each other one's cannot, by number. UnreadableError if there is none."""
    episodes, unreadable = [], {}
    for position in range(len(dataset)):
        try:
            episodes.append(dataset[position])
        except UnreadableError as error:
            unreadable[number_at(dataset, position)] = str(error)
    if not episodes:
        raise UnreadableError(f"no episode of {dataset.name} can be read: {next(iter(unreadable.values()), 'there is none')}")
    return episodes, unreadable


Tick = Callable[[int, int], None]
"""A callback (done, total)."""
