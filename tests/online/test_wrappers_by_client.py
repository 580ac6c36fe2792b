"""The wrappers with a model behind a server: the same rewards as in process, and what is told of a server that fails or is late."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from reward_worlds import CAMERA, EPISODES, TASK, DotsEnv
from test_reward_server import serving

from milepost import FrameKeys, RewardClient, RewardConfig, RewardStream, ShapingConfig
from milepost.core import DataError
from milepost.online.wrappers.gymnasium import ProgressReward, VectorProgressReward
from milepost.testing import tiny_sarm

KEYS = FrameKeys({CAMERA: ("pixels", "top")}, state="state")
STILL = np.zeros(1, np.float32)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(tiny_sarm()) as address:
        yield address


@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_the_rewards_are_those_in_process(url: str, scheme: str) -> None:
    worlds = [DotsEnv, lambda: DotsEnv(1, limit=4)]
    config = RewardConfig(ShapingConfig(gamma=0.9))
    with RewardClient(url.replace("http", scheme)) as client:
        envs = [
            VectorProgressReward(SyncVectorEnv(worlds), source, task=TASK, frames=KEYS, config=config) for source in (client, tiny_sarm())
        ]
        rows = [[each.reset()[1]["milepost"]["progress"]] for each in envs]
        for _ in range(8):
            for row, env in zip(rows, envs, strict=True):
                row.append(env.step(np.zeros((2, 1), np.float32))[1])
        np.testing.assert_allclose(*rows, atol=1e-5)
        envs[0].close()


def wrapped(client: Any, **more: Any) -> ProgressReward:
    return ProgressReward(DotsEnv(limit=5), client, task=TASK, frames=KEYS, config=RewardConfig(**more))


def test_a_server_that_is_gone_is_an_error_without_a_budget() -> None:
    with serving(tiny_sarm()) as url:
        client = RewardClient(url, timeout_s=2.0, reconnect_s=0.0)
        env = wrapped(client)
        env.reset()
        env.step(STILL)
    with pytest.raises(DataError, match="does not answer"):
        env.step(STILL)
    env.close()
    with pytest.raises(DataError, match="does not answer"):
        wrapped(client, max_age_s=1.0).reset()


def test_a_server_that_is_gone_leaves_the_environments_reward_with_a_budget() -> None:
    """Over a reset; when it is back, the next episode is followed again."""
    with serving(tiny_sarm()) as url:
        client = RewardClient(url, timeout_s=5.0, reconnect_s=0.0)
        env = wrapped(client, max_age_s=5.0)
        env.reset()
        assert env.step(STILL)[-1]["milepost"]["is_used"]
    for _ in range(2):
        _, reward, *_, info = env.step(STILL + 0.5)
        assert reward == 0.5
        assert "does not answer" in info["milepost"]["reason"]
        assert np.isnan(info["milepost"]["progress"])
        assert "does not answer" in env.reset()[1]["milepost"]["reason"]
    with serving(tiny_sarm(), port=int(url.rpartition(":")[2])):
        reason = env.step(STILL)[-1]["milepost"]["reason"]
        assert "the server could not begin this episode at its reset" in reason
        assert "does not answer" in reason
        env.reset()
        assert env.step(STILL)[-1]["milepost"]["is_used"]
        env.close()


def test_a_server_that_began_anew_is_an_error_without_a_budget() -> None:
    with serving(tiny_sarm()) as url:
        envs = [wrapped(RewardClient(url)), wrapped(RewardClient(url), max_age_s=5.0)]
        for env in envs:
            env.reset()
            env.step(STILL)
    with serving(tiny_sarm(), port=int(url.rpartition(":")[2])):
        with pytest.raises(DataError, match=r"there is no session .* the server began anew.*max_age_s="):
            envs[0].step(STILL)
        assert "the server began anew" in envs[1].step(STILL)[-1]["milepost"]["reason"]
        for env in envs:
            env.reset()
            assert env.step(STILL)[-1]["milepost"]["is_used"]
            env.close()


def test_a_stream_never_waits_and_late_answers_have_their_age(url: str) -> None:
    """Where the environment waits itself, every answer is there in time and the curve is the offline one, one frame late at most."""
    curve = tiny_sarm().predict(EPISODES[0]).main.value
    with RewardStream(url.replace("http", "ws"), task=TASK, fps=10.0) as stream:
        env = ProgressReward(DotsEnv(), stream, task=TASK, frames=KEYS, config=RewardConfig(ShapingConfig("absolute"), max_age_s=0.15))
        info = env.reset()[1]["milepost"]
        assert info["reason"] in ("", "no frame was answered yet")
        for frame in range(1, 9):
            stream.wait(frame - 1)
            _, reward, *_, info = env.step(STILL)
            values = info["milepost"]
            late = round(values["age_s"] * 10)
            assert late in (0, 1)
            assert values["is_used"]
            assert values["progress"] == pytest.approx(float(curve[frame - late]), abs=1e-5)
            assert reward == pytest.approx(float(curve[frame - late]), abs=1e-5)
        with pytest.raises(DataError, match="a RewardStream follows one environment, and there are 2"):
            VectorProgressReward(SyncVectorEnv([DotsEnv] * 2), stream, task=TASK, frames=KEYS)


def test_a_stream_that_is_late_is_not_used() -> None:
    """The first frame is answered; the next answer does not come while the environment goes on."""
    model, gate = tiny_sarm(), threading.Event()
    advance = model.advance

    def held_up(*arguments: Any) -> Any:
        assert gate.wait(60)
        return advance(*arguments)

    with serving(model) as url, RewardStream(url, task=TASK, fps=10.0) as stream:
        env = ProgressReward(DotsEnv(), stream, task=TASK, frames=KEYS, config=RewardConfig(max_age_s=0.15))
        env.reset()
        stream.wait(0)
        model.advance = held_up
        infos = [env.step(STILL + 0.5) for _ in range(4)]
        gate.set()
        assert [reward for _, reward, *_ in infos[1:]] == [0.5] * 3
        assert [each[-1]["milepost"]["reason"] for each in infos] == [
            "", *(f"the answer is {age} s old, the budget is 0.15 s" for age in (0.2, 0.3, 0.4)),
        ]  # fmt: skip
        stream.wait(4)
        env.step(STILL)
        assert env.step(STILL)[-1]["milepost"]["frame"] == 6
