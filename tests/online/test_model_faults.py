"""A model that breaks on one robot's frame: the other robots get their answers, and no attempt is left half a frame further."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from test_later import waited
from test_reward_server import number, serving

from milepost.core import DataError, Episode, Step
from milepost.models.topreward.config import TOPRewardConfig
from milepost.models.topreward.model import TOPRewardModel
from milepost.online import Observation, RewardClient, Sessions
from milepost.testing import dot_episodes, tiny_sarm, tiny_success, tiny_value, tiny_vlm

BREAKS, WAITS = 200, 201
"""Values of a pixel on which the models of this file break, and wait."""


class Counted:
    """An attempt that knows how many frames it has, and can be made what it was."""

    def __init__(self) -> None:
        self.frames = 0

    def snapshot(self) -> int:
        return self.frames

    def restore(self, snapshot: int) -> None:
        self.frames = snapshot


class Counting:
    """A model whose progress is a hundredth of the frames so far. It breaks in the middle of a pass, when some attempts went on."""

    attempt: Any = Counted

    def __init__(self) -> None:
        self.passes: list[int] = []
        self.go_on = threading.Event()

    def begin(self, *, task: str, fps: float) -> Any:
        return self.attempt()

    def advance(self, attempts: Sequence[Any], frames: Sequence[Any], states: Any) -> list[Step]:
        self.passes.append(len(attempts))
        for attempt, frame in zip(attempts, frames, strict=True):
            attempt.frames += 1
            value = int(next(iter(frame.values())).flat[0])
            if value == BREAKS:
                raise RuntimeError("a kernel failed")
            if value == WAITS:
                self.go_on.wait(30)
        return [Step(attempt.frames / 100) for attempt in attempts]


class Forgetful:
    """An attempt that cannot be made what it was."""

    def __init__(self) -> None:
        self.frames = 0


class CountingOn(Counting):
    attempt = Forgetful


def at_once(model: Counting, url: str, robots: dict[str, int]) -> dict[str, str | float]:
    """Shows a frame of each robot, each by a client of its own, so that they share a pass; returns progress, or what is said instead."""

    def show(session: str, value: int) -> str | float:
        with RewardClient(url) as client:
            try:
                result = client.step(session, number(value))
            except DataError as error:
                return str(error)
            return result.reason or result.progress

    with RewardClient(url) as client, ThreadPoolExecutor(len(robots) + 1) as pool:
        model.go_on.clear()
        first = pool.submit(show, client.begin(task="wait", fps=1.0), WAITS)
        while "waiting_frames 1\n" not in httpx2.get(f"{url}/metrics").text:
            time.sleep(0.01)
        rest = {name: pool.submit(show, name, value) for name, value in robots.items()}
        while f"waiting_frames {len(robots) + 1}\n" not in httpx2.get(f"{url}/metrics").text:
            time.sleep(0.01)
        model.go_on.set()
        first.result()
        return {name: answer.result() for name, answer in rest.items()}


def test_only_the_robot_whose_frame_breaks_the_model_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    model = Counting()
    with serving(model) as url, RewardClient(url) as client:
        names = [client.begin(task="a", fps=1.0) for _ in range(5)]
        for _ in range(3):
            client.step_all([Observation(name, number(1)) for name in names])
        with caplog.at_level(logging.ERROR):
            answers = at_once(model, url, dict(zip(names, (1, 1, BREAKS, 1, 1), strict=True)))
        assert [answers[name] for name in names if name != names[2]] == [pytest.approx(0.04)] * 4
        assert "refused (500): the model failed: RuntimeError: a kernel failed" in str(answers[names[2]])
        assert [record.exc_info is not None for record in caplog.records] == [True]  # one traceback, and not one for each try
        assert client.step(names[2], number(1)).progress == pytest.approx(0.04)  # as if the frame had not been
        assert client.step(names[0], number(1)).progress == pytest.approx(0.05)


def test_one_frame_of_a_request_breaks_the_model() -> None:
    with serving(Counting()) as url, RewardClient(url) as client:
        names = [client.begin(task="a", fps=1.0) for _ in range(4)]
        frames = [Observation(name, number(BREAKS if name == names[1] else 1)) for name in names]
        frames.append(Observation(names[1], number(1)))  # its second frame, in the same request
        results = client.step_all(frames)
        assert [result.progress for result in results] == [0.01, pytest.approx(math.nan, nan_ok=True), 0.01, 0.01, 0.01]
        assert results[1].reason == "the model failed: RuntimeError: a kernel failed"
        assert [result.frame for result in results] == [0, 0, 0, 0, 1]
        assert "milepost_latency_seconds_sum nan" not in httpx2.get(f"{url}/metrics").text
        with pytest.raises(DataError, match=r"refused \(500\): the model failed"):
            client.step_all([Observation(name, number(BREAKS)) for name in names])


def test_attempts_that_cannot_be_restored_say_so_and_are_over() -> None:
    model = CountingOn()
    with serving(model) as url, RewardClient(url) as client:
        names = [client.begin(task="a", fps=1.0) for _ in range(3)]
        other = client.begin(task="a", fps=1.0)
        answers = at_once(model, url, dict(zip(names, (1, BREAKS, 1), strict=True)))
        for name in names:
            said = "the model failed (RuntimeError: a kernel failed), and how far it took this attempt is not known"
            assert said in str(answers[name])
            result = client.step(name, number(1))
            assert said in result.reason
            assert math.isnan(result.progress)
        assert client.step(other, number(1)).progress == 0.01  # it was in no pass that failed
        assert client.begin(task="a", fps=1.0, session=names[0]) == names[0]
        assert client.step(names[0], number(1)).progress == 0.01
        client.end(names[1])


class Answering:
    """A model that answers what it is told to."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def begin(self, *, task: str, fps: float) -> Counted:
        return Counted()

    def advance(self, attempts: Sequence[Any], frames: Sequence[Any], states: Any) -> Any:
        return self.answer(len(attempts))


