"""TorchRL's environments with progress as the reward: specs, single environments, batches, resets of some, success, a collector."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from reward_worlds import CAMERA, EPISODES, TASK, DotsEnv
from torchrl.collectors import Collector
from torchrl.envs import GymWrapper, SerialEnv, TransformedEnv, check_env_specs
from torchrl.envs.transforms import Compose, RewardSum

from milepost import FrameData, FrameKeys, RewardConfig, ShapingConfig
from milepost.core import DataError
from milepost.metrics import SuccessRule
from milepost.online import Sessions
from milepost.online.wrappers.gymnasium import ProgressReward
from milepost.online.wrappers.torchrl import ProgressRewardTransform
from milepost.testing import tiny_sarm

KEYS = FrameKeys({CAMERA: ("pixels", "top")}, state="observation")  # TorchRL calls gymnasium's "state" so
CONFIG = RewardConfig(ShapingConfig(gamma=0.9), env_weight=0.5)


def world(first: int = 0, **more: Any) -> GymWrapper:
    return GymWrapper(DotsEnv(first, **more))


WORLDS = [partial(world, 0), partial(world, 1, limit=7), partial(world, 2, ends=False)]


def from_row(row: Any, info: Any) -> FrameData:
    return FrameData({CAMERA: row["pixels", "top"]}, row["observation"])


def transform(source: Any = None, **more: Any) -> ProgressRewardTransform:
    options = {"task": TASK, "frames": KEYS, "fps": 10.0, "config": CONFIG, **more}
    return ProgressRewardTransform(tiny_sarm() if source is None else source, **options)


def single(first: int, steps: int, actions: Any, **more: Any) -> tuple[list[float], list[float], list[bool]]:
    """Returns rewards, progress and ends of a gymnasium environment with the same actions, over several episodes."""
    env = ProgressReward(DotsEnv(first, **more), tiny_sarm(), task=TASK, frames=FrameKeys(KEYS.images, "state"), config=CONFIG)
    env.reset()
    rewards, progress, ends = [], [], []
    for step in range(steps):
        _, reward, terminated, truncated, info = env.step(actions[step])
        rewards.append(reward)
        progress.append(info["milepost"]["progress"])
        ends.append(terminated or truncated)
        if ends[-1]:
            env.reset()
    return rewards, progress, ends


def test_a_function_that_returns_no_frame_is_named() -> None:
    with pytest.raises(DataError, match=r"should return a milepost.FrameData.*returned Tensor"):
        TransformedEnv(world(), transform(frames=lambda row, info: row["observation"])).reset()


@pytest.mark.parametrize("frames", [KEYS, from_row], ids=["keys", "function"])
def test_one_environment(frames: Any) -> None:
    """Over two episodes: the entries of a step are those of the single environment, the first frame is shown at the reset."""
    env = TransformedEnv(world(), transform(frames=frames))
    check_env_specs(env)
    env = TransformedEnv(world(), transform(frames=frames))
    steps = env.rollout(50, break_when_any_done=False)
    rewards, progress, ends = single(0, 50, steps["action"].numpy())
    np.testing.assert_allclose(steps["next", "reward"].flatten(), rewards, atol=1e-4)
    np.testing.assert_allclose(steps["next", "milepost", "progress"].flatten(), progress, atol=1e-4)
    np.testing.assert_array_equal(steps["next", "done"].flatten(), ends)
    curves = [tiny_sarm().predict(episode).main.value for episode in EPISODES[:2]]
    first = len(curves[0]) - 1
    np.testing.assert_allclose(steps["milepost", "progress"].flatten()[[0, first]], [curve[0] for curve in curves], atol=1e-4)
    assert steps["milepost", "model_reward"].flatten()[[0, first]].isnan().all(), "the first frame has no step that led to it"


def test_a_batch_is_as_many_single_ones() -> None:
    """Some are reset while the others go on."""
    env = TransformedEnv(SerialEnv(3, WORLDS), transform())
    check_env_specs(env)
    env = TransformedEnv(SerialEnv(3, WORLDS), Compose(transform(), RewardSum()))
    steps = env.rollout(40, break_when_any_done=False)
    for place, more in enumerate([{}, {"limit": 7}, {"ends": False}]):
        rewards, progress, ends = single(place, 40, steps["action"][place].numpy(), **more)
        np.testing.assert_allclose(steps["next", "reward"][place].flatten(), rewards, atol=1e-4)
        np.testing.assert_allclose(steps["next", "milepost", "progress"][place].flatten(), progress, atol=1e-4)
        np.testing.assert_array_equal(steps["next", "done"][place].flatten(), ends)
    before, after = (steps[(*key, "milepost", "progress")][..., 0] for key in ((), ("next",)))
    np.testing.assert_allclose(before[:, 1:][~steps["next", "done"][:, :-1, 0]], after[:, :-1][~steps["next", "done"][:, :-1, 0]])
    np.testing.assert_allclose(steps["next", "episode_reward"][1, 6], steps["next", "reward"][1, :7].sum(0), atol=1e-4)
    assert [info["frame"] for info in env.transform[0].infos] == [
        (40 - 1) % (len(EPISODES[0].state) - 1) + 1,
        5,
        env.transform[0].infos[2]["frame"],
    ]
    env.close()


def test_environments_that_stand_still() -> None:
    """A rollout that waits for all of a batch steps those alone that have not ended."""
    sessions = Sessions(tiny_sarm())
    env = TransformedEnv(SerialEnv(2, [partial(world, 0, limit=9), partial(world, 1, limit=4)]), transform(sessions))
    steps = env.rollout(20, break_when_all_done=True, break_when_any_done=False)
    assert steps.shape == (2, 9)
    curve = tiny_sarm().predict(EPISODES[0]).main.value
    np.testing.assert_allclose(steps["next", "milepost", "progress"][0].flatten(), curve[1:10], atol=1e-4)
    assert [info["frame"] for info in env.transform.infos] == [9, 4]
    assert len(sessions) == 2
    env.close()
    assert len(sessions) == 0


def test_success_ends_the_episode_if_asked() -> None:
    config = RewardConfig(ShapingConfig(gamma=0.9), env_weight=0.0, success=SuccessRule(0.0, 0.0, hold=3), terminate_on_success=True)
    env = TransformedEnv(SerialEnv(2, WORLDS[:2]), transform(config=config))
    steps = env.rollout(4, break_when_any_done=False)
    np.testing.assert_array_equal(steps["next", "terminated"][..., 0], [[False, True, False, True]] * 2)
    np.testing.assert_array_equal(steps["next", "done"], steps["next", "terminated"])
    np.testing.assert_array_equal(steps["next", "milepost", "is_success"], steps["next", "done"])
    np.testing.assert_allclose(steps["next", "reward"][0, 1], -tiny_sarm().predict(EPISODES[0]).main.value[1], atol=1e-5)
    np.testing.assert_array_equal(steps["observation"][0, 2], EPISODES[1].state[0])


def test_the_model_is_no_part_of_the_environment() -> None:
    model = tiny_sarm()
    env = TransformedEnv(world(), transform(model))
    env.train()
    assert not model.training
    assert not env.state_dict()
    other = env.transform.clone()
    env.reset()
    assert env.transform.infos
    assert not other.infos
    assert not list(env.transform.parameters())


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match="from_pixels=True"):
        transform(frames=FrameKeys(render=CAMERA))
    with pytest.raises(DataError, match="put this transform on the environment"):
        transform()(world().rollout(2))
    with pytest.raises(DataError, match=r"has no 'state' \(.*observation"):
        TransformedEnv(world(), transform(frames=FrameKeys(KEYS.images, "state"))).reset()
    with pytest.raises(DataError, match="names 2 instructions for 1"):
        TransformedEnv(world(), transform(task=["one", "two"])).reset()


def test_a_collector_gathers_it() -> None:
    env = TransformedEnv(world(0, limit=5), transform())
    collector = Collector(env, None, frames_per_batch=8, total_frames=16)
    batches = [batch.clone() for batch in collector]
    rewards = torch.cat([batch["next", "milepost", "model_reward"].flatten() for batch in batches])
    assert len(rewards) == 16
    assert rewards.isfinite().all()
    collector.shutdown()
