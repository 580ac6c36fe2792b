"""A threshold between scores: by hand, by brute force, and honest about what it was fitted on."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.metrics.success import balanced_accuracy, fit_threshold, left_out, success_threshold

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
        left.append((left_out(success, failure, 1).mean() + left_out(failure, success, -1).mean()) / 2)
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
