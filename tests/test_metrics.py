"""Metrics against scipy and by hand."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from milepost.core import Curve
from milepost.metrics.audit import ROWS, audit_curves
from milepost.metrics.copied import EpisodeCurves
from milepost.metrics.curves import average_precision, tau_a
from milepost.metrics.evaluation import MEASURES, MORE, EpisodeScore, failure_table, score_episode, summarise, summary_table
from milepost.metrics.outcomes import OUTCOME_RULES
from milepost.metrics.scores import clock, final, in_words, interval, mean_error, order_correlation, ranks, separation, stage_accuracy
from milepost.testing import dot_episodes


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=40))
def test_ranks_equal_scipy(values: list[int]) -> None:
    np.testing.assert_allclose(ranks(np.array(values, float)), stats.rankdata(values))


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=40, unique=True))
def test_order_equals_scipy(values: list[float]) -> None:
    array = np.array(values)
    assert order_correlation(array) == pytest.approx(stats.spearmanr(np.arange(len(array)), array).statistic)


def test_a_number_lies_in_its_interval_as_both_are_written() -> None:
    """Rounded apart, 0.468 would stand beside [0.47, 0.47]. A zero has no minus sign, an unknown number no interval."""
    for value, low, high in ((0.468, 0.468, 0.468), (0.1234, 0.1226, 0.1244), (0.5, 0.5, 0.5), (-0.00001, -0.00002, 0.0), (0.3, -0.2, 0.9)):
        number, below, above = (float(word) for word in re.findall(r"-?\d+\.\d+", in_words(value, low, high)))
        assert below <= number <= above
        assert "-0.000" not in in_words(value, low, high)
    assert in_words(float("nan"), 0.0, 1.0) == "-"


def test_a_clock_scores_a_perfect_one() -> None:
    assert order_correlation(np.linspace(0, 1, 30)) == pytest.approx(1)
    assert order_correlation(np.linspace(1, 0, 30)) == pytest.approx(-1)


def test_order_of_a_constant_is_unknown() -> None:
    assert np.isnan(order_correlation(np.full(9, 0.3)))
    assert np.isnan(order_correlation(np.array([np.nan, 0.2])))


def test_order_leaves_unknown_frames_out() -> None:
    assert order_correlation(np.array([0.1, np.nan, 0.2, 0.3])) == pytest.approx(1)


def test_error_by_hand() -> None:
    assert mean_error(np.array([0, 0.5, np.nan]), np.array([0.1, 0.2, 0.9])) == pytest.approx(0.2)
    assert np.isnan(mean_error(np.full(3, np.nan), np.zeros(3)))


def test_stage_accuracy_by_hand() -> None:
    probability = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert stage_accuracy(probability, np.array([0, 1, 1])) == pytest.approx(2 / 3)
    assert stage_accuracy(probability, np.array([0, -1, 1])) == pytest.approx(1 / 2)
    assert np.isnan(stage_accuracy(probability, np.full(3, -1)))


def test_final_is_the_mean_of_the_last_known() -> None:
    assert final(np.array([0.1, 0.4, 0.5, 0.6, np.nan])) == pytest.approx(0.5)
    assert np.isnan(final(np.full(4, np.nan)))


def test_a_straight_line_ends_at_its_last_frame_wherever_it_is_cut() -> None:
    clock = np.linspace(0, 1, 30, dtype=np.float32)
    for start, stop in ((0, 30), (4, 30), (0, 21), (7, 12)):
        assert final(clock[start:stop]) == clock[stop - 1]
    assert final(np.r_[clock[:10], np.nan, np.nan]) == clock[9]
    bent = np.r_[clock[:-1], 0.9]
    assert final(bent) == pytest.approx(bent[-3:].mean()), "one odd frame does not decide"


def test_separation_equals_the_pair_count() -> None:
    rng = np.random.default_rng(3)
    good, bad = rng.integers(0, 6, 20) / 5, rng.integers(0, 5, 15) / 5
    pairs = np.mean([(g > b) + 0.5 * (g == b) for g in good for b in bad])
    assert separation(good, bad) == pytest.approx(pairs)
    assert separation(np.array([1.0]), np.array([0.0])) == 1
    assert np.isnan(separation(good, np.array([])))


def test_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        low, high = interval(lambda x: float(np.mean(x)), rng.normal(size=40), rng=rng, draws=300)
        hits += low <= 0 <= high
    assert 85 <= hits <= 100


def test_interval_is_the_same_for_the_same_seed() -> None:
    values = np.random.default_rng(1).random(20)
    first, second = (interval(lambda x: float(np.mean(x)), values, rng=np.random.default_rng(7)) for _ in range(2))
    assert first == second


def test_interval_of_nothing_is_unknown() -> None:
    assert np.isnan(interval(separation, [], [0.1], rng=np.random.default_rng(0))).all()


def test_failures_whose_truth_is_unknown_have_a_dash() -> None:
    for truth, cell in ((0.25, "0.250"), (float("nan"), "-")):
        scores = [EpisodeScore(i, "", "", False, float("nan"), float("nan"), 0.0, 0.5, truth) for i in range(2)]
        columns, rows = failure_table({"sarm": summarise(scores, np.random.default_rng(0))})
        assert columns == ("", "sarm", "truth")
        assert [(row[0], row[2]) for row in rows] == [("failed", cell)]


def test_evaluate_and_audit_have_the_same_names_and_numbers() -> None:
    episodes = dot_episodes(6, failing=2)
    curves = [clock(each.length) ** 2 for each in episodes]
    scores = [score_episode(Curve(value.astype(np.float32)), each, None) for value, each in zip(curves, episodes, strict=True)]
    summary = summarise(scores, np.random.default_rng(0))
    audited = [EpisodeCurves(each.index, "", each.success, value, {}) for value, each in zip(curves, episodes, strict=True)]
    rows = audit_curves(audited).rows
    assert set(MORE) == set(summary.measures)
    for name in ("voc_r", "auprc", "tau_a", "succ_fail_diff"):
        assert ROWS[name] == MORE[name]
        assert rows[name].value == pytest.approx(summary.measures[name].value, nan_ok=True)
    assert rows["auc"].value == pytest.approx(summary.auc.value)
    assert rows["voc"].value == pytest.approx(summary.order.value)
    words = [row[0] for row in summary_table({"model": summary}, more=True)[1]]
    assert words == [*MEASURES.values(), *MORE.values()]
    assert summary.measures["regret"].value == 0


def by_thresholds(success: np.ndarray, failure: np.ndarray) -> float:
    """Returns the area under the precision-recall curve by its definition: each threshold's gain in recall times its precision."""
    area, recall = 0.0, 0.0
    for threshold in sorted({*success, *failure}, reverse=True):
        hits, alarms = (success >= threshold).sum(), (failure >= threshold).sum()
        area += (hits / len(success) - recall) * hits / (hits + alarms)
        recall = hits / len(success)
    return area


