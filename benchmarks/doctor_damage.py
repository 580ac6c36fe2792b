"""Sixty kinds of damage to a LeRobot dataset for `benchmarks/doctors.py`: fifteen groups of four, each on another sound dataset.

They were written down before any checker was run on them, from what public reports describe: the source of each group stands beside it.
`words` says which words a report must have to count as naming the damage.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa

from benchmarks.doctor_data import (
    CAMERAS,
    Change,
    Recipe,
    change_episodes,
    change_json,
    change_rows,
    change_table,
    data_files,
    meta_files,
    set_column,
    videos,
)
from milepost.datasets import video_writer
from milepost.datasets.video import add_encoder

BASES = (
    Recipe("base-0", fps=30, cameras=2),
    Recipe("base-1", fps=20, cameras=1, codec="libsvtav1"),
    Recipe("base-2", fps=30, cameras=2, together=False),
    Recipe("base-3", fps=50, cameras=3, extra="success"),
)
"""The sound datasets that are damaged: the variant of a damage says which. Episodes 2 and 3 have one length."""


@dataclass(frozen=True)
class Group:
    """Four damages of one kind. source: who reports such a thing in public. words: a regular expression that names it, in small letters."""

    name: str
    source: str
    words: str
    variants: Sequence[tuple[str, Change]]


def _info(**changes: Any) -> Change:
    return lambda root: change_json(root / "meta/info.json", lambda info: info | changes)


def _feature(name: str, change: Callable[[dict[str, Any]], Any]) -> Change:
    def edit(info: dict[str, Any]) -> dict[str, Any]:
        if (feature := change(info["features"].get(name, {}))) is None:
            info["features"].pop(name)
        else:
            info["features"][name] = feature
        return info

    return lambda root: change_json(root / "meta/info.json", edit)


def _rows(name: str, change: Callable[[np.ndarray, np.ndarray], Any]) -> Change:
    return lambda root: change_rows(root, name, change)


def _episodes(change: Callable[[dict[str, list[Any]]], Any]) -> Change:
    return lambda root: change_episodes(root, change)


def _tables(files: Callable[[Path], list[Path]], change: Callable[[pa.Table], pa.Table]) -> Change:
    def edit(root: Path) -> None:
        for path in files(root):
            change_table(path, change)

    return edit


def _put(name: str, episode: int, value: Any) -> Change:
    """Returns the damage that sets a field of one episode in meta/episodes, or changes it where `value` is a function of the old one."""

    def edit(columns: dict[str, list[Any]]) -> None:
        if episode in columns["episode_index"]:
            at = columns["episode_index"].index(episode)
            columns[name][at] = value(columns[name][at]) if callable(value) else value

    return _episodes(edit)


def _of(episode: int, start: float, stop: float, value: Any) -> Callable[[np.ndarray, np.ndarray], None]:
    """Returns the change that sets all channels of a part of an episode (start, stop: 0 to 1); the value may be a function."""

    def change(values: np.ndarray, episodes: np.ndarray) -> None:
        rows = np.flatnonzero(episodes == episode)
        rows = rows[int(start * len(rows)) : max(int(stop * len(rows)), int(start * len(rows)) + 1)]
        if len(rows):
            values[rows] = value(values[rows]) if callable(value) else value

    return change


def _cut(path: Path, proportion: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * proportion)])


def _pointer(root: Path) -> None:
    path = videos(root)[0]
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a' * 16}\nsize {path.stat().st_size}\n")


def _recode(path: Path, change: Callable[[list[np.ndarray]], list[np.ndarray]], fps: float | None = None) -> None:
    """Writes a video anew with other images, or at another rate."""
    with av.open(str(path)) as container:
        rate, name = container.streams.video[0].average_rate, container.streams.video[0].codec_context.codec.canonical_name
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames = change(frames)
    with video_writer(path) as container:
        stream = add_encoder(container, path, frames[0].shape, codec=CODECS[name], fps=fps or rate, options={"g": "2", "crf": "30"})
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _video(change: Callable[[list[np.ndarray]], list[np.ndarray]], file: int = 0, camera: int = 0, fps: float | None = None) -> Change:
    return lambda root: _recode(videos(root, CAMERAS[camera])[file], change, fps)


def _without(files: Callable[[Path], list[Path]], place: int) -> Change:
    return lambda root: files(root)[place].unlink()


def _black(frames: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the images with those of the second episode of base 0 black."""
    return [np.zeros_like(image) if 108 <= place < 228 else image for place, image in enumerate(frames)]


