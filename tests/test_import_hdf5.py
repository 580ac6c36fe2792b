"""Importing HDF5: robomimic's and ALOHA's layouts, written with h5py as their own recorders do (neither package is installed here)."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import PIL.Image
import pytest

import milepost
from test_cli import assert_refused
from test_cli import milepost as command
from test_import import FAST, assert_same_images, assert_sound, every, moving

ENVIRONMENT = {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20, "reward_shaping": False, "robots": ["Panda"]}}
IMAGE = "observation.images.agentview_image"


def demonstration(number: int, length: int = 10) -> dict[str, np.ndarray]:
    """The arrays of demo_N, with robomimic's names."""
    rng = np.random.default_rng(number)
    rewards = np.zeros(length)
    rewards[-2:] = number != 1
    return {
        "actions": rng.normal(size=(length, 7)),
        "rewards": rewards,
        "dones": np.arange(length) == length - 1,
        "states": rng.normal(size=(length, 32)),
        "obs/agentview_image": moving(length, number),
        "obs/robot0_eye_in_hand_image": moving(length, number + 50),
        "obs/robot0_eef_pos": rng.normal(size=(length, 3)),
        "obs/robot0_eef_quat": rng.normal(size=(length, 4)),
        "obs/robot0_gripper_qpos": rng.normal(size=(length, 2)),
        "obs/robot0_joint_pos": rng.normal(size=(length, 7)),
        "obs/object": rng.normal(size=(length, 10)),
        "next_obs/robot0_eef_pos": rng.normal(size=(length, 3)),
    }


def write_robomimic(path: Path, demonstrations: list[dict[str, np.ndarray]], environment: Mapping[str, Any] = ENVIRONMENT) -> Path:
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(len(each["actions"]) for each in demonstrations)
        data.attrs["env_args"] = json.dumps(environment)
        for number, arrays in enumerate(demonstrations):
            group = data.create_group(f"demo_{number}")
            group.attrs["num_samples"] = len(arrays["actions"])
            for name, values in arrays.items():
                group.create_dataset(name, data=values, compression="gzip" if values.ndim == 4 else None)
        names = [f"demo_{number}" for number in range(len(demonstrations))]
        file.create_dataset("mask/train", data=np.array(names[1:], dtype="S8"))
        file.create_dataset("mask/valid", data=np.array(names[:1], dtype="S8"))
    return path


def imported(source: Path, root: Path, *more: object) -> Any:
    run = command("import", source, "--output-dir", root, *FAST, *more)
    assert run.returncode == 0, run.stderr
    assert_sound(root)
    return run, milepost.open_dataset(root)


def test_robomimic(tmp_path: Path) -> None:
    demonstrations = [demonstration(number, 8 + number % 3) for number in range(11)]
    path = write_robomimic(tmp_path / "image.hdf5", demonstrations)
    before = path.read_bytes()
    run, dataset = imported(path, tmp_path / "set", "--task", "lift the cube")
    assert "robomimic's layout, 11 episodes at 20 fps" in run.stdout
    assert "left out: states, object, robot0_joint_pos (--" in run.stdout
    assert (dataset.fps, dataset.tasks, dataset.meta.info["robot_type"]) == (20, ("lift the cube",), "panda")
    assert dataset.cameras == (IMAGE, "observation.images.robot0_eye_in_hand_image")
    for episode, arrays in zip(dataset, demonstrations, strict=True):  # demo_10 comes after demo_9
        np.testing.assert_array_equal(episode.columns["action"], arrays["actions"].astype(np.float32))
        state = [arrays[f"obs/robot0_{name}"] for name in ("eef_pos", "eef_quat", "gripper_qpos")]
        np.testing.assert_array_equal(episode.state, np.concatenate(state, axis=1).astype(np.float32))
        np.testing.assert_array_equal(episode.columns["next.reward"], arrays["rewards"].astype(np.float32))
        np.testing.assert_array_equal(episode.columns["next.done"], arrays["dones"])
        assert_same_images(every(dataset, episode.index, IMAGE), arrays["obs/agentview_image"])
    assert [episode.success for episode in dataset] == [number != 1 for number in range(11)]
    assert [episode.facts["source"] for episode in dataset][9:] == ["demo_9", "demo_10"]
    assert [episode.facts["mask_train"] for episode in dataset][:2] == [False, True]
    names = dataset.meta.features["observation.state"]["names"]
    assert names[:4] == ["robot0_eef_pos.0", "robot0_eef_pos.1", "robot0_eef_pos.2", "robot0_eef_quat.0"]
    assert path.read_bytes() == before


def test_the_arrays_can_be_chosen(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / "image.hdf5", [demonstration(0)])
    keys = ("--image-keys", "robot0_eye_in_hand_image", "--state-keys", "object", "robot0_joint_pos", "--action-keys", "robot0_eef_pos")
    _, dataset = imported(path, tmp_path / "set", "--task", "lift", "--fps", 10, *keys, "--swap-red-blue")
    assert (dataset.fps, dataset.cameras) == (10, ("observation.images.robot0_eye_in_hand_image",))
    assert_same_images(every(dataset, 0, dataset.cameras[0])[..., ::-1], moving(10, 50))
    assert dataset[0].state.shape == (10, 17)
    assert dataset[0].columns["action"].shape == (10, 3)


