"""The sound datasets of `benchmarks/doctors.py`: usual ones, and what is unusual but allowed.

LeRobot 0.6.1 reads every row of those that are v3.0 (`doctors_lerobot.py opens`).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.doctor_data import (
    Recipe,
    change_episodes,
    change_json,
    change_rows,
    change_table,
    data_files,
    meta_files,
    set_column,
)
from milepost.core import Segment
from milepost.datasets import copy_with_language
from milepost.datasets.parquet import numbered_words

SHORT = (3.6, 3.8, 3.5)


def to_v21(root: Path) -> None:
    """Rewrites a v3.0 dataset with one file an episode as v2.1: its folders, and its meta/ as JSON lines."""
    table = pa.concat_tables([pq.read_table(path, partitioning=None) for path in meta_files(root)])
    stats_columns = [name for name in table.column_names if name.startswith("stats/")]
    files, episodes, stats = data_files(root), [], []
    for row in table.to_pylist():
        number = row["episode_index"]
        episodes.append({"episode_index": number, "tasks": row["tasks"], "length": row["length"]})
        nested: dict[str, dict[str, Any]] = {}
        for name in stats_columns:
            _, feature, key = name.split("/")
            if not key.startswith("q"):
                nested.setdefault(feature, {})[key] = row[name]
        stats.append({"episode_index": number, "stats": nested})
        files[number].rename(root / f"data/chunk-000/episode_{number:06d}.parquet")
    for path in sorted((root / "videos").glob("*/chunk-000/file-*.mp4")):
        place = root / "videos/chunk-000" / path.parts[-3] / f"episode_{int(path.stem.removeprefix('file-')):06d}.mp4"
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
    for folder in (root / "videos").glob("observation.*"):
        shutil.rmtree(folder)
    words = pq.read_table(root / "meta/tasks.parquet").to_pylist()
    shutil.rmtree(root / "meta/episodes")
    for name in ("tasks.parquet", "stats.json"):
        (root / "meta" / name).unlink()
    lines = {
        "episodes": episodes,
        "episodes_stats": stats,
        "tasks": [{"task_index": one["task_index"], "task": one["task"]} for one in words],
    }
    for name, rows in lines.items():
        (root / f"meta/{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    change_json(root / "meta/info.json", _info_v21)


def _info_v21(info: dict[str, Any]) -> dict[str, Any]:
    for name in ("data_files_size_in_mb", "video_files_size_in_mb"):
        info.pop(name)
    cameras = sum(feature["dtype"] == "video" for feature in info["features"].values())
    paths = {"data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"}
    paths["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    return info | paths | {"codebase_version": "v2.1", "total_chunks": 1, "total_videos": cameras * info["total_episodes"]}


def _subtasks(root: Path) -> None:
    pq.write_table(numbered_words("subtask", ["reach", "grasp", "place"]), root / "meta/subtasks.parquet")


def _language(root: Path) -> None:
    lengths = [length for path in meta_files(root) for length in pq.read_table(path, partitioning=None)["length"].to_pylist()]
    stages = {number: {"sparse": [Segment("reach", 0, 20), Segment("move", 20, length)]} for number, length in enumerate(lengths)}
    other = root.with_name(root.name + "-language")
    copy_with_language(root, other, stages)
    (other / "meta/milepost_copy.json").unlink()
    shutil.rmtree(root)
    other.rename(root)


def _float_fps(root: Path) -> None:
    change_json(root / "meta/info.json", lambda info: info | {"fps": 29.97})
    for path in data_files(root):
        change_table(path, lambda table: set_column(table, "timestamp", [frame / 29.97 for frame in table["frame_index"].to_pylist()]))


def _beside(root: Path) -> None:
    """Puts files beside the dataset that people and the Hub put there."""
    (root / "README.md").write_text("---\nlicense: apache-2.0\n---\nMy dataset.\n")
    (root / ".gitattributes").write_text("*.mp4 filter=lfs diff=lfs merge=lfs -text\n")
    (root / ".cache/huggingface").mkdir(parents=True)
    (root / ".cache/huggingface/CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")


def _progress(root: Path) -> None:
    rows = sum(pq.read_metadata(path).num_rows for path in data_files(root))
    values = np.linspace(0, 1, rows, dtype=np.float32)
    pq.write_table(pa.table({"index": np.arange(rows), "progress_sparse": values}), root / "sarm_progress.parquet")


def _no_quantiles(root: Path) -> None:
    """Takes out what LeRobot's early v3.0 did not write."""

    def edit(stats: dict[str, Any]) -> dict[str, Any]:
        return {name: {key: value for key, value in one.items() if key[0] != "q"} for name, one in stats.items()}

    change_json(root / "meta/stats.json", edit)
    for path in meta_files(root):
        change_table(path, lambda table: table.select([n for n in table.column_names if not n.rpartition("/")[2].startswith("q")]))