def _frozen(start: int, stop: int) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
    return lambda frames: [frames[start] if start <= place < stop else image for place, image in enumerate(frames)]


def _copied_video(root: Path) -> None:
    shutil.copyfile(videos(root)[2], videos(root)[3])


def _double_rate(values: np.ndarray, episodes: np.ndarray) -> np.ndarray:
    return values * 2


def _pause(values: np.ndarray, episodes: np.ndarray) -> None:
    rows = np.flatnonzero(episodes == 1)
    values[rows[len(rows) // 2 :]] += 0.5


def _swap(values: np.ndarray, episodes: np.ndarray) -> None:
    row = np.flatnonzero(episodes == 2)[40]
    values[[row, row + 1]] = values[[row + 1, row]]


def _drift(values: np.ndarray, episodes: np.ndarray) -> np.ndarray:
    return values * 1.021  # 0.7 ms more for every frame at 30 fps


def _one_nan(values: np.ndarray, episodes: np.ndarray) -> None:
    values[100, 3] = np.nan


def _skip_three(values: np.ndarray, episodes: np.ndarray) -> np.ndarray:
    return np.where(values >= 3, values + 1, values)


def _again_from_0(values: np.ndarray, episodes: np.ndarray) -> np.ndarray:
    return np.where(values >= 3, values - 3, values)


def _per_file(columns: dict[str, list[Any]]) -> None:
    columns["dataset_from_index"] = [0 for _ in columns["length"]]
    columns["dataset_to_index"] = list(columns["length"])


def _shifted(columns: dict[str, list[Any]]) -> None:
    for name in ("dataset_from_index", "dataset_to_index"):
        columns[name] = [value + 1 for value in columns[name]]


def _first_window(columns: dict[str, list[Any]]) -> None:
    columns[f"videos/{CAMERAS[0]}/from_timestamp"] = [0.0 for _ in columns["length"]]


def _late(columns: dict[str, list[Any]]) -> None:
    for name in (f"videos/{camera}/{edge}_timestamp" for camera in CAMERAS[:3] for edge in ("from", "to")):
        columns[name] = [value + 0.04 * number for number, value in enumerate(columns[name])]


def _numbered_3(columns: dict[str, list[Any]]) -> None:
    columns["episode_index"] = [number + (number >= 3) for number in columns["episode_index"]]


def _leave_out_3(root: Path) -> None:
    change_rows(root, "episode_index", _skip_three)
    change_episodes(root, _numbered_3)


def _stale(stats: dict[str, Any]) -> dict[str, Any]:
    """Returns statistics of radians beside data in degrees."""
    for key in ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99"):
        stats["observation.state"][key] = [value / 57.2958 for value in stats["observation.state"][key]]
    return stats


def _nan_std(stats: dict[str, Any]) -> dict[str, Any]:
    stats["action"]["std"] = [float("nan"), *stats["action"]["std"][1:]]
    return stats


def _no_action(stats: dict[str, Any]) -> dict[str, Any]:
    stats.pop("action")
    return stats


def _stats(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    return lambda root: change_json(root / "meta/stats.json", change)


def _unfinished(root: Path) -> None:
    (root / "data/chunk-000/file-001.parquet").write_bytes(b"PAR1" + bytes(2000))


def _extra_column(root: Path) -> None:
    change_table(data_files(root)[3], lambda table: table.append_column("observation.extra", pa.array(np.zeros(len(table), np.float32))))


def _tasks(change: Callable[[pa.Table], pa.Table]) -> Change:
    return lambda root: change_table(root / "meta/tasks.parquet", change)


def _stuck(values: np.ndarray, episodes: np.ndarray) -> None:
    values[:, 2] = values[0, 2]


def _jump(values: np.ndarray, episodes: np.ndarray) -> None:
    row = np.flatnonzero(episodes == 2)
    if len(row):
        values[row[50], 1] += 90


def _twice(root: Path) -> None:
    """Makes episode 3 a copy of episode 2: states and actions."""
    for name in ("observation.state", "action"):

        def change(values: np.ndarray, episodes: np.ndarray) -> None:
            values[episodes == 3] = values[episodes == 2]

        change_rows(root, name, change)


def _gone(episode: int) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.filter(pa.array([number != episode for number in table["episode_index"].to_pylist()]))


TORQUE = {"dtype": "float32", "shape": [6], "names": None}
CODECS = {"h264": "libx264", "av1": "libsvtav1"}
LEROBOT = "https://github.com/huggingface/lerobot/issues"
GROUPS = (
    Group("video file", f"{LEROBOT}/3522, {LEROBOT}/2529", r"video|mp4|camera|images\.", (
        ("half of an mp4 is missing", lambda root: _cut(videos(root)[0], 0.5)),
        ("an mp4 is a Git LFS pointer", _pointer),
        ("an mp4 is missing", _without(videos, 4)),
        ("the folder of a camera is missing", lambda root: shutil.rmtree(root / "videos" / CAMERAS[1])),
    )),
    Group("number of images", "https://github.com/OpenDriveLab/AgiBot-World/issues/149", r"video|mp4|camera|images\.|image", (
        ("the last 8 images are missing", _video(lambda frames: frames[:-8])),
        ("6 images are missing in the middle", _video(lambda frames: frames[:200] + frames[206:])),
        ("the last third of a video is missing", _video(lambda frames: frames[: 2 * len(frames) // 3], file=2, camera=1)),
        ("5 images more at the start", _video(lambda frames: [*frames[:5], *frames])),
    )),
    Group("frame rate", f"{LEROBOT}/933", r"fps|frame rate|rate|timestamp|time|duration", (
        ("info.json says 60 fps, rows and video have 30", _info(fps=60)),
        ("info.json says 10 fps, rows and video have 20", _info(fps=10)),
        ("a video plays at 25 images a second, the rows have 30", _video(list, file=1, fps=25)),
        ("the rows have 25 fps, video and info.json 50", _rows("timestamp", _double_rate)),
    )),
    Group("time stamps", f"{LEROBOT}/933, {LEROBOT}/3177", r"timestamp|time|monoton|gap|dropped|tolerance", (
        ("they begin at 4,000 s", _rows("timestamp", lambda values, episodes: values + 4000)),
        ("2 % drift", _rows("timestamp", _drift)),
        ("a pause of half a second", _rows("timestamp", lambda v, e: _pause(v, e) if (e == 1).any() else None)),
        ("two stamps swapped", _rows("timestamp", _swap)),
    )),
    Group("NaN", f"{LEROBOT}/2189", r"nan\b|nans|\binf|finite|null|missing value|not a number", (
        ("one NaN in the state", _rows("observation.state", _one_nan)),
        ("NaN in the action of an episode", _rows("action", _of(3, 0, 1, np.nan))),
        ("an infinite action", _rows("action", _of(1, 0.5, 0.5, np.inf))),
        ("NaN at the end of the states of an episode", _rows("observation.state", _of(4, 0.9, 1, np.nan))),
    )),
    Group("episode numbers", f"{LEROBOT}/2401", r"episode", (
        ("an episode is missing in meta/episodes", _tables(meta_files, _gone(2))),
        ("the rows of an episode are missing", _tables(data_files, _gone(2))),
        ("number 3 is left out everywhere", _leave_out_3),
        ("numbers of the rows begin again at 0", _rows("episode_index", _again_from_0)),
    )),
    Group("row numbers in meta", f"{LEROBOT}/1919, {LEROBOT}/2401", r"dataset_from|dataset_to|index|rows?\b|range|contiguous", (
        ("all one row too late", _episodes(_shifted)),
        ("one episode begins 10 rows too early", _put("dataset_from_index", 2, lambda value: value - 10)),
        ("each file begins again at 0", _episodes(_per_file)),
        ("the last episode ends 25 rows too late", _put("dataset_to_index", 4, lambda value: value + 25)),
    )),
    Group("video times in meta", f"{LEROBOT}/2283, {LEROBOT}/3177", r"video|timestamp|mp4|camera|images\.", (
        ("an episode begins after the video's end", _put(f"videos/{CAMERAS[0]}/from_timestamp", 4, lambda value: value + 60)),
        ("all episodes begin at 0 of one video", _episodes(_first_window)),
        ("an episode begins half a second into its video", _put(f"videos/{CAMERAS[1]}/from_timestamp", 3, 0.5)),
        ("two images later with each episode", _episodes(_late)),
    )),
    Group("tasks", f"{LEROBOT}/1428, {LEROBOT}/2467", r"task", (
        ("tasks.parquet is missing", lambda root: (root / "meta/tasks.parquet").unlink()),
        ("the rows have a task that is not listed", _rows("task_index", _of(4, 0, 1, 7))),
        ("tasks are numbered from 5", _tasks(lambda table: set_column(table, "task_index", [5, 6]))),
        ("meta/episodes names another task than the rows", _put("tasks", 1, [BASES[0].tasks[0]])),
    )),
    Group("statistics", f"{LEROBOT}/2189", r"stat|mean|std|normali[sz]", (
        ("stats.json is missing", lambda root: (root / "meta/stats.json").unlink()),
        ("the state's are in another unit", _stats(_stale)),
        ("NaN in a standard deviation", _stats(_nan_std)),
        ("the action's are missing", _stats(_no_action)),
    )),
    Group("totals and lengths", f"{LEROBOT}/2264", r"total|length|count|split|frames|episodes", (
        ("total_episodes is too high", _info(total_episodes=8)),
        ("total_frames is too low", _info(total_frames=400)),
        ("the length of an episode is wrong", _put("length", 3, lambda value: value + 7)),
        ("total_tasks is wrong", _info(total_tasks=5)),
    )),
    Group("parquet files", f"{LEROBOT}/3522", r"parquet|file-0|magic|footer|read|open|missing|\bdata\b|no rows", (
        ("half of a data file is missing", lambda root: _cut(data_files(root)[0], 0.5)),
        ("half of meta/episodes is missing", lambda root: _cut(meta_files(root)[0], 0.5)),
        ("a data file is missing", _without(data_files, 3)),
        ("a recorder left an unfinished data file", _unfinished),
    )),
    Group("columns", "https://github.com/Tavish9/any4lerobot/issues/83, https://github.com/FlagOpen/RoboCOIN/issues/22",
          r"shape|dim|column|feature|schema|width|observation|action", (
        ("info.json says 7 states, the rows have 6", _feature("observation.state", lambda old: old | {"shape": [7], "names": None})),
        ("info.json has a feature without a column", _feature("observation.torque", lambda _: TORQUE)),
        ("one file has a column that info.json lacks", _extra_column),
        ("the state's column is missing", _tables(data_files, lambda table: table.drop_columns(["observation.state"]))),
    )),
    Group("images", "https://pypi.org/project/lerobot-lint/ (frozen camera, degenerate image)",
          r"black|dark|frozen|froze|still|stuck|identical|same|duplicate|static|constant|copy|copies|brightness|blank", (
        ("a camera is black for an episode", _video(_black)),
        ("a camera stands still for an episode", _video(_frozen(152, 228))),
        ("the video of an episode is a copy of another's", _copied_video),
        ("a camera stands still from one episode into the next", _video(_frozen(260, 480))),
    )),
    Group("robot", "https://pypi.org/project/lerobot-lint/, https://pypi.org/project/lerobot-doctor/",
          r"stuck|frozen|froze|constant|static|jump|spike|outlier|duplicate|identical|veloc|variance|dead|teleport|discontinu|same|copy", (
        ("a joint reports one value throughout", _rows("observation.state", _stuck)),
        ("the state stands still for 40 % of an episode", _rows("observation.state", _of(1, 0.3, 0.7, lambda part: part[0]))),
        ("a joint jumps by 90 for one row", _rows("observation.state", _jump)),
        ("an episode is there twice", _twice),
    )),
)  # fmt: skip