def nothing_more(count: int) -> Iterator[Step]:
    yield Step(0.5)
    raise RuntimeError("no more")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda count: [Step(0.5)] * (count - 1), "the model was shown 2 frames and answered 1"),
        (lambda count: nothing_more(count), "no more"),
    ],
)
def test_answers_that_are_too_few_change_no_attempt(answer: Any, words: str) -> None:
    sessions = Sessions(Answering(answer))
    names = [sessions.begin(task="a", fps=1.0) for _ in range(2)]
    with pytest.raises((ValueError, RuntimeError), match=words):
        sessions.advance([Observation(name, number(1)) for name in names])
    sessions = Sessions(model := Answering(answer))
    names = [sessions.begin(task="a", fps=1.0) for _ in range(2)]
    with pytest.raises((ValueError, RuntimeError), match=words):
        sessions.advance([Observation(name, number(1)) for name in names])
    model.answer = lambda count: [Step(0.5)] * count
    assert [result.frame for result in sessions.advance([Observation(name, number(1)) for name in names])] == [0, 0]


@pytest.mark.parametrize(("name", "value"), [("progress", None), ("progress", "high"), ("signals", {"raw": None}), ("signals", None)])
def test_an_answer_without_numbers_is_refused_alone(name: str, value: Any) -> None:
    step = Step(0.5)
    object.__setattr__(step, name, value)  # outside the tests nothing checks its types
    with serving(Answering(lambda count: [step, Step(0.5, {"raw": 1.0})])) as url, RewardClient(url) as client:
        results = client.step_all([Observation(client.begin(task="a", fps=1.0), number(1)) for _ in range(2)])
        assert "the model answered a Step that has something else than numbers" in results[0].reason
        assert results[1].progress == 0.5


