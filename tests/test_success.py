"""A threshold between scores: by hand, by brute force, and honest about what it was fitted on."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.core import DataError
from milepost.metrics.success import balanced_accuracy, cuts_without, fit_threshold, proportion_interval, success_threshold

SCORES = st.lists(st.floats(-30, 0).map(lambda x: round(x, 3)), min_size=1, max_size=12).map(np.array)


def test_by_hand() -> None:
    assert fit_threshold(np.array([-1.0, -2.0]), np.array([-5.0, -4.0])) == -3.0
    success, failure = np.array([-1.0, -2.0, -6.0]), np.array([-5.0, -3.0])
    assert fit_threshold(success, failure) == -2.5  # 2/3 and 1: nothing is better
    assert balanced_accuracy(success, failure, np.array([-2.5])).tolist() == pytest.approx([5 / 6])
    assert math.isnan(fit_threshold(success, np.zeros(0)))


@given(SCORES, SCORES)
def test_no_other_threshold_is_better(success: np.ndarray, failure: np.ndarray) -> None:
    def right(cut: float) -> float:
        return (np.mean(success > cut) + np.mean(failure <= cut)) / 2

    best = max(right(cut) for cut in (-31.0, *success, *failure))
    assert right(fit_threshold(success, failure)) >= best - 1e-9


def test_the_accuracy_is_not_that_of_the_fit() -> None:
    """Scores that say nothing: fitted on themselves they would look better than chance, left out they do not."""
    rng = np.random.default_rng(0)
    fits, left = [], []
    for _ in range(400):
        success, failure = rng.normal(size=8), rng.normal(size=8)
        fits.append(balanced_accuracy(success, failure, np.array([fit_threshold(success, failure)]))[0])
        without, other = cuts_without(success, failure)
        left.append((np.mean(success > without) + np.mean(failure <= other)) / 2)
    assert np.mean(fits) > 0.6
    assert abs(np.mean(left) - 0.5) < 0.03  # the mean of 400 wanders by about 0.009


def test_the_intervals_hold_the_truth() -> None:
    """Two bells two deviations apart: the best threshold is 0, its balanced accuracy 0.841, the AUC 0.921."""
    rng = np.random.default_rng(1)
    found = success_threshold(rng.normal(1, 1, 150), rng.normal(-1, 1, 150), rng=rng)
    for value, (low, high) in ((0.0, found.interval), (0.8413, found.accuracy_interval), (0.9214, found.auc_interval)):
        assert low <= value <= high
    assert found.auc_interval[1] - found.auc_interval[0] < 0.1
    assert (found.successes, found.failures) == (150, 150)


def test_too_few_to_say() -> None:
    found = success_threshold(np.array([-1.0, np.nan]), np.array([-2.0]), rng=np.random.default_rng(0))
    assert found.value == -1.5
    assert math.isnan(found.accuracy)
    assert found.successes == 1
    assert (found.false_alarms, found.missed, found.early) == (None, None, None)


def test_a_success_that_is_called_too_early_is_not_right() -> None:
    """Failures and successes are apart from 0.1 to 0.4 on, but two successes reach 0.5 before they are done."""
    success, failure = np.array([0.4, 0.8, 0.9, 0.95]), np.array([0.0, 0.1])
    early = np.array([math.nan, 0.5, 0.5, 0.2])
    assert fit_threshold(success, failure) == pytest.approx(0.25)
    assert balanced_accuracy(success, failure, np.array([0.25, 0.45, 0.65]), early).tolist() == pytest.approx([0.75, 0.625, 0.875])
    assert fit_threshold(success, failure, early) == pytest.approx(0.65)  # misses one and calls none too early
    found = success_threshold(success, failure, early=early, rng=np.random.default_rng(0))
    assert (found.false_alarms, found.missed, found.early) == (0, 1, 2)  # without the one at 0.5, 0.3 is as good as 0.65, and too early
    assert found.accuracy == pytest.approx((1 / 4 + 1) / 2)


@given(st.lists(st.tuples(st.floats(0, 1), st.one_of(st.floats(0, 1), st.just(math.nan))), min_size=1, max_size=12), SCORES)
def test_no_other_threshold_is_better_with_early_scores(pairs: list[tuple[float, float]], failure: np.ndarray) -> None:
    success, failure = np.array([round(score, 3) for score, _ in pairs]), failure / 30 + 1
    early = np.array([round(share * score, 3) for score, share in pairs])
    early = np.minimum(early, success)

    def right(cut: float) -> float:
        return (np.mean((success > cut) & ~(early > cut)) + np.mean(failure <= cut)) / 2

    best = max(right(cut) for cut in (-1.0, 2.0, *success, *failure, *early[~np.isnan(early)]))
    assert right(fit_threshold(success, failure, early)) >= best - 1e-9


def test_false_alarms_are_those_of_thresholds_fitted_without_the_episode() -> None:
    """Each by hand: without the failure at 0.6 the threshold is 0.35, which that failure passes; the others stay below theirs."""
    found = success_threshold([0.5, 0.8, 0.9], [0.1, 0.2, 0.6], rng=np.random.default_rng(0))
    assert (found.false_alarms, found.early) == (1, None)


def test_the_mistakes_in_words_and_wilsons_interval() -> None:
    found = success_threshold([0.5, 0.8, 0.9], [0.1, 0.2, 0.6], rng=np.random.default_rng(0))
    low, high = proportion_interval(1, 3)  # by hand: (1/3 + z2/6) / (1 + z2/3) -+ ...
    assert (low, high) == pytest.approx((0.0615, 0.7923), abs=1e-4)
    assert found.mistakes() == "false alarms: 1 of 3 failures (0.33 [0.06, 0.79]), missed: 1 of 3 successes (0.33 [0.06, 0.79])"
    assert proportion_interval(5, 5)[1] == 1.0
    assert math.isnan(proportion_interval(0, 0)[0])


def test_an_early_score_above_the_score_is_refused() -> None:
    with pytest.raises(DataError, match="early score of success 1 is above its score"):
        success_threshold([0.5, 0.8], [0.1, 0.2], early=[0.5, 0.9], rng=np.random.default_rng(0))
