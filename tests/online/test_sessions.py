"""Many attempts at once: what each is told equals what `predict` says of the recorded episode; what does not fit has a reason."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from milepost.core import ArrayFrames, DataError, Episode, Step
from milepost.metrics import EventRules, SuccessRule
from milepost.models.topreward.config import TOPRewardConfig
from milepost.models.topreward.model import TOPRewardModel
from milepost.online import FrameProgress, Observation, SessionConfig, SessionLimits, Sessions, ShapingConfig
from milepost.online.trend import Trend
from milepost.testing import dot_episodes, tiny_sarm, tiny_success, tiny_value, tiny_vlm

MAKERS = {"sarm": tiny_sarm, "value": tiny_value, "success": tiny_success}


def images(episode: Episode, frame: int) -> dict[str, np.ndarray]:
    return {camera: episode.camera(camera)[np.array([frame])][0] for camera in episode.cameras}


def observation(name: str, episode: Episode, frame: int, **more: Any) -> Observation:
    return Observation(name, images(episode, frame), episode.state[frame], frame, **more)


def curve(results: list[FrameProgress], name: str) -> np.ndarray:
    return np.array([each.progress for each in results if each.session == name])


@pytest.mark.parametrize("kind", MAKERS)
def test_attempts_in_any_mixture_are_what_predict_says(kind: str) -> None:
    """Three robots with episodes of different lengths, which begin and end at different times, and one that skips a turn."""
    model, episodes = MAKERS[kind](), dot_episodes(3)
    sessions, results = Sessions(model), []
    names = [sessions.begin(task=each.task, fps=each.fps) for each in episodes]
    at = [0, 0, 0]
    rng = np.random.default_rng(0)
    while any(now < each.length for now, each in zip(at, episodes, strict=True)):
        turn = [n for n in range(3) if at[n] < episodes[n].length and rng.uniform() < 0.7]
        results += sessions.advance([observation(names[n], episodes[n], at[n]) for n in turn])
        for n in turn:
            at[n] += 1
    assert not [each.reason for each in results if each.reason]
    for name, episode in zip(names, episodes, strict=True):
        np.testing.assert_allclose(curve(results, name), model.predict(episode).main.value, atol=1e-5)
        assert [each.frame for each in results if each.session == name] == list(range(episode.length))


def test_topreward_streams_by_session(tmp_path: Path) -> None:
    model = TOPRewardModel(TOPRewardConfig(vlm_name=str(tiny_vlm(tmp_path / "vlm")), image_key="observation.images.top", fps=2.0))
    episodes = dot_episodes(2)
    sessions, results = Sessions(model), []
    names = [sessions.begin(task=each.task, fps=each.fps) for each in episodes]
    for frame in range(min(each.length for each in episodes)):
        results += sessions.advance([observation(name, each, frame) for name, each in zip(names, episodes, strict=True)])
    for name, episode in zip(names, episodes, strict=True):
        expected = model.predict(episode).main.signals["logprob"].values
        fresh = [each for each in results if each.session == name and each.fresh]
        assert len(fresh) >= 3
        np.testing.assert_allclose([each.signals["logprob"] for each in fresh], [expected[each.frame] for each in fresh], atol=1e-4)
        first = next(each for each in results if each.session == name)
        assert math.isnan(first.progress)
        assert first.reason == "the model has no number of this attempt yet"


def test_frames_that_never_came_are_held() -> None:
    """Every third frame arrives: the window stays at the rate of the robot, so the curve is that of an episode with held frames."""
    model, episode = tiny_sarm(), dot_episodes(1)[0]
    places = np.arange(episode.length) // 3 * 3
    held = dataclasses.replace(
        episode, state=episode.state[places], cameras={name: ArrayFrames(frames[places]) for name, frames in episode.cameras.items()}
    )
    sessions = Sessions(model)
    name = sessions.begin(task=episode.task, fps=episode.fps)
    sent = range(0, episode.length, 3)
    results = [sessions.advance([observation(name, episode, frame)])[0] for frame in sent]
    np.testing.assert_allclose(curve(results, name), model.predict(held).main.value[list(sent)], atol=1e-5)


def test_frames_before_one_that_fails_are_held_once() -> None:
    """Frames 1 and 2 never came and 3 is damaged: with 4 the window has five frames, not seven."""
    model, episode = tiny_sarm(), dot_episodes(1)[0]
    places = np.array([0, 0, 0, 0, *range(4, episode.length)])
    same = dataclasses.replace(
        episode, state=episode.state[places], cameras={name: ArrayFrames(frames[places]) for name, frames in episode.cameras.items()}
    )
    sessions = Sessions(model)
    name = sessions.begin(task=episode.task, fps=episode.fps)
    first, damaged = observation(name, episode, 0), Observation(name, images(episode, 3), None, 3)
    results = sessions.advance([first, damaged, *(observation(name, episode, n) for n in range(4, 8))])
    assert "got none" in results[1].reason
    expected = model.predict(same).main.value[[0, 4, 5, 6, 7]]
    np.testing.assert_allclose([each.progress for each in (results[0], *results[2:])], expected, atol=1e-5)


def test_what_does_not_fit_has_a_reason_and_changes_nothing() -> None:
    model, (episode, other) = tiny_sarm(), dot_episodes(2)
    sessions = Sessions(model)
    one, two = (sessions.begin(task=each.task, fps=each.fps) for each in (episode, other))
    good = sessions.advance([observation(one, episode, 0), observation(two, other, 0)])
    bad = [
        (Observation(one, {"elsewhere": np.zeros((8, 8, 3), np.uint8)}, episode.state[0]), "observation.images.top"),
        (Observation(one, {"observation.images.top": np.zeros((8, 8, 2), np.uint8)}, episode.state[0]), "(H, W, 3)"),
        (Observation(one, images(episode, 1), np.array([np.nan] * episode.state.shape[1], np.float32)), "NaN or infinite"),
        (Observation(one, images(episode, 1), np.zeros(1, np.float32)), "robot state of"),
        (Observation(one, images(episode, 1), None), "got none"),
        (observation(one, episode, 0), "frame 0 came after frame 0"),
        (Observation("nobody", images(episode, 1), episode.state[1]), "there is no session 'nobody'"),
    ]
    for faulty, words in bad:
        wrong, right = sessions.advance([faulty, observation(two, other, len(good) - 1)])
        assert words in wrong.reason
        assert math.isnan(wrong.progress)
        assert math.isnan(wrong.reward)
        assert right.reason == ""
        good.append(right)
    (after,) = sessions.advance([observation(one, episode, 1)])
    assert after.progress == pytest.approx(float(model.predict(episode).main.value[1]), abs=1e-5)
    np.testing.assert_allclose(curve(good, two), model.predict(other).main.value[: len(bad) + 1], atol=1e-5)


def test_images_of_different_sizes_go_together() -> None:
    model, episode = tiny_sarm(), dot_episodes(1)[0]
    sessions = Sessions(model)
    names = [sessions.begin(task=episode.task, fps=episode.fps) for _ in range(3)]
    wide = {camera: np.repeat(np.repeat(image, 2, 0), 2, 1) for camera, image in images(episode, 0).items()}
    results = sessions.advance([
        observation(names[0], episode, 0), Observation(names[1], wide, episode.state[0]), observation(names[2], episode, 0),
    ])  # fmt: skip
    alone = Sessions(model)
    (expected,) = alone.advance([Observation(alone.begin(task=episode.task, fps=episode.fps), wide, episode.state[0])])
    assert results[0].progress == pytest.approx(results[2].progress, abs=1e-6)
    assert results[1].progress == pytest.approx(expected.progress, abs=1e-6)


class Numbers:
    """A model that says the number in its image, one attempt at a time."""

    def reset(self, *, task: str, fps: float) -> None:
        if not task:
            raise DataError("the task is blank")

    def step(self, frames: Any, state: Any = None) -> Step:
        return Step(float(frames))


def followed(values: list[float], config: SessionConfig, *, fps: float = 10.0) -> list[FrameProgress]:
    sessions = Sessions(Numbers(), config)
    name = sessions.begin(task="count", fps=fps)
    return [sessions.advance([Observation(name, value)])[0] for value in values]


def test_success_events_and_reward_follow_the_progress() -> None:
    rise = np.linspace(0, 1, 11).tolist()
    config = SessionConfig(SuccessRule(0.9, 0.5, hold=2), EventRules(stall_s=1.0, drop=0.2))
    results = followed([*rise, 1.0, 0.6, 0.4, *[0.4] * 12, math.nan], config)
    assert [each.frame for each in results if each.is_success] == [10, 11, 12]
    assert results[10].events == ()
    assert results[13].events == ("regressed",)
    assert results[-2].events == ("plateau", "regressed", "stalled")
    assert math.isnan(results[0].reward)
    assert results[1].reward == pytest.approx(0.99 * 0.1)
    assert math.isnan(results[-1].progress)
    assert results[-1].reason
    assert math.isnan(results[-1].reward), "what is not known has no reward; the next known frame makes up for it"


def test_a_model_of_one_attempt_has_one_session() -> None:
    sessions = Sessions(Numbers())
    with pytest.raises(DataError, match="task is blank"):
        sessions.begin(task="", fps=10.0)
    name = sessions.begin(task="count", fps=10.0)
    with pytest.raises(DataError, match="follows one attempt at a time"):
        sessions.begin(task="count", fps=10.0)
    assert sessions.begin(task="count", fps=10.0, session=name) == name
    (result,) = sessions.advance([Observation(name, 0.5, frame=7)])
    assert result.frame == 7
    (gap,) = sessions.advance([Observation(name, 0.5, frame=9)])
    assert gap.reason == "frames 8 to 8 are missing, and this model needs every frame"
    assert sessions.end(name)
    assert not sessions.end(name)
    with pytest.raises(DataError, match="cannot follow an attempt"):
        Sessions(object())


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    episode = dot_episodes(1)[0]
    sessions = Sessions(tiny_sarm(), SessionConfig(limits=SessionLimits(sessions=2, frames=5, idle_s=60.0)))
    first, _ = (sessions.begin(task=episode.task, fps=10.0) for _ in range(2))
    with pytest.raises(DataError, match="at most 2 attempts are followed at once"):
        sessions.begin(task=episode.task, fps=10.0)
    results = sessions.advance([observation(first, episode, frame) for frame in range(6)])
    assert [each.frame for each in results] == list(range(6))
    assert "at most 5 frames" in results[-1].reason
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    sessions.begin(task=episode.task, fps=10.0)
    assert len(sessions) == 1, "idle attempts made room"
    for fps in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(DataError, match="fps must be above 0"):
            sessions.begin(task=episode.task, fps=fps)
    with pytest.raises(DataError, match="there is no session 'lost'"):
        sessions.begin(task=episode.task, fps=10.0, session="lost")


def test_many_threads() -> None:
    """Sixteen robots, each from a thread of its own: nobody gets another's answer."""
    model, episodes = tiny_sarm(), dot_episodes(16)
    sessions = Sessions(model)
    curves: dict[int, list[float]] = {}

    def drive(number: int) -> None:
        episode = episodes[number]
        name = sessions.begin(task=episode.task, fps=episode.fps)
        curves[number] = [sessions.advance([observation(name, episode, frame)])[0].progress for frame in range(episode.length)]

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, episode in enumerate(episodes):
        np.testing.assert_allclose(curves[number], model.predict(episode).main.value, atol=1e-5)


