"""Annotations written into a dataset: what LeRobot's annotator wrote, nothing else changed, all of it or none, whenever it is killed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import EPISODES, build_dataset, edit_parquet, set_column
from milepost.annotation.sources import read_annotations
from milepost.core.errors import DataError
from milepost.core.types import Segment
from milepost.datasets import annotations as export
from milepost.datasets.annotation_columns import FIELDS
from milepost.datasets.annotations import write_annotations
from milepost.datasets.metadata import read_metadata
from milepost.datasets.reader import open_dataset
from milepost.datasets.transaction import JOURNAL
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.prepare import with_statistics
from parquet_content import content, tree

DATA = Path(__file__).parents[1] / "data"
SECOND = "meta/episodes/chunk-000/file-001.parquet"
NAMES = ("reach", "move", "finish")


def parts(*edges: int, names: tuple[str, ...] = NAMES) -> tuple[Segment, ...]:
    return tuple(Segment(name, start, stop) for name, start, stop in zip(names, edges, edges[1:], strict=False))


def proportions(root: Path, head: str = "sparse") -> dict[str, float]:
    return json.loads((root / f"meta/temporal_proportions_{head}.json").read_text())


@pytest.fixture
def small(tmp_path) -> Path:
    """Episodes of 9, 14 and 6 frames at 20 fps, the first alone in its meta file; no cameras."""
    return build_dataset(tmp_path / "small", cameras={}).root


@pytest.fixture
def v3(tmp_path) -> Path:
    return shutil.copytree(DATA / "dataset_v3", tmp_path / "v3")


def golden() -> dict[int, dict[str, tuple[Segment, ...]]]:
    return {number: record.segments for number, record in read_metadata(DATA / "dataset_v3_annotated").episodes.items() if record.segments}


def test_it_is_what_lerobots_annotator_wrote(v3):
    orders = {head: list(proportions(DATA / "dataset_v3_annotated", head)) for head in ("sparse", "dense")}
    written = write_annotations(v3, golden(), names=orders, rule="lerobot")
    assert written.episodes == {"sparse": 5, "dense": 5}
    for path in sorted(v3.glob("meta/episodes/*/*.parquet")):
        ours, theirs = pq.read_table(path), pq.read_table(DATA / "dataset_v3_annotated" / path.relative_to(v3))
        assert {n for n in ours.column_names if not n.startswith("stats/")} == set(theirs.column_names)
        for name in theirs.column_names:
            assert ours[name].to_pylist() == theirs[name].to_pylist(), name
            whole_seconds = name.endswith("_times")  # LeRobot rounds to whole seconds and keeps them as integers
            assert ours[name].type == (pa.list_(pa.float64()) if whole_seconds else theirs[name].type), name
    for head in orders:
        told = proportions(DATA / "dataset_v3_annotated", head)
        assert list(proportions(v3, head)) == list(told)
        assert list(proportions(v3, head).values()) == pytest.approx(list(told.values()), abs=1e-12)
        assert written.stages[head].shares == pytest.approx(list(told.values()), abs=1e-12)


def test_the_dataset_reads_it_back(v3):
    before = open_dataset(v3).fingerprint
    write_annotations(v3, golden())
    dataset = open_dataset(v3)
    assert {episode.index: episode.segments for episode in dataset if episode.segments} == golden() == read_annotations(v3)
    assert dataset.fingerprint == before
    assert dataset.stages["sparse"].names == ("reach the object", "move the object", "finish the task")


def test_equation_1_by_hand(small):
    """Shares of the annotated frames: (2, 2, 4)/8 and (7, 0, 7)/14. The third attempt stops after `move` and is not counted."""
    annotations = {0: parts(0, 2, 4, 8), 1: (Segment("reach", 0, 7), Segment("finish", 7, 14)), 2: parts(0, 3, 6)}
    written = write_annotations(small, {number: {"sparse": segments} for number, segments in annotations.items()})
    assert proportions(small) == pytest.approx({"reach": 3 / 8, "move": 1 / 8, "finish": 1 / 2})
    assert list(proportions(small)) == list(NAMES) == list(written.stages["sparse"].names)
    write_annotations(small, {0: {"sparse": annotations[0]}}, rule="lerobot")
    means = np.array([(1 / 4 + 1 / 2 + 1 / 2) / 3, (1 / 4 + 1 / 2) / 2, (1 / 2 + 1 / 2) / 2])
    assert list(proportions(small).values()) == pytest.approx(list(means / means.sum()))


def test_the_shares_are_those_training_would_take(v3):
    write_annotations(v3, golden())
    episodes = [episode for episode in open_dataset(v3) if episode.segments]
    config = SARMConfig(annotation_mode="dual", image_key="observation.images.top")
    with_file, without = (with_statistics(config, episodes, told) for told in (open_dataset(v3).stages, {}))
    assert with_file.sparse_subtask_names == without.sparse_subtask_names
    assert with_file.sparse_temporal_proportions == pytest.approx(without.sparse_temporal_proportions)
    assert with_file.dense_temporal_proportions == pytest.approx(without.dense_temporal_proportions)


def test_names_stay_in_the_order_of_the_proportions_file(small):
    (small / "meta/temporal_proportions_sparse.json").write_text('{"finish": 0.2, "reach": 0.5, "move": 0.3}')
    write_annotations(small, {0: {"sparse": (Segment("reach", 0, 5), Segment("finish", 5, 9))}})
    assert proportions(small) == {"finish": 4 / 9, "reach": 5 / 9, "move": 0.0}
    write_annotations(small, {0: {"sparse": (Segment("reach", 0, 5), Segment("let go", 5, 9))}}, overwrite=True)
    assert list(proportions(small)) == ["reach", "let go"]


def odd(path: Path) -> None:
    """Everything that a careless rewrite loses: small row groups, another codec, notes, types, NaN, -0.0, null."""
    table = pq.read_table(path)
    n = table.num_rows
    special = pa.field(
        "matrix", pa.list_(pa.float32()), metadata={b"ARROW:extension:name": b"somebody.else", b"ARROW:extension:metadata": b"x"}
    )
    words = pa.dictionary(pa.int8(), pa.string())
    extra = [
        (pa.field("odd floats", pa.float32()), pa.array([np.nan, -0.0, 1e-40][:n], pa.float32())),
        (special, pa.array([[1.0, None]] * n, special.type)),
        (pa.field("note", words), pa.array(["a", None, "b"][:n]).cast(words)),
        (pa.field("when", pa.timestamp("us", tz="UTC")), pa.array([1, None, 3][:n], pa.timestamp("us", tz="UTC"))),
        (pa.field("big", pa.large_string()), pa.array(["x"] * n, pa.large_string())),
        (pa.field("count", pa.uint16(), nullable=False), pa.array([7] * n, pa.uint16())),
    ]
    for field, column in extra:
        table = table.append_column(field, column)
    table = table.replace_schema_metadata({"pandas": '{"columns": []}', "mine": "kept"})
    pq.write_table(table, path, row_group_size=1, compression="zstd")


def test_nothing_else_changes(small):
    paths = [small / EPISODES, small / SECOND]
    for path in paths:
        odd(path)
    before = [content(path, without="subtask_") for path in paths]
    others = {name: held for name, held in tree(small).items() if not name.startswith("meta/episodes")}
    for call in ({1: {"sparse": parts(0, 4, 8, 14)}}, {0: {"dense": parts(0, 4)}, 2: {"sparse": parts(1, 2, 3, 5)}}):
        write_annotations(small, call)
        assert [content(path, without="subtask_") for path in paths] == before
        now = tree(small)
        assert {name: now[name] for name in others} == others
    assert before[1]["groups"] == [1, 1]
    assert before[1]["codec"] == "ZSTD"
    new = [name for name in tree(small) if name not in others]
    assert new == [EPISODES, SECOND, "meta/temporal_proportions_dense.json", "meta/temporal_proportions_sparse.json"]


def test_twenty_meta_files_in_two_chunks(tmp_path):
    """Episode numbers run through the files, rows begin anew in each: LeRobot's annotator took the one for the other."""
    root = build_dataset(tmp_path / "many", lengths=[6] * 60, cameras={}, per_file=60).root
    rows = pa.concat_tables([pq.read_table(root / EPISODES), pq.read_table(root / SECOND)])
    (root / SECOND).unlink()
    for file in range(20):
        path = root / f"meta/episodes/chunk-{file // 12:03d}/file-{file % 12:03d}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(rows.slice(3 * file, 3), path, row_group_size=2)
    before = {path: content(path) for path in root.glob("meta/episodes/*/*")}
    annotations = {number: {"sparse": parts(0, 1 + number % 3, 5, 6)} for number in range(60) if number % 4}
    assert len(write_annotations(root, annotations).files) == 21
    assert {path: content(path, without="subtask_") for path in root.glob("meta/episodes/*/*")} == before
    assert {episode.index: episode.segments for episode in open_dataset(root) if episode.segments} == annotations
    assert write_annotations(root, {31: {"sparse": parts(0, 3, 5, 6)}}, overwrite=True).files == (
        "meta/episodes/chunk-000/file-010.parquet",
        "meta/temporal_proportions_sparse.json",
    )


