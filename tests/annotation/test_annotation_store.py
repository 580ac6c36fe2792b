"""Answers kept while a run goes on: killed anywhere, no finished episode is asked again, and no other run's answers are mixed in."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.annotation import store as module
from milepost.annotation.sources import read_annotations
from milepost.annotation.store import AnnotationStore, Answer, read_store
from milepost.core.errors import DataError
from milepost.core.types import Segment

ABOUT = {"dataset": "0123abcd", "model": "tiny", "sparse": "reach, move"}
GOOD = Answer(
    (Segment("reach", 0, 4), Segment("move", 4, 9)), replies=("{...}",), repairs=("gap closed at 0.2 s",), notes={"spread_s": 0.25}
)
BAD = Answer(None, "unknown stage 'grab'", replies=("{'grab'}", "{'grab'}", "I cannot"))


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "towels.annotations"


def test_an_answer_is_accepted_or_failed():
    assert (GOOD.attempts, BAD.attempts) == (1, 3)
    for segments, failure in ((None, ""), ((), ""), (GOOD.segments, "but")):
        with pytest.raises(DataError, match="segments or a reason why not"):
            Answer(segments, failure)


def test_answers_outlive_the_process(folder):
    store = AnnotationStore(folder, ABOUT)
    store.add(3, {"sparse": GOOD})
    store.add(0, {"sparse": BAD, "dense": GOOD})
    again = AnnotationStore(folder, ABOUT)
    assert again.answers() == {0: {"sparse": BAD, "dense": GOOD}, 3: {"sparse": GOOD}} == store.answers()
    assert again.get(3) == {"sparse": GOOD}
    assert again.get(1) == {}
    assert again.annotations() == {0: {"dense": GOOD.segments}, 3: {"sparse": GOOD.segments}}
    assert read_annotations(folder) == read_store(folder) == again.annotations()
    assert again.failures() == {(0, "sparse"): "unknown stage 'grab'"}


def test_what_is_still_to_be_asked(folder):
    store = AnnotationStore(folder, ABOUT)
    store.add(3, {"sparse": GOOD})
    store.add(1, {"sparse": BAD, "dense": GOOD})
    assert store.missing(range(5), ["sparse"]) == [0, 2, 4]
    assert store.missing(range(5), ["sparse"], failed=True) == [0, 1, 2, 4]
    assert store.missing([4, 3, 1], ["sparse", "dense"]) == [4, 3]
    store.add(3, {"dense": BAD})
    assert store.missing([4, 3, 1], ["sparse", "dense"]) == [4]
    assert store.get(3) == {"sparse": GOOD, "dense": BAD}
    store.add(1, {"sparse": GOOD})
    assert store.get(1) == {"sparse": GOOD, "dense": GOOD}


def test_other_questions_are_refused_and_restarted_by_name(folder):
    AnnotationStore(folder, ABOUT).add(3, {"sparse": GOOD})
    other = {**ABOUT, "model": "large", "seed": "1"}
    with pytest.raises(DataError, match=r"model was 'tiny', is 'large'; seed was None, is '1'.*restart by name"):
        AnnotationStore(folder, other)
    assert AnnotationStore(folder, ABOUT, restart=True).answers() == {3: {"sparse": GOOD}}
    for number in (1, 2):
        fresh = AnnotationStore(folder, other, restart=True)
        assert fresh.answers() == {}
        fresh.add(7, {"dense": GOOD})
        assert folder.with_name(f"{folder.name}.{number}").is_dir()
        other = {**other, "seed": str(number + 1)}
    assert read_store(folder.with_name(f"{folder.name}.1")) == {3: {"sparse": GOOD.segments}}
    assert read_store(folder.with_name(f"{folder.name}.2")) == {7: {"dense": GOOD.segments}}


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("...")
    for restart in (False, True):
        with pytest.raises(DataError, match="a folder of something else"):
            AnnotationStore(tmp_path, ABOUT, restart=restart)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_damage_is_named(folder):
    store = AnnotationStore(folder, ABOUT)
    store.add(3, {"sparse": GOOD})
    path = folder / "episode-000003.json"
    for text in ("{", '{"episode": 3, "sparse": {"segments": [["reach", 4, 1]]}}', "[]", '{"episode": 3, "sparse": {}}'):
        path.write_text(text)
        with pytest.raises(DataError, match=r"episode-000003\.json"):
            store.answers()
    with pytest.raises(DataError, match="answers are for sparse or dense"):
        store.add(1, {"coarse": GOOD})


def test_killed_while_writing_the_earlier_answer_stands(folder, monkeypatch):
    class Killed(BaseException):
        pass

    store = AnnotationStore(folder, ABOUT)
    store.add(3, {"sparse": BAD})

    def die(self: Path, target: Path) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", die)
        for episode in (3, 4):
            with pytest.raises(Killed):
                store.add(episode, {"sparse": GOOD})
    (folder / ".episode-000009.json.x7d0").write_text("{half")  # what a kill leaves of a file in the making
    assert AnnotationStore(folder, ABOUT).answers() == {3: {"sparse": BAD}}


def test_notes_of_any_kind(folder):
    store = AnnotationStore(folder, ABOUT)
    notes = {"repeats": [[0.5, float("nan")]], "spread": np.float32(0.25), "counts": np.array([1, 2]), "of": {1: None}, "ok": True}
    store.add(0, {"sparse": Answer(GOOD.segments, notes=notes, replies=("lone surrogate \ud800, 中文",))})
    assert store.get(0)["sparse"].notes == {"repeats": [[0.5, None]], "spread": 0.25, "counts": [1, 2], "of": {"1": None}, "ok": True}
    assert store.get(0)["sparse"].replies == ("lone surrogate \ud800, 中文",)
    json.loads((folder / "episode-000000.json").read_text(), parse_constant=lambda word: pytest.fail(word))


def test_many_threads_add_at_once(folder):
    store = AnnotationStore(folder, ABOUT)
    jobs = [(episode, head) for episode in range(12) for head in ("sparse", "dense")]
    threads = [threading.Thread(target=lambda e=e, h=h: store.add(e, {h: GOOD if e % 3 else BAD})) for e, h in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.missing(range(12), ["sparse", "dense"]) == []
    assert len(store.failures()) == 8
    assert module.read_provenance(folder) == ABOUT


WORDS = st.lists(st.text(min_size=1), min_size=1, max_size=4)
CALLS = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["sparse", "dense"]), WORDS, st.booleans()), max_size=8)


@settings(max_examples=25, deadline=None)
@given(calls=CALLS)
def test_it_holds_the_last_answer_to_everything(tmp_path_factory, calls):
    folder = tmp_path_factory.mktemp("store") / "s"
    expected: dict[int, dict[str, Answer]] = {}
    for episode, head, words, good in calls:
        segments = tuple(Segment(name, i, i + 1) for i, name in enumerate(words)) if good else None
        answer = Answer(segments, "" if good else words[0], tuple(words))
        AnnotationStore(folder, ABOUT).add(episode, {head: answer})
        expected.setdefault(episode, {})[head] = answer
    assert AnnotationStore(folder, ABOUT).answers() == expected
