"""Tripwires: a clock, a policy that stands still, and frames that no demonstration has are found; honest progress trips nothing."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest
from reward_worlds import CAMERA, TASK, DotsEnv

import milepost
from milepost import Familiar, FrameKeys, RewardConfig, TripwireConfig, Tripwires
from milepost.core import DataError, Step
from milepost.online.wrappers.gymnasium import ProgressReward, VectorProgressReward
from milepost.testing import write_example

KEYS = FrameKeys({CAMERA: ("pixels", "top")}, state="state")
STEPS = 40


class Told:
    """A model whose progress is a function of (frames so far, image)."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def begin(self, *, task: str, fps: float) -> list[int]:
        return [0]

    def advance(self, attempts: Any, frames: Any, states: Any) -> list[Step]:
        answers = []
        for attempt, frame in zip(attempts, frames, strict=True):
            answers.append(Step(float(np.clip(self.of(attempt[0], frame[CAMERA]), 0, 1))))
            attempt[0] += 1
        return answers


def place_of_dot(count: int, image: np.ndarray) -> float:
    """Honest: how far the brightest column is to the right."""
    return float(image.astype(int).sum(axis=(0, 2)).argmax()) / (image.shape[1] - 1)


def clock(count: int, image: np.ndarray) -> float:
    return count / STEPS


class Line:
    """A dot that goes to the right by its speed a step, over camera noise of a few levels; nothing else ever changes."""

    def __init__(self, speed: float, noise: float = 2.0, background: int = 40) -> None:
        self.rng, self.speed, self.noise, self.background = np.random.default_rng(0), speed, noise, background

    def frames(self) -> list[tuple[np.ndarray, np.ndarray]]:
        rows = []
        for step in range(STEPS + 1):
            image = self.background + self.rng.normal(0, self.noise, (96, 96, 3))
            column = round(min(95, 4 + self.speed * step))
            image[40:56, max(0, column - 3) : column + 1] = 255
            rows.append((np.clip(image, 0, 255).astype(np.uint8), np.array([self.speed * step], np.float32)))
        return rows


def watched(wires: Tripwires, world: Line, of: Any) -> tuple[str, ...]:
    """Returns what one attempt trips."""
    wires.begin(0, "go right")
    for count, (image, state) in enumerate(world.frames()):
        wires.add(0, {"top": image}, state, float(np.clip(of(count, image), 0, 1)))
    wires.end(0, lambda first, numbers: max(float(np.clip(of(number, first.images["top"]), 0, 1)) for number in numbers))
    return wires.attempts()[-1].wires if wires.attempts() else ()


def test_honest_progress_trips_nothing() -> None:
    wires = Tripwires()
    for noise in (0.0, 2.0, 6.0):
        assert watched(wires, Line(2.3, noise), place_of_dot) == ()
    assert wires.counts() == {"ended": 3, "high": 3, "tried frozen": 3, "still": 0, "frozen": 0, "unfamiliar": 0}


def test_a_clock_trips_frozen_while_the_robot_moves_and_still_while_it_does_not() -> None:
    assert watched(Tripwires(), Line(2.3), clock) == ("frozen",)
    assert watched(Tripwires(), Line(0.0), clock) == ("still", "frozen")
    assert watched(Tripwires(TripwireConfig(frozen_steps=0)), Line(2.3), clock) == ()


def test_a_low_attempt_trips_nothing_whatever_it_does() -> None:
    wires = Tripwires()
    assert watched(wires, Line(0.0), lambda count, image: 0.4 * count / STEPS) == ()
    assert wires.counts()["high"] == 0
    assert watched(Tripwires(TripwireConfig(high=0.3)), Line(0.0), lambda count, image: 0.4 * count / STEPS) != ()


def test_progress_that_is_unknown_is_no_progress() -> None:
    assert watched(Tripwires(), Line(0.0), lambda count, image: math.nan) == ()
    assert watched(Tripwires(), Line(2.3), lambda count, image: math.nan if count % 3 else place_of_dot(count, image)) == ()


def test_a_wobble_in_place_is_no_rise() -> None:
    """Noise of the model around a standing robot adds up to nothing; the rise before it counts."""
    rng = np.random.default_rng(0)
    wires = Tripwires()
    wires.begin(0, "go right")
    frames = Line(2.3, 0.0).frames()
    for count, (image, state) in enumerate([*frames, *[frames[-1]] * 200]):
        wires.add(0, {"top": image}, state, min(1.0, place_of_dot(count, image) * 0.9 + float(rng.normal(0, 0.005))))
    wires.end(0)
    assert wires.attempts() == []