def test_all_files_get_one_schema_and_null_where_nothing_is_annotated(small):
    write_annotations(small, {0: {"sparse": parts(0, 3, 6, 9)}})
    first, second = pq.read_table(small / EPISODES), pq.read_table(small / SECOND)
    assert {f.name: f.type for f in first.schema} == {f.name: f.type for f in second.schema}
    for prefix in ("sparse_subtask_", "subtask_"):
        for field, kind in FIELDS.items():
            assert second[f"{prefix}{field}"].to_pylist() == [None, None]
            assert second[f"{prefix}{field}"].type == kind
    assert first["sparse_subtask_end_times"].to_pylist() == [[0.15, 0.3, 0.45]]


def test_other_episodes_and_heads_are_kept(v3, tmp_path):
    root = shutil.copytree(v3, tmp_path / "annotated", dirs_exist_ok=True)
    shutil.copytree(DATA / "dataset_v3_annotated", root, dirs_exist_ok=True)
    before = {path: content(path, without="sparse") for path in root.glob("meta/episodes/*/*")}
    times = pq.read_table(root / EPISODES)["sparse_subtask_start_times"].to_pylist()
    ours = tuple(Segment(s.name, s.start + 1, s.stop + 1) for s in golden()[0]["sparse"])
    write_annotations(root, {0: {"sparse": ours}, 3: {"sparse": golden()[1]["sparse"]}}, overwrite=True)
    now = {number: record.segments for number, record in read_metadata(root).episodes.items() if record.segments}
    assert now == golden() | {0: golden()[0] | {"sparse": ours}, 3: {"sparse": golden()[1]["sparse"]}}
    assert pq.read_table(root / EPISODES)["sparse_subtask_start_times"].to_pylist()[1:] == times[1:]
    for path, held in before.items():
        dense = [name for name in held["rows"] if name.startswith("dense_")]
        assert {name: content(path)["rows"][name] for name in dense} == {name: held["rows"][name] for name in dense}


