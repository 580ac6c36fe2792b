"""`label`: heads, strides, cached features, an episode that cannot be read, a kill at any moment."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders import edit_parquet
from killed import kill_after
from milepost.datasets.reader import open_dataset
from milepost.encoders.pixels import PixelImages
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.model import SARMModel
from milepost.progress.table import read_progress
from test_cli import FIXTURE, assert_refused, milepost

SMALL = {
    "hidden_dim": 16, "num_layers": 1, "num_heads": 2, "n_obs_steps": 2, "max_rewind_steps": 0, "encoder": "pixels", "image_dim": 4,
    "text_dim": 4, "state_mean": (0.0,) * 7, "state_std": (1.0,) * 7, "gap_s": 0.2,
}  # fmt: skip
STAGES = {
    "sparse_subtask_names": ("a", "b", "c"), "sparse_temporal_proportions": (0.2, 0.3, 0.5),
    "dense_subtask_names": ("d", "e"), "dense_temporal_proportions": (0.5, 0.5),
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "dual"
    SARMModel(SARMConfig(annotation_mode="dual", **SMALL, **STAGES)).save_pretrained(folder)
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURE, tmp_path / "dataset", copy_function=shutil.copyfile))


def columns(path: Path) -> list[str]:
    return pq.read_schema(path).names


def test_heads_are_the_columns(dataset: Path, model: Path, tmp_path: Path) -> None:
    """LeRobot's columns and types first, then ours by head; the sparse numbers do not depend on what else is asked for."""
    own = ["index", "episode_index", "frame_index", "progress_sparse"]
    rest = {"sparse": ["raw_sparse", *(f"stage_sparse_{k}" for k in range(3))], "dense": ["raw_dense", "stage_dense_0", "stage_dense_1"]}
    for mode, wanted in (
        (None, [*own, *rest["sparse"]]),
        ("sparse", [*own, *rest["sparse"]]),
        ("dense", [*own, "progress_dense", *rest["sparse"], *rest["dense"]]),
        ("both", [*own, "progress_dense", *rest["sparse"], *rest["dense"]]),
    ):
        out = tmp_path / f"{mode}.parquet"
        given = () if mode is None else ("--head-mode", mode)
        run = milepost("label", dataset, "--model", model, "--episodes", "4-5", "--output-path", out, *given)
        assert run.returncode == 0, run.stderr
        assert columns(out) == wanted
        table = read_progress(out)
        assert [str(kind) for kind in pq.read_schema(out).types[:4]] == ["int64", "int64", "int64", "float"]
        np.testing.assert_array_equal(table.values(), read_progress(tmp_path / "None.parquet").values())
        settings = json.loads(table.metadata["milepost.settings"])
        assert (settings["stride"], settings["encoder"], settings["precision"]) == (1, "pixels", "float32")
    SARMModel(SARMConfig(**SMALL)).save_pretrained(tmp_path / "single")
    assert_refused(milepost("label", dataset, "--model", tmp_path / "single", "--head-mode", "dense"), "no", "dense head", "single_stage")
    assert_refused(milepost("label", dataset, "--model", model, "--stride", 0), "--stride")


def test_a_stride_is_every_nth_frame_and_the_last(dataset: Path, model: Path, tmp_path: Path) -> None:
    for name, stride in (("all", 1), ("some", 10)):
        run = milepost("label", dataset, "--model", model, "--episodes", "4", "--stride", stride, "--output-path", tmp_path / name)
        assert run.returncode == 0, run.stderr
    every, some = (read_progress(tmp_path / name) for name in ("all", "some"))
    at = np.array([*range(0, 92, 10), 91])
    np.testing.assert_allclose(some.values(), np.interp(np.arange(92), at, every.values()[at]), atol=1e-6)
    assert np.flatnonzero(~np.isnan(some.main.stage[:, 0])).tolist() == at.tolist()


