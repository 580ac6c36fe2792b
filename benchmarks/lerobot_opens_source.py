"""Write a small dataset with milepost, and the arrays it was made of, for `lerobot_opens.py` to compare.

PYTHONPATH=src python benchmarks/lerobot_opens_source.py OUT      makes OUT/dataset and OUT/source.npz
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from milepost.core.types import Segment
from milepost.datasets.recording import Recording
from milepost.datasets.writer import assemble, encode_episode

FPS = 20
CAMERAS = {"observation.images.top": (64, 96), "observation.images.wrist": (300, 400)}
TASKS = ("slide the window open", "drive the nail into the wall")
LENGTHS = (41, 130, 37, 64, 2)


def images(rng: np.random.Generator, length: int, size: tuple[int, int]) -> np.ndarray:
    """(T, H, W, 3) uint8: a coloured ground and a box that wanders, with noise."""
    height, width = size
    ground = np.linspace(20, 220, width)[None, :, None] * rng.uniform(0.4, 1.0, 3) * np.ones((height, 1, 1))
    out = np.empty((length, height, width, 3), np.uint8)
    for t in range(length):
        picture = ground + rng.normal(scale=4, size=ground.shape)
        left = int((width - 20) * t / length)
        picture[height // 3 : height // 3 + 16, left : left + 16] = rng.uniform(0, 255, 3)
        out[t] = np.clip(picture, 0, 255)
    return out


def main(out: Path) -> None:
    rng = np.random.default_rng(7)
    arrays: dict[str, np.ndarray] = {"fps": np.array(FPS), "tasks": np.array(TASKS)}
    folders = []
    for number, length in enumerate(LENGTHS):
        columns = {
            "next.reward": rng.normal(size=length).astype(np.float32),
            "next.success": np.arange(length) == length - 1,
            "truth.stage": (np.arange(length) * 3 // length).astype(np.int64),
            "truth.pose": rng.normal(size=(length, 3)),
        }
        state = np.cumsum(rng.normal(scale=0.02, size=(length, 7)), axis=0).astype(np.float32)
        action = rng.uniform(-1, 1, size=(length, 4)).astype(np.float32)
        frames = {camera: images(rng, length, size) for camera, size in CAMERAS.items()}
        cut = length // 3
        sparse = [Segment("reach", 0, cut), Segment("move", cut, 2 * cut), Segment("finish", 2 * cut, length)]
        recording = Recording(
            TASKS[number % 2],
            state,
            action,
            frames,
            columns=columns,
            segments={} if number == 2 else {"sparse": sparse, "dense": [*sparse[:1], Segment("rest", cut, length)]},
            facts={"success": number != 3, "kind": "expert"},
        )
        folders.append(out / "episodes" / f"{number:03d}")
        encode_episode(folders[-1], recording, fps=FPS)
        held = {"observation.state": state, "action": action, **columns, **frames}
        arrays |= {f"{number}/{name}": array for name, array in held.items()}
    proportions = {"sparse": {"reach": 0.3, "move": 0.3, "finish": 0.4}, "dense": {"reach": 0.3, "rest": 0.7}}
    assemble(out / "dataset", folders, fps=FPS, robot_type="toy", proportions=proportions)
    np.savez_compressed(out / "source.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