def test_old_unprefixed_columns_are_taken_over_and_never_stale(small):
    """LeRobot reads the unprefixed columns only where there are no prefixed ones: those must not hide them, nor they mislead."""
    for name, cells in (("names", [["reach", "finish"], None]), ("start_frames", [[0, 5], None]), ("end_frames", [[5, 14], None])):
        set_column(small / SECOND, f"subtask_{name}", cells, FIELDS[name])
    write_annotations(small, {2: {"sparse": parts(0, 2, 4, 6)}})
    table = pq.read_table(small / SECOND)
    old = ["reach", "finish"]
    assert table["sparse_subtask_names"].to_pylist() == table["subtask_names"].to_pylist() == [old, list(NAMES)]
    write_annotations(small, {1: {"sparse": parts(0, 3, 6, 14)}, 2: {"sparse": ()}}, overwrite=True)
    table = pq.read_table(small / SECOND)
    assert table["sparse_subtask_names"].to_pylist() == table["subtask_names"].to_pylist() == [list(NAMES), None]
    assert read_annotations(small) == {1: {"sparse": parts(0, 3, 6, 14)}}


def test_an_empty_annotation_removes_one(small):
    write_annotations(small, {number: {"sparse": parts(0, 2, 4, 6), "dense": parts(0, 6)} for number in range(3)})
    written = write_annotations(small, {1: {"sparse": ()}}, overwrite=True)
    assert written.episodes == {"sparse": 2}
    assert {number: set(heads) for number, heads in read_annotations(small).items()} == {
        0: {"sparse", "dense"},
        1: {"dense"},
        2: {"sparse", "dense"},
    }