def test_what_no_demonstration_looks_like() -> None:
    def rows(world: Line) -> np.ndarray:
        from milepost.online.tripwires import row_of

        return np.stack([row_of({"top": image}, state) for image, state in world.frames()])

    familiar = Familiar([rows(Line(speed, background=40 + n)) for n, speed in enumerate((2.2, 2.3, 2.25, 2.35, 2.3, 2.2))])
    assert watched(Tripwires(familiar=familiar), Line(2.28, background=42), place_of_dot) == ()
    assert watched(Tripwires(familiar=familiar), Line(2.28, background=90), place_of_dot) == ("unfamiliar",)
    with pytest.raises(DataError, match="other cameras, sizes or state"):
        familiar.distances(np.zeros((1, 3), np.float32))
    with pytest.raises(DataError, match="at least two episodes"):
        Familiar([np.zeros((4, 3), np.float32)])


def test_familiar_of_a_dataset(tmp_path: Any) -> None:
    familiar = Familiar.of_dataset(write_example(tmp_path / "dots"))
    wires = Tripwires(familiar=familiar)
    env = ProgressReward(DotsEnv(), Told(place_of_dot), task=TASK, frames=KEYS, config=RewardConfig(tripwires=wires))
    for _ in range(3):
        played(env)
    env.close()
    assert wires.counts()["unfamiliar"] == 0
    other = Tripwires(TripwireConfig(high=0.01), familiar)
    env = ProgressReward(Inverted(DotsEnv()), Told(lambda count, image: 1.0), task=TASK, frames=KEYS, config=RewardConfig(tripwires=other))
    for _ in range(3):
        played(env)
    env.close()
    assert other.counts()["unfamiliar"] == 3


class Inverted(milepost.online.wrappers.gymnasium.gymnasium.ObservationWrapper):
    def observation(self, observation: Any) -> Any:
        return {**observation, "pixels": {"top": 255 - observation["pixels"]["top"]}}


def played(env: Any) -> None:
    env.reset()
    is_over = False
    while not is_over:
        _, _, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
        is_over = terminated or truncated


def test_the_wrapper_asks_about_the_first_frame_and_the_attempts_go_on_as_before(caplog: pytest.LogCaptureFixture) -> None:
    """A clock is found by the wrapper; the rewards are those without tripwires."""

    def rewards(config: RewardConfig) -> list[float]:
        env = ProgressReward(DotsEnv(), Told(clock_of_dots), task=TASK, frames=KEYS, config=config)
        sums = []
        for _ in range(4):
            env.reset()
            total, is_over = 0.0, False
            while not is_over:
                _, reward, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
                total, is_over = total + reward, terminated or truncated
            sums.append(total)
        env.close()
        return sums

    wires = Tripwires()
    with caplog.at_level(logging.WARNING):
        assert rewards(RewardConfig(tripwires=wires)) == pytest.approx(rewards(RewardConfig()))
    assert wires.counts()["ended"] == wires.counts()["frozen"] == wires.counts()["tried frozen"] == 4
    assert len([record for record in caplog.records if "look at it" in record.message]) == 1
    assert "4 made much of it on their first frame alone, of 4 that were tried" in wires.report()
    assert [each.number for each in wires.attempts()] == [0, 1, 2, 3]


def clock_of_dots(count: int, image: np.ndarray) -> float:
    return count / 10


def test_many_environments_have_their_own_attempts() -> None:
    from gymnasium.vector import SyncVectorEnv

    wires = Tripwires()
    envs = VectorProgressReward(
        SyncVectorEnv([DotsEnv, lambda: DotsEnv(1)]), Told(clock_of_dots), task=TASK, frames=KEYS, config=RewardConfig(tripwires=wires)
    )
    envs.reset()
    for _ in range(60):
        envs.step(np.zeros((2, 1), np.float32))
    envs.close()
    assert {each.place for each in wires.attempts()} == {0, 1}
    assert wires.counts()["frozen"] == wires.counts()["high"] >= 4


def test_images_of_any_size_and_of_none() -> None:
    wires = Tripwires()
    wires.begin(0, "go")
    for size in (5, 96, 480):
        for image in (np.zeros((size, size, 3), np.uint8), np.zeros((3, size, size), np.uint8), np.zeros((size, size, 3), np.float32)):
            wires.add(0, {"top": image}, None, 0.5)
    for image in (b"jpeg", np.zeros(4)):
        with pytest.raises(DataError, match="tripwires compare images as arrays"):
            wires.add(0, {"top": image}, None, 0.5)


def test_numbers_outside_their_range() -> None:
    for wrong in ({"high": 0.0}, {"fraction": 1.5}, {"frozen_steps": -1}, {"listed": 0}, {"image_change": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TripwireConfig(**wrong)
