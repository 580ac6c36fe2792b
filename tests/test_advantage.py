"""Advantage labels: worked by hand, by convention, and what a clock's look like."""

from __future__ import annotations

import numpy as np
import pytest

from milepost.core import DataError
from milepost.weights.advantage import (
    CONVENTIONS,
    AdvantageConfig,
    EpisodeProgress,
    advantages,
    label_advantages,
    returns_of,
)
from milepost.weights.positives import agreement, between_episodes, by_group, explained_by_time, tenths

NAN = float("nan")
LENGTHS = [40, 47, 54, 61, 68, 75]


def smooth(part: np.ndarray) -> np.ndarray:
    return part**2 * (3 - 2 * part)


CLOCKS = {
    "elapsed part": [np.linspace(0, 1, length) for length in LENGTHS],
    "a curved clock": [smooth(np.linspace(0, 1, length)) for length in LENGTHS],
    "a stopwatch": [np.minimum(np.arange(length) / 57, 1) for length in LENGTHS],
    "a noisy clock": [np.clip(np.linspace(0, 1, n) + np.random.default_rng(n).normal(0, 0.02, n), 0, 1) for n in LENGTHS],
}


def truth() -> list[np.ndarray]:
    """Returns progress that stands still for a third of each episode, at another place in each."""
    curves = []
    for number, length in enumerate(LENGTHS):
        pause = length // 3
        start = 5 + number * (length - pause - 10) // len(LENGTHS)
        rate = np.ones(length)
        rate[start : start + pause] = 0
        curves.append(np.cumsum(rate) / rate.sum())
    return curves


def episodes_of(curves: list[np.ndarray], success: bool | None = True) -> list[EpisodeProgress]:
    return [EpisodeProgress(number, "t", curve, success) for number, curve in enumerate(curves)]


def test_an_advantage_worked_by_hand() -> None:
    """A task of 4 frames after the first: the second step stands still, the third does the work of two."""
    value = np.array([0.0, 0.25, 0.25, 0.75, 1.0]) - 1
    np.testing.assert_allclose(advantages(value, 0.0, 4.0, 1), [0, -0.25, 0.25, 0, 0])
    np.testing.assert_allclose(advantages(value, 0.0, 4.0, 2), [0.25 - 0.5, 0.5 - 0.5, 0.75 - 0.5, 0, 0])
    np.testing.assert_allclose(advantages(value, 0.0, 4.0, None), returns_of(5, 0.0, 4.0) - value)
    np.testing.assert_allclose(advantages(value, 0.0, 4.0, 99), advantages(value, 0.0, 4.0, None))
    np.testing.assert_allclose(advantages(value, -1.0, 4.0, 2), [-0.25, 0, 0.25, -1.0, -1.0])
    np.testing.assert_allclose(returns_of(5, -1.0, 4.0), [-2, -1.75, -1.5, -1.25, -1])


def test_a_progress_at_the_usual_pace_has_no_advantage() -> None:
    for horizon in (1, 7, 50, None):
        assert not advantages(np.linspace(0, 1, 31) - 1, 0.0, 30.0, horizon).any()


def test_unknown_frames_have_no_advantage_and_are_negative() -> None:
    value = np.array([0.0, NAN, 0.2, 1.0])
    assert np.isnan(advantages(value - 1, 0.0, 3.0, 1)).tolist() == [True, True, False, False]
    labels = label_advantages([EpisodeProgress(0, "t", value)], AdvantageConfig(horizon=1, positive=0.5))
    assert labels.episodes[0].is_positive.tolist() == [False, False, True, False]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_convention_makes_its_proportion_positive_in_every_task(convention: str) -> None:
    rng = np.random.default_rng(0)
    episodes = [EpisodeProgress(n, f"task {n % 2}", np.sort(rng.random(200)) ** (1 + n % 2)) for n in range(6)]
    labels = label_advantages(episodes, AdvantageConfig(10, CONVENTIONS[convention]))
    for group in by_group(labels.episodes, [each.task for each in episodes]):
        assert group.positive == pytest.approx(CONVENTIONS[convention], abs=0.01)
        assert group.frames == 600
    whole = label_advantages(episodes, AdvantageConfig(10, CONVENTIONS[convention], per_task=False))
    assert list(whole.thresholds) == [""]
    shares = [group.positive for group in by_group(whole.episodes, [each.task for each in episodes])]
    assert np.mean(shares) == pytest.approx(CONVENTIONS[convention], abs=0.01)


