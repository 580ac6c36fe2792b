"""Importing replay buffers, written with zarr itself in both of its versions; and RLDS, through a stand-in for tensorflow-datasets."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr

import milepost
from test_cli import assert_refused
from test_cli import milepost as command
from test_import import FAST, assert_same_images, every, moving
from test_import_hdf5 import imported

LENGTHS = (9, 6, 12)
IMAGE = "observation.images.camera0_rgb"


def arrays() -> dict[str, np.ndarray]:
    """The arrays of a replay buffer of UMI, of all episodes."""
    rng = np.random.default_rng(0)
    total = sum(LENGTHS)
    return {
        "action": rng.normal(size=(total, 2)).astype(np.float32),
        "camera0_rgb": np.concatenate([moving(length, number) for number, length in enumerate(LENGTHS)]),
        "robot0_eef_pos": rng.normal(size=(total, 3)),
        "robot0_gripper_width": rng.normal(size=(total, 1)),
        "robot0_demo_start_pose": rng.normal(size=(total, 6)),
    }


def write_buffer(path: Path, content: dict[str, np.ndarray], *, version: int = 2, ends: list[int] | None = None) -> Path:
    store = zarr.storage.ZipStore(path, mode="w") if path.suffix == ".zip" else str(path)
    root = zarr.open_group(store, mode="w", zarr_format=version)
    data, meta = root.create_group("data"), root.create_group("meta")
    for name, values in content.items():
        packed = {"compressors": numcodecs.Blosc("zstd")} if version == 2 else {}
        array = data.create_array(name, shape=values.shape, dtype=values.dtype, chunks=(5, *values.shape[1:]), **packed)
        array[...] = values
    last = np.array(np.cumsum(LENGTHS) if ends is None else ends, np.int64)
    meta.create_array("episode_ends", shape=last.shape, dtype=last.dtype)[...] = last
    if not isinstance(store, str):
        store.close()
    return path


@pytest.mark.parametrize(("name", "version"), [("umi.zarr", 2), ("umi.zarr", 3), ("umi.zarr.zip", 2), ("umi.zarr.zip", 3)])
def test_a_replay_buffer(tmp_path: Path, name: str, version: int) -> None:
    content = arrays()
    path = write_buffer(tmp_path / name, content, version=version)
    run, dataset = imported(path, tmp_path / "set", "--task", "fold the towel", "--fps", 60)
    assert "Zarr, a replay buffer, 3 episodes at 60 fps" in run.stdout
    assert "left out: robot0_demo_start_pose" in run.stdout
    assert (dataset.fps, dataset.cameras) == (60, (IMAGE,))
    assert dataset.meta.features["observation.state"]["names"][2:] == ["robot0_eef_pos.2", "robot0_gripper_width"]
    start = 0
    for number, length in enumerate(LENGTHS):
        rows = slice(start, start + length)
        state = np.concatenate([content["robot0_eef_pos"], content["robot0_gripper_width"]], axis=1)[rows]
        np.testing.assert_array_equal(dataset[number].state, state.astype(np.float32))
        np.testing.assert_array_equal(dataset[number].columns["action"], content["action"][rows])
        assert_same_images(every(dataset, number, IMAGE), content["camera0_rgb"][rows])
        start += length


def test_pushts_images_are_whole_numbers_in_floats(tmp_path: Path) -> None:
    content = {"img": arrays()["camera0_rgb"].astype(np.float32), "state": arrays()["robot0_eef_pos"], "action": arrays()["action"]}
    _, dataset = imported(write_buffer(tmp_path / "pusht.zarr", content), tmp_path / "set", "--task", "push the T", "--fps", 10)
    assert dataset.cameras == ("observation.images.img",)
    assert_same_images(every(dataset, 0, dataset.cameras[0]), moving(9))


def test_without_actions_some_can_be_named(tmp_path: Path) -> None:
    content = {name: values for name, values in arrays().items() if name != "action"}
    path = write_buffer(tmp_path / "umi.zarr", content)
    run, dataset = imported(path, tmp_path / "set", "--task", "fold", "--fps", 60)
    assert "there is no action" in run.stdout
    assert "action" not in dataset.meta.features
    keys = ("--action-keys", "robot0_eef_pos", "robot0_gripper_width")
    _, dataset = imported(path, tmp_path / "more", "--task", "fold", "--fps", 60, *keys)
    np.testing.assert_array_equal(dataset[0].columns["action"], dataset[0].state)


def test_what_is_wrong_with_a_buffer_is_said(tmp_path: Path) -> None:
    where = ("--output-dir", tmp_path / "set", "--task", "fold", "--fps", 60, *FAST)
    path = write_buffer(tmp_path / "umi.zarr", arrays())
    assert_refused(command("import", path, "--output-dir", tmp_path / "set", "--task", "fold"), "frame rate", "--fps", "UMI")
    assert_refused(command("import", path, "--output-dir", tmp_path / "set", "--fps", 60), "--task")
    short = write_buffer(tmp_path / "ends.zarr", arrays(), ends=[9, 20])
    assert_refused(command("import", short, *where), "episode_ends", "27 rows", "20")
    unequal = {**arrays(), "robot0_eef_pos": np.zeros((20, 3))}
    assert_refused(command("import", write_buffer(tmp_path / "a.zarr", unequal), *where), "'robot0_eef_pos' has 20", "equally many")
    zarr.open_group(str(tmp_path / "other.zarr"), mode="w", zarr_format=2).create_group("numbers")
    assert_refused(command("import", tmp_path / "other.zarr", *where), "episode_ends", "numbers")
    (tmp_path / "text.zarr.zip").write_text("nothing good")
    assert_refused(command("import", tmp_path / "text.zarr.zip", *where), "no .zip")
    assert_refused(command("import", tmp_path, "--format", "zarr", "--output-dir", tmp_path.parent / "set"), "not a Zarr store")
    assert not (tmp_path / "set").exists()


def test_an_empty_episode_is_left_out(tmp_path: Path) -> None:
    path = write_buffer(tmp_path / "umi.zarr", arrays(), ends=[9, 9, 27])
    run = command("import", path, "--output-dir", tmp_path / "set", "--task", "fold", "--fps", 60, *FAST)
    assert run.returncode == 1
    assert "1 episode without a frame left out: umi.zarr, episode 1" in run.stderr
    assert [episode.length for episode in milepost.open_dataset(tmp_path / "set")] == [9, 18]
    _, dataset = imported(path, tmp_path / "some", "--task", "fold", "--fps", 60, "--episodes", "2")
    assert [episode.facts["source"] for episode in dataset] == ["episode 2"]
    np.testing.assert_array_equal(dataset[0].state, milepost.open_dataset(tmp_path / "set")[1].state)


def test_a_codec_that_is_not_here_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """UMI's images: the array says imagecodecs_jpegxl, as its own writer does."""
    monkeypatch.setitem(sys.modules, "imagecodecs.numcodecs", None)
    path = write_buffer(tmp_path / "umi.zarr", arrays())
    description = path / "data" / "camera0_rgb" / ".zarray"
    content = json.loads(description.read_text())
    content["compressor"] = {"id": "imagecodecs_jpegxl", "effort": None, "level": 99}
    description.write_text(json.dumps(content))
    run = command("import", path, "--output-dir", tmp_path / "set", "--task", "fold", "--fps", 60)
    assert_refused(run, "imagecodecs_jpegxl", "pip install imagecodecs")


