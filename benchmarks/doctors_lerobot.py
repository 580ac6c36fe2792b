"""LeRobot's part of `benchmarks/doctors.py`: sound datasets made with LeRobot's own writer and tools, and whether it opens those of others.

    LEROBOT_PYTHON benchmarks/doctors_lerobot.py make FOLDER          # fourteen datasets in FOLDER
    LEROBOT_PYTHON benchmarks/doctors_lerobot.py opens FOLDER ...     # one line for each: what LeRobot says when it reads every row

LEROBOT_PYTHON is the Python of an environment with LeRobot 0.6.1 and its extra `dataset`. Nothing of milepost is needed there.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets import dataset_tools as tools
from lerobot.datasets.lerobot_dataset import LeRobotDataset

JOINTS = ["shoulder_pan.pos", "shoulder_lift.pos", "elbow_flex.pos", "wrist_flex.pos", "wrist_roll.pos", "gripper.pos"]
LENGTHS = (110, 120, 105, 115)


def features(cameras: Sequence[str], kind: str) -> dict[str, Any]:
    """Returns the features of a robot with six joints."""
    numbers = {name: {"dtype": "float32", "shape": (6,), "names": JOINTS} for name in ("observation.state", "action")}
    image = {"dtype": kind, "shape": (64, 96, 3), "names": ["height", "width", "channels"]}
    return numbers | {f"observation.images.{camera}": dict(image) for camera in cameras}


def record(dataset: LeRobotDataset, lengths: Sequence[int], seed: int, tasks: Sequence[str] = ("Put the cube into the box.",)) -> None:
    """Records episodes: joints go smoothly from place to place, cameras see a square move, and the last task is from the middle on."""
    rng = np.random.default_rng(seed)
    cameras = [name for name in dataset.meta.features if name.startswith("observation.images.")]
    for length in lengths:
        stops = max(2, length // 25 + 2)
        places = rng.uniform(-45, 45, (stops, 6))
        places[0] = 0
        at = np.linspace(0, stops - 1, length + 2)
        step = np.minimum(at.astype(int), stops - 2)
        part = (at - step)[:, None]
        path = places[step] + (places[step + 1] - places[step]) * part * part * (3 - 2 * part)
        path = (path + rng.normal(scale=0.05, size=path.shape)).astype(np.float32)
        ground = rng.integers(60, 190, (8, 12, 3)).repeat(8, 0).repeat(8, 1)
        for frame in range(length):
            row: dict[str, Any] = {"observation.state": path[frame], "action": path[frame + 2]}
            for camera in cameras:
                image = ground + rng.integers(-6, 7, (64, 96, 1))
                y, x = (int(np.clip((path[frame, joint] + 60) / 120, 0, 1) * size) for joint, size in ((1, 48), (0, 80)))
                image[y : y + 16, x : x + 16] = (210, 60, 40)
                row[camera] = np.clip(image, 0, 255).astype(np.uint8)
            dataset.add_frame(row | {"task": tasks[0] if frame < length // 2 else tasks[-1]})
        dataset.save_episode()
    dataset.finalize()


def create(root: Path, *, fps: int = 30, cameras: Sequence[str] = ("front", "wrist"), kind: str = "video", **more: Any) -> LeRobotDataset:
    """Returns a new dataset to record into."""
    content = features(cameras, kind)
    return LeRobotDataset.create(
        f"me/{root.name}", fps, content, root=root, robot_type="so101_follower", use_videos=kind == "video", **more
    )


def opened(root: Path) -> LeRobotDataset:
    """Returns the dataset of a folder."""
    return LeRobotDataset(f"me/{root.name}", root=root)


def make(folder: Path) -> None:
    """Makes all datasets; those that are only a step on the way are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {
        "LeRobot, AV1": {},
        "LeRobot, H.264": {"rgb_encoder": RGBEncoderConfig(vcodec="h264")},
        "LeRobot, images in the rows": {"kind": "image"},
        "LeRobot, images of one camera, 10 fps": {"kind": "image", "cameras": ("front",), "fps": 10},
        "LeRobot, encoded while recording": {"streaming_encoding": True},
        "LeRobot, 15 fps, three cameras": {"fps": 15, "cameras": ("front", "wrist", "top")},
        "LeRobot, 60 fps": {"fps": 60, "cameras": ("front",)},
    }
    for seed, (name, options) in enumerate(plain.items()):
        record(create(folder / name, **options), LENGTHS, seed)
    record(create(folder / "LeRobot, an episode of one frame"), (60, 1, 70), 20)
    record(create(folder / "LeRobot, two tasks in an episode"), LENGTHS, 21, ("Open the drawer.", "Close the drawer."))
    resumed = folder / "LeRobot, recording resumed"
    record(create(resumed), LENGTHS[:2], 22)
    record(LeRobotDataset.resume(f"me/{resumed.name}", root=resumed), LENGTHS[2:], 23)
    first, second = folder / "LeRobot, AV1", folder / "part"
    record(create(second), LENGTHS[:3], 24)
    tools.merge_datasets([opened(first), opened(second)], "me/merged", output_dir=folder / "LeRobot, merged")
    tools.delete_episodes(opened(first), [1], output_dir=folder / "LeRobot, an episode deleted", repo_id="me/deleted")
    splits = tools.split_dataset(opened(first), {"train": [0, 2], "val": [1, 3]}, output_dir=folder / "splits")
    shutil.copytree(splits["train"].root, folder / "LeRobot, split")
    shutil.rmtree(folder / "splits")
    shutil.rmtree(second)
    reward = np.zeros(sum(LENGTHS), np.float32)
    content = {"next.reward": (reward, {"dtype": "float32", "shape": (1,), "names": None})}
    tools.add_features(opened(first), content, output_dir=folder / "LeRobot, a feature added", repo_id="me/added")


def reads(root: Path) -> str:
    """Returns "reads" where LeRobot reads every row of a dataset, else what it says."""
    try:
        dataset = opened(root)
        for row in range(len(dataset)):
            dataset[row]
    except (OSError, ValueError, KeyError, IndexError, RuntimeError, TypeError, AssertionError) as error:
        return f"{type(error).__name__}: {error}".splitlines()[0][:160]
    return "reads" if len(dataset) else "no rows"


def main(words: Sequence[str]) -> None:
    if words[0] == "make":
        make(Path(words[1]))
    for folder in map(Path, words[1:] if words[0] == "opens" else ()):
        print(f"{folder.name}\t{reads(folder)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
