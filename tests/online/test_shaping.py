"""Shaping in a small gridworld, by value iteration: what leaves the optimal policy as it is, and what does not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from milepost.online import Shaper, ShapingConfig

SIDE, GAMMA = 4, 0.9
CELLS = SIDE * SIDE
GOAL, TRAP = CELLS - 1, 5
MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0))
Reward = Callable[[int, int, bool], float]


def lands(cell: int, move: tuple[int, int]) -> int:
    row, column = (max(0, min(SIDE - 1, at + by)) for at, by in zip(divmod(cell, SIDE), move, strict=True))
    return row * SIDE + column


def optimal(shaped: Reward, *, gamma: float = GAMMA) -> list[set[int]]:
    """The best moves of every cell: 1 for the goal, -1 for the trap, both terminal, 0 else, and `shaped` on top."""
    values = np.zeros(CELLS)
    for _ in range(2000):
        worth = np.array([[worth_of(cell, move, values, shaped, gamma) for move in MOVES] for cell in range(CELLS)])
        new = np.where(np.isin(np.arange(CELLS), (GOAL, TRAP)), 0.0, worth.max(1))
        if np.abs(new - values).max() < 1e-13:
            break
        values = new
    return [set(np.flatnonzero(row > row.max() - 1e-9).tolist()) for row in worth]


def worth_of(cell: int, move: tuple[int, int], values: np.ndarray, shaped: Reward, gamma: float) -> float:
    there = lands(cell, move)
    is_terminal = there in (GOAL, TRAP)
    own = {GOAL: 1.0, TRAP: -1.0}.get(there, 0.0)
    return own + shaped(cell, there, is_terminal) + (0.0 if is_terminal else gamma * values[there])


def by(config: ShapingConfig, progress: np.ndarray) -> Reward:
    def shaped(cell: int, there: int, is_terminal: bool) -> float:
        shaper = Shaper(config)
        shaper.begin(progress[cell])
        return shaper.reward(progress[there], is_terminal=is_terminal)

    return shaped


def plain(cell: int, there: int, is_terminal: bool) -> float:
    return 0.0


FREE = [cell for cell in range(CELLS) if cell not in (GOAL, TRAP)]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_a_potential_leaves_the_optimal_policy_as_it_is(seed: int, scale: float) -> None:
    """Any progress at all, right or wrong: a model that is wrong slows learning down, and teaches nothing else."""
    progress = np.random.default_rng(seed).uniform(size=CELLS)
    before, after = optimal(plain), optimal(by(ShapingConfig(gamma=GAMMA, scale=scale), progress))
    assert [before[cell] for cell in FREE] == [after[cell] for cell in FREE]
    assert ShapingConfig(gamma=GAMMA, scale=scale).is_policy_invariant


def test_a_terminal_state_that_keeps_its_potential_does_not() -> None:
    """The convention matters: with phi of the trap counted, a high number there pays for falling into it."""
    progress = np.zeros(CELLS)
    progress[TRAP] = 1.0

    def keeps(cell: int, there: int, is_terminal: bool) -> float:
        return by(ShapingConfig(gamma=GAMMA, scale=5.0), progress)(cell, there, False)

    before, after = optimal(plain), optimal(keeps)
    assert any(before[cell] != after[cell] for cell in FREE)


@pytest.mark.parametrize(
    "config",
    [
        ShapingConfig("absolute", gamma=GAMMA, scale=1.0),
        ShapingConfig("difference", gamma=GAMMA, scale=9.0),
        ShapingConfig(gamma=GAMMA, scale=9.0, clip=0.1),
        ShapingConfig(gamma=0.5, scale=9.0),
    ],
    ids=["absolute", "difference", "clipped", "another gamma"],
)
def test_the_other_kinds_may_change_it(config: ShapingConfig) -> None:
    """Nothing is claimed of them: some progress changes what is best."""
    assert not config.is_policy_invariant or config.gamma != GAMMA
    before = optimal(plain)
    changed = 0
    for seed in range(20):
        after = optimal(by(config, np.random.default_rng(seed).uniform(size=CELLS)))
        changed += any(before[cell] != after[cell] for cell in FREE)
    assert changed > 0


@pytest.mark.parametrize("gamma", [1.0, 0.97])
def test_an_attempt_telescopes(gamma: float) -> None:
    """The discounted sum is gamma^T * phi_T - phi_0, with unknown frames in between; -phi_0 if the last state is terminal."""
    phi = np.array([0.1, 0.3, np.nan, 0.2, np.nan, np.nan, 0.9])
    for is_terminal in (False, True):
        shaper = Shaper(ShapingConfig(gamma=gamma))
        shaper.begin(phi[0])
        rewards = [shaper.reward(each, is_terminal=is_terminal and place == len(phi) - 2) for place, each in enumerate(phi[1:])]
        total = sum(gamma**step * reward for step, reward in enumerate(rewards))
        assert total == pytest.approx((0.0 if is_terminal else gamma ** (len(phi) - 1) * 0.9) - 0.1, abs=1e-12)
        assert shaper.unknown_steps == 3


def test_frames_are_followed_by_their_numbers() -> None:
    """A jump is made up for, a frame may come again, and a gap so long that the frames before weigh nothing begins anew."""
    shaper = Shaper(ShapingConfig(gamma=0.9))
    assert math.isnan(shaper.follow(2, 0.3))
    assert math.isnan(shaper.follow(5, math.nan))
    assert shaper.follow(6, 0.7) == pytest.approx((0.9**4 * 0.7 - 0.3) / 0.9**3)
    assert math.isnan(shaper.follow(10**6, 0.7))
    assert shaper.follow(10**6 + 2, math.nan, is_terminal=True) == pytest.approx(-0.7 / 0.9)
    assert math.isnan(shaper.follow(10**6 + 3, 0.5)), "nothing comes after the end"


def test_what_is_unknown_is_no_zero() -> None:
    shaper = Shaper()
    shaper.begin(math.nan)
    assert math.isnan(shaper.reward(math.nan))
    assert shaper.reward(0.5) == pytest.approx(0.99 * 0.5 - 0.5)
    assert math.isnan(Shaper(ShapingConfig(clip=0.1)).reward(math.nan))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"gamma": 0.0}, "gamma must be above 0"),
        ({"gamma": 1.1}, "gamma must be above 0"),
        ({"clip": 0.0}, "clip must be above 0"),
        ({"scale": math.inf}, "scale must be a finite number"),
        ({"scale": math.nan}, "scale must be a finite number"),
        ({"gamma": math.nan}, "gamma must be above 0"),
    ],
)
def test_numbers_outside_their_range(fields: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ShapingConfig(**fields)
