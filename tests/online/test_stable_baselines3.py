"""Stable-Baselines3's vector environments with progress as the reward: single environments, ends, success, and PPO that learns on it."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from reward_worlds import CAMERA, EPISODES, TASK, DotsEnv, FlatDotsEnv
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize, VecTransposeImage

import milepost
from milepost import FrameData, FrameKeys, RewardConfig, ShapingConfig, TaskFromInfo
from milepost.core import DataError
from milepost.metrics import SuccessRule
from milepost.online import Sessions
from milepost.online.wrappers.gymnasium import ProgressReward
from milepost.online.wrappers.stable_baselines3 import VecProgressReward, row_of, with_row
from milepost.testing import tiny_sarm

KEYS = FrameKeys({CAMERA: "top"}, state="state")
CONFIG = RewardConfig(ShapingConfig(gamma=0.9), env_weight=0.5)


def world(first: int, *, times: int = 1, **more: Any) -> FlatDotsEnv:
    return FlatDotsEnv(DotsEnv(first, **more), times)


WORLDS = [partial(world, 0), partial(world, 1, limit=7), partial(world, 2, ends=False)]


def action(step: int) -> np.ndarray:
    return np.random.default_rng(step).uniform(-1, 1, (3, 1)).astype(np.float32)


@pytest.mark.parametrize("task", [TASK, TaskFromInfo("instruction")], ids=["fixed", "info"])
def test_many_are_as_many_single_ones(task: Any) -> None:
    """Its environments begin anew in the step of their end; the single ones are reset by hand. Channels may come first."""
    model = tiny_sarm()
    together = VecProgressReward(VecTransposeImage(DummyVecEnv(WORLDS)), model, task=task, frames=KEYS, fps=10.0, config=CONFIG)
    single = [ProgressReward(make(), model, task=task, frames=KEYS, config=CONFIG) for make in WORLDS]
    together.reset()
    for place, env in enumerate(single):
        same(together.reset_infos[place], env.reset()[1])
    ends, cuts = 0, 0
    for step in range(45):
        observations, rewards, dones, infos = together.step(action(step))
        assert rewards.dtype == np.float32
        for place, env in enumerate(single):
            observation, reward, terminated, truncated, info = env.step(action(step)[place])
            assert rewards[place] == pytest.approx(reward, abs=1e-4)
            assert dones[place] == (terminated or truncated)
            same(infos[place]["milepost"], info["milepost"])
            ends, cuts = ends + terminated, cuts + truncated
            if dones[place]:
                observation, info = env.reset()
                same(together.reset_infos[place]["milepost"], info["milepost"])
            np.testing.assert_array_equal(np.moveaxis(observations["top"][place], 0, -1), observation["top"])
    assert ends
    assert cuts > 5
    together.close()


def same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, dict):
            same(value, other[key])
        elif isinstance(value, float):
            assert value == pytest.approx(other[key], abs=1e-4, nan_ok=True)
        else:
            assert value == other[key]


def test_a_time_limit_is_no_end_of_the_task() -> None:
    """By hand: phi of the last frame counts at a time limit, and is 0 at an end."""
    model = tiny_sarm()
    env = VecProgressReward(DummyVecEnv([partial(world, 0, limit=4)]), model, task=TASK, frames=KEYS, fps=10.0, config=CONFIG)
    curve = model.predict(EPISODES[0]).main.value
    shaper = milepost.Shaper(ShapingConfig(gamma=0.9))
    shaper.begin(float(curve[0]))
    env.reset()
    for frame in range(1, 5):
        _, (reward,), (done,), (info,) = env.step(np.zeros((1, 1), np.float32))
        assert reward == pytest.approx(shaper.reward(float(curve[frame])), abs=1e-5)
        assert info["milepost"]["frame"] == frame
    assert done
    assert info["TimeLimit.truncated"]


def test_success_ends_the_episode_if_asked() -> None:
    """The environment is reset here, because it does not know that it has ended."""
    config = RewardConfig(ShapingConfig(gamma=0.9), success=SuccessRule(0.0, 0.0, hold=3), terminate_on_success=True, success_bonus=5.0)
    plain = DummyVecEnv([lambda: Monitor(world(0)), lambda: Monitor(world(1))])
    env = VecProgressReward(plain, tiny_sarm(), task=TASK, frames=KEYS, fps=10.0, config=config)
    env.reset()
    last = [tiny_sarm().predict(EPISODES[number]).main.value for number in (0, 1)]
    assert not env.step(np.zeros((2, 1), np.float32))[2].any()
    observations, rewards, dones, infos = env.step(np.zeros((2, 1), np.float32))
    assert dones.all()
    np.testing.assert_allclose(rewards, [5.0 - curve[1] for curve in last], atol=1e-5)
    for place in range(2):
        np.testing.assert_array_equal(infos[place]["terminal_observation"]["state"], EPISODES[place].state[2])
        np.testing.assert_array_equal(observations["state"][place], EPISODES[place + 1].state[0])
        assert not infos[place]["TimeLimit.truncated"]
        assert env.reset_infos[place]["milepost"]["frame"] == 0
    _, _, dones, infos = env.step(np.zeros((2, 1), np.float32))
    assert not dones.any()
    assert [info["milepost"]["frame"] for info in infos] == [1, 1]
    with pytest.raises(DataError, match="put this wrapper inside it"):
        VecProgressReward(VecTransposeImage(plain), tiny_sarm(), task=TASK, frames=KEYS, fps=10.0, config=config)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match="the image of the last frame cannot be rendered"):
        VecProgressReward(DummyVecEnv(WORLDS), tiny_sarm(), task=TASK, frames=FrameKeys(render=CAMERA), fps=10.0)
    with pytest.raises(DataError, match="names 1 instructions for 3"):
        VecProgressReward(DummyVecEnv(WORLDS), tiny_sarm(), task=[TASK], frames=KEYS, fps=10.0)


def test_normalised_observations_are_refused() -> None:
    """With and without an end at success; around this wrapper, or of other entries, or of rewards alone they are welcome."""
    for config in (CONFIG, RewardConfig(terminate_on_success=True)):
        for frames in (KEYS, lambda observation, info: FrameData({CAMERA: observation["top"]}, observation["state"])):
            below = VecTransposeImage(VecNormalize(DummyVecEnv(WORLDS), norm_obs_keys=["state"]))
            with pytest.raises(DataError, match="VecNormalize below this wrapper normalises"):
                VecProgressReward(below, tiny_sarm(), task=TASK, frames=frames, fps=10.0, config=config)
    plain = VecProgressReward(DummyVecEnv(WORLDS), tiny_sarm(), task=TASK, frames=KEYS, fps=10.0)
    plain.reset()
    rewards = VecNormalize(DummyVecEnv(WORLDS), norm_obs=False)
    for env in (
        VecProgressReward(rewards, tiny_sarm(), task=TASK, frames=KEYS, fps=10.0),
        VecNormalize(VecProgressReward(DummyVecEnv(WORLDS), tiny_sarm(), task=TASK, frames=KEYS, fps=10.0), norm_obs_keys=["state"]),
    ):
        env.reset()
        infos = zip(env.step(action(0))[3], plain.step(action(0))[3], strict=True)
        assert all(one["milepost"]["progress"] == pytest.approx(other["milepost"]["progress"], abs=1e-5) for one, other in infos)
        plain = VecProgressReward(DummyVecEnv(WORLDS), tiny_sarm(), task=TASK, frames=KEYS, fps=10.0)
        plain.reset()


def test_a_function_that_returns_no_frame_is_named() -> None:
    for wrong, words in ((lambda observation, info: observation["top"], "returned ndarray"), (lambda observation, info: None, "NoneType")):
        env = VecProgressReward(DummyVecEnv(WORLDS), tiny_sarm(), task=TASK, frames=wrong, fps=10.0)
        with pytest.raises(DataError, match=rf"should return a milepost.FrameData.*{words}"):
            env.reset()


def test_rows_of_observations() -> None:
    array = np.arange(6).reshape(3, 2)
    assert row_of((array, array), 1)[1].tolist() == [2, 3]
    assert with_row((array, array), 1, (np.array([7, 8]), np.array([9, 9])))[0].tolist() == [[0, 1], [7, 8], [4, 5]]
    assert array[1].tolist() == [2, 3]


def test_ppo_learns_on_it() -> None:
    """Two rollouts with their updates; what the learner was told is what the model says, with one session for each environment."""
    sessions = Sessions(tiny_sarm())
    worlds = [partial(make, times=2) for make in WORLDS]
    env = VecMonitor(VecProgressReward(DummyVecEnv(worlds), sessions, task=TASK, frames=KEYS, fps=10.0, config=CONFIG))
    learner = PPO("MultiInputPolicy", env, n_steps=16, batch_size=16, n_epochs=1, seed=0, device="cpu")
    before = [each.detach().clone() for each in learner.policy.parameters()]
    learner.learn(2 * 16 * 3)
    assert any((one != other).any() for one, other in zip(before, learner.policy.parameters(), strict=True))
    assert np.isfinite(learner.rollout_buffer.rewards).all()
    assert learner.ep_info_buffer
    assert len(sessions) == 3
    assert all(not math.isnan(info["r"]) for info in learner.ep_info_buffer)
    env.close()
    assert len(sessions) == 0
