"""Follows the episodes that a policy records: progress frame by frame, success with hysteresis. It needs no LeRobot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from milepost.core import DataError, Online
from milepost.metrics import SuccessDetector, SuccessRule

PROGRESS, SUCCESS = "progress", "next.success"
FEATURES: Mapping[str, Mapping[str, Any]] = {
    PROGRESS: {"dtype": "float32", "shape": (1,), "names": None},
    SUCCESS: {"dtype": "bool", "shape": (1,), "names": None},
}
"""What a recorded dataset has beside the robot's own features."""
IMAGES, STATE = "observation.images.", "observation.state"


class Follower:
    """A reward model and a rule of success, for one episode after another.

    rule: its `hold` counts frames that the model looks at. every: the model looks at every n-th frame, and between them the numbers of the
    last one hold, which is for a model that is slower than the robot. ValueError if `every` is less than 1; DataError for a model that
    cannot follow an attempt frame by frame.
    """

    def __init__(self, model: Any, rule: SuccessRule, *, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1 frame, got {every}")
        if not isinstance(model, Online):
            raise DataError(f"{type(model).__name__} cannot follow an attempt frame by frame: it has no reset and step")
        self._model, self._every, self._detector = model, every, SuccessDetector(rule)
        self._count, self._progress, self._is_success = 0, float("nan"), False

    @property
    def is_success(self) -> bool:
        """Returns whether the attempt counts as successful at its newest frame."""
        return self._is_success

    def begin(self, task: str, fps: float) -> None:
        """Begins a new attempt at `task`, whose frames come at `fps`."""
        self._model.reset(task=task, fps=fps / self._every)
        self._detector.reset()
        self._count, self._progress, self._is_success = 0, float("nan"), False

    def look(self, frame: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Returns `progress` (1,) and `next.success` (1,) of the next frame, as LeRobot records them.

        frame: a frame as LeRobot's datasets take it, "observation.images.NAME" (H, W, 3) or (3, H, W), and "observation.state" (S,).
        """
        if self._count % self._every == 0:
            images = {name: np.asarray(image) for name, image in frame.items() if name.startswith(IMAGES)}
            state = frame.get(STATE)
            self._progress = self._model.step(images, None if state is None else np.asarray(state, np.float32)).progress
            self._is_success = self._detector.update(self._progress)
        self._count += 1
        return {PROGRESS: np.array([self._progress], np.float32), SUCCESS: np.array([self._is_success])}


class Recorder:
    """A dataset that is being recorded, with progress and success in every frame. Everything else is the dataset's own."""

    def __init__(self, dataset: Any, follower: Follower, on_success: Callable[[], None]) -> None:
        self._dataset, self._follower, self._on_success = dataset, follower, on_success

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def add_frame(self, frame: Mapping[str, Any]) -> None:
        """Records a frame; `on_success` is called at the frame at which the attempt begins to count as successful."""
        was_success = self._follower.is_success
        self._dataset.add_frame({**frame, **self._follower.look(frame)})
        if self._follower.is_success and not was_success:
            self._on_success()