def test_interventions_are_positive_and_move_no_threshold() -> None:
    rising = np.linspace(0, 1, 20) ** 2
    person = np.zeros(20, dtype=bool)
    person[3:5] = True
    good, bad = EpisodeProgress(0, "t", rising, True), EpisodeProgress(1, "t", rising * 0.2, False, person)
    labels = label_advantages([good, bad], AdvantageConfig(5, 0.5))
    assert labels.episodes[1].is_positive[3:5].all()
    assert labels.episodes[1].advantage[-1] < labels.episodes[0].advantage[-1]
    assert labels.episodes[1].is_positive.mean() < labels.episodes[0].is_positive.mean()
    advantage = np.concatenate([labels.episodes[0].advantage, labels.episodes[1].advantage[~person]])
    assert labels.thresholds["t"] == pytest.approx(np.quantile(advantage, 0.5), abs=1e-6)


def test_a_failure_ends_at_its_penalty() -> None:
    curve = np.linspace(0, 1, 21)
    labels = {failure: label_advantages(
        [EpisodeProgress(0, "t", curve), EpisodeProgress(1, "t", curve, False)], AdvantageConfig(4, 0.5, failure)
    ) for failure in (-1.0, -3.0)}  # fmt: skip
    assert labels[-1.0].episodes[1].advantage[[0, 16, 17, 20]].tolist() == [0, 0, -1, -1]
    assert labels[-3.0].episodes[1].advantage[[0, 16, 17, 20]].tolist() == [0, 0, -3, -3]
    assert labels[-3.0].episodes[1].returns[-1] == -3


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_clock_is_found_by_the_time_that_explains_it(clock: str) -> None:
    assert explained_by_time(episodes_of(CLOCKS[clock])) >= 0.98


def test_truth_is_no_clock() -> None:
    assert explained_by_time(episodes_of(truth())) < 0.95
    assert np.isnan(explained_by_time(episodes_of(truth()[:1])))
    assert np.isnan(explained_by_time(episodes_of(truth(), success=False)))


def test_each_task_has_its_own_clock() -> None:
    slow = [EpisodeProgress(10 + n, "slow", np.minimum(np.arange(90) / 200, 1)) for n in range(3)]
    assert explained_by_time(episodes_of(CLOCKS["a stopwatch"]) + slow) >= 0.98


def test_a_clock_chooses_episodes_and_no_frames() -> None:
    clock, real = episodes_of(CLOCKS["elapsed part"]), episodes_of(truth())
    by_clock, by_truth = (label_advantages(each, AdvantageConfig(5, 0.5)).episodes for each in (clock, real))
    assert between_episodes(by_clock) > 0.8 > 0.5 > between_episodes(by_truth)
    assert agreement(by_clock, by_clock) == {"same": 1, "kappa": 1}
    assert agreement(by_clock, by_truth)["kappa"] < 0.5
    assert {group.name for group in by_group(by_truth, [tenths(length) for length in LENGTHS])} == set(map(str, range(10)))


def test_what_is_refused() -> None:
    failed = EpisodeProgress(0, "t", np.linspace(0, 1, 9), False)
    with pytest.raises(DataError, match="the task 't' has no successful episode"):
        label_advantages([failed])
    with pytest.raises(DataError, match="no frame of the task 't' has a known advantage"):
        label_advantages([EpisodeProgress(0, "t", np.full(9, NAN))])
    same = [EpisodeProgress(0, "t", np.linspace(0, 1, 9)), EpisodeProgress(1, "t", np.linspace(0, 1, 9))]
    with pytest.raises(DataError, match="every frame of the task 't' has the same advantage"):
        label_advantages(same, AdvantageConfig(1))
    saturated = [EpisodeProgress(0, "t", np.concatenate([[0.0, 0.9], np.full(40, 1.0)]))]
    with pytest.raises(DataError, match="choose a smaller --positive"):
        label_advantages(saturated, AdvantageConfig(1, 0.7))
    for wrong in ({"horizon": 0}, {"positive": 0.0}, {"positive": 1.0}, {"failure": 0.5}, {"failure": -np.inf}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            AdvantageConfig(**wrong)
