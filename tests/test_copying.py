"""A copy of a dataset with progress and weight as columns: everything else as it was, the dataset untouched, whole or not there."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import milepost.datasets.copy
from builders import TOP, build_dataset
from milepost.cli.entry import main
from milepost.core.errors import DataError
from milepost.core.types import Curve, Progress
from milepost.datasets.copy import copy_with_columns
from milepost.datasets.reader import open_dataset
from milepost.datasets.validation import validate
from milepost.progress.store import ProgressStore
from milepost.weights.file import write_weights_file
from parquet_content import content, tree

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def nails(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What LeRobot recorded, with a progress file of two heads in which two frames are unknown, and a weights file."""
    root = Path(shutil.copytree(DATA / "dataset_v3", tmp_path_factory.mktemp("copy") / "nails", copy_function=shutil.copyfile))
    dataset = open_dataset(root)
    store = ProgressStore(root / "sarm_progress.parquet", {"model": "sarm", "dataset": "nails", "dataset_fingerprint": dataset.fingerprint})
    for episode in dataset:
        value = (np.arange(episode.length) / 200).astype(np.float32)
        if episode.index == 1:
            value[3:5] = np.nan
        store.add(Progress(episode.index, {"sparse": Curve(value), "dense": Curve(value**2)}), episode.row)
    store.finish()
    index = np.arange(dataset.total_frames)
    made = {"dataset": "nails", "dataset_fingerprint": dataset.fingerprint}
    write_weights_file(root / "weights.parquet", index, (index % 2).astype(np.float32), made)
    return root


def copy(*words: object) -> int:
    return main(["copy", *map(str, words)])


def test_columns_are_the_files_and_the_rest_is_as_it_was(nails: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, out = tree(nails), tmp_path / "new" / "copy"
    assert copy(nails, "--weights", nails / "weights.parquet", "--output-dir", out) == 1, "two frames are unknown"
    assert "2 of progress_sparse, 2 of progress_dense" in capsys.readouterr().err
    assert tree(nails) == before
    old, new = open_dataset(nails), open_dataset(out)
    for one, other in zip(old, new, strict=True):
        value = (np.arange(one.length) / 200).astype(np.float32)
        if one.index == 1:
            value[3:5] = np.nan
        np.testing.assert_array_equal(other.columns["progress_sparse"], value)
        np.testing.assert_array_equal(other.columns["progress_dense"], value**2)
        np.testing.assert_array_equal(other.columns["weight"], (np.arange(one.row, one.row + one.length) % 2).astype(np.float32))
        np.testing.assert_array_equal(other.state, one.state)
        for camera in old.cameras:
            np.testing.assert_array_equal(other.camera(camera)[np.array([0, 5])], one.camera(camera)[np.array([0, 5])])
    added = ("progress_sparse", "progress_dense", "weight")
    for path in sorted(nails.glob("data/*/*.parquet")):
        theirs, ours = content(path), content(out / path.relative_to(nails))
        assert set(theirs) < set(ours) or theirs.keys() == ours.keys()
    feature = {"dtype": "float32", "shape": [1], "names": None}
    info = json.loads((out / "meta/info.json").read_text())
    assert {name: info["features"].pop(name) for name in added} == dict.fromkeys(added, feature)
    assert info == json.loads((nails / "meta/info.json").read_text())
    assert not list(out.glob("*.parquet")), "a progress file of the dataset is not one of the copy"
    assert validate(out).healthy


def test_statistics_are_of_what_is_known(nails: Path, tmp_path: Path) -> None:
    copy(nails, "--output-dir", tmp_path / "copy")
    stats = json.loads((tmp_path / "copy/meta/stats.json").read_text())
    value = np.concatenate([episode.columns["progress_sparse"] for episode in open_dataset(tmp_path / "copy")])
    known = value[~np.isnan(value)].astype(np.float64)
    told = stats.pop("progress_sparse")
    assert told["count"] == [len(known)] == [len(value) - 2]
    assert [told[key][0] for key in ("min", "max", "mean", "std")] == pytest.approx([known.min(), known.max(), known.mean(), known.std()])
    stats.pop("progress_dense")
    assert stats == json.loads((nails / "meta/stats.json").read_text())
    episodes = pq.read_table(tmp_path / "copy/meta/episodes/chunk-000/file-000.parquet")
    assert episodes["stats/progress_sparse/count"].to_pylist()[1] == [open_dataset(nails).length(1) - 2]
    old = pq.read_table(nails / "meta/episodes/chunk-000/file-000.parquet")
    assert episodes.select(old.column_names).equals(old)


def test_videos_are_the_same_files_where_they_can_be(nails: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy(nails, "--output-dir", tmp_path / "linked")
    monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError(18, "Invalid cross-device link")))
    copy(nails, "--output-dir", tmp_path / "copied")
    for path in sorted(nails.glob("videos/**/*.mp4")):
        name = path.relative_to(nails)
        assert (tmp_path / "linked" / name).samefile(path)
        assert not (tmp_path / "copied" / name).samefile(path)
        assert (tmp_path / "copied" / name).read_bytes() == path.read_bytes()


