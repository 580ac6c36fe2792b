"""Measures of a curve: worked by hand, and compared with scipy where it has them."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from milepost.core import DataError
from milepost.metrics.curves import (
    average_precision,
    beside_time,
    ends,
    filled,
    max_progress,
    milestone_coverage,
    path_efficiency,
    regret,
    slope_beside,
    stagnation,
    tau_a,
    voc,
    voc_r,
)
from milepost.metrics.detection import detect_success
from milepost.metrics.events import find_events
from milepost.metrics.scores import final, mean_error, order_correlation, separation

NAN = float("nan")
VALUES = st.lists(st.integers(0, 6).map(lambda k: k / 6), min_size=2, max_size=30).map(np.array)


@given(VALUES)
def test_order_correlations_are_scipys(value: np.ndarray) -> None:
    time = np.arange(len(value))
    if np.ptp(value) == 0:
        assert voc(value) == voc_r(value) == 0
        return
    assert voc(value) == pytest.approx(stats.spearmanr(value, time).statistic)
    assert voc_r(value) == pytest.approx(stats.pearsonr(value, time).statistic)
    assert slope_beside(value, np.zeros(len(value))) == pytest.approx(stats.linregress(time, value).slope * (len(value) - 1))


@given(VALUES)
def test_frames_that_are_unknown_are_left_out(value: np.ndarray) -> None:
    gaps = np.full(2 * len(value), NAN)
    gaps[::2] = value
    assert voc(gaps) == pytest.approx(voc(value))
    assert ends(gaps) == pytest.approx(ends(value))
    assert regret(gaps) == pytest.approx(regret(value))
    assert max_progress(gaps) == value.max()


@pytest.mark.parametrize("measure", [voc, voc_r, ends, stagnation, regret, path_efficiency, max_progress])
def test_nothing_known_is_unknown(measure) -> None:
    assert np.isnan(measure(np.full(4, NAN)))


def test_ends_and_slope_of_a_clock() -> None:
    clock = np.linspace(0, 1, 101)
    assert ends(clock) == pytest.approx(0.98)  # the mean of the last three, minus that of the first three
    assert slope_beside(clock, np.zeros(101)) == pytest.approx(1)


def test_what_two_curves_share_is_no_rise_with_time() -> None:
    """A shuffled curve may rise by chance; beside the frames that it shows, the rise with time alone is left."""
    frames = np.random.default_rng(0).permutation(np.linspace(0, 1, 50))
    clock = np.linspace(0, 1, 50)
    assert slope_beside(frames, frames) == pytest.approx(0, abs=1e-12)
    assert slope_beside(0.75 * frames + 0.25 * clock, frames) == pytest.approx(0.25)
    assert np.isnan(slope_beside(clock[:1], frames[:1]))


def test_average_precision_by_hand() -> None:
    assert average_precision(np.array([0.9, 0.8]), np.array([0.1])) == 1
    # in order of value: success, failure, success: precision 1 at recall 1/2, and 2/3 at recall 1
    assert average_precision(np.array([0.9, 0.3]), np.array([0.5])) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision(np.ones(3), np.ones(1)) == pytest.approx(0.75)  # all tied: one threshold
    assert np.isnan(average_precision(np.ones(3), np.ones(0)))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=2, max_size=12))
def test_tau_a_counts_pairs(pairs: list[tuple[int, int]]) -> None:
    value, label = (np.array(side) for side in zip(*pairs, strict=True))
    both = [(a, b) for i, a in enumerate(pairs) for b in pairs[:i]]
    agree = sum(np.sign(a[0] - b[0]) * np.sign(a[1] - b[1]) for a, b in both)
    assert tau_a(value, label) == pytest.approx(agree / len(both))


def test_tau_a_is_kendalls_without_ties() -> None:
    value, other = np.array([1.0, 4.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0])
    assert tau_a(value, other) == pytest.approx(stats.kendalltau(value, other).statistic)


def test_process_measures_by_hand() -> None:
    curve = np.array([0.0, 0.4, 0.2, 0.2, 0.8])
    assert stagnation(curve) == 0.5  # two of four steps bring nothing new
    assert regret(curve) == pytest.approx(0.4 / 5)  # 0.2 below the best, twice
    assert path_efficiency(curve) == pytest.approx(0.8 / 1.2)  # 0.4 up, 0.2 down, 0.6 up
    assert path_efficiency(np.zeros(4)) == 0
    assert milestone_coverage(curve, np.array([0.25, 0.5, 0.75, 1.0])) == 0.75
    assert np.isnan(milestone_coverage(curve, np.zeros(0)))


def test_filled_continues_flat() -> None:
    np.testing.assert_array_equal(filled(np.array([NAN, 1.0, NAN, 3.0, NAN])), [1, 1, 2, 3, 3])


def test_a_list_of_numbers_is_a_curve() -> None:
    curve, other = [0, 0.5, NAN, 1], [0.25, 0.5, 0.75, 1.0]
    for measure in (voc, voc_r, ends, max_progress, stagnation, regret, path_efficiency, final):
        assert measure(curve) == measure(np.array(curve, dtype=float))
    for compare in (average_precision, tau_a, milestone_coverage, separation, mean_error, order_correlation):
        assert compare(curve, other) == pytest.approx(compare(np.array(curve), np.array(other)))


ONE = (voc, voc_r, ends, max_progress, stagnation, regret, path_efficiency, final, detect_success, lambda curve: find_events(curve, 10.0))
TWO = (average_precision, tau_a, milestone_coverage, separation, mean_error, order_correlation)


@pytest.mark.parametrize("measure", [*ONE, *(partial(each, [0.0, 1.0, 0.5]) for each in TWO)])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros((3, 2)), r"one row of numbers, got an array of the shape \(3, 2\)"),
        (np.array(3.0), r"one row of numbers, got an array of the shape \(\)"),
        (np.array([0.0, np.inf, 1.0]), "finite numbers or NaN, got inf at place 1"),
        (np.array(["0", "1", "2"]), "got values of the type <U1"),
    ],
)
def test_what_is_no_curve_is_refused_in_a_sentence(measure: Callable[..., object], value: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        measure(value)


def test_two_curves_of_other_lengths_are_refused_in_a_sentence() -> None:
    for compare in (tau_a, mean_error, order_correlation):
        with pytest.raises(DataError, match="have a value for each frame, got 2 and 3 values"):
            compare([0.0, 1.0], [0.0, 0.5, 1.0])


def test_yes_and_no_count_as_one_and_zero() -> None:
    for measure in (*ONE, *(partial(each, [0.0, 1.0, 0.5]) for each in TWO)):
        same = measure(np.array([False, True, True])), measure(np.array([0.0, 1.0, 1.0]))
        np.testing.assert_array_equal(*same)


def test_what_the_time_explains() -> None:
    """Curves that are the same function of the frame, of the part of the episode, and of neither."""
    rng = np.random.default_rng(0)
    lengths = (20, 25, 30, 40)

    def explained(curves: list[np.ndarray]) -> dict[str, float]:
        return {name: float(1 - pairs[:, 0].sum() / pairs[:, 1].sum()) for name, pairs in beside_time(curves).items()}

    by_frame = explained([np.minimum(np.arange(length) / 20, 1) for length in lengths])
    by_part = explained([np.linspace(0, 1, length) ** 2 for length in lengths])
    by_nothing = explained([rng.random(length) for length in lengths])
    assert by_frame["frames"] == pytest.approx(1)
    assert by_part["part"] == pytest.approx(1, abs=1e-3)
    assert max(by_frame["part"], by_part["frames"]) < 0.95
    assert max(by_nothing.values()) < 0.3
    assert np.isnan(beside_time([np.zeros(3)])["frames"]).all()
    assert beside_time([])["part"].shape == (0, 2)