def test_rewards_that_are_shaped_are_no_success(tmp_path: Path) -> None:
    shaped = {**ENVIRONMENT, "env_kwargs": {"control_freq": 20, "reward_shaping": True}}
    _, dataset = imported(write_robomimic(tmp_path / "a.hdf5", [demonstration(0)], shaped), tmp_path / "set", "--task", "lift")
    assert dataset[0].success is None
    assert "next.success" not in dataset.meta.features


def test_numbers_alone_are_a_dataset_too(tmp_path: Path) -> None:
    arrays = {name: values for name, values in demonstration(0).items() if "image" not in name}
    path = write_robomimic(tmp_path / "low_dim.hdf5", [arrays])
    run = command("import", path, "--output-dir", tmp_path / "set", "--task", "lift")
    assert run.returncode == 0, run.stderr
    assert "there is no camera" in run.stderr
    np.testing.assert_array_equal(milepost.open_dataset(tmp_path / "set")[0].columns["action"], arrays["actions"].astype(np.float32))


def test_an_empty_episode_is_left_out_and_counted(tmp_path: Path) -> None:
    empty = {name: values[:0] for name, values in demonstration(1).items()}
    path = write_robomimic(tmp_path / "a.hdf5", [empty, demonstration(0)])
    run = command("import", path, "--output-dir", tmp_path / "set", "--task", "lift", *FAST)
    assert run.returncode == 1
    assert "1 episode without a frame left out: a.hdf5, demo_0" in run.stderr
    assert len(milepost.open_dataset(tmp_path / "set")) == 1
    _, dataset = imported(path, tmp_path / "some", "--task", "lift", "--without", "0")
    assert [episode.facts["source"] for episode in dataset] == ["demo_1"]
    only = write_robomimic(tmp_path / "b.hdf5", [empty])
    assert_refused(command("import", only, "--output-dir", tmp_path / "none", "--task", "lift"), "no episode with a frame")


def test_images_in_floats(tmp_path: Path) -> None:
    levels = {**demonstration(0), "obs/agentview_image": moving(10).astype(np.float32)}
    _, dataset = imported(write_robomimic(tmp_path / "a.hdf5", [levels]), tmp_path / "set", "--task", "lift")
    assert_same_images(every(dataset, 0, IMAGE), moving(10))
    scaled = {**demonstration(0), "obs/agentview_image": moving(10) / 255}
    run = command("import", write_robomimic(tmp_path / "b.hdf5", [scaled]), "--output-dir", tmp_path / "none", "--task", "lift", *FAST)
    assert_refused(run, "b.hdf5, demo_0", "'agentview_image' is float64", "whole numbers from 0 to 255")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"obs/robot0_eef_pos": np.zeros((9, 3))}, ("demo_1", "'robot0_eef_pos' has 9", "equally many")),
        ({"rewards": np.zeros(9)}, ("demo_1", "'rewards'", "10 numbers")),
        ({"obs/agentview_image": np.zeros((10, 32, 32, 3), np.uint8)}, ("demo_1", "agentview_image", "one size")),
        ({"obs/robot0_eef_pos": np.full((10, 3), np.nan)}, ("demo_1", "NaN")),
        ({"obs/robot0_eef_pos": None}, ("demo_1", "no array 'robot0_eef_pos'")),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], words: tuple[str, ...]) -> None:
    other = {name: values for name, values in {**demonstration(1), **changes}.items() if values is not None}
    path = write_robomimic(tmp_path / "a.hdf5", [demonstration(0), other])
    assert_refused(command("import", path, "--output-dir", tmp_path / "set", "--task", "lift", *FAST), *words)
    assert [each.name for each in tmp_path.iterdir()] == ["a.hdf5"]


def test_what_the_file_does_not_say_must_be_named(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / "a.hdf5", [demonstration(0)], {"env_name": "Lift"})
    where = ("import", path, "--output-dir", tmp_path / "set")
    assert_refused(command(*where, "--task", "lift"), "frame rate", "--fps")
    assert_refused(command(*where, "--fps", 20), "--task")
    assert_refused(command(*where, "--fps", 0, "--task", "lift"), "--fps")
    assert_refused(command(*where, "--fps", 20, "--task", "lift", "--image-keys", "front"), "'front'", "agentview_image")
    assert_refused(command(*where, "--fps", 20, "--task", "lift", "--image-keys", "actions"), "(frames, height, width, 3)")
    assert_refused(command(*where, "--fps", 20, "--task", "lift", "--state-keys", "agentview_image"), "--state-keys", "vector")
    assert_refused(command(*where, "--format", "aloha", "--task", "lift"), "no group 'observations'")


