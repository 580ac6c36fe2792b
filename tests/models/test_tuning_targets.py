"""What fine-tuning teaches at each frame: by time and by stages, of successes, failures and attempts whose outcome nobody wrote down."""

import dataclasses

import numpy as np
import pytest

from milepost.core import Episode, Segment, Stages
from milepost.models.tuning.targets import grades_allowed, progress_targets, success_targets
from milepost.testing import dot_episodes

STAGES = Stages(("reach", "carry"), (0.25, 0.75))


def episode(length: int, success: bool | None, segments: tuple[Segment, ...] = ()) -> Episode:
    facts = {} if success is None else {"success": success}
    return Episode(0, 0, "pick up", 10.0, length, np.zeros((length, 0), np.float32), facts=facts, segments={"sparse": segments})


def test_by_time_a_success_is_a_straight_line() -> None:
    np.testing.assert_allclose(progress_targets(episode(5, True), None), [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(progress_targets(episode(5, None), None), [0, 0.25, 0.5, 0.75, 1])


def test_by_time_nobody_knows_how_far_a_failure_is() -> None:
    progress = progress_targets(episode(5, False), None)
    assert np.isnan(progress).all()
    assert success_targets(progress, False).tolist() == [0] * 5


def test_by_stages_a_failure_is_known_up_to_the_stage_it_completed() -> None:
    failed = episode(8, False, (Segment("reach", 0, 4), Segment("carry", 4, 8)))
    progress = progress_targets(failed, STAGES)
    np.testing.assert_allclose(progress[:4], [0, 0.0625, 0.125, 0.1875])
    assert np.isnan(progress[4:]).all()
    assert success_targets(progress, False).tolist() == [0] * 8


def test_by_stages_a_success_ends_at_one() -> None:
    progress = progress_targets(episode(9, True, (Segment("reach", 0, 4), Segment("carry", 4, 8))), STAGES)
    np.testing.assert_allclose(progress, [0, 0.0625, 0.125, 0.1875, 0.25, 0.4375, 0.625, 0.8125, 1.0], atol=1e-6)
    assert success_targets(progress, True).tolist() == [0] * 8 + [1]


def test_without_an_outcome_success_is_unknown() -> None:
    assert np.isnan(success_targets(np.linspace(0, 1, 5, dtype=np.float32), None)).all()


@pytest.mark.parametrize(
    ("progress", "success", "grades"),
    [
        (0.0, True, [1]), (0.24, True, [1]), (0.25, True, [2]), (0.74, None, [3]), (0.99, True, [4]), (1.0, True, [5]), (1.0, None, [5]),
        (1.0, False, [4]), (0.1, False, [1]), (np.nan, False, [1, 2, 3, 4]), (np.nan, True, []), (np.nan, None, []),
    ],
)  # fmt: skip
def test_a_grade_follows_from_progress_and_a_failure_is_never_perfect(progress: float, success: bool | None, grades: list[int]) -> None:
    assert (np.flatnonzero(grades_allowed(progress, success)) + 1).tolist() == grades


def test_the_dots_have_stages() -> None:
    whole = dot_episodes(3, failing=1)
    stages = Stages(("reach", "carry", "place"), (0.3, 0.4, 0.3))
    for each in whole:
        progress = progress_targets(each, stages)
        assert np.isnan(progress[-1]) if each.success is False else progress[-1] == 1.0
    blank = dataclasses.replace(whole[0], annotation_faults={"sparse": "wrong"})
    assert np.isnan(progress_targets(blank, stages)).all()  # an annotation that cannot be true says nothing