def test_an_episode_that_breaks_the_model_takes_no_other_along() -> None:
    with serving(Counting()) as url, RewardClient(url) as client:
        first = {"camera": np.full((4, 8, 8, 3), 1, np.uint8)}
        second = {"camera": np.full((4, 8, 8, 3), 1, np.uint8)}
        second["camera"][2] = BREAKS
        tickets = [client.relabel(each, task="a", fps=1.0) for each in (first, second, first)]
        for ticket in (tickets[0], tickets[2]):
            assert [result.progress for result in waited(client, ticket)] == [0.01, 0.02, 0.03, 0.04]
        with pytest.raises(DataError, match=r"refused \(500\): the model failed: RuntimeError: a kernel failed"):
            waited(client, tickets[1])


def images(episode: Episode, frame: int) -> dict[str, np.ndarray]:
    return {camera: episode.camera(camera)[np.array([frame])][0] for camera in episode.cameras}


def followed(model: Any, monkeypatch: pytest.MonkeyPatch, broken: tuple[Any, str] | None, calls: int = 1) -> np.ndarray:
    """Returns the curves of two episodes with a gap. broken: what fails before every frame once, when it has done its work already.

    calls: how often it is called in a pass; it fails in one of them.
    """
    episodes, sessions, rows = dot_episodes(2), Sessions(model), []
    names = [sessions.begin(task=each.task, fps=each.fps) for each in episodes]
    for frame in [*range(5), *range(8, min(each.length for each in episodes))]:
        frames = [Observation(name, images(each, frame), each.state[frame], frame) for name, each in zip(names, episodes, strict=True)]
        if broken is not None:
            with monkeypatch.context() as patch:
                patch.setattr(*broken, failing(getattr(*broken), at=frame % calls))
                with pytest.raises(RuntimeError, match="a kernel failed"):
                    sessions.advance(frames)
        rows.append([each.progress for each in sessions.advance(frames)])
    return np.array(rows)


def failing(whole: Any, at: int) -> Any:
    """Returns a function that does all its work, and then fails, in its call of this number."""
    calls = iter(range(100))

    def fail(*values: Any, **more: Any) -> Any:
        answer = whole(*values, **more)
        if next(calls) == at:
            raise RuntimeError("a kernel failed")
        return answer

    return fail


@pytest.mark.parametrize("make", [tiny_sarm, tiny_value, tiny_success])
def test_a_trained_model_that_failed_goes_on_as_it_was(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    np.testing.assert_array_equal(followed(model, monkeypatch, (model, "steps")), followed(model, monkeypatch, None))


def test_topreward_goes_on_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TOPRewardModel(TOPRewardConfig(vlm_name=str(tiny_vlm(tmp_path / "vlm")), image_key="observation.images.top", fps=10.0))
    calm = followed(model, monkeypatch, None)
    assert len(np.unique(calm)) > 4
    np.testing.assert_allclose(followed(model, monkeypatch, (model.engine, "probe"), calls=2), calm, atol=1e-6)


def test_a_frame_that_topreward_cannot_use_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory runs out after half of the work, the next frame is asked about as if this one had not been."""
    model = TOPRewardModel(TOPRewardConfig(vlm_name=str(tiny_vlm(tmp_path / "vlm")), image_key="observation.images.top", fps=10.0))
    episode = dot_episodes(1)[0]

    def curve(disturbed: bool) -> list[float]:
        model.reset(episode.task, fps=episode.fps)
        values = []
        for frame in range(6):
            if disturbed:
                with monkeypatch.context() as patch:
                    patch.setattr(model.engine, "probe", refusing)
                    with pytest.raises(DataError, match="out of memory"):
                        model.step(images(episode, frame))
            values.append(model.step(images(episode, frame)).signals["logprob"])
        return values

    np.testing.assert_allclose(curve(True), curve(False), atol=1e-6)


def refusing(*values: Any, **more: Any) -> Any:
    raise DataError("out of memory")