def test_dense_alone_brings_the_one_sparse_stage(small):
    write_annotations(small, {0: {"dense": parts(0, 3, 6, 9)}})
    assert proportions(small, "sparse") == {"task": 1.0}
    assert "sparse_subtask_names" not in pq.read_table(small / EPISODES).column_names
    write_annotations(small, {1: {"sparse": parts(0, 3, 6, 9)}})
    assert list(proportions(small, "sparse")) == list(NAMES)
    write_annotations(small, {2: {"dense": parts(0, 2, 4, 6)}})
    assert list(proportions(small, "sparse")) == list(NAMES)


def test_a_second_call_changes_nothing(small):
    annotations = {0: {"sparse": parts(0, 3, 6, 9)}, 2: {"sparse": parts(0, 2, 4, 6), "dense": parts(0, 6)}}
    assert len(write_annotations(small, annotations).files) == 4
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in small.rglob("*") if path.is_file()}
    assert write_annotations(small, annotations).files == ()
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in small.rglob("*") if path.is_file()} == before
    assert write_annotations(small, {1: {"sparse": parts(0, 1, 6, 9)}}, overwrite=True).files == (
        SECOND,
        "meta/temporal_proportions_sparse.json",
    )


WRONG = {
    "no episode 7; this dataset has 3, numbered 0 to 2": {7: {"sparse": parts(0, 1)}},
    "annotations are for sparse or dense, got 'coarse'": {0: {"coarse": parts(0, 1)}},
    "there is no annotation to write": {},
    "episode 0, sparse: segment 'move' starts at frame 2, before 'reach' ends at 3": {
        0: {"sparse": (Segment("reach", 0, 3), Segment("move", 2, 5))}
    },
    "episode 2, dense: segment 'reach' ends at frame 7, the episode has 6": {0: {"sparse": parts(0, 9)}, 2: {"dense": parts(0, 7)}},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_does_not_fit_is_refused_and_nothing_written(small, message):
    before = tree(small)
    with pytest.raises(DataError, match=message):
        write_annotations(small, WRONG[message])
    assert tree(small) == before


def test_a_stage_that_is_not_declared_is_refused(small):
    write_annotations(small, {0: {"sparse": parts(0, 3, 6, 9)}})
    with pytest.raises(DataError, match="episode 1, sparse: unknown stage 'wipe'; the stages are: reach, move, finish"):
        write_annotations(small, {1: {"sparse": (Segment("wipe", 0, 5),)}}, names={"sparse": NAMES})
    with pytest.raises(DataError, match="episode 0, sparse: unknown stage 'reach'; the stages are: wipe; that is what the dataset has"):
        write_annotations(small, {1: {"sparse": (Segment("wipe", 0, 5),)}}, names={"sparse": ("wipe",)})


def test_the_hubs_cache_is_never_edited(small, tmp_path, monkeypatch):
    annotations = {0: {"sparse": parts(0, 9)}}
    with pytest.raises(DataError, match=r"there is no folder someone/towels\. A Hub dataset is not edited.*--output-repo-id"):
        write_annotations("someone/towels", annotations)
    cached = tmp_path / "hub/datasets--someone--towels/snapshots/0123abc"
    shutil.copytree(small, cached)
    linked = tmp_path / "linked"
    linked.symlink_to(cached)
    half = shutil.copytree(small, tmp_path / "half")
    (half / SECOND).unlink()
    (half / SECOND).symlink_to(small / SECOND)
    inside = shutil.copytree(small, tmp_path / "inside")
    shutil.rmtree(inside / "meta/episodes")
    (inside / "meta/episodes").symlink_to(cached / "meta/episodes")
    before = tree(tmp_path)
    for root, message in (
        (cached, "is in the Hub's cache"),
        (linked, "is in the Hub's cache"),
        (half, "file-001.parquet is a link to"),
        (inside, "is a link"),
    ):
        with pytest.raises(DataError, match=message):
            write_annotations(root, annotations)
    assert tree(tmp_path) == before
    with pytest.raises(DataError, match="is not a LeRobot dataset"):
        write_annotations(tmp_path, annotations)


def test_two_writers_do_not_meet(small):
    handle = os.open(small / "meta", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(DataError, match="another process is writing"):
            write_annotations(small, {0: {"sparse": parts(0, 9)}})
    finally:
        os.close(handle)
    write_annotations(small, {0: {"sparse": parts(0, 9)}})


ALL = {0: {"sparse": parts(0, 3, 6, 9)}, 1: {"dense": parts(0, 4)}, 2: {"sparse": parts(0, 2, 4, 6)}}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", range(6))
def test_killed_at_any_rename_the_same_call_finishes(small, tmp_path, monkeypatch, after):
    """Five renames: the journal, two meta files, two proportions. Before the journal the old dataset stands, afterwards the new."""
    old = tree(small)
    done = shutil.copytree(small, tmp_path / "done")
    write_annotations(done, ALL)
    replace, seen = Path.replace, []

    def replace_until(self: Path, target: Path) -> Path:
        seen.append(target)
        if len(seen) > after:
            raise Killed
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace_until)
        if after < 5:
            with pytest.raises(Killed):
                write_annotations(small, ALL)
        else:
            write_annotations(small, ALL)
    if after == 0:
        assert tree(small) == old
    elif after < 5:
        assert (small / JOURNAL).is_file()
        with pytest.raises(DataError, match="interrupted; repeat that command"):
            read_annotations(small)
    write_annotations(small, ALL)
    assert tree(small) == tree(done)


KILL = """
import os, sys
from pathlib import Path
from milepost.datasets.annotations import write_annotations
from milepost.core import Segment
root, after = Path(sys.argv[1]), int(sys.argv[2])
replace, seen = Path.replace, []
def replace_until(self, target):
    seen.append(target)
    if len(seen) > after:
        os._exit(9)
    return replace(self, target)
Path.replace = replace_until
write_annotations(root, {n: {"sparse": (Segment("reach", 0, 3), Segment("move", 3, 6))} for n in range(3)})
"""


@pytest.mark.parametrize("after", [0, 2])
def test_a_process_that_dies_leaves_nothing_behind(small, tmp_path, after):
    """Even without its own clearing up: other annotations written next are as on a fresh dataset, or on the finished one."""
    annotations = {n: {"sparse": parts(0, 3, 6)} for n in range(3)}
    fresh = shutil.copytree(small, tmp_path / "fresh")
    assert subprocess.run([sys.executable, "-c", KILL, str(small), str(after)], check=False).returncode == 9
    assert any(".milepost-new" in name for name in tree(small))
    open_dataset(small)[1]
    if after:
        write_annotations(fresh, annotations)
    for root in (small, fresh):
        write_annotations(root, {1: {"dense": parts(0, 5)}})
    assert tree(small) == tree(fresh)


def test_a_full_disk_leaves_the_dataset_as_it_was(small, monkeypatch):
    before = tree(small)
    write = export._write_groups

    def full(path: Path, *rest: object) -> None:
        if "001" in path.name:
            raise OSError(28, "No space left on device")
        write(path, *rest)

    monkeypatch.setattr(export, "_write_groups", full)
    with pytest.raises(OSError, match="No space left"):
        write_annotations(small, ALL)
    assert tree(small) == before


def test_v21_has_them_in_its_lines(tmp_path):
    root = build_dataset(tmp_path / "old", version="v2.1", cameras={}).root
    lines = (root / "meta/episodes.jsonl").read_text().splitlines()
    written = write_annotations(root, {0: {"sparse": parts(0, 3, 6, 9)}, 2: {"dense": parts(0, 2, 6)}})
    assert written.files == ("meta/episodes.jsonl", "meta/temporal_proportions_sparse.json", "meta/temporal_proportions_dense.json")
    now = [json.loads(line) for line in (root / "meta/episodes.jsonl").read_text().splitlines()]
    cells = {
        "names": list(NAMES),
        "start_times": [0.0, 0.15, 0.3],
        "end_times": [0.15, 0.3, 0.45],
        "start_frames": [0, 3, 6],
        "end_frames": [3, 6, 9],
    }
    sparse = {f"{prefix}subtask_{name}": held for prefix in ("sparse_", "") for name, held in cells.items()}
    nothing = {f"{prefix}subtask_{name}": None for prefix in ("sparse_", "", "dense_") for name in cells}
    assert now[0] == json.loads(lines[0]) | nothing | sparse
    assert now[1] == json.loads(lines[1]) | nothing
    assert {e.index: dict(e.segments) for e in open_dataset(root)} == {
        0: {"sparse": parts(0, 3, 6, 9)},
        1: {},
        2: {"dense": parts(0, 2, 6)},
    }
    assert write_annotations(root, {0: {"sparse": parts(0, 3, 6, 9)}}).files == ()


LENGTHS = (9, 14, 6, 30)


@st.composite
def segments(draw: st.DrawFn, length: int) -> tuple[Segment, ...]:
    edges = sorted(draw(st.lists(st.integers(0, length), min_size=0, max_size=8)))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=len(edges) // 2, max_size=len(edges) // 2))
    return tuple(Segment(name, start, stop) for name, start, stop in zip(names, edges[::2], edges[1::2], strict=False))


@st.composite
def annotation(draw: st.DrawFn) -> dict[int, dict[str, tuple[Segment, ...]]]:
    episodes = draw(st.lists(st.integers(0, 3), unique=True, max_size=4))
    return {
        e: {head: draw(segments(LENGTHS[e])) for head in draw(st.lists(st.sampled_from(["sparse", "dense"]), unique=True))}
        for e in episodes
    }


@settings(max_examples=25, deadline=None)
@given(calls=st.lists(annotation(), min_size=1, max_size=4))
def test_any_series_of_calls_ends_in_what_was_last_said(tmp_path_factory, calls):
    root = build_dataset(tmp_path_factory.mktemp("any") / "set", lengths=LENGTHS, cameras={}, per_file=3).root
    edit_parquet(root / SECOND, lambda table: table.select(list(reversed(table.column_names))))
    expected: dict[int, dict[str, tuple[Segment, ...]]] = {}
    for call in calls:
        merged = {e: {h: s for h, s in {**expected.get(e, {}), **call.get(e, {})}.items() if s} for e in range(4)}
        shown = {h: [s for heads in merged.values() for s in heads.get(h, ())] for heads in call.values() for h in heads}
        empty = [h for h, held in shown.items() if held and not sum(s.stop - s.start for s in held)]
        if not any(call.values()) or empty:  # nothing said, or stages without a single frame: no shares to tell
            with pytest.raises(DataError):
                write_annotations(root, call, overwrite=True)
            continue
        expected = {e: heads for e, heads in merged.items() if heads}
        write_annotations(root, call, overwrite=True)
        assert read_annotations(root) == expected
        assert write_annotations(root, call, overwrite=True).files == ()
    assert not [name for name in tree(root) if "milepost" in name]