class Steps:
    """As much of a tf.data.Dataset as is used: it can be read again and again."""

    def __init__(self, steps: list[dict[str, Any]]) -> None:
        self.steps = steps

    def as_numpy_iterator(self) -> Iterator[dict[str, Any]]:
        return iter(self.steps)


def rlds_episode(number: int, length: int) -> dict[str, Steps]:
    rng = np.random.default_rng(number)
    images = moving(length, number)
    steps = []
    for t in range(length):
        observation = {"image": images[t], "state": rng.normal(size=7).astype(np.float32)}
        step = {"observation": observation, "action": rng.normal(size=7).astype(np.float32), "reward": np.float32(t == length - 1)}
        steps.append({**step, "language_instruction": f"task {number % 2}".encode(), "is_last": t == length - 1})
    return {"steps": Steps(steps)}


def test_rlds_through_a_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter alone: the stand-in has the shape of what tensorflow-datasets returns, and not its reading of files."""
    episodes = {"train": [rlds_episode(0, 8), rlds_episode(1, 6)], "val": [rlds_episode(2, 7)]}

    def as_dataset(split: str, shuffle_files: bool) -> list[dict[str, Steps]]:
        name, _, numbers = split.partition("[")
        return episodes[name][slice(*map(int, numbers.rstrip("]").split(":")))]

    splits = {name: SimpleNamespace(num_examples=len(each)) for name, each in episodes.items()}
    builder = SimpleNamespace(info=SimpleNamespace(splits=splits), as_dataset=as_dataset)
    stand_in = ModuleType("tensorflow_datasets")
    stand_in.builder_from_directory = lambda path: builder
    folder = tmp_path / "bridge" / "1.0.0"
    folder.mkdir(parents=True)
    for name in ("dataset_info.json", "features.json"):
        (folder / name).write_text("{}")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert_refused(command("import", folder, "--output-dir", tmp_path / "set", "--fps", 5), "pip install 'milepost[rlds]'")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", stand_in)
    assert_refused(command("import", folder, "--output-dir", tmp_path / "set"), "--fps")
    run, dataset = imported(folder, tmp_path / "set", "--fps", 5)
    assert "RLDS, 3 episodes at 5 fps" in run.stdout
    assert dataset.tasks == ("task 0", "task 1")
    for episode, source in zip(dataset, [*episodes["train"], *episodes["val"]], strict=True):
        steps = source["steps"].steps
        np.testing.assert_array_equal(episode.state, np.stack([step["observation"]["state"] for step in steps]))
        np.testing.assert_array_equal(episode.columns["action"], np.stack([step["action"] for step in steps]))
        assert episode.columns["next.reward"].reshape(-1).tolist() == [float(step["reward"]) for step in steps]
        assert_same_images(every(dataset, episode.index, "observation.images.image"), np.stack([s["observation"]["image"] for s in steps]))
    assert [episode.facts["source"] for episode in dataset] == ["train, episode 0", "train, episode 1", "val, episode 0"]
    _, dataset = imported(folder, tmp_path / "some", "--fps", 5, "--without", "0-1")
    assert [episode.facts["source"] for episode in dataset] == ["val, episode 0"]


def test_rlds_that_tensorflow_datasets_wrote(tmp_path: Path) -> None:
    """Skipped where tensorflow-datasets is not installed, as in `make setup`: it is large, and nothing else here needs it."""
    tfds = pytest.importorskip("tensorflow_datasets")
    numbers = tfds.features.Tensor(shape=(7,), dtype=np.float32)
    step = tfds.features.FeaturesDict(
        {
            "observation": {"image": tfds.features.Image(shape=(64, 96, 3)), "state": numbers},
            "action": numbers,
            "reward": np.float32,
            "language_instruction": tfds.features.Text(),
            "is_last": np.bool_,
        }
    )
    episodes = [rlds_episode(number, 6 + number) for number in range(3)]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="towels",
        version="1.0.0",
        features=tfds.features.FeaturesDict({"steps": tfds.features.Dataset(step)}),
        split_datasets={"train": [(number, {"steps": each["steps"].steps}) for number, each in enumerate(episodes)]},
        data_dir=str(tmp_path / "data"),
    )
    (folder,) = (path.parent for path in (tmp_path / "data").rglob("dataset_info.json"))
    run, dataset = imported(folder, tmp_path / "set", "--fps", 5)
    assert "RLDS, 3 episodes at 5 fps" in run.stdout
    written = {len(each["steps"].steps): each["steps"].steps for each in episodes}  # the writer puts episodes in an order of its own
    assert sorted(episode.length for episode in dataset) == sorted(written)
    for episode in dataset:
        steps = written[episode.length]
        assert episode.task == steps[0]["language_instruction"].decode()
        np.testing.assert_array_equal(episode.state, np.stack([step["observation"]["state"] for step in steps]))
        np.testing.assert_array_equal(episode.columns["action"], np.stack([step["action"] for step in steps]))
        assert_same_images(every(dataset, episode.index, "observation.images.image"), np.stack([s["observation"]["image"] for s in steps]))