def _second_chunk(root: Path) -> None:
    """Moves every file but the first two into the next folder, as a small `chunks_size` does."""
    change_json(root / "meta/info.json", lambda info: info | {"chunks_size": 2})
    for path in [*data_files(root), *(root / "videos").rglob("*.mp4")]:
        file = int(path.stem.removeprefix("file-"))
        place = path.parents[1] / f"chunk-{file // 2:03d}" / f"file-{file % 2:03d}{path.suffix}"
        place.parent.mkdir(exist_ok=True)
        path.rename(place.with_suffix(".part"))
    for path in list(root.rglob("*.part")):
        path.rename(path.with_suffix(".parquet" if "data" in path.parts else ".mp4"))

    def edit(columns: dict[str, list[Any]]) -> None:
        for name in [name for name in columns if name.endswith("/file_index") and not name.startswith("meta/")]:
            files = list(columns[name])
            columns[name] = [file % 2 for file in files]
            columns[name.replace("file_index", "chunk_index")] = [file // 2 for file in files]

    change_episodes(root, edit)


def _radians(root: Path) -> None:
    """Writes states and actions in radians, with their statistics."""
    for name in ("observation.state", "action"):
        change_rows(root, name, lambda values, episodes: values / 57.2958)

    def smaller(stats: dict[str, Any]) -> dict[str, Any]:
        for name in ("observation.state", "action"):
            stats[name] = {key: value if key == "count" else [v / 57.2958 for v in value] for key, value in stats[name].items()}
        return stats

    change_json(root / "meta/stats.json", smaller)

    def edit(columns: dict[str, list[Any]]) -> None:
        for name in columns:
            if name.startswith(("stats/observation.state/", "stats/action/")) and not name.endswith("/count"):
                columns[name] = [[v / 57.2958 for v in value] for value in columns[name]]

    change_episodes(root, edit)


def _plain_info(root: Path) -> None:
    """Leaves out what LeRobot fills in by itself."""
    change_json(root / "meta/info.json", lambda info: {k: v for k, v in info.items() if k not in ("splits", "robot_type", "chunks_size")})


V21 = Recipe("", together=False, seconds=SHORT, changes=(to_v21,))
RECIPES = (
    *(
        Recipe(f"{fps} fps", fps=fps, cameras=1 + place % 3, codec=("libx264", "libsvtav1", "libx265")[place % 3], together=place % 2 == 0)
        for place, fps in enumerate((5, 10, 15, 20, 25, 30, 50, 60))
    ),
    Recipe("four cameras, H.264", cameras=4, seconds=SHORT),
    Recipe("four cameras, AV1, one file each", cameras=4, codec="libsvtav1", seconds=SHORT, together=False),
    Recipe("four cameras, HEVC", cameras=4, codec="libx265", seconds=SHORT),
    Recipe("no camera", cameras=0),
    Recipe("success, reward and end", extra="success"),
    Recipe("all attempts failed", extra="failures", seconds=SHORT),
    Recipe("stages of SARM", extra="stages", seconds=SHORT),
    Recipe("subtask_index", extra="subtask", seconds=SHORT, changes=(_subtasks,)),
    Recipe("language columns", seconds=SHORT, changes=(_language,)),
    Recipe("effort, a double, a flag", extra="effort double flag", seconds=SHORT),
    Recipe("an episode of one frame", frames=(90, 1, 100, 80), cameras=1),
    Recipe("an episode of two frames, one file each", frames=(60, 2, 80), together=False),
    Recipe("a long episode", frames=(1800, 110), cameras=1),
    Recipe("one episode", seconds=(5.0,)),
    Recipe("fifty short episodes", frames=(14,) * 50, cameras=1),
    Recipe("a task that is not ASCII", tasks=("Würfel in die Kiste legen – vorsichtig", "把杯子放在盘子上 🙂"), seconds=SHORT),
    Recipe("a task of 400 letters", tasks=("Take the cube, " * 27 + "done.",), seconds=SHORT),
    Recipe("29.97 fps", cameras=0, changes=(_float_fps,)),
    Recipe("two arms, 14 joints", joints=14, cameras=3, seconds=SHORT),
    Recipe("one joint", joints=1, seconds=SHORT),
    Recipe("32 joints", joints=32, cameras=1, seconds=SHORT),
    Recipe("a rest at the start", still=True),
    Recipe("six tasks", tasks=tuple(f"Press button {n}." for n in range(1, 7))),
    Recipe("square images", size=(64, 64), seconds=SHORT),
    Recipe("upright images, AV1", size=(128, 64), codec="libsvtav1", seconds=SHORT),
    Recipe("files of a person and of the Hub beside it", seconds=SHORT, changes=(_beside,)),
    Recipe("a progress file beside it", seconds=SHORT, changes=(_progress,)),
    Recipe("statistics without quantiles", seconds=SHORT, changes=(_no_quantiles,)),
    Recipe("two files a folder", together=False, changes=(_second_chunk,)),
    Recipe("images of 240 x 320", size=(240, 320), cameras=1, seconds=SHORT),
    Recipe("radians", changes=(_radians,)),
    Recipe("info.json without what has a default", seconds=SHORT, changes=(_plain_info,)),
    replace(V21, name="v2.1, H.264"),
    replace(V21, name="v2.1, AV1", codec="libsvtav1", cameras=1),
    replace(V21, name="v2.1, no camera", cameras=0),
    replace(V21, name="v2.1, a task that is not ASCII", tasks=("把杯子放在盘子上",)),
    replace(V21, name="v2.1, an episode of one frame", frames=(60, 1, 70)),
    replace(V21, name="v2.1, 60 fps, three cameras", fps=60, cameras=3),
)
"""Those that milepost's writer makes. With those of `doctors_lerobot.py` they are sixty."""
