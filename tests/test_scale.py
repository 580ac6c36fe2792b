"""A dataset of many episodes stays in columns: no object for each episode; the same records, findings and fingerprints as one by one."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmarks.million import build

from builders import edit_info, edit_parquet, set_column
from milepost.cli.view import Args, open_review
from milepost.cli.weigh import notes_of
from milepost.core import sampled_digest
from milepost.datasets import LeRobotDataset, open_dataset, validate
from milepost.datasets.episode_arrays import Numbers
from milepost.datasets.episode_table import EpisodeTable
from milepost.datasets.metadata import read_metadata
from milepost.datasets.records import EpisodeRecord, Metadata, arrays_of
from milepost.progress import match_progress
from milepost.testing import write_example
from milepost.viewer import review as review_module
from milepost.weights import ByEpisode, EpisodeInfo

MANY = 20_000


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scale") / "many"
    build(root, MANY, 2)
    return root


@pytest.fixture
def dots(tmp_path: Path) -> Path:
    write_example(tmp_path / "dots")
    return tmp_path / "dots"


def one_by_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> Metadata:
    """The metadata with every entry read by itself, as before there was a table."""
    with monkeypatch.context() as patch:
        patch.setattr("milepost.datasets.metadata.tabulate", lambda tables, reader: None)
        return read_metadata(root)


def plain_fingerprint(root: Path, meta: Metadata) -> str:
    """The fingerprint as it has always been defined, in one piece."""
    names = {span.path for record in meta.episodes.values() for span in record.videos.values()}
    names |= {record.data for record in meta.episodes.values()}
    content = {
        "fps": meta.fps,
        "features": meta.features,
        "episodes": [(record.index, record.length, list(record.tasks)) for record in meta.episodes.values()],
        "files": [(name, *sampled_digest(root / name)) if (root / name).is_file() else (name, -1, "") for name in sorted(names)],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def test_opening_makes_no_object_for_each_episode(many: Path) -> None:
    open_dataset(many)
    gc.collect()
    before = len(gc.get_objects())
    dataset = open_dataset(many)
    assert dataset.fingerprint
    assert dataset.total_frames == 2 * MANY
    assert dataset.row_range(MANY - 1) == (2 * MANY - 2, 2 * MANY)
    assert dataset.meta.episodes[7].tasks == ("fold the towel",)
    gc.collect()
    assert len(gc.get_objects()) - before < MANY // 10
    assert sum(type(each) is EpisodeRecord for each in gc.get_objects()) < 2000


def test_info_looks_at_no_episode_of_a_dataset_without_fault(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, places = EpisodeTable._read, []
    monkeypatch.setattr(EpisodeTable, "_read", lambda self, place: places.append(place) or read(self, place))
    report = validate(many)
    assert (report.episodes, report.frames, report.findings) == (MANY, 2 * MANY, ())
    assert sum(report.tasks.values()) == MANY
    assert not any(places)  # the tests' type checks look at the first one


def test_a_progress_file_and_its_facts_are_matched_in_columns(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(many, episodes=f"0-{MANY // 2 - 1}")
    assert match_progress(many / "elapsed_progress.parquet", dataset).missing == 0
    whole = open_dataset(many)
    first = whole[0]  # its rows do not know the success, so those of the others are not read
    monkeypatch.setattr(LeRobotDataset, "episode", lambda self, number: first if not number else pytest.fail(f"episode {number} was read"))
    notes = notes_of(whole, np.arange(MANY))
    assert len(notes) == MANY
    assert len(notes.values_once) == 3
    assert notes[MANY - 1] == EpisodeInfo(whole.task_of(MANY - 1), "", None)


@pytest.mark.parametrize("camera", [False, True])
def test_a_table_has_the_records_and_numbers_of_its_entries(many: Path, dots: Path, camera: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    root = dots if camera else many
    table, plain = read_metadata(root), one_by_one(root, monkeypatch)
    assert isinstance(table.episodes, EpisodeTable)
    assert isinstance(plain.episodes, dict)
    assert dict(table.episodes) == plain.episodes
    assert list(table.episodes) == list(plain.episodes)
    for name in ("number", "row", "length"):
        np.testing.assert_array_equal(getattr(table.arrays, name), getattr(plain.arrays, name))
    for names, code in (("names", "file"), ("tasks", "task")):
        own, other = ([getattr(a, names)[each] for each in getattr(a, code)] for a in (table.arrays, arrays_of(plain.episodes.values())))
        assert own == other
    assert dict(table.video_parts) == plain.video_parts
    assert table.odd_parts == plain.odd_parts
    assert {camera: table.video_names(camera) for camera in table.all_cameras} == {c: plain.video_names(c) for c in plain.all_cameras}
    assert open_dataset(root).fingerprint == plain_fingerprint(root, plain)


def test_parts_of_videos_that_do_not_follow_are_the_same_and_in_the_same_order(dots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = next((dots / "meta" / "episodes").rglob("*.parquet"))
    column = next(name for name in pq.read_schema(path).names if name.endswith("/from_timestamp"))
    set_column(path, column, [each + 0.5 for each in pq.read_table(path)[column].to_pylist()])
    table, plain = read_metadata(dots), one_by_one(dots, monkeypatch)
    assert isinstance(table.episodes, EpisodeTable)
    assert table.odd_parts
    assert table.odd_parts == plain.odd_parts


@pytest.mark.parametrize(
    ("column", "value"), [("length", None), ("length", -1), ("episode_index", 3), ("dataset_from_index", 1), ("data/file_index", None)]
)
def test_one_odd_entry_is_read_and_said_as_ever(dots: Path, column: str, value: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    path = next((dots / "meta" / "episodes").rglob("*.parquet"))
    values = pq.read_table(path)[column].to_pylist()
    set_column(path, column, [*values[:4], value, *values[5:]], pa.int64())
    report = validate(dots)
    monkeypatch.setattr("milepost.datasets.metadata.tabulate", lambda tables, reader: None)
    assert report == validate(dots)
    assert report.findings or column == "length"


@pytest.mark.parametrize("column", ["frame_index", "index", "task_index", "timestamp", "observation.state", "action"])
def test_a_fault_in_the_rows_is_found_as_one_by_one(many: Path, tmp_path: Path, column: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "faulty"
    build(root, 40, 3)
    path = next((root / "data").rglob("*.parquet"))
    values = pq.read_table(path)[column].to_pylist()
    values[50] = [float("nan")] * 6 if isinstance(values[50], list) else values[50] + 7
    set_column(path, column, values, pq.read_schema(path).field(column).type)
    report = validate(root)
    monkeypatch.setattr("milepost.datasets.validation.are_sound", lambda *args, **options: False)
    assert report.findings
    assert report == validate(root)


@pytest.mark.parametrize("edit", ["fps", "feature", "data", "data of the same size", "data added", "data gone", "length", "task"])
def test_an_edit_of_the_frames_changes_the_fingerprint(dots: Path, edit: str) -> None:
    before = open_dataset(dots).fingerprint
    data = next((dots / "data").rglob("*.parquet"))
    episodes = next((dots / "meta" / "episodes").rglob("*.parquet"))
    info = json.loads((dots / "meta" / "info.json").read_text())
    match edit:
        case "fps":
            text = (dots / "meta" / "info.json").read_text()
            fps = f'"fps": {info["fps"]}'
            assert fps in text
            (dots / "meta" / "info.json").write_text(text.replace(fps, f"{fps[:-1]}{(int(fps[-1]) + 1) % 10}"))  # one byte
        case "feature":
            edit_info(dots, features={**info["features"], "extra": {"dtype": "float32", "shape": [1]}})
        case "data":
            edit_parquet(data, lambda table: table.append_column("extra", pa.array([0.0] * len(table))))
        case "data of the same size":
            content = bytearray(data.read_bytes())
            content[len(content) // 2] ^= 1
            data.write_bytes(content)
        case "data added":  # a file that an episode names; a stray one holds no frame of the dataset
            shutil.copy(data, data.with_name("file-001.parquet"))
            numbers = pq.read_table(episodes)["data/file_index"].to_pylist()
            set_column(episodes, "data/file_index", [*numbers[:-1], 1], pa.int64())
        case "data gone":
            data.unlink()
        case "length":
            set_column(episodes, "length", [each + 1 for each in pq.read_table(episodes)["length"].to_pylist()], pa.int64())
        case "task":
            set_column(episodes, "tasks", [["another"]] * pq.read_metadata(episodes).num_rows, pa.list_(pa.string()))
    assert open_dataset(dots).fingerprint != before


def test_what_is_no_edit_of_the_frames_leaves_the_fingerprint(dots: Path) -> None:
    before = open_dataset(dots).fingerprint
    for path in [each for each in dots.rglob("*") if each.is_file()]:
        os.utime(path, ns=(1, 1))
    edit_info(dots, robot_type="another")
    (dots / "notes.txt").write_text("seen")
    assert open_dataset(dots).fingerprint == before


def test_a_rewritten_footer_alone_changes_the_fingerprint_of_a_large_file(many: Path, tmp_path: Path) -> None:
    """Compressed values may end with the same size; the footer has their lowest and highest, and the last block is hashed."""
    root = Path(shutil.copytree(many, tmp_path / "copy"))
    before, data = open_dataset(root).fingerprint, max((root / "data").rglob("*.parquet"), key=lambda path: path.stat().st_size)
    assert data.stat().st_size > 2**20
    content = bytearray(data.read_bytes())
    content[-200] ^= 1
    data.write_bytes(content)
    assert open_dataset(root).fingerprint != before


def test_the_page_shows_as_many_as_it_holds_and_says_so(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review_module, "MOST", 500)
    review = open_review(Args(str(many)))
    try:
        assert review.rows.numbers == tuple(range(500))
        assert len(review.episodes()["index"]) == 500
        assert any("the first 500, are shown; choose others with --episodes, for instance 500-999" in each for each in review.problems)
    finally:
        review.close()


def test_numbers_are_read_like_a_tuple() -> None:
    numbers = Numbers(np.array([2, 5, 9]))
    assert numbers == (2, 5, 9)
    assert numbers != (2, 5)
    assert list(numbers[1:]) == [5, 9]
    assert numbers[-1] == 9
    assert len(numbers) == 3
    assert 5 in numbers
    assert 4 not in numbers
    assert "5" not in numbers
    assert numbers.index(9) == 2
    assert repr(numbers) == "(2, 5, 9)"


def test_values_by_episode_are_a_mapping() -> None:
    values = ByEpisode.of({7: "a", 2: "b", 3: "a"})
    assert dict(values) == {2: "b", 3: "a", 7: "a"}
    assert values.get(4) is None
    assert ByEpisode.of({}).get(0) is None
    assert dict(values.each(len)) == {2: 1, 3: 1, 7: 1}
    assert values.where(lambda value: value == "a").tolist() == [False, True, True]
