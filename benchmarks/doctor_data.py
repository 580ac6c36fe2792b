"""Sound LeRobot datasets of many kinds, made from a seed, for `benchmarks/doctors.py`: small videos, a robot that moves smoothly.

They are written with milepost's writer, whose files equal those of LeRobot's own (`benchmarks/lerobot_opens.py`), and then changed into
what is unusual but allowed. `benchmarks/doctors_lerobot.py` makes others with LeRobot itself, and opens all of them with it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from milepost.core import Segment
from milepost.datasets import Recording, assemble, encode_episode

CAMERAS = ("observation.images.front", "observation.images.wrist", "observation.images.side", "observation.images.top")
JOINTS = ("shoulder_pan.pos", "shoulder_lift.pos", "elbow_flex.pos", "wrist_flex.pos", "wrist_roll.pos", "gripper.pos")
TASKS = ("Put the cube into the box.", "Open the drawer.")
Change = Callable[[Path], None]


@dataclass(frozen=True)
class Recipe:
    """How a dataset is made. seconds: of each episode; frames: its length instead. extra: what stands beside state and action."""

    name: str
    fps: int = 30
    cameras: int = 2
    codec: str = "libx264"
    size: tuple[int, int] = (64, 96)
    seconds: Sequence[float] = (3.6, 4.0, 3.8, 3.8, 3.7)
    frames: Sequence[int] = ()
    joints: int = 6
    tasks: Sequence[str] = TASKS
    together: bool = True
    extra: str = ""
    still: bool = False
    changes: Sequence[Change] = ()

    @property
    def lengths(self) -> list[int]:
        """Returns the number of frames of each episode."""
        return list(self.frames) or [max(1, round(self.fps * seconds)) for seconds in self.seconds]


def motion(rng: np.random.Generator, length: int, fps: float, joints: int, still: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Returns states and actions: joints go smoothly from place to place, in units of -100 to 100; the state follows the action."""
    times = np.arange(length + 3) / fps
    stops = max(2, int(times[-1] / 1.2) + 2)
    at = np.linspace(0, max(times[-1], 1e-6), stops)
    places = rng.uniform(-45, 45, (stops, joints))
    places[0] = 0
    step = np.clip(np.searchsorted(at, times, side="right") - 1, 0, stops - 2)
    part = np.clip((times - at[step]) / (at[step + 1] - at[step]), 0, 1)
    path = places[step] + (places[step + 1] - places[step]) * (part * part * (3 - 2 * part))[:, None]
    if still:
        rest = min(length // 3, int(0.4 * fps))
        path[:rest] = path[0]
    path = path + rng.normal(scale=0.05, size=path.shape)
    return path[:length].astype(np.float32), path[2 : length + 2].astype(np.float32)


def images(rng: np.random.Generator, states: np.ndarray, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yields images (H, W, 3): a table, a square that goes where the joints go, and the noise of a camera."""
    height, width = size
    ground = rng.integers(60, 190, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.int16)
    ground = np.pad(ground, ((0, height - len(ground)), (0, width - ground.shape[1]), (0, 0)), mode="edge")
    for state in states:
        image = ground + rng.integers(-6, 7, (height, width, 1))
        y, x = (int(np.clip((state[joint % len(state)] + 60) / 120, 0, 1) * (side - 16)) for joint, side in ((1, height), (0, width)))
        image[y : y + 16, x : x + 16] = (210, 60, 40)
        yield np.clip(image, 0, 255).astype(np.uint8)


def columns_of(extra: str, length: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns further columns by the words in `extra`."""
    last = np.arange(length) == length - 1
    every: dict[str, dict[str, np.ndarray]] = {
        "success": {"next.success": last, "next.done": last, "next.reward": last.astype(np.float32)},
        "failures": {"next.success": np.zeros(length, bool), "next.done": last},
        "subtask": {"subtask_index": (np.arange(length) * 3 // length).astype(np.int64)},
        "effort": {"observation.effort": rng.normal(size=(length, 6)).astype(np.float32)},
        "double": {"observation.force": rng.normal(size=length)},
        "flag": {"is_intervention": np.arange(length) > length // 2},
    }
    return {name: values for word in extra.split() for name, values in every.get(word, {}).items()}


def make(root: Path, recipe: Recipe, seed: int = 0) -> None:
    """Writes the dataset of a recipe at `root`."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(dir=root.parent) as parts:
        folders = []
        for number, length in enumerate(recipe.lengths):
            state, action = motion(rng, length, recipe.fps, recipe.joints, recipe.still)
            third = max(1, length // 3)
            stages = [Segment("reach", 0, third), Segment("move", third, length)] if "stages" in recipe.extra and length > 1 else []
            names = JOINTS if recipe.joints == 6 else [f"joint_{i}.pos" for i in range(recipe.joints)]
            recording = Recording(
                recipe.tasks[number % len(recipe.tasks)],
                state,
                action,
                {camera: images(rng, state, recipe.size) for camera in CAMERAS[: recipe.cameras]},
                columns=columns_of(recipe.extra, length, rng),
                segments={"sparse": stages} if stages else {},
                names={"observation.state": names, "action": names},
            )
            folders.append(Path(parts) / f"{number:03d}")
            encode_episode(folders[-1], recording, fps=recipe.fps, codec=recipe.codec)
        limit = {"data_mb": 100, "video_mb": 200} if recipe.together else {"data_mb": 0, "video_mb": 0}
        assemble(root, folders, fps=recipe.fps, robot_type="so101_follower", **limit)
    if not recipe.together:
        change_json(root / "meta/info.json", lambda info: info | {"data_files_size_in_mb": 1, "video_files_size_in_mb": 1})
    for change in recipe.changes:
        change(root)


def change_json(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Rewrites a JSON file."""
    path.write_text(json.dumps(change(json.loads(path.read_text("utf-8"))), indent=4, ensure_ascii=False), "utf-8")


def change_table(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Rewrites a parquet file."""
    pq.write_table(change(pq.read_table(path, partitioning=None)), path)


def set_column(table: pa.Table, name: str, values: Any, kind: pa.DataType | None = None) -> pa.Table:
    """Returns the table with one column replaced, of the type that it had."""
    place = table.column_names.index(name)
    return table.set_column(place, name, pa.array(values, kind or table[name].type))


def data_files(root: Path) -> list[Path]:
    """Returns the files of rows, in order."""
    return sorted((root / "data").rglob("*.parquet"))


def meta_files(root: Path) -> list[Path]:
    """Returns the files of meta/episodes, in order."""
    return sorted((root / "meta/episodes").rglob("*.parquet"))


def videos(root: Path, camera: str = CAMERAS[0]) -> list[Path]:
    """Returns the videos of a camera, in order."""
    return sorted((root / "videos" / camera).rglob("*.mp4"))


def change_rows(root: Path, name: str, change: Callable[[np.ndarray, np.ndarray], Any]) -> None:
    """Changes one column of the rows in place. change: gets the values of a file and the episodes they belong to; may return others."""
    for path in data_files(root):

        def edit(table: pa.Table) -> pa.Table:
            values = np.array(table[name].to_pylist())
            other = change(values, np.array(table["episode_index"].to_pylist()))
            return set_column(table, name, (values if other is None else other).tolist())

        change_table(path, edit)


def change_episodes(root: Path, change: Callable[[dict[str, list[Any]]], Any]) -> None:
    """Changes the columns of meta/episodes in place: name -> one value for each episode of the file."""
    for path in meta_files(root):

        def edit(table: pa.Table) -> pa.Table:
            columns = table.to_pydict()
            change(columns)
            return pa.table(columns, schema=table.schema)

        change_table(path, edit)
