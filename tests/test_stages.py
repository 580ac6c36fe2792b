"""Segments, targets, proportions and progress: hand-worked cases and properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.core.errors import DataError
from milepost.core.stages import WHOLE, Stages, is_finished, names_in_order, progress, proportions, require_sound_segments, targets
from milepost.core.types import Segment

NAMES = ("reach", "carry", "place")


def seg(*cuts: tuple[str, int, int]) -> list[Segment]:
    return [Segment(*cut) for cut in cuts]


def test_a_finished_attempt_by_hand() -> None:
    stage, tau = targets(seg(("reach", 0, 4), ("carry", 4, 6), ("place", 6, 10)), NAMES, 10)
    np.testing.assert_array_equal(stage, [0, 0, 0, 0, 1, 1, 2, 2, 2, 2])
    np.testing.assert_allclose(tau, [0, 0.25, 0.5, 0.75, 0, 0.5, 0, 1 / 3, 2 / 3, 1])
    value = progress(stage, tau, Stages(NAMES, (0.5, 0.2, 0.3)))
    np.testing.assert_allclose(value, [0, 0.125, 0.25, 0.375, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], atol=1e-6)


def test_the_boundary_has_one_value_from_both_sides() -> None:
    """End of stage k and start of stage k + 1 are the same progress: the last frame of a stage is one step short of it."""
    stage, tau = targets(seg(("reach", 0, 100), ("carry", 100, 200)), NAMES[:2], 200)
    value = progress(stage, tau, Stages(NAMES[:2], (0.3, 0.7)))
    assert value[100] == pytest.approx(0.3)
    assert value[99] == pytest.approx(0.3 * 99 / 100, abs=1e-6)


def test_a_failed_attempt_keeps_what_it_reached() -> None:
    stage, tau = targets(seg(("reach", 0, 4), ("carry", 4, 10)), NAMES, 10)
    np.testing.assert_array_equal(stage, [0] * 4 + [1] * 6)
    assert np.isnan(tau[4:]).all()
    assert not np.isnan(tau[:4]).any()


def test_after_the_last_segment_of_an_unfinished_attempt_nothing_is_known() -> None:
    stage, tau = targets(seg(("reach", 0, 4)), NAMES, 10)
    assert (stage[4:] == -1).all()
    assert np.isnan(tau[4:]).all()


def test_after_success_progress_stays_one() -> None:
    stage, tau = targets(seg(("reach", 0, 4), ("place", 4, 8)), NAMES, 12, success=True)
    assert (stage[8:] == 2).all()
    np.testing.assert_allclose(tau[8:], 1)


def test_a_run_that_falls_back_has_a_stage_but_no_tau() -> None:
    stage, tau = targets(seg(("reach", 0, 3), ("carry", 3, 6), ("reach", 6, 8), ("carry", 8, 10), ("place", 10, 12)), NAMES, 12)
    assert np.isnan(tau[3:6]).all()
    assert (stage[3:6] == 1).all()
    assert not np.isnan(np.delete(tau, [3, 4, 5])).any()


def test_gaps_and_the_time_before() -> None:
    stage, tau = targets(seg(("reach", 2, 4), ("carry", 6, 8), ("place", 8, 10)), NAMES, 10)
    np.testing.assert_array_equal(stage[:6], 0)
    np.testing.assert_allclose(tau[:6], [0, 0, 0, 0.5, 1, 1])


def test_success_decides_when_it_is_known() -> None:
    cut = seg(("reach", 0, 4), ("place", 4, 8))
    assert is_finished(cut, NAMES, None)
    assert not is_finished(cut, NAMES, False)
    assert is_finished(cut[:1], NAMES, True)


def test_no_segment_teaches_nothing() -> None:
    stage, tau = targets([], NAMES, 5)
    assert (stage == -1).all()
    assert np.isnan(tau).all()
    assert np.isnan(progress(stage, tau, Stages(NAMES, (0.2, 0.3, 0.5)))).all()


def test_the_whole_task_is_linear() -> None:
    stage, tau = targets(seg(("task", 0, 5)), WHOLE.names, 5)
    np.testing.assert_allclose(progress(stage, tau, WHOLE), [0, 0.25, 0.5, 0.75, 1])


def test_proportions_are_a_mean_of_shares() -> None:
    """Shares (.5, .5, 0) and (.1, .3, .6): the mean, not (1 + 1) / (2 + 10)."""
    found = proportions([seg(("reach", 0, 1), ("carry", 1, 2)), seg(("reach", 0, 1), ("carry", 1, 4), ("place", 4, 10))], NAMES)
    np.testing.assert_allclose(found.shares, (0.3, 0.4, 0.3))


def test_order_of_names() -> None:
    assert names_in_order([seg(("reach", 0, 1), ("carry", 1, 2)), seg(("reach", 0, 1), ("carry", 1, 2), ("place", 2, 3))]) == NAMES


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        (seg(("fold", 0, 3)), "unknown stage 'fold'"),
        (seg(("reach", 0, 5), ("carry", 4, 8)), "starts at frame 4"),
        (seg(("reach", 0, 11)), "ends at frame 11"),
    ],
)
def test_bad_segments_are_refused(segments: list[Segment], words: str) -> None:
    with pytest.raises(DataError, match=words):
        require_sound_segments(segments, NAMES, 10)


@pytest.mark.parametrize(("names", "shares"), [(("a",), (0.5,)), (("a", "a"), (0.5, 0.5)), ((), ()), (("a", "b"), (1.5, -0.5))])
def test_bad_stages_are_refused(names: tuple, shares: tuple) -> None:
    with pytest.raises(DataError):
        Stages(names, shares)


def test_proportions_files_are_scaled_to_one() -> None:
    stages = Stages.from_proportions({"a": 2.0, "b": 6.0})
    assert stages.shares == (0.25, 0.75)
    with pytest.raises(DataError):
        Stages.from_proportions({})


@given(st.lists(st.integers(1, 30), min_size=3, max_size=3))
def test_a_perfect_attempt_rises_from_zero_to_one(lengths: list[int]) -> None:
    cuts = np.concatenate([[0], np.cumsum(lengths)])
    segments = [Segment(NAMES[k], int(cuts[k]), int(cuts[k + 1])) for k in range(3)]
    stages = proportions([segments], NAMES)
    value = progress(*targets(segments, NAMES, int(cuts[-1])), stages)
    assert value[0] == 0 or lengths[0] == 0
    assert value[-1] == 1
    assert np.all(np.diff(value) >= -1e-6)
