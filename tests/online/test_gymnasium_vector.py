"""A vector environment of N with progress as its reward is N single ones, in each of gymnasium's ways to begin a new episode."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from reward_worlds import CAMERA, EPISODES, TASK, DotsEnv

from milepost import FrameKeys, RewardConfig, ShapingConfig, TaskFromInfo
from milepost.core import DataError
from milepost.metrics import SuccessRule
from milepost.online import Sessions
from milepost.online.wrappers.gymnasium import ProgressReward, VectorProgressReward, info_of
from milepost.testing import tiny_sarm

KEYS = FrameKeys({CAMERA: ("pixels", "top")}, state="state")
CONFIG = RewardConfig(ShapingConfig(gamma=0.9), success=SuccessRule(0.5, 0.4, hold=2), success_bonus=3.0)
WORLDS = [partial(DotsEnv, 0), partial(DotsEnv, 1, limit=7), partial(DotsEnv, 2, ends=False)]


def actions(step: int) -> np.ndarray:
    return np.random.default_rng(step).uniform(-1, 1, (3, 1)).astype(np.float32)


def same(one: Any, other: Any) -> None:
    """Asserts that infos are equal, to rounding and with NaN equal to itself."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, np.ndarray) and one.dtype == object:
        assert all(data_equivalence(a, b) for a, b in zip(one, other, strict=True))
    else:
        np.testing.assert_allclose(one, other, atol=1e-4)


def pair(mode: AutoresetMode, frames: FrameKeys = KEYS, task: Any = TASK, config: RewardConfig = CONFIG) -> tuple[Any, Any]:
    """Returns a vector environment in one wrapper, and one of environments that are wrapped each."""
    model = tiny_sarm()
    together = VectorProgressReward(SyncVectorEnv(WORLDS, autoreset_mode=mode), model, task=task, frames=frames, config=config)
    single = [lambda make=make: ProgressReward(make(), model, task=task, frames=frames, config=config) for make in WORLDS]
    return together, SyncVectorEnv(single, autoreset_mode=mode)


@pytest.mark.parametrize("task", [TASK, TaskFromInfo("instruction")], ids=["fixed", "info"])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_many_are_as_many_single_ones(mode: AutoresetMode, task: Any) -> None:
    together, apart = pair(mode, task=task)
    same(together.reset(seed=0)[1], apart.reset(seed=0)[1])
    ends = 0
    for step in range(45):
        (seen, rewards, *dones, infos), (expected, others, *other_dones, other_infos) = (
            together.step(actions(step)),
            apart.step(actions(step)),
        )
        same(seen, expected)
        np.testing.assert_allclose(rewards, others, atol=1e-4)
        assert rewards.dtype == others.dtype
        np.testing.assert_array_equal(dones, other_dones)
        same(infos, other_infos)
        mask = dones[0] | dones[1]
        ends += mask.sum()
        if mode is AutoresetMode.DISABLED and mask.any():
            again, others_again = (env.reset(options={"reset_mask": mask.copy()}) for env in (together, apart))
            same(again[0], others_again[0])
            same(again[1], others_again[1])
    assert ends > 5
    together.close()


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_what_the_environments_render(mode: AutoresetMode) -> None:
    together, _ = pair(mode, FrameKeys(state="state", render=CAMERA))
    curve = tiny_sarm().predict(EPISODES[0]).main.value
    values = [together.reset()[1]["milepost"]["progress"][0]]
    for step in range(5):
        values.append(together.step(actions(step))[-1]["milepost"]["progress"][0])
    np.testing.assert_allclose(values, curve[:6], atol=1e-5)


def test_all_go_through_the_model_together(monkeypatch: pytest.MonkeyPatch) -> None:
    together, _ = pair(AutoresetMode.NEXT_STEP)
    sizes: list[int] = []
    advance = Sessions.advance
    monkeypatch.setattr(Sessions, "advance", lambda self, observations: sizes.append(len(observations)) or advance(self, observations))
    together.reset()
    for step in range(9):
        together.step(actions(step))
    assert sizes == [3] * 10, "in the step in which one begins anew, too"


def test_success_ends_an_episode_where_the_learner_resets() -> None:
    config = RewardConfig(success=SuccessRule(0.0, 0.0, hold=4), terminate_on_success=True)
    together, _ = pair(AutoresetMode.DISABLED, config=config)
    together.reset()
    ended = [together.step(actions(step))[2] for step in range(3)]
    np.testing.assert_array_equal(ended, [[False] * 3, [False] * 3, [True] * 3])
    _, infos = together.reset(options={"reset_mask": np.array([True, False, False])})
    assert infos["milepost"]["frame"][0] == 0
    np.testing.assert_array_equal(infos["_milepost"], [True, False, False])
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        with pytest.raises(DataError, match="begins episodes by itself"):
            pair(mode, config=config)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match="the image of the last frame is gone"):
        pair(AutoresetMode.SAME_STEP, FrameKeys(state="state", render=CAMERA))
    with pytest.raises(DataError, match="names 2 instructions for 3 environments"):
        pair(AutoresetMode.NEXT_STEP, task=["one", "two"])


def test_an_info_of_one_environment() -> None:
    infos = {"a": np.array([1, 2]), "_a": np.array([True, False]), "b": {"c": np.array([3, 4]), "_c": np.array([True, True])},
             "_b": np.array([True, True]), "whole": "text"}  # fmt: skip
    assert info_of(infos, 0) == {"a": 1, "b": {"c": 3}, "whole": "text"}
    assert info_of(infos, 1) == {"b": {"c": 4}, "whole": "text"}


def test_environments_in_processes_of_their_own() -> None:
    """The model stays in this one."""
    processes = AsyncVectorEnv(WORLDS, context="spawn")
    env = VectorProgressReward(processes, tiny_sarm(), task=[TASK] * 3, frames=KEYS, config=CONFIG)
    together, _ = pair(AutoresetMode.NEXT_STEP)
    same(env.reset()[1]["milepost"], together.reset()[1]["milepost"])
    for step in range(9):
        one, other = env.step(actions(step)), together.step(actions(step))
        np.testing.assert_allclose(one[1], other[1], atol=1e-4)
        same(one[-1]["milepost"], other[-1]["milepost"])
    assert isinstance(env.single_observation_space, gymnasium.spaces.Dict)
    env.close()
