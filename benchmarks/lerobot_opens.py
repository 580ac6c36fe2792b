"""Does LeRobot itself read a dataset we wrote, and would it have written the same? Run with LeRobot 0.6's interpreter.

    HF_HUB_OFFLINE=1 lerobot-python benchmarks/lerobot_opens.py DATASET [SOURCE.npz]

With DATASET alone: LeRobotDataset opens it, with and without delta timestamps; every item agrees with the parquet rows and with a
plain PyAV decode in order; the statistics agree with LeRobot's own functions; SARM finds its annotations; `episode_filter` finds the
episodes by each column of one value an episode.
With SOURCE (from `lerobot_opens_source.py`): LeRobot records the same arrays beside it; schemas, info.json, rows, statistics and
pixels are compared. Prints what was compared with the largest difference; exits 1 if anything differs.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.datasets.compute_stats import aggregate_stats, auto_downsample_height_width, get_feature_stats, sample_indices
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.rewards.sarm.modeling_sarm import SARMRewardModel
from lerobot.rewards.sarm.processor_sarm import SARMEncodingProcessorStep

failures: list[str] = []


def say(what: str, ok: bool, detail: object) -> None:
    print(f"{'ok  ' if ok else 'FAIL'} {what}: {detail}")
    if not ok:
        failures.append(what)


def table(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("*/*.parquet"))])


def column(rows: pa.Table, name: str) -> np.ndarray:
    return np.array(rows[name].to_pylist())


def decoded(root: Path, info: dict, episodes: pa.Table, camera: str) -> np.ndarray:
    """(rows, H, W, 3) uint8: every file decoded once, in order, cut at the episodes' time stamps."""
    out, files = [], {}
    for episode in episodes.to_pylist():
        where = {key: episode[f"videos/{camera}/{key}"] for key in ("chunk_index", "file_index")}
        path = root / info["video_path"].format(video_key=camera, **where)
        if path not in files:
            with av.open(str(path)) as container:
                files[path] = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        first = round(episode[f"videos/{camera}/from_timestamp"] * info["fps"])
        out += files[path][first : first + episode["length"]]
    return np.stack(out)


def levels(image: object) -> np.ndarray:
    """LeRobot's (3, H, W) float in [0, 1] as (H, W, 3) uint8."""
    return np.round(np.moveaxis(np.asarray(image), 0, -1) * 255).astype(np.uint8)


def compare_items(root: Path, info: dict, rows: pa.Table, episodes: pa.Table, pixels: dict[str, np.ndarray]) -> None:
    dataset = LeRobotDataset("local/check", root=root, video_backend="pyav")
    say("frames", len(dataset) == info["total_frames"] == rows.num_rows, len(dataset))
    say("episodes", dataset.num_episodes == info["total_episodes"] == episodes.num_rows, dataset.num_episodes)
    language = [name for name, feature in info["features"].items() if feature["dtype"] == "language"]
    cells = {name: rows[name].to_pylist() for name in language}
    names = [name for name in rows.column_names if name in info["features"] and name not in language]
    values = {name: column(rows, name) for name in names}
    starts = [episode["dataset_from_index"] for episode in episodes.to_pylist()]
    stops = [episode["dataset_to_index"] for episode in episodes.to_pylist()]
    spread = np.linspace(0, len(dataset) - 1, 40).astype(int).tolist()
    wanted = sorted({*starts, *(stop - 1 for stop in stops), *spread})
    bad, off = 0, 0
    tasks = dict(zip(episodes["episode_index"].to_pylist(), episodes["tasks"].to_pylist(), strict=True))
    for row in wanted:
        item = dataset[row]
        bad += sum(not np.array_equal(np.asarray(item[name]), values[name][row].astype(np.asarray(item[name]).dtype)) for name in names)
        bad += sum(item[name] != cells[name][row] for name in language)
        bad += item["task"] not in tasks[int(item["episode_index"])]
        off = max([off, *(int(np.abs(levels(item[c]).astype(int) - pixels[c][row]).max()) for c in pixels)])
    say(f"{len(wanted)} items x {len(names) + len(language)} columns and the task equal the parquet rows", bad == 0, f"{bad} differ")
    say(f"{len(wanted)} items x {len(pixels)} cameras equal a PyAV decode in order", off == 0, f"largest difference {off} levels")


