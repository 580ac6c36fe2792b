"""Annotations that cannot all be true are found before anything learns from them."""

import pytest

from milepost.core.errors import DataError
from milepost.core.stages import Attempt, Stages, annotated_stages, contradictions, doubts
from milepost.core.types import Segment


def attempt(stages: str, task: str = "tidy up", success: bool | None = None) -> Attempt:
    """Ten frames for each stage, "reach lift place"."""
    return Attempt(0, task, [Segment(name, 10 * k, 10 * k + 10) for k, name in enumerate(stages.split())], success)


def even(*names: str) -> Stages:
    """Stages of equal shares."""
    return Stages(names, (1 / len(names),) * len(names))


SOUND = [attempt("reach lift place")] * 3
NAMES = ("reach", "lift", "place")


@pytest.mark.parametrize(
    "attempts",
    [
        SOUND,
        [*SOUND, attempt("reach lift")],  # it stopped early
        [*SOUND, attempt("reach", task="another")],  # so did the only attempt at another task
        [*SOUND, attempt("lift place", task="another")],  # it began later, and ends as the others
        [*SOUND, attempt("reach lift reach lift place")],  # it tried again
        [*SOUND, attempt("lift reach place")],  # one of four does it the other way round
        [attempt("reach lift", success=False)] * 4,  # all failed, and the dataset says so
        [attempt("lift", task="another", success=False), *SOUND],
        [],
    ],
)
def test_what_can_be_true_is_left_alone(attempts: list[Attempt]) -> None:
    assert contradictions(attempts, NAMES) == []


@pytest.mark.parametrize("names", [("place", "lift", "reach"), ("lift", "reach", "place"), ("reach", "place", "lift")])
def test_another_order_is_found(names: tuple[str, ...]) -> None:
    (words,) = contradictions(SOUND, names)
    assert "in 3 of 3 annotated episodes" in words
    assert "backwards" in words


def test_a_last_stage_that_nobody_shows_is_found() -> None:
    (words,) = contradictions(SOUND, (*NAMES, "retreat"))
    assert "no annotated episode shows the last stage, 'retreat'" in words
    assert contradictions([attempt("reach lift place", success=True)], (*NAMES, "retreat")) != []  # it says it succeeded without it
    assert contradictions([attempt("reach lift place", success=False)], (*NAMES, "retreat")) == []


def test_tasks_with_stages_of_their_own_are_found() -> None:
    mixed = [attempt("reach push leave", "push"), attempt("grasp lift place", "lift")] * 3
    (words,) = contradictions(mixed, annotated_stages(mixed).names)
    assert "stages of their own" in words
    assert "--episodes" in words
    longer = [attempt("reach lift", "lift it", True), attempt("reach lift fold", "fold it", True)]
    (words,) = contradictions(longer, ("reach", "lift", "fold"))
    assert "'lift it' show reach, lift and never the last stage" in words


def test_an_optional_last_stage_is_doubtful() -> None:
    attempts = [*[attempt("reach lift place")] * 8, attempt("reach lift place retreat")]
    assert contradictions(attempts, (*NAMES, "retreat")) == []
    (words,) = doubts(attempts, even(*NAMES, "retreat"))
    assert words.startswith("8 of 9 annotated episodes do not end in the last stage, 'retreat'")
    assert doubts(SOUND, even(*NAMES)) == []
    assert doubts([attempt("reach lift", success=False)] * 4, even(*NAMES)) == []


@pytest.mark.parametrize("share", [float("nan"), float("inf"), -0.1])
def test_shares_that_are_no_numbers_are_refused(share: float) -> None:
    with pytest.raises(DataError, match=r"temporal proportions|share"):
        Stages.from_proportions({"reach": share, "lift": 0.5})
    with pytest.raises(DataError):
        Stages(("reach", "lift"), (share, 0.5))