def test_the_instruction_of_libero_is_read(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / "a.hdf5", [demonstration(0)])
    with h5py.File(path, "a") as file:
        file["data"].attrs["problem_info"] = json.dumps({"language_instruction": ["open the drawer"]})
    _, dataset = imported(path, tmp_path / "set")
    assert dataset.tasks == ("open the drawer",)


def test_files_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    (tmp_path / "text.hdf5").write_text("nothing good")
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["numbers"] = np.zeros(3)
    whole = write_robomimic(tmp_path / "whole.hdf5", [demonstration(0)]).read_bytes()
    (tmp_path / "cut.hdf5").write_bytes(whole[: len(whole) // 2])
    for name, words in {"text": "not an HDF5 file", "other": "numbers", "cut": "not an HDF5 file", "none": "there is no"}.items():
        assert_refused(command("import", tmp_path / f"{name}.hdf5", "--output-dir", tmp_path / "set"), words)
    assert_refused(command("import", tmp_path, "--output-dir", tmp_path.parent / "set"), "hdf5")


def write_aloha(path: Path, number: int, length: int = 9, *, compress: bool = False, cameras: tuple[str, ...] = ("cam_high",)) -> None:
    """An episode as ALOHA's recorder writes it. Compressed: OpenCV takes the RGB images for BGR, so the JPEG has red and blue exchanged."""
    rng = np.random.default_rng(number)
    with h5py.File(path, "w") as file:
        file.attrs["sim"] = False
        file.attrs["compress"] = compress
        file["observations/qpos"] = rng.normal(size=(length, 14))
        file["observations/qvel"] = rng.normal(size=(length, 14))
        file["action"] = rng.normal(size=(length, 14))
        for k, camera in enumerate(cameras):
            images = moving(length, number + 50 * k)
            if not compress:
                file.create_dataset(f"observations/images/{camera}", data=images, chunks=(1, *images.shape[1:]))
                continue
            files = [np.frombuffer(as_jpeg(image[..., ::-1]), np.uint8) for image in images]
            file[f"observations/images/{camera}"] = np.stack([np.pad(each, (0, max(map(len, files)) - len(each))) for each in files])
        if compress:
            file["compress_len"] = np.zeros((len(cameras), length))


def as_jpeg(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    PIL.Image.fromarray(image).save(out, "JPEG", quality=95)
    return out.getvalue()


@pytest.mark.parametrize("compress", [False, True])
def test_aloha(tmp_path: Path, compress: bool) -> None:
    folder = tmp_path / "aloha"
    folder.mkdir()
    for number in (0, 2, 10):
        write_aloha(folder / f"episode_{number}.hdf5", number, 7 + number, compress=compress, cameras=("cam_high", "cam_left_wrist"))
    run, dataset = imported(folder, tmp_path / "set", "--task", "fold the towel")
    assert "ALOHA's layout, 3 episodes at 50 fps" in run.stdout
    assert "left out: qvel" in run.stdout
    assert dataset.cameras == ("observation.images.cam_high", "observation.images.cam_left_wrist")
    assert dataset.meta.features["action"]["names"][6:9] == ["left_gripper", "right_waist", "right_shoulder"]
    for episode, number in zip(dataset, (0, 2, 10), strict=True):
        with h5py.File(folder / f"episode_{number}.hdf5") as file:
            np.testing.assert_array_equal(episode.state, file["observations/qpos"][()].astype(np.float32))
            np.testing.assert_array_equal(episode.columns["action"], file["action"][()].astype(np.float32))
        for k, camera in enumerate(dataset.cameras):
            assert_same_images(every(dataset, episode.index, camera), moving(7 + number, number + 50 * k))


def test_what_is_wrong_with_aloha_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "aloha"
    folder.mkdir()
    for number in range(2):
        write_aloha(folder / f"episode_{number}.hdf5", number, compress=True)
    where = ("import", folder, "--output-dir", tmp_path / "set")
    assert_refused(command(*where), "--task")
    with h5py.File(folder / "episode_1.hdf5", "a") as file:
        file["observations/images/cam_high"][4] = 0
    assert_refused(command(*where, "--task", "fold", *FAST), "episode_1.hdf5", "frame 4", "not a JPEG")
    assert not (tmp_path / "set").exists()
    write_aloha(folder / "episode_1.hdf5", 1, cameras=("cam_low",))
    assert_refused(command(*where, "--task", "fold", *FAST), "episode_1.hdf5", "images/cam_high", "leave it out with --without 1")
    (folder / "episode_0.hdf5").write_text("nothing good")
    assert_refused(command(*where, "--task", "fold", *FAST), "episode_0.hdf5 is not an HDF5 file", "leave it out with --without 0")
    _, dataset = imported(folder, tmp_path / "set", "--task", "fold", "--without", "0")
    assert [episode.facts["source"] for episode in dataset] == ["episode_1.hdf5"]