def compare_windows(root: Path, info: dict, episodes: pa.Table, pixels: dict[str, np.ndarray]) -> None:
    steps = [-20, -5, 0, 5, 20]
    deltas = {name: [step / info["fps"] for step in steps] for name in [*pixels, "observation.state"] if name in info["features"]}
    dataset = LeRobotDataset("local/check", root=root, delta_timestamps=deltas, video_backend="pyav")
    bad, count = 0, 0
    for episode in episodes.to_pylist():
        start, stop = episode["dataset_from_index"], episode["dataset_to_index"]
        for row in sorted({start, (start + stop) // 2, stop - 1}):
            item, asked = dataset[row], np.array([row + step for step in steps])
            clamped = np.clip(asked, start, stop - 1)
            for camera, held in pixels.items():
                count += 1
                bad += not np.array_equal(np.stack([levels(image) for image in item[camera]]), held[clamped])
                bad += not np.array_equal(np.asarray(item[f"{camera}_is_pad"]), clamped != asked)
    say(f"{count} windows of {len(steps)} frames equal the decode, and is_pad", bad == 0, f"{bad} differ")


def compare_stats(root: Path, info: dict, rows: pa.Table, episodes: pa.Table, source: dict | None) -> None:
    """Ours against LeRobot's functions on the same arrays, relative to each channel's range."""
    whole = json.loads((root / "meta/stats.json").read_text())
    worst: dict[str, float] = {}
    for name, feature in info["features"].items():
        if feature["dtype"] == "language" or (feature["dtype"] == "video" and source is None):
            continue
        each = []
        for number, episode in enumerate(episodes.to_pylist()):
            if feature["dtype"] == "video":
                images = source[f"{number}/{name}"].transpose(0, 3, 1, 2)
                picked = np.stack([auto_downsample_height_width(images[i]) for i in sample_indices(len(images))])
                theirs = get_feature_stats(picked, axis=(0, 2, 3), keepdims=True)
                theirs = {k: v if k == "count" else np.squeeze(v / 255, axis=0) for k, v in theirs.items()}
            else:
                values = column(rows, name)[episode["dataset_from_index"] : episode["dataset_to_index"]].astype(feature["dtype"])
                theirs = get_feature_stats(values, axis=0, keepdims=values.ndim == 1)
            each.append({name: theirs})
            compare_one(worst, theirs, {key: np.array(episode[f"stats/{name}/{key}"]) for key in theirs})
        theirs = aggregate_stats(each)[name]
        compare_one(worst, theirs, {key: np.array(whole[name][key]) for key in theirs})
    for key, off in worst.items():
        say(f"statistics '{key}', share of the channel's range", off < 5e-3, f"{off:.2e}")


def compare_one(worst: dict[str, float], theirs: dict, ours: dict) -> None:
    theirs = {key: np.asarray(value, dtype=float) for key, value in theirs.items()}  # of one frame LeRobot keeps the bools
    span = np.maximum(theirs["max"] - theirs["min"], 1e-6)
    for key, value in theirs.items():
        if ours[key].shape != value.shape:
            failures.append(f"shape of {key}")
        off = np.abs(ours[key] - value) / (1 if key == "count" else span)
        worst[key] = max(worst.get(key, 0.0), float(off.max()))


def compare_annotations(root: Path, episodes: pa.Table) -> None:
    frame = LeRobotDataset("local/check", root=root, video_backend="pyav").meta.episodes.to_pandas()
    for head in ("sparse", "dense"):
        path = root / f"meta/temporal_proportions_{head}.json"
        if not path.exists():
            continue
        names, shares = SARMRewardModel._load_proportions_from_json(None, path, head)
        # Its constructor would download CLIP; the method uses nothing of the object but its static methods.
        step = SARMEncodingProcessorStep.__new__(SARMEncodingProcessorStep)
        found = [step._load_episode_annotations(e, frame, head, names) for e in range(len(frame))]
        ours = episodes[f"{head}_subtask_names"].to_pylist()
        same = all((list(names) if names is not None else None) == held for (names, _, _), held in zip(found, ours, strict=True))
        count = sum(held is not None for held in ours)
        say(f"SARM finds the {head} annotations", same and abs(sum(shares) - 1) < 1e-6, f"{count} of {len(ours)} episodes, {names}")


def compare_filter(root: Path, info: dict, episodes: pa.Table) -> None:
    """Each plain column that is not LeRobot's own: filtered by each of its values, LeRobot has the episodes with it, and reads a frame."""
    own = ("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index")
    plain = [f.name for f in episodes.schema if not pa.types.is_nested(f.type) and f.name not in own and "/" not in f.name]
    bad, count = 0, 0
    for name in plain:
        values = episodes[name].to_pylist()
        for value in {value for value in values if value == value}:
            dataset = LeRobotDataset("local/check", root=root, episode_filter=lambda e, n=name, v=value: e[n] == v, video_backend="pyav")
            expected = [n for n, each in zip(episodes["episode_index"].to_pylist(), values, strict=True) if each == value]
            frames = sum(n for n, each in zip(episodes["length"].to_pylist(), values, strict=True) if each == value)
            count += 1
            bad += dataset.episodes != expected or len(dataset) != frames or int(dataset[0]["episode_index"]) != expected[0]
    if plain:
        say(f"episode_filter by {', '.join(plain)}", bad == 0, f"{count} values, {bad} differ")


def record_twin(root: Path, info: dict, episodes: pa.Table, source: dict) -> None:
    features = {name: {k: v for k, v in f.items() if k != "info"} | {"shape": tuple(f["shape"])} for name, f in info["features"].items()}
    given = [n for n in features if n not in ("timestamp", "frame_index", "episode_index", "index", "task_index")]
    twin = LeRobotDataset.create("local/twin", info["fps"], {n: features[n] for n in given}, root=root, robot_type=info["robot_type"])
    for number, episode in enumerate(episodes.to_pylist()):
        for t in range(episode["length"]):
            frame = {name: source[f"{number}/{name}"][t] for name in given}
            frame = {n: v if n in source["cameras"] else np.atleast_1d(v) for n, v in frame.items()}
            twin.add_frame({**frame, "task": episode["tasks"][0]})
        twin.save_episode(parallel_encoding=False)
    twin.finalize()


def compare_twin(root: Path, info: dict, source: dict, scratch: Path) -> None:
    episodes = table(root / "meta/episodes")
    record_twin(scratch, info, episodes, source)
    for kind in ("data", "meta/episodes"):
        ours = {f.name: str(f.type) for f in table(root / kind).schema}
        theirs = {f.name: str(f.type) for f in table(scratch / kind).schema}
        same = all(ours.get(name) == type_ for name, type_ in theirs.items())
        order = [n for n in ours if n in theirs] == list(theirs)
        say(
            f"{kind}: its {len(theirs)} columns with its arrow types",
            same,
            f"same order {order}; extra {sorted(ours.keys() - theirs.keys())}",
        )
    ours, theirs = (pq.read_table(path / "meta/tasks.parquet") for path in (root, scratch))
    say("tasks.parquet", ours.equals(theirs) and ours.to_pandas().equals(theirs.to_pandas()), "equal in arrow and in pandas")
    other = json.loads((scratch / "meta/info.json").read_text())
    differ = {key for key in info.keys() | other.keys() if info.get(key) != other.get(key)}
    say("info.json", not differ, f"different fields {sorted(differ)}")
    rows, twin_rows = table(root / "data"), table(scratch / "data")
    say("data rows", rows.select(twin_rows.column_names).equals(twin_rows), f"{rows.num_rows} rows x {rows.num_columns} columns")
    spans = [n for n in episodes.column_names if n.startswith("videos/") or n.startswith("data")]
    twin_episodes = table(scratch / "meta/episodes")
    off = max(np.abs(column(episodes, n) - column(twin_episodes, n)).max() for n in spans)
    say(f"{len(spans)} columns of places and time stamps", off < 1e-9, f"largest difference {off:.1e}")
    for camera in source["cameras"]:
        # The interpreters may carry different encoder versions: then equal settings give equal quality, not equal bytes.
        raw = np.concatenate([source[f"{number}/{camera}"] for number in range(len(episodes))]).astype(int)
        ours, theirs = (
            np.abs(decoded(path, i, e, camera) - raw).mean() for path, i, e in ((root, info, episodes), (scratch, other, twin_episodes))
        )
        say(
            f"{camera}: mean error to the source no larger",
            ours < 1.05 * theirs,
            f"{ours:.3f} levels ours, {theirs:.3f} LeRobot's (PyAV {av.__version__})",
        )


def main(root: Path, source_path: Path | None) -> int:
    info = json.loads((root / "meta/info.json").read_text())
    rows, episodes = table(root / "data"), table(root / "meta/episodes")
    cameras = [name for name, feature in info["features"].items() if feature["dtype"] == "video"]
    pixels = {camera: decoded(root, info, episodes, camera) for camera in cameras}
    source = {**np.load(source_path), "cameras": cameras} if source_path else None
    compare_items(root, info, rows, episodes, pixels)
    compare_windows(root, info, episodes, pixels)
    compare_stats(root, info, rows, episodes, source)
    compare_annotations(root, episodes)
    compare_filter(root, info, episodes)
    if source:
        with tempfile.TemporaryDirectory() as scratch:
            compare_twin(root, info, source, Path(scratch) / "twin")
    print("all agree" if not failures else f"{len(failures)} differences: {', '.join(failures)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