def test_the_memory_of_a_trend_is_that_of_its_window() -> None:
    trend = Trend(10.0, EventRules(stall_s=1.0))
    for frame in range(5000):
        trend.update(frame / 5000)
    assert len(trend._recent) <= 12


def without_state(name: str, episode: Episode, frame: int, **more: Any) -> Observation:
    return Observation(name, images(episode, frame), np.full(episode.state.shape[1], np.nan, np.float32), frame, **more)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(("refused", "lost"), [({3, 4, 5, 6, 7}, set()), ({6, 7}, {4, 5}), ({4, 9}, {3, 5}), ({0, 1}, set())])
def test_refused_frames_are_as_frames_that_never_came(kind: str, refused: set[int], lost: set[int]) -> None:
    """The curve of every later frame is the same to the last bit, alone and beside another attempt: no gap is held twice."""
    model, (episode, other) = MAKERS[kind](), dot_episodes(2)
    sessions = Sessions(model)
    one, two, three = (sessions.begin(task=each.task, fps=each.fps) for each in (episode, episode, other))
    numbers = [n for n in range(min(episode.length, other.length)) if n not in lost]
    left_out = [sessions.advance([observation(two, episode, n)])[0] for n in numbers if n not in refused]
    results, beside = [], []
    for n in numbers:
        newest = without_state(one, episode, n) if n in refused else observation(one, episode, n)
        both = sessions.advance([newest, observation(three, other, n)])
        results.append(both[0])
        beside.append(both[1])
    assert {each.frame for each in results if each.reason} == refused
    known = [each for each in results if not each.reason]
    np.testing.assert_allclose([each.progress for each in known], [each.progress for each in left_out], atol=1e-6)
    assert not [each.reason for each in beside if each.reason]


