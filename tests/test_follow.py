"""What the plugin for `lerobot-rollout` does in each frame, without LeRobot: plugins/lerobot_strategy/check.py runs it with LeRobot."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from lerobot_strategy_milepost.follow import FEATURES, Follower, Recorder
from milepost import ElapsedModel
from milepost.core import DataError, Step
from milepost.metrics import SuccessRule, detect_success
from milepost.testing import dot_episodes, tiny_sarm

RULE = SuccessRule(threshold=0.8, release=0.5, hold=2)


class Plays:
    """A model whose curve is known. It notes what it was shown."""

    def __init__(self, *curve: float) -> None:
        self.curve, self.shown, self.resets = curve, [], []

    def reset(self, *, task: str, fps: float) -> None:
        self.shown, self.resets = [], [*self.resets, (task, fps)]

    def step(self, frames: Any, state: Any = None) -> Step:
        self.shown.append((frames, state))
        return Step(self.curve[len(self.shown) - 1])


class Records:
    """A dataset that is being recorded."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.repo_id = "me/rollout"

    def add_frame(self, frame: dict[str, Any]) -> None:
        self.frames.append(frame)


def frames(count: int) -> list[dict[str, Any]]:
    image = np.zeros((8, 8, 3), np.uint8)
    return [{"observation.images.top": image, "observation.state": np.ones(2), "action": np.zeros(2), "task": "go"} for _ in range(count)]


def recorded(model: Any, count: int, **options: Any) -> tuple[Records, list[int]]:
    """Returns what was recorded, and at which frames the attempt was said to succeed."""
    dataset, follower, ends = Records(), Follower(model, RULE, **options), []
    recorder = Recorder(dataset, follower, lambda: ends.append(len(dataset.frames) - 1))
    follower.begin("go", 10.0)
    for frame in frames(count):
        recorder.add_frame(frame)
    assert recorder.repo_id == "me/rollout"
    return dataset, ends


def test_progress_and_success_are_in_every_frame() -> None:
    curve = (0.1, 0.9, 0.9, 0.6, 0.2)
    dataset, ends = recorded(Plays(*curve), 5)
    assert [frame["progress"].tolist() for frame in dataset.frames] == [[np.float32(each)] for each in curve]
    assert [frame["next.success"].item() for frame in dataset.frames] == detect_success(np.array(curve), RULE).tolist()
    assert ends == [2]
    for frame in dataset.frames:
        assert set(frame) == {"observation.images.top", "observation.state", "action", "task", *FEATURES}
        for name, feature in FEATURES.items():
            assert (str(frame[name].dtype), frame[name].shape) == (feature["dtype"], feature["shape"])


def test_the_model_sees_cameras_and_state_and_nothing_else() -> None:
    model = Plays(*[0.0] * 3)
    recorded(model, 3)
    assert model.resets == [("go", 10.0)]
    assert [list(images) for images, _ in model.shown] == [["observation.images.top"]] * 3
    assert all(state.dtype == np.float32 and state.tolist() == [1, 1] for _, state in model.shown)


def test_a_slow_model_looks_at_some_frames() -> None:
    model = Plays(0.1, 0.9, 0.9)
    dataset, ends = recorded(model, 6, every=2)
    assert [round(frame["progress"].item(), 1) for frame in dataset.frames] == [0.1, 0.1, 0.9, 0.9, 0.9, 0.9]
    assert (model.resets, ends) == ([("go", 5.0)], [4])


def test_an_unknown_progress_is_recorded_as_such() -> None:
    dataset, ends = recorded(Plays(float("nan"), float("nan")), 2)
    assert np.isnan([frame["progress"].item() for frame in dataset.frames]).all()
    assert not ends


def test_the_next_attempt_begins_anew() -> None:
    model = Plays(0.9, 0.9)
    follower = Follower(model, RULE)
    for task in ("go", "come"):
        follower.begin(task, 10.0)
        assert not follower.is_success
        assert [bool(follower.look(frame)["next.success"].item()) for frame in frames(2)] == [False, True]
    assert [task for task, _ in model.resets] == ["go", "come"]


def test_a_real_model_says_online_what_it_says_of_the_recording() -> None:
    model, episode = tiny_sarm(), dot_episodes(1)[0]
    follower = Follower(model, RULE)
    follower.begin(episode.task, episode.fps)
    shown = [{name: camera[np.array([at])][0] for name, camera in episode.cameras.items()} for at in range(episode.length)]
    looks = [follower.look({**images, "observation.state": state}) for images, state in zip(shown, episode.state, strict=True)]
    np.testing.assert_allclose([look["progress"].item() for look in looks], model.predict(episode).main.value, atol=1e-5)


def test_a_model_that_needs_the_whole_recording_is_refused() -> None:
    with pytest.raises(DataError, match="ElapsedModel cannot follow an attempt frame by frame"):
        Follower(ElapsedModel(), RULE)
    with pytest.raises(ValueError, match="at least 1 frame"):
        Follower(Plays(), RULE, every=0)


def test_lerobot_is_not_loaded_by_the_package() -> None:
    assert not [name for name in sys.modules if name.split(".")[0] == "lerobot"]
