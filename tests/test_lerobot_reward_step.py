"""The processor step for HIL-SERL, over the stand-in of LeRobot. `make lerobot` runs it in LeRobot's own pipelines."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lerobot_stand_in
import milepost
from milepost.core import DataError
from milepost.online import Sessions
from milepost.testing import CAMERA, dot_episodes, tiny_sarm

MINE = "lerobot_policy_milepost"
EPISODE = dot_episodes(1)[0]


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    lerobot_stand_in.install(monkeypatch, tmp_path / "site")
    module = importlib.import_module(f"{MINE}.reward_step")
    yield module.MilepostRewardProcessorStep
    for name in [name for name in sys.modules if name.partition(".")[0] == MINE]:
        monkeypatch.delitem(sys.modules, name)


def transition(frame: int, *, reward: Any = 0.0, done: Any = False, task: Any = EPISODE.task, **more: Any) -> dict:
    """Returns one transition as LeRobot's steps leave it: images (1, 3, H, W) in [0, 1], a state (1, S)."""
    image = torch.from_numpy(EPISODE.camera(CAMERA)[np.array([frame])]).permute(0, 3, 1, 2).float() / 255
    observation = {CAMERA: image, "observation.state": torch.from_numpy(EPISODE.state[frame : frame + 1])}
    about = {} if task is None else {"task": task}
    return {"observation": observation, "reward": reward, "done": done, "info": {"own": 1}, "complementary_data": about, **more}


def test_the_reward_is_added_and_the_curve_is_the_offline_one(step: Any) -> None:
    one = step(source=tiny_sarm(), fps=10.0, gamma=0.9)
    curve = tiny_sarm().predict(EPISODE).main.value
    shaper = milepost.Shaper(milepost.ShapingConfig(gamma=0.9))
    shaper.begin(float(curve[0]))
    for episode in range(2):
        one.reset()
        first = one(transition(0, task=[EPISODE.task]))
        assert first["reward"] == 0.0
        shaper.begin(float(curve[0]))
        for frame in range(1, 6):
            result = one(transition(frame, reward=torch.tensor([0.25]), done=torch.tensor([False])))
            torch.testing.assert_close(result["reward"], torch.tensor([0.25 + shaper.reward(float(curve[frame]))]), atol=1e-5, rtol=0)
            assert result["done"].tolist() == [False]
            assert result["info"]["own"] == 1
            assert result["info"]["milepost"]["progress"] == pytest.approx(float(curve[frame]), abs=1e-5)
            assert result["info"]["milepost"]["frame"] == frame, episode
            assert result["info"]["milepost_frequency"] > 0
    ended = one(transition(6, done=True))
    assert ended["reward"] == pytest.approx(-curve[5], abs=1e-5)
    assert ended["done"] is True


def test_success_needs_several_frames_and_ends_nothing_unasked(step: Any) -> None:
    rule = {"source": tiny_sarm(), "fps": 10.0, "success_threshold": 0.0, "success_release": 0.0, "success_hold": 3, "model_weight": 0.0}
    for asked in (False, True):
        one = step(**rule, success_reward=2.0, terminate_on_success=asked)
        results = [one(transition(frame)) for frame in range(5)]
        assert [each["reward"] for each in results] == [0.0, 0.0, 2.0, 0.0, 0.0]
        assert [each["done"] for each in results] == [asked and frame >= 2 for frame in range(5)]
        assert [each["info"]["milepost"]["is_success"] for each in results] == [frame >= 2 for frame in range(5)]


def test_the_instruction(step: Any) -> None:
    one = step(source=tiny_sarm(), fps=10.0, task=EPISODE.task)
    first = one(transition(0, task=None))["info"]["milepost"]
    assert first["task"] == EPISODE.task
    other = one(transition(1, task="another task"))["info"]["milepost"]
    assert (other["task"], other["frame"]) == ("another task", 0)
    assert other["model_reward"] == pytest.approx(0.99 * other["progress"] - first["progress"], abs=1e-7)
    with pytest.raises(DataError, match="has no instruction"):
        step(source=tiny_sarm(), fps=10.0)(transition(0, task=None))


def test_its_fields_make_it_again(step: Any, tmp_path: Path) -> None:
    tiny_sarm().save_pretrained(tmp_path / "sarm")
    one = step(model=str(tmp_path / "sarm"), fps=10.0, gamma=0.9, max_age_s=0.5)
    again = step(**json.loads(json.dumps(one.get_config())))
    assert dataclasses.replace(again, source=None).get_config() == one.get_config()
    assert again(transition(0))["info"]["milepost"]["progress"] == one(transition(0))["info"]["milepost"]["progress"]
    assert again.transform_features({"a": 1}) == {"a": 1}


def test_what_cannot_be_is_refused(step: Any) -> None:
    one = step(source=Sessions(tiny_sarm()), fps=10.0)
    with pytest.raises(DataError, match="has no model"):
        step()
    with pytest.raises(DataError, match="finds no images"):
        one(transition(0) | {"observation": {"pixels": 1}})
    with pytest.raises(DataError, match="has no observation"):
        one(transition(0) | {"observation": None})
    twice = {CAMERA: torch.zeros(2, 3, 32, 32), "observation.state": torch.zeros(2, 2)}
    with pytest.raises(DataError, match="this observation is of 2"):
        one(transition(0) | {"observation": twice})
    with pytest.raises(ValueError, match="gamma must be"):
        step(source=tiny_sarm(), gamma=2.0)