def test_features_are_computed_once(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What training has read, labelling and plotting do not read again; --no-cache keeps nothing and says the same."""
    monkeypatch.setenv("MILEPOST_CACHE", str(tmp_path / "cache"))
    small = ("--preset", "small", "--steps", 2, "--device", "cpu", "--episodes", "3,5", "--holdout", 0)
    assert milepost("train", dataset, "--output-dir", tmp_path / "bare", *small, "--no-cache").returncode == 0
    assert not (tmp_path / "cache").exists()
    assert milepost("train", dataset, "--output-dir", tmp_path / "model", *small).returncode == 0
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}
    assert len(files) == 4  # two episodes, two cameras
    assert (tmp_path / "bare" / "model.safetensors").read_bytes() == (tmp_path / "model" / "model.safetensors").read_bytes()
    given = ("label", dataset, "--model", tmp_path / "model", "--episodes", "3,5")
    assert milepost(*given, "--no-cache", "--output-path", tmp_path / "one.parquet").returncode == 0

    def never(self: PixelImages, images: np.ndarray) -> None:
        raise AssertionError("a picture was encoded again")

    monkeypatch.setattr(PixelImages, "prepare", never)
    monkeypatch.setattr(PixelImages, "images", never)
    assert milepost(*given, "--output-path", tmp_path / "two.parquet").returncode == 0
    plots = ("--model", tmp_path / "model", "--episodes", "5", "--output-dir", tmp_path / "plots", "--device", "cpu")
    assert milepost("plot", dataset, *plots).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")} == files
    one, two = (read_progress(tmp_path / name).values() for name in ("one.parquet", "two.parquet"))
    np.testing.assert_array_equal(one, two)


def test_an_episode_that_cannot_be_read_is_counted_and_tried_again(dataset: Path, model: Path) -> None:
    """The others are labelled, its frames are unknown, the exit code says so; mended, the same command labels it."""
    video = dataset / "videos" / "observation.images.top" / "chunk-000" / "file-001.mp4"  # episode 2 alone
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 2])
    run = milepost("label", dataset, "--model", model, "--json")
    assert run.returncode == 1, run.stderr
    assert "file-001.mp4" in run.stderr.replace("\n", "")
    assert "128 frames have no progress, in episode 2" in run.stderr
    assert json.loads(run.stdout)["unknown_frames"] == 128
    table = read_progress(dataset / "sarm_progress.parquet")
    unknown = np.isnan(table.values())
    assert set(table.episode_index[unknown]) == {2}
    assert unknown.sum() == 128
    assert not (dataset / "sarm_progress.parquet.partial").exists()

    video.write_bytes(whole)
    run = milepost("label", dataset, "--model", model)
    assert run.returncode == 0, run.stderr
    assert not np.isnan(read_progress(dataset / "sarm_progress.parquet").values()).any()
    for file in (dataset / "videos" / "observation.images.top" / "chunk-000").iterdir():
        file.write_bytes(b"")
    assert_refused(milepost("label", dataset, "--model", model, "--output-path", dataset / "none.parquet", "--no-cache"), "file-00")
    assert not (dataset / "none.parquet").exists()


@pytest.mark.parametrize("parts", [1, 4])
def test_killed_at_any_moment_the_same_command_goes_on(dataset: Path, model: Path, tmp_path: Path, parts: int) -> None:
    """SIGKILL after some episodes: what is done stays done, the file is byte for byte that of an uninterrupted run."""
    whole = tmp_path / "whole.parquet"
    assert milepost("label", dataset, "--model", model, "--output-path", whole, "--no-cache").returncode == 0
    out = tmp_path / "out.parquet"
    words = ["label", str(dataset), "--model", str(model), "--output-path", str(out), "--no-cache"]
    kill_after(parts, *words)
    assert not out.exists()
    assert len(list(out.with_name("out.parquet.partial").glob("*.parquet"))) == parts
    assert milepost(*words).returncode == 0
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.parquet"]


def test_a_file_made_otherwise_is_not_replaced(dataset: Path, model: Path, tmp_path: Path) -> None:
    """Another stride, heads or weights: the labels that are there stay, unless --overwrite says so. Fewer episodes are there already."""
    given = ("label", dataset, "--model", model)
    assert milepost(*given).returncode == 0
    file = dataset / "sarm_progress.parquet"
    before = file.read_bytes()
    for more, words in (
        (("--stride", 5), "--stride"),
        (("--head-mode", "both"), "--head-mode"),
        (("--precision", "bfloat16"), "--precision"),
    ):
        assert_refused(milepost(*given, *more), "made with another", words, "--overwrite")
    assert file.read_bytes() == before
    for fewer in ((), ("--episodes", "0-3")):
        assert milepost(*given, *fewer).returncode == 0  # the same again
        assert file.read_bytes() == before
    assert milepost(*given, "--episodes", "0-3", "--overwrite").returncode == 0
    assert len(read_progress(file).index) < 744
    assert_refused(milepost(*given, "--output-path", tmp_path), "is a folder")


# What does not fit


def test_a_dataset_that_does_not_fit_the_model_is_refused(dataset: Path, model: Path, tmp_path: Path) -> None:
    SARMModel(SARMConfig(**{**SMALL, "image_key": "observation.images.front"})).save_pretrained(tmp_path / "front")
    assert_refused(milepost("label", dataset, "--model", tmp_path / "front"), "observation.images.front", "observation.images.top")
    SARMModel(SARMConfig(**{**SMALL, "state_mean": (0.0,) * 3, "state_std": (1.0,) * 3})).save_pretrained(tmp_path / "three")
    assert_refused(milepost("label", dataset, "--model", tmp_path / "three"), "width 3", "has 7")
    SARMModel(SARMConfig(**{**SMALL, "state_key": "observation.arm"})).save_pretrained(tmp_path / "arm")
    assert_refused(milepost("label", dataset, "--model", tmp_path / "arm"), "observation.arm", "observation.state")
    assert_refused(milepost("label", dataset, "--model", model, "--encoder", tmp_path / "none"), "no encoder in", "none")
    assert not (dataset / "sarm_progress.parquet").exists()


def test_another_state_is_read_from_its_column(dataset: Path) -> None:
    sarm = SARMModel(SARMConfig(**{**SMALL, "state_key": "action", "state_mean": (0.0,) * 4, "state_std": (1.0,) * 4}))
    episode = open_dataset(dataset, episodes=[4])[0]
    still = dataclasses.replace(episode, columns={**episode.columns, "action": np.zeros((92, 4), np.float32)})
    assert np.abs(sarm.predict(episode).value - sarm.predict(still).value).max() > 1e-6
    without = dataclasses.replace(episode, state=np.zeros((92, 0), np.float32))
    np.testing.assert_array_equal(sarm.predict(without).value, sarm.predict(episode).value)


def annotate(dataset: Path, *lists: list) -> None:
    """Another sparse annotation for episode 0."""
    for column, values in zip(("names", "start_frames", "end_frames"), lists, strict=True):
        name = f"sparse_subtask_{column}"

        def edit(table: pa.Table, name: str = name, values: list = values) -> pa.Table:
            place = table.column_names.index(name)
            return table.set_column(
                place, table.schema.field(place), pa.array([values, *table[name].to_pylist()[1:]], table.schema.types[place])
            )

        edit_parquet(dataset / "meta" / "episodes" / "chunk-000" / "file-000.parquet", edit)


@pytest.mark.parametrize(
    ("names", "starts", "ends", "words"),
    [
        (["reach the object", "fly"], [0, 50], [50, 148], "unknown stage 'fly'"),
        (["reach the object", "move the object"], [0, 40], [60, 148], "before 'reach the object' ends at 60"),
        (["reach the object", "move the object"], [0, 90], [90, 60], "from frame 90 to 60"),
        (["reach the object", "move the object"], [0, 60], [60, 170], "up to frame 170"),
    ],
)
def test_a_wrong_annotation_costs_its_episode(dataset: Path, tmp_path: Path, names: list, starts: list, ends: list, words: str) -> None:
    shutil.copytree(FIXTURE.parent / "dataset_v3_annotated" / "meta", dataset / "meta", dirs_exist_ok=True, copy_function=shutil.copyfile)
    annotate(dataset, names, starts, ends)
    small = ("--preset", "small", "--annotation-mode", "sparse_only", "--steps", 2, "--device", "cpu", "--holdout", 0)
    run = milepost("train", dataset, "--output-dir", tmp_path / "model", *small)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert "episode 0" in run.stderr
    assert words in run.stderr
    learnt = json.loads((tmp_path / "model" / "config.json").read_text())
    assert learnt["sparse_subtask_names"] == ["reach the object", "move the object", "finish the task"]
    assert "episodes learnt from: 4," in run.stdout  # of 5 that are annotated
