"""Files on disk: atomic, resumable, with their provenance."""

import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from milepost.core.errors import DataError
from milepost.core.outputs import atomic_path
from milepost.core.types import Curve, Progress
from milepost.models.elapsed import ElapsedModel
from milepost.progress.labelling import label, provenance
from milepost.progress.store import ProgressStore
from milepost.progress.table import read_progress, unknown_frames
from milepost.testing import ConstantModel, ListDataset, dot_episodes
from milepost.weights.file import write_weights_file


def progress(episode: int, length: int, value: float = 0.5) -> Progress:
    return Progress(episode, np.full(length, value, dtype=np.float32))


def test_an_error_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_columns_are_lerobots(tmp_path: Path) -> None:
    store = ProgressStore(tmp_path / "sarm_progress.parquet", {"model_path": "m"})
    store.add(Progress(1, Curve(np.array([0.25, 1.0], np.float32), np.eye(2, dtype=np.float32))), row=3)
    store.add(progress(0, 3), row=0)
    table = store.finish()
    schema = pq.read_schema(tmp_path / "sarm_progress.parquet")
    assert schema.names == ["index", "episode_index", "frame_index", "progress_sparse", "stage_sparse_0", "stage_sparse_1"]
    assert [str(schema.field(n).type) for n in schema.names[:4]] == ["int64", "int64", "int64", "float"]
    assert schema.metadata[b"reward_model_path"] == b"m"
    np.testing.assert_array_equal(table.index, np.arange(5))
    np.testing.assert_array_equal(table.episode_index, [0, 0, 0, 1, 1])
    np.testing.assert_allclose(table.episode(1, 2), [0.25, 1.0])
    assert not (tmp_path / "sarm_progress.parquet.partial").exists()


def test_columns_missing_in_some_parts_are_joined(tmp_path: Path) -> None:
    """A model that gives stages for every episode but one must not lose the file."""
    store = ProgressStore(tmp_path / "p.parquet", {})
    store.add(Progress(0, Curve(np.zeros(2, np.float32), np.eye(2, dtype=np.float32))), row=0)
    store.add(progress(1, 2), row=2)
    table = store.finish()
    assert np.isnan(table.main.stage[2:]).all()
    np.testing.assert_array_equal(table.progress(0, 2).stage, np.eye(2))
    assert table.progress(1, 2).stage is None


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    dataset, path = ListDataset(dot_episodes(5)), tmp_path / "p.parquet"
    with pytest.raises(KeyboardInterrupt):
        label(ConstantModel(interrupt_after=3), dataset, path)
    assert not path.exists()
    model = ConstantModel()
    table = label(model, dataset, path)
    assert model.calls == 2
    assert len(table.index) == sum(e.length for e in dataset.episodes)


def test_parts_of_another_run_are_never_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    first = ProgressStore(path, {"model_path": "a"})
    first.add(progress(0, 2, 0.1), row=0)
    second = ProgressStore(path, {"model_path": "b"})
    assert not second.has(0)
    assert ProgressStore(path, {"model_path": "b"}).has(0) is False


def test_provenance_names_model_data_and_code() -> None:
    made = provenance(ElapsedModel(), ListDataset(dot_episodes(2)), "elapsed", stride=3)
    assert made["dataset_fingerprint"] == "dots-2"
    assert json.loads(made["settings"]) == {"stride": 3}
    assert made["milepost_version"]


def test_unknown_frames_are_counted(tmp_path: Path) -> None:
    store = ProgressStore(tmp_path / "p.parquet", {})
    store.add(Progress(7, np.array([np.nan, 0.5], np.float32)), row=0)
    assert unknown_frames(store.finish()) == {7: 1}


def test_nothing_labelled_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to write"):
        ProgressStore(tmp_path / "p.parquet", {}).finish()


def test_files_that_are_no_progress_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_progress(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(DataError, match="cannot read"):
        read_progress(tmp_path / "bad.parquet")
    pq.write_table(pa.table({"index": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="is no progress file"):
        read_progress(tmp_path / "other.parquet")


def test_what_was_added_is_on_disk_though_nothing_more_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milepost.progress.store._KEEP_S", 0.2)
    store = ProgressStore(tmp_path / "p.parquet", {})
    for number in range(3):
        store.add(progress(number, 2), row=2 * number)
    until = time.monotonic() + 10
    while not ProgressStore(tmp_path / "p.parquet", {}).has(2) and time.monotonic() < until:
        time.sleep(0.05)
    assert [ProgressStore(tmp_path / "p.parquet", {}).has(number) for number in range(4)] == [True, True, True, False]
    assert store.finish().episode_index.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_wrong_head_names_the_right_ones(tmp_path: Path) -> None:
    store = ProgressStore(tmp_path / "p.parquet", {})
    store.add(progress(0, 2), row=0)
    table = store.finish()
    with pytest.raises(DataError, match="it has: progress_sparse"):
        table.values("dense")


def test_progress_of_another_dataset_is_noticed(tmp_path: Path) -> None:
    store = ProgressStore(tmp_path / "p.parquet", {})
    store.add(progress(0, 9), row=0)
    with pytest.raises(DataError, match="wrong dataset"):
        store.finish().episode(0, 5)


def test_weights_file(tmp_path: Path) -> None:
    write_weights_file(tmp_path / "w.parquet", np.arange(3), np.array([0, 0.5, 1]), {"kappa": "0.1"})
    table = pq.read_table(tmp_path / "w.parquet")
    assert table.column_names == ["index", "weight"]
    assert table.schema.metadata[b"milepost.kappa"] == b"0.1"


def test_whole_numbers_kept_as_doubles_are_read(tmp_path: Path) -> None:
    """Other tools write every column as a double, and columns of their own beside them."""
    names = ("index", "episode_index", "frame_index")
    columns = {name: pa.array(values, pa.float64()) for name, values in zip(names, ([0, 1, 2], [0, 0, 0], [0, 1, 2]), strict=True)}
    table = pa.table({**columns, "progress_sparse": pa.array([0.0, 0.5, 1.0]), "theirs": pa.array([{"a": 1}] * 3)})
    pq.write_table(table, tmp_path / "p.parquet")
    assert read_progress(tmp_path / "p.parquet").index.tolist() == [0, 1, 2]
    pq.write_table(table.set_column(2, "frame_index", pa.array([0, 1.5, 2])), tmp_path / "p.parquet")
    with pytest.raises(DataError, match="'frame_index' should hold whole numbers"):
        read_progress(tmp_path / "p.parquet")
