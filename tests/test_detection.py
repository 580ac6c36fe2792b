"""Success while an attempt runs: worked by hand, and what must hold for any curve."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.metrics import SuccessDetector, SuccessRule, detect_success, sustained_score

NAN = float("nan")
RULE = SuccessRule(threshold=0.9, release=0.6, hold=3)
scores = st.lists(st.one_of(st.floats(0, 1), st.just(NAN)), max_size=60).map(lambda each: np.array(each, np.float64))


def marks(*curve: float, rule: SuccessRule = RULE) -> str:
    return "".join("x" if each else "." for each in detect_success(np.array(curve, np.float64), rule))


def test_success_begins_after_some_frames_in_a_row_and_ends_below_the_lower_threshold() -> None:
    assert marks(0.9, 0.9, 0.9, 0.7, 0.6, 0.59, 0.9) == "..xxx.."
    assert marks(0.9, 0.9, 0.89, 0.9, 0.9, 0.95) == ".....x"
    assert marks(1, rule=SuccessRule(hold=1)) == "x"
    assert marks() == ""


def test_a_curve_of_float32_reaches_the_threshold_that_it_shows() -> None:
    found = detect_success(np.full(4, 0.9, np.float32), SuccessRule(threshold=0.9, hold=2))
    assert found.tolist() == [False, True, True, True]


def test_an_unknown_score_changes_nothing() -> None:
    assert marks(0.9, NAN, 0.9, NAN, 0.9, NAN, 0.5, NAN) == "....xx.."
    assert marks(NAN, NAN, NAN) == "..."


@given(scores)
def test_a_detector_knows_nothing_of_later_frames(curve: np.ndarray) -> None:
    whole = detect_success(curve, RULE)
    for stop in range(len(curve)):
        assert (detect_success(curve[:stop], RULE) == whole[:stop]).all()


@given(scores)
def test_success_changes_only_where_its_rule_says(curve: np.ndarray) -> None:
    found = detect_success(curve, RULE)
    for frame, now in enumerate(found):
        before = frame > 0 and found[frame - 1]
        if now and not before:
            assert curve[frame] >= RULE.threshold
        if before and not now:
            assert curve[frame] < RULE.release


def test_an_attempt_begins_anew_after_a_reset() -> None:
    detector = SuccessDetector(RULE)
    assert [detector.update(1.0) for _ in range(3)] == [False, False, True]
    detector.reset()
    assert [detector.update(1.0) for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"threshold": NAN}, "finite"),
        ({"release": float("-inf")}, "finite"),
        ({"release": 0.95}, "must not be above"),
        ({"hold": 0}, "at least 1"),
        ({"hold": True}, "hold must be a whole number, an int; got True"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SuccessRule(**wrong)


@given(scores, st.integers(1, 4))
def test_the_sustained_score_is_the_highest_threshold_that_is_reached(curve: np.ndarray, hold: int) -> None:
    score = sustained_score(curve, hold)
    if np.isnan(score):
        assert (~np.isnan(curve)).sum() < hold
        return
    assert detect_success(curve, SuccessRule(score, 0.0, hold)).any()
    assert not detect_success(curve, SuccessRule(score + 1e-4, 0.0, hold)).any()