def test_a_refused_frame_may_come_again_and_an_earlier_one_too() -> None:
    """A frame with a wrong number and a wrong state does not take the numbers below it away."""
    model, episode = tiny_sarm(), dot_episodes(1)[0]
    sessions = Sessions(model)
    name = sessions.begin(task=episode.task, fps=episode.fps)
    results = []
    for n in range(episode.length):
        if n in (3, 4):
            assert sessions.advance([without_state(name, episode, min(n + 5, episode.length - 1))])[0].reason
        results += sessions.advance([observation(name, episode, n)])
    np.testing.assert_allclose(curve(results, name), model.predict(episode).main.value, atol=1e-5)


def test_a_refused_frame_without_a_number_takes_the_next_one() -> None:
    model, episode = tiny_sarm(), dot_episodes(1)[0]
    sessions = Sessions(model)
    one, two = (sessions.begin(task=episode.task, fps=episode.fps) for _ in range(2))
    for n in range(episode.length):
        newest = without_state(one, episode, n) if n % 2 else observation(one, episode, n)
        (result,) = sessions.advance([dataclasses.replace(newest, frame=None)])
        assert result.frame == n
        if not n % 2:
            (left_out,) = sessions.advance([observation(two, episode, n)])
            assert result.progress == pytest.approx(left_out.progress, abs=1e-6)


