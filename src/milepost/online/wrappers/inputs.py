"""What a model looks at, taken from what an environment returns: images and state of a frame, and the instruction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from milepost.core import DataError

Key = str | tuple[str, ...]
"""Where a value lies in an observation that is a dictionary, one name for each level; () is the observation itself."""


@dataclass(frozen=True, eq=False)
class FrameData:
    """One frame of a robot. images: camera name -> (H, W, 3) or (3, H, W). state: (S,) in the units of the training dataset, or None.

    >>> milepost.FrameData({"observation.images.top": None}).state is None
    True
    """

    images: Mapping[str, Any]
    state: Any = None


@dataclass(frozen=True)
class FrameKeys:
    """Where images and state lie in an observation. ValueError if no image is named.

    images: camera of the model -> key in the observation. state: key of the robot's state, None for a model without. render: the camera
    whose image is what the environment renders, "" for none.

    >>> keys = milepost.FrameKeys({"observation.images.top": ("pixels", "top")}, state="agent_pos")
    >>> keys.frame({"pixels": {"top": None}, "agent_pos": [0.5, 1.0]}).state
    [0.5, 1.0]
    """

    images: Mapping[str, Key] = field(default_factory=dict)
    state: Key | None = None
    render: str = ""

    def __post_init__(self) -> None:
        if not self.images and not self.render:
            raise ValueError("name at least one image: images={camera: key of the observation}, or render=camera")

    def frame(self, observation: Any, rendered: Any = None) -> FrameData:
        """Returns the frame of an observation. rendered: (H, W, 3), the image of `render`. DataError for a key that is not there."""
        images = {camera: _at(observation, key) for camera, key in self.images.items()}
        if self.render:
            images[self.render] = rendered
        if self.state is None:
            return FrameData(images)
        return FrameData(images, _at(observation, self.state))


FrameOf = Callable[[Any, Mapping[str, Any]], FrameData]
"""(observation, info) -> frame, of one environment."""


def frame_by(frames: FrameOf, observation: Any, info: Mapping[str, Any]) -> FrameData:
    """Returns what a function says the model sees. DataError if that is no `FrameData` with images by camera."""
    frame: Any = frames(observation, info)
    if not isinstance(frame, FrameData) or not isinstance(frame.images, Mapping):
        got = type(frame).__name__ if not isinstance(frame, FrameData) else f"one whose images are a {type(frame.images).__name__}"
        raise DataError(
            f"the function frames= should return a milepost.FrameData(images={{camera: image}}, state=...), and it returned {got}"
        )
    return frame


TaskOf = Callable[[Any, Mapping[str, Any]], str | None]
"""(observation, info) -> instruction, of one environment; None for the same as before."""


@dataclass(frozen=True)
class TaskFromInfo:
    """The instruction under a key of `info`. Where the key is not there, it is the same as before.

    >>> milepost.TaskFromInfo("instruction")(None, {"instruction": "open the drawer"})
    'open the drawer'
    """

    key: str

    def __call__(self, observation: Any, info: Mapping[str, Any]) -> str | None:
        value = info.get(self.key)
        return None if value is None else str(value)


def tasks_of(task: str | Sequence[str] | TaskOf, count: int) -> list[TaskOf]:
    """Returns for each of `count` environments what says its instruction. DataError if there are more or fewer."""
    if callable(task):
        return [task] * count
    names = [task] * count if isinstance(task, str) else list(task)
    if len(names) != count:
        raise DataError(f"task names {len(names)} instructions for {count} environments: give one, or one for each")
    return [_Fixed(name) for name in names]


@dataclass(frozen=True)
class _Fixed:
    """An instruction that stays."""

    task: str

    def __call__(self, observation: Any, info: Mapping[str, Any]) -> str:
        return self.task


def _at(observation: Any, key: Key) -> Any:
    value = observation
    for name in (key,) if isinstance(key, str) else key:
        try:
            value = value[name]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            there = ", ".join(map(str, value)) if isinstance(value, Mapping) else f"it is a {type(value).__name__}, without names"
            raise DataError(f"the observation has no '{name}' ({there}): name another key, or () for the observation itself") from error
    return value
