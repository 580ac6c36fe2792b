"""The question: everything a model needs is in it, and what sparse and dense share comes first."""

import pytest

from milepost.annotation.question import question
from milepost.annotation.sampling import sample_frames
from milepost.annotation.subtasks import Subtask, SubtaskList
from milepost.core.errors import DataError

SPARSE = SubtaskList.from_flag("reach, fold")
DENSE = SubtaskList((Subtask("reach, slowly", "the arm\nmoves"), Subtask("fold", repeatable=True), Subtask("rest", optional=True)))
SHOWN = sample_frames(305, 30.0)


def test_sparse_and_dense_share_all_up_to_the_list() -> None:
    sparse, dense = (question("fold the towel", stages, SHOWN) for stages in (SPARSE, DENSE))
    assert (sparse.before, sparse.shared) == (dense.before, dense.shared)
    listed = sparse.shared + "The stages, in the order in which they happen:\n1. "
    assert sparse.after.startswith(listed)
    assert dense.after.startswith(listed)
    assert "fold" not in sparse.shared


@pytest.mark.parametrize("look", ["sheets", "frames", "video"])
def test_the_facts_are_in_it(look) -> None:
    asked = question("fold the towel", DENSE, SHOWN, look=look, cameras=2)
    whole = asked.before + asked.after
    for fact in ("fold the towel", f"{len(SHOWN)} frames", "2 cameras", "10.17", '"reach, slowly": the arm moves', '"subtasks"'):
        assert fact in whole
    assert '"fold" (may happen more than once)' in whole
    assert '"rest" (may be missing)' in whole
    assert "unless the list says otherwise" in whole


def test_what_hangs_on_the_list_and_the_attempt() -> None:
    assert "Leave no gaps" in question("t", SPARSE, SHOWN).own
    assert "Leave no gaps" not in question("t", SubtaskList(SPARSE.subtasks, covers=False), SHOWN).own
    assert "failed" in question("t", SPARSE, SHOWN, success=False).own
    assert "failed" not in question("t", SPARSE, SHOWN, success=True).own
    assert "unless" not in question("t", SPARSE, SHOWN).own


def test_a_task_without_words_is_refused() -> None:
    with pytest.raises(DataError, match="no task in words"):
        question(" ", SPARSE, SHOWN)