@pytest.mark.parametrize("gamma", [0.9, 1.0])
@pytest.mark.parametrize(("refused", "lost"), [({4, 5}, set()), (set(), {3, 4, 5}), ({3, 6}, {4, 5}), (set(), set())])
def test_the_reward_telescopes_over_what_is_missing(gamma: float, refused: set[int], lost: set[int]) -> None:
    episode = dot_episodes(1)[0]
    sessions = Sessions(tiny_sarm(), SessionConfig(shaping=ShapingConfig(gamma=gamma)))
    for last_terminal in ("", "known", "refused"):
        name, results = sessions.begin(task=episode.task, fps=episode.fps), {}
        for n in [n for n in range(10) if n not in lost]:
            make = without_state if n in refused or (n == 9 and last_terminal == "refused") else observation
            (results[n],) = sessions.advance([make(name, episode, n, is_terminal=n == 9 and bool(last_terminal))])
        assert all(math.isnan(results[n].reward) and results[n].reason for n in refused)
        total = sum(gamma ** (n - 1) * each.reward for n, each in results.items() if not math.isnan(each.reward))
        end = 0.0 if last_terminal else gamma**9 * results[9].progress
        assert total == pytest.approx(end - results[0].progress, abs=1e-6)
        (after,) = sessions.advance([observation(name, episode, 10)])
        assert ("ended with its terminal frame 9: begin anew" in after.reason) == bool(last_terminal)
        sessions.end(name)


def test_what_the_model_does_not_know_is_as_what_it_refuses() -> None:
    results = followed([0.2, 0.4, math.nan, math.nan, 0.5], SessionConfig(shaping=ShapingConfig(gamma=0.5)))
    assert [math.isnan(each.reward) for each in results] == [True, False, True, True, False]
    assert sum(0.5 ** (n - 1) * results[n].reward for n in (1, 4)) == pytest.approx(0.5**4 * 0.5 - 0.2)