def test_pictures_in_rows_and_an_episode_nobody_labelled(tmp_path: Path) -> None:
    """Several row groups and files; the second episode has no row in the file: its column is NaN, its statistics null."""
    build_dataset(tmp_path / "one", lengths=(7, 5, 6), cameras={TOP: "png"}, per_file=2)
    dataset = open_dataset(tmp_path / "one")
    store = ProgressStore(tmp_path / "one/m_progress.parquet", {"dataset": "one", "dataset_fingerprint": dataset.fingerprint})
    for number in (0, 2):
        store.add(Progress(number, np.full(dataset.length(number), 0.25, np.float32)), dataset.row_range(number)[0])
    store.finish()
    assert copy(tmp_path / "one", "--output-dir", tmp_path / "two") == 1
    made = open_dataset(tmp_path / "two")
    assert np.isnan(made[1].columns["progress"]).all()
    np.testing.assert_array_equal(made[2].columns["progress"], np.full(6, 0.25, np.float32))
    np.testing.assert_array_equal(made[2].camera(TOP)[np.array([0, 5])], dataset[2].camera(TOP)[np.array([0, 5])])


def test_half_a_copy_is_none(nails: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(milepost.datasets.copy, "describe_json", full)
    assert copy(nails, "--output-dir", tmp_path / "copy") == 2
    assert not list(tmp_path.iterdir())


def test_refused(nails: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def because(*words: object) -> str:
        assert copy(*words) == 2
        err = capsys.readouterr().err.strip()
        assert len(err.splitlines()) == 1, err
        return err

    (tmp_path / "there").mkdir()
    (tmp_path / "there/mine").write_text("mine")
    assert "exists already and is not overwritten" in because(nails, "--output-dir", tmp_path / "there")
    assert "exists already" in because(nails, "--output-dir", nails)
    assert copy(nails, "--output-dir", tmp_path / "once") == 1
    capsys.readouterr()
    main(["label", str(tmp_path / "once"), "--model", "elapsed"])
    capsys.readouterr()
    foreign = ("--progress", tmp_path / "once/elapsed_progress.parquet", "--output-dir", tmp_path / "x")
    assert "made for another dataset" in because(nails, *foreign)
    assert "make one with milepost label, or say what else the copy is for" in because(DATA / "dataset_v3", "--output-dir", tmp_path / "x")
    rows = open_dataset(nails).total_frames
    for columns, words in (
        ({"action": np.zeros(rows, np.float32)}, "feature 'action' already"),
        ({"progress": np.zeros(3, np.float32)}, "has 3 values"),
        ({"progress": np.full(rows, np.nan, np.float32)}, "no known value"),
        ({}, "no column"),
    ):
        with pytest.raises(DataError, match=words):
            copy_with_columns(nails, tmp_path / "x", columns)
    assert not (tmp_path / "x").exists()
