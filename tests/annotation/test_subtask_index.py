"""LeRobot's per-frame subtasks: read into segments, written with nothing else changed, all of it or none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import ROWS, TOP, build_dataset, edit_parquet, set_column
from milepost.core.errors import DataError
from milepost.core.types import Segment
from milepost.datasets.reader import open_dataset
from milepost.datasets.subtask_index import index_of, read_subtask_index, segments_of, write_subtask_index
from parquet_content import content, tree

DATA = Path(__file__).parents[1] / "data"
GIVEN = {
    0: {"sparse": (Segment("reach", 0, 4), Segment("move", 5, 9))},
    2: {"sparse": (Segment("move", 0, 3), Segment("reach", 3, 6)), "dense": (Segment("wipe", 0, 6),)},
}


@pytest.fixture
def small(tmp_path) -> Path:
    """Episodes of 9, 14 and 6 frames with pictures in parquet; the first two share a data file of row groups of 7."""
    return build_dataset(tmp_path / "small", cameras={TOP: "png"}).root


def test_each_frame_gets_its_number_and_nothing_else_changes(small):
    files = [ROWS, "data/chunk-000/file-001.parquet"]
    edit_parquet(
        small / ROWS, lambda table: table.replace_schema_metadata({"huggingface": '{"info": {"features": {"action": 1}}}', "a": "b"})
    )
    pq.write_table(pq.read_table(small / ROWS), small / ROWS, row_group_size=7, compression="gzip")
    before = [content(small / name) for name in files]
    info = json.loads((small / "meta/info.json").read_text())
    others = {name: held for name, held in tree(small).items() if name not in (*files, "meta/info.json")}
    assert write_subtask_index(small, GIVEN) == (*files, "meta/info.json", "meta/subtasks.parquet")
    for name, held in zip(files, before, strict=True):
        now = content(small / name, without="subtask_index")
        assert json.loads((now["notes"] or {}).pop(b"huggingface", b"{}")).get("info", {}).get("features") == (
            {"action": 1, "subtask_index": {"dtype": "int64", "_type": "Value"}} if name == ROWS else None
        )
        (held["notes"] or {}).pop(b"huggingface", None)
        assert now == held
    assert (before[0]["groups"], before[0]["codec"]) == ([7, 7, 7, 2], "GZIP")
    assert pq.read_table(small / ROWS)["subtask_index"].to_pylist() == [0] * 4 + [-1] + [1] * 4 + [-1] * 14
    assert pq.read_table(small / files[1])["subtask_index"].to_pylist() == [1] * 3 + [0] * 3
    features = info["features"] | {"subtask_index": {"dtype": "int64", "shape": [1], "names": None}}
    assert json.loads((small / "meta/info.json").read_text()) == info | {"features": features}
    now = tree(small)
    assert {name: now[name] for name in others} == others
    episode = open_dataset(small)[2]
    assert episode.columns["subtask_index"].tolist() == [1] * 3 + [0] * 3


def test_the_words_are_a_table_as_pandas_writes_it(small):
    """LeRobot 0.4 and 0.5 take the words from the index of the table that pandas reads: its notes name the index column."""
    write_subtask_index(small, GIVEN)
    table = pq.read_table(small / "meta/subtasks.parquet")
    assert table.to_pydict() == {"subtask_index": [0, 1], "subtask": ["reach", "move"]}
    assert json.loads(table.schema.metadata[b"pandas"])["index_columns"] == ["subtask"]


def test_it_reads_back(small):
    write_subtask_index(small, GIVEN)
    assert read_subtask_index(small) == {number: {"sparse": heads["sparse"]} for number, heads in GIVEN.items()}
    assert read_subtask_index(small, "dense")[0] == {"dense": GIVEN[0]["sparse"]}


def test_words_keep_their_numbers_and_episodes_their_subtasks(small):
    write_subtask_index(small, GIVEN)
    write_subtask_index(small, {1: {"sparse": (Segment("wipe", 2, 8), Segment("reach", 8, 14))}, 2: {"sparse": ()}})
    assert pq.read_table(small / "meta/subtasks.parquet")["subtask"].to_pylist() == ["reach", "move", "wipe"]
    wipe = (Segment("wipe", 2, 8), Segment("reach", 8, 14))
    assert read_subtask_index(small) == {0: {"sparse": GIVEN[0]["sparse"]}, 1: {"sparse": wipe}}


def test_other_peoples_tables(small):
    """Words under another name or in another order, nulls, a narrower type; and what is no such dataset."""
    with pytest.raises(DataError, match="has no column 'subtask_index', so its frames have no subtasks"):
        read_subtask_index(small)
    words = pa.table({"subtask_index": [1, 0], "instruction": ["move", "reach"]})
    pq.write_table(words, small / "meta/subtasks.parquet")
    with pytest.raises(DataError, match="has no column 'subtask_index'"):
        read_subtask_index(small)
    set_column(small / ROWS, "subtask_index", [0] * 9 + [1] * 14, pa.int32())
    set_column(small / "data/chunk-000/file-001.parquet", "subtask_index", [None, 1, 1, None, 0, 0], pa.int32())
    move = (Segment("move", 0, 14),)
    last = (Segment("move", 1, 3), Segment("reach", 4, 6))
    assert read_subtask_index(small) == {0: {"sparse": (Segment("reach", 0, 9),)}, 1: {"sparse": move}, 2: {"sparse": last}}
    write_subtask_index(small, {0: {"sparse": GIVEN[0]["sparse"]}})
    assert read_subtask_index(small) == {0: {"sparse": GIVEN[0]["sparse"]}, 1: {"sparse": move}, 2: {"sparse": last}}
    set_column(small / ROWS, "subtask_index", [0] * 9 + [7] * 14)
    with pytest.raises(DataError, match="stage numbers go from 7 to 7, and there are 2 names: reach, move"):
        read_subtask_index(small)
    pq.write_table(pa.table({"subtask_index": [0, 5], "subtask": ["a", "b"]}), small / "meta/subtasks.parquet")
    with pytest.raises(DataError, match=r"should run from 0 to 1, they are \[0, 5\]"):
        read_subtask_index(small)
    pq.write_table(pa.table({"subtask_index": [0, 1]}), small / "meta/subtasks.parquet")
    with pytest.raises(DataError, match="has no column of words"):
        read_subtask_index(small)


def test_what_does_not_fit_is_refused_and_nothing_written(small, tmp_path):
    before = tree(small)
    cases = {
        "no annotation of this head": {0: {"dense": (Segment("reach", 0, 4),)}},
        "no episode 7; this dataset has 3": {7: {"sparse": (Segment("reach", 0, 4),)}},
        "segment 'reach' ends at frame 10, the episode has 9": {0: {"sparse": (Segment("reach", 0, 10),)}},
    }
    for message, call in cases.items():
        with pytest.raises(DataError, match=message):
            write_subtask_index(small, call)
    assert tree(small) == before
    old = build_dataset(tmp_path / "old", version="v2.1", cameras={}).root
    with pytest.raises(DataError, match=r"of version v2\.1; subtask_index belongs to v3\.0, .*: milepost import \S+old --output-dir NEW"):
        write_subtask_index(old, GIVEN)


@pytest.mark.parametrize("after", range(5))
def test_killed_at_any_rename_the_same_call_finishes(small, tmp_path, monkeypatch, after):
    class Killed(BaseException):
        pass

    done = shutil.copytree(small, tmp_path / "done")
    write_subtask_index(done, GIVEN)
    replace, seen = Path.replace, []

    def replace_until(self: Path, target: Path) -> Path:
        seen.append(target)
        if len(seen) > after:
            raise Killed
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace_until)
        with pytest.raises(Killed):
            write_subtask_index(small, GIVEN)
    write_subtask_index(small, GIVEN)
    assert tree(small) == tree(done)


def test_a_dataset_of_lerobots_own(tmp_path):
    root = shutil.copytree(DATA / "dataset_v3", tmp_path / "set")
    before = {path: content(path) for path in root.glob("data/*/*.parquet")}
    write_subtask_index(root, {number: {"sparse": (Segment("reach", 0, 30), Segment("move", 30, 80))} for number in (0, 3, 5)})
    for path, held in before.items():
        now = content(path, without="subtask_index")
        assert {**now, "notes": None} == {**held, "notes": None}
        told, told_before = (json.loads(each["notes"][b"huggingface"])["info"]["features"] for each in (now, held))
        assert told == told_before | {"subtask_index": {"dtype": "int64", "_type": "Value"}}
    assert set(read_subtask_index(root)) == {0, 3, 5}


@settings(max_examples=200, deadline=None)
@given(index=st.lists(st.integers(-1, 3), max_size=40))
def test_runs_and_numbers_are_one_another(index):
    names = ("a", "b", "c", "d")
    array = np.array(index, np.int64)
    segments = segments_of(array, names)
    assert index_of(segments, names, len(array)).tolist() == index
    assert all(s.stop > s.start for s in segments)
    assert sum(s.stop - s.start for s in segments) == sum(number >= 0 for number in index)
