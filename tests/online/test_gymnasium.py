"""One environment with progress as its reward: the offline curve, the arithmetic of `Shaper`, ends, and what is not known."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from reward_worlds import CAMERA, EPISODES, TASK, DotsEnv

import milepost
from milepost import FrameData, FrameKeys, RewardConfig, ShapingConfig
from milepost.core import DataError, Step
from milepost.metrics import SuccessRule
from milepost.online import Sessions
from milepost.online.wrappers.gymnasium import ProgressReward
from milepost.testing import tiny_sarm

KEYS = FrameKeys({CAMERA: ("pixels", "top")}, state="state")
RENDERED = FrameKeys(state="state", render=CAMERA)
RATE = 10.0


def from_keys(observation: Any, info: Any) -> FrameData:
    return FrameData({CAMERA: observation["pixels"]["top"]}, observation["state"])


def played(env: gymnasium.Env, *, action: float = 0.5) -> list[tuple[float, bool, bool, dict]]:
    """Returns (reward, terminated, truncated, raw values) of every frame of one episode."""
    _, info = env.reset()
    rows = [(math.nan, False, False, info["milepost"])]
    while not (rows[-1][1] or rows[-1][2]):
        _, reward, terminated, truncated, info = env.step(np.array([action], np.float32))
        rows.append((reward, terminated, truncated, info["milepost"]))
    return rows


def by_hand(curve: np.ndarray, config: ShapingConfig, *, is_terminal: bool) -> list[float]:
    shaper = milepost.Shaper(config)
    shaper.begin(float(curve[0]))
    return [shaper.reward(float(phi), is_terminal=is_terminal and n == len(curve) - 1) for n, phi in enumerate(curve[1:], 1)]


class Numbers:
    """A model that says the number in its image; one below 0 is not known."""

    def reset(self, *, task: str, fps: float) -> None:
        if not task:
            raise DataError("the task is blank")

    def step(self, frames: Any, state: Any = None) -> Step:
        value = float(frames["number"])
        return Step(value if value >= 0 else math.nan, {"raw": value})


class NumbersEnv(gymnasium.Env):
    """Shows one number after the other, then is truncated, or terminated."""

    metadata = {"render_fps": 10}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-1, 1, ())
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, numbers: list[float], *, ends: bool = True, tasks: dict[int, str] | None = None) -> None:
        self.numbers, self.ends, self.tasks, self.frame = numbers, ends, tasks or {}, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.frame = 0
        return np.array(self.numbers[0], np.float32), self.info()

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        self.frame += 1
        is_last = self.frame == len(self.numbers) - 1
        return np.array(self.numbers[self.frame], np.float32), 10.0, is_last and self.ends, is_last and not self.ends, self.info()

    def info(self) -> dict:
        return {"instruction": self.tasks[self.frame]} if self.frame in self.tasks else {}


def numbered(numbers: list[float], *, model: Any = None, task: Any = "count", config: RewardConfig | None = None, **more: Any) -> list:
    env = NumbersEnv(numbers, **more)
    wrapper = ProgressReward(env, model or Numbers(), task=task, frames=FrameKeys({"number": ()}), config=config)
    return played(wrapper, action=1)


@pytest.mark.parametrize("frames", [KEYS, RENDERED, from_keys])
def test_the_curve_is_the_offline_one(frames: FrameKeys | Callable) -> None:
    """In two episodes one after the other: reset begins anew."""
    model = tiny_sarm()
    env = ProgressReward(DotsEnv(), model, task=TASK, frames=frames)
    for episode in EPISODES[:2]:
        rows = played(env)
        expected = model.predict(episode).main.value
        np.testing.assert_allclose([values["progress"] for *_, values in rows], expected, atol=1e-5)
        assert [values["frame"] for *_, values in rows] == list(range(episode.length))
        assert all(values["is_used"] and values["fresh"] and not values["reason"] for *_, values in rows)
        assert {"raw", "stage"} & set(rows[3][3]["signals"])
        assert (rows[-1][1], rows[-1][2]) == (True, False)
    env.close()


@pytest.mark.parametrize("kind", ["potential", "difference", "absolute"])
@pytest.mark.parametrize("ends", [True, False])
def test_the_reward_is_that_of_a_shaper(kind: Any, ends: bool) -> None:
    """With a terminal last frame and with a time limit, and weights for both rewards."""
    model, shaping = tiny_sarm(), ShapingConfig(kind, gamma=0.9)
    env = ProgressReward(DotsEnv(ends=ends), model, task=TASK, frames=KEYS, config=RewardConfig(shaping, model_weight=2.0, env_weight=0.5))
    rows = played(env, action=0.25)
    expected = by_hand(model.predict(EPISODES[0]).main.value, shaping, is_terminal=ends)
    np.testing.assert_allclose([values["model_reward"] for *_, values in rows[1:]], expected, atol=1e-5)
    np.testing.assert_allclose([reward for reward, *_ in rows[1:]], 2.0 * np.array(expected) + 0.5 * 0.25, atol=1e-5)
    assert {values["env_reward"] for *_, values in rows[1:]} == {0.25}
    assert math.isnan(rows[0][3]["model_reward"])
    if kind == "potential" and not ends:
        gains = 0.9 ** np.arange(len(expected)) @ [values["model_reward"] for *_, values in rows[1:]]
        curve = model.predict(EPISODES[0]).main.value
        assert gains == pytest.approx(0.9 ** len(expected) * curve[-1] - curve[0], abs=1e-4)


def test_what_is_not_known_leaves_the_environments_reward() -> None:
    """And the sum stays that of the potential: gamma ** n * phi(end) - phi(start)."""
    shaping = ShapingConfig(gamma=0.9)
    rows = numbered([0.25, 0.5, -1.0, -1.0, 0.75], ends=False, config=RewardConfig(shaping))
    assert [reward for reward, *_ in rows[2:4]] == [10.0, 10.0]
    assert [values["reason"] for *_, values in rows[2:4]] == ["the model has no number of this attempt yet"] * 2
    assert [values["is_used"] for *_, values in rows] == [True, True, False, False, True]
    assert numbered([0.25, 0.5, -1.0], config=RewardConfig(shaping))[-1][3]["is_used"], "-phi(s) was added"
    assert all(math.isnan(values["model_reward"]) and math.isnan(values["progress"]) for *_, values in rows[2:4])
    total = sum(0.9**n * (reward - 10.0) for n, (reward, *_) in enumerate(rows[1:]))
    assert total == pytest.approx(0.9**4 * 0.75 - 0.25)
    ended = numbered([0.25, 0.5, -1.0], config=RewardConfig(shaping))
    assert sum(0.9**n * (reward - 10.0) for n, (reward, *_) in enumerate(ended[1:])) == pytest.approx(-0.25), "phi is 0 at the end, unasked"
    difference = numbered([0.25, 0.5, -1.0, 0.75], config=RewardConfig(ShapingConfig("difference")))
    assert [reward - 10.0 for reward, *_ in difference[1:]] == pytest.approx([0.25, 0.0, 0.25])
    late = numbered([-1.0, -1.0, 0.5, 0.75], ends=False, config=RewardConfig(ShapingConfig("difference")))
    assert [reward - 10.0 for reward, *_ in late[1:]] == pytest.approx([0.0, 0.0, 0.25])


class Slow(Numbers):
    """Computes every third frame; between two, the last numbers hold."""

    def reset(self, *, task: str, fps: float) -> None:
        self.count, self.last = -1, math.nan

    def step(self, frames: Any, state: Any = None) -> Step:
        self.count += 1
        if self.count % 3 == 0:
            self.last = float(frames["number"])
        return Step(self.last, fresh=self.count % 3 == 0)


def test_an_answer_older_than_the_budget_is_not_used() -> None:
    """At 10 steps a second the held numbers are 0.1 and 0.2 s old."""
    shaping = ShapingConfig("absolute")
    rows = numbered([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], model=Slow(), config=RewardConfig(shaping, max_age_s=0.15))
    assert [values["is_used"] for *_, values in rows] == [True, True, False, True, True, False]
    assert rows[2][0] == 10.0
    assert rows[2][3]["reason"] == "the answer is 0.2 s old, the budget is 0.15 s"
    assert rows[2][3]["progress"] == pytest.approx(0.1)
    assert rows[4][0] == pytest.approx(10.4)
    every = numbered([0.1, 0.2, 0.3, 0.4], model=Slow(), config=RewardConfig(shaping))
    assert all(values["is_used"] for *_, values in every)


def test_success_counts_once_and_ends_the_episode_only_if_asked() -> None:
    numbers, rule = [0.0, 0.5, 0.95, 0.95, 0.95, 0.1, 0.95, 0.95], SuccessRule(0.9, 0.5, hold=2)
    plain = numbered(numbers, config=RewardConfig(success=rule, success_bonus=100.0, model_weight=0.0))
    assert [reward for reward, *_ in plain[1:]] == [10.0, 10.0, 110.0, 10.0, 10.0, 10.0, 10.0]
    assert [values["is_success"] for *_, values in plain] == [False, False, False, True, True, False, False, True]
    asked = numbered(numbers, config=RewardConfig(ShapingConfig(gamma=0.5), success=rule, terminate_on_success=True))
    assert len(asked) == 4
    assert asked[-1][1]
    assert asked[-1][0] == pytest.approx(10.0 - 0.95), "the task ended: nothing comes after"


def test_another_instruction_is_another_attempt() -> None:
    task = milepost.TaskFromInfo("instruction")
    rows = numbered([0.2, 0.4, 0.1, 0.3], task=task, tasks={0: "count", 2: "count again"}, config=RewardConfig(ShapingConfig("difference")))
    assert [values["task"] for *_, values in rows] == ["count", "count", "count again", "count again"]
    assert [values["frame"] for *_, values in rows] == [0, 1, 0, 1]
    assert [reward - 10.0 for reward, *_ in rows[1:]] == pytest.approx([0.2, 0.0, 0.2])
    with pytest.raises(DataError, match="names no instruction at its reset"):
        numbered([0.2, 0.4], task=task)


@pytest.mark.parametrize("end", ["time limit", "terminal", "unknown terminal"])
@pytest.mark.parametrize("first", [0.6, -1.0])
def test_the_sum_stays_a_telescope_over_another_instruction(end: str, first: float) -> None:
    """The step of the change gives the old phi back and takes the new one on, also where the new one is known only later."""
    numbers = [0.2, 0.4, 0.3, first, 0.5, -1.0 if end == "unknown terminal" else 0.7]
    config, task = RewardConfig(ShapingConfig(gamma=0.9)), milepost.TaskFromInfo("instruction")
    rows = numbered(numbers, task=task, tasks={0: "one", 3: "two"}, ends=end != "time limit", config=config)
    gains = [reward - 10.0 for reward, *_ in rows[1:]]
    assert [values["frame"] for *_, values in rows] == [0, 1, 2, 0, 1, 2]
    if first > 0:
        assert gains[2] == pytest.approx(0.9 * first - 0.3)
        assert rows[3][3]["model_reward"] == pytest.approx(gains[2])
    total = sum(0.9**n * gain for n, gain in enumerate(gains))
    assert total == pytest.approx((0.9**5 * 0.7 if end == "time limit" else 0.0) - 0.2)


@pytest.mark.parametrize("model", [Numbers, tiny_sarm])
def test_a_blank_instruction_in_mid_episode_is_named_at_every_step(model: Callable) -> None:
    env = DotsEnv()
    texts = iter([TASK, TASK, "", "", TASK])
    wrapper = ProgressReward(
        env, model(), task=lambda observation, info: next(texts),
        frames=lambda observation, info: FrameData({CAMERA: observation["pixels"]["top"], "number": 0.5}, observation["state"]),
    )  # fmt: skip
    wrapper.reset()
    wrapper.step(np.zeros(1, np.float32))
    for _ in range(2):
        with pytest.raises(DataError, match=r"blank|instruction"):
            wrapper.step(np.zeros(1, np.float32))
    assert wrapper.step(np.zeros(1, np.float32))[-1]["milepost"]["reason"] == ""


def test_a_function_that_returns_no_frame_is_named() -> None:
    with pytest.raises(DataError, match=r"should return a milepost.FrameData.*returned ndarray"):
        ProgressReward(DotsEnv(), tiny_sarm(), task=TASK, frames=lambda observation, info: observation["pixels"]["top"]).reset()


def test_normalised_observations_are_refused() -> None:
    normalised = gymnasium.wrappers.NormalizeObservation(NumbersEnv([0.1, 0.2]))
    with pytest.raises(DataError, match="NormalizeObservation below this wrapper"):
        ProgressReward(normalised, Numbers(), task="count", frames=FrameKeys({"number": ()}))


@pytest.mark.parametrize("place", [0, 3])
def test_a_state_that_no_network_can_use_is_named(place: int) -> None:
    """Once, and no later frame is harmed: its window is as if that state had not been there."""
    model = tiny_sarm()
    env = ProgressReward(DotsEnv(), model, task=TASK, frames=lambda observation, info: FrameData(
        {CAMERA: observation["pixels"]["top"]}, observation["state"] if env.unwrapped.frame != place else np.array([1.0, 1e30], np.float32)
    ))  # fmt: skip
    words = r"cannot use the robot state: number 1 of it lies .* standard deviations .* units of the training dataset"
    if not place:
        with pytest.raises(DataError, match=words):
            env.reset()
        return
    rows = played(env)
    assert re.search(words, rows[place][3]["reason"])
    assert not [values["reason"] for n, (*_, values) in enumerate(rows) if n != place and values["reason"]]


def test_fps_must_be_above_0() -> None:
    for fps in (0.0, -1.0, math.nan):
        with pytest.raises(DataError, match="fps must be above 0"):
            ProgressReward(DotsEnv(), tiny_sarm(), task=TASK, frames=KEYS, fps=fps)


def test_what_cannot_be_is_refused() -> None:
    model = tiny_sarm()
    with pytest.raises(DataError, match="render_mode='rgb_array', this one has None"):
        ProgressReward(DotsEnv(render_mode=None), model, task=TASK, frames=RENDERED)
    with pytest.raises(DataError, match=r"has no 'left'.*top"):
        ProgressReward(DotsEnv(), model, task=TASK, frames=FrameKeys({CAMERA: ("pixels", "left")})).reset()
    with pytest.raises(DataError, match=r"cannot use the first frame of environment 0: .*robot state"):
        ProgressReward(DotsEnv(), model, task=TASK, frames=FrameKeys({CAMERA: ("pixels", "top")})).reset()
    with pytest.raises(DataError, match=r"cannot use the first frame of environment 0: .*robot state"):
        ProgressReward(
            DotsEnv(), model, task=TASK, frames=FrameKeys({CAMERA: ("pixels", "top")}), config=RewardConfig(max_age_s=1.0)
        ).reset()
    with pytest.raises(DataError, match="cannot follow an attempt"):
        ProgressReward(DotsEnv(), object(), task=TASK, frames=KEYS)
    with pytest.raises(DataError, match="call reset"):
        ProgressReward(DotsEnv(), model, task=TASK, frames=KEYS).step(np.zeros(1))
    bare = DotsEnv()
    bare.metadata = {}
    with pytest.raises(DataError, match="give fps="):
        ProgressReward(bare, model, task=TASK, frames=KEYS)
    with pytest.raises(ValueError, match="at least one image"):
        FrameKeys(state="state")
    with pytest.raises(ValueError, match="max_age_s must be above 0"):
        RewardConfig(max_age_s=0.0)
    with pytest.raises(ValueError, match="env_weight must be a finite number"):
        RewardConfig(env_weight=math.inf)


def test_spaces_stay_and_the_checker_of_gymnasium_passes() -> None:
    env = ProgressReward(DotsEnv(), tiny_sarm(), task=TASK, frames=KEYS)
    assert env.observation_space == DotsEnv.observation_space
    assert env.action_space == DotsEnv.action_space
    with pytest.warns(UserWarning, match="different from the unwrapped version"):
        check_env(ProgressReward(NumbersEnv([0.1, 0.2, 0.3]), Numbers(), task="count", frames=FrameKeys({"number": ()})))


def test_closing_ends_the_session() -> None:
    sessions = Sessions(tiny_sarm())
    env = ProgressReward(DotsEnv(), sessions, task=TASK, frames=KEYS)
    env.reset()
    env.reset()
    assert len(sessions) == 1
    env.close()
    assert len(sessions) == 0
    played(env)
    assert len(sessions) == 1, "a reset begins again"


def test_a_session_that_was_lost_is_begun_again() -> None:
    """A server ends what was idle for too long, as between two rollouts."""
    sessions = Sessions(tiny_sarm())
    env = ProgressReward(DotsEnv(), sessions, task=TASK, frames=KEYS)
    _, info = env.reset()
    for name in list(sessions._sessions):
        sessions.end(name)
    _, reward, *_, info = env.step(np.array([0.5], np.float32))
    assert reward == 0.5
    assert "there is no session" in info["milepost"]["reason"]
    rows = played(env)
    assert all(values["is_used"] for *_, values in rows)


def test_meta_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real task, rendered: progress is that of the recorded episode, and info keeps what the task says of itself."""
    pytest.importorskip("metaworld", reason="simulation needs the extra 'sim'")
    from milepost.core import ArrayFrames, Episode
    from milepost.sim.scene import NoRendererError, require_renderer

    try:
        require_renderer()
    except NoRendererError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("MUJOCO_GL", "egl")
    plain = gymnasium.make("Meta-World/MT1", env_name="drawer-open-v3", render_mode="rgb_array", camera_name="corner2", seed=0)
    images: list[np.ndarray] = []
    states: list[np.ndarray] = []

    def frames(observation: Any, info: Any) -> FrameData:
        images.append(np.ascontiguousarray(plain.render()[::16, ::16]))
        states.append(observation[:4].astype(np.float32))
        return FrameData({CAMERA: images[-1]}, states[-1])

    model = tiny_sarm(state_mean=(0.0,) * 4, state_std=(1.0,) * 4)
    env = ProgressReward(plain, model, task="open the drawer", frames=frames, fps=80.0)
    rows = [env.reset(seed=0)[1]["milepost"]]
    rewards, plains = [], []
    for action in np.random.default_rng(0).uniform(-1, 1, (12, 4)).astype(np.float32):
        _, reward, terminated, _, info = env.step(action)
        rows.append(info["milepost"])
        rewards.append(reward)
        plains.append(info["milepost"]["env_reward"])
        assert "success" in info
        assert not terminated
    episode = Episode(0, 0, "open the drawer", 80.0, len(images), np.stack(states), {CAMERA: ArrayFrames(np.stack(images))})
    curve = model.predict(episode).main.value
    np.testing.assert_allclose([each["progress"] for each in rows], curve, atol=1e-5)
    np.testing.assert_allclose(rewards, np.array(plains) + by_hand(curve, ShapingConfig(), is_terminal=False), atol=1e-4)
    env.close()