def test_the_rules_for_many_draws_equal_scipy_and_the_definitions(rng: np.random.Generator) -> None:
    """Among them draws with ties, and with one level alone. `separation` and `average_precision` are the rules for one draw."""
    success, failure = rng.integers(0, 4, (50, 7)) / 4.0, rng.integers(0, 4, (50, 3)) / 4.0
    success[0], failure[0] = 0.5, 0.5
    singles = {
        "auc": lambda a, b: stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)),
        "auprc": by_thresholds,
        "succ_fail_diff": lambda a, b: a.mean() - b.mean(),
        "tau_a": lambda a, b: tau_a(np.concatenate([a, b]), np.arange(10) < 7),
    }
    assert set(singles) == set(OUTCOME_RULES)
    for name, rule in OUTCOME_RULES.items():
        ones = [singles[name](a, b) for a, b in zip(success, failure, strict=True)]
        np.testing.assert_allclose(rule(success, failure), ones, atol=1e-12, err_msg=name)
    assert separation(success[1], failure[1]) == OUTCOME_RULES["auc"](success[1:2], failure[1:2])[0]
    assert average_precision(success[1], failure[1]) == OUTCOME_RULES["auprc"](success[1:2], failure[1:2])[0]


def test_many_draws_at_once_are_the_draws_of_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = np.random.default_rng(1).random(9), np.random.default_rng(2).random(4)
    plain = interval(separation, *groups, rng=np.random.default_rng(0))
    assert interval(OUTCOME_RULES["auc"], *groups, rng=np.random.default_rng(0), vectorized=True) == pytest.approx(plain, abs=1e-12)
    monkeypatch.setattr("milepost.metrics.scores.BLOCK", 100)  # a few draws in each block
    assert interval(separation, *groups, rng=np.random.default_rng(0)) == plain
