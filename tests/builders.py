"""Small LeRobot datasets on disk, written field by field as the format says, with what a plain PyAV loop decodes from them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

from milepost.core.scheduling import ordinary
from milepost.datasets.video import concat_videos, encode_video

TOP = "observation.images.top"
WRIST = "observation.images.wrist"
TASKS = ("push the block", "lift the block")
DATA_V30 = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_V30 = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
DATA_V21 = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_V21 = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
"""The first of everything in a built v3.0 dataset: meta file (episode 0 alone), data file and mp4 (the first `per_file` episodes)."""
ROWS = "data/chunk-000/file-000.parquet"
MP4 = f"videos/{TOP}/chunk-000/file-000.mp4"


@dataclass(frozen=True)
class Built:
    """A dataset folder and its pictures as decoded by a plain loop: (camera, episode) -> (T, H, W, 3)."""

    root: Path
    images: Mapping[tuple[str, int], np.ndarray]


def moving(count: int, *, seed: int = 0, height: int = 64, width: int = 80) -> Iterator[np.ndarray]:
    """Frames no two of which are alike: a textured ground that slides, a bar that falls."""
    ground = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    for i in range(count):
        image = np.roll(ground, 3 * i, axis=1)
        image[i % height, :, 0] = 255 - i % 200
        yield image


def plain_decode(path: Path) -> np.ndarray:
    """Every frame of an mp4 in order, the way PyAV's manual does it: the reference for pixels."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def encode_with(path: Path, images: Sequence[np.ndarray], fps: int, codec: str, **options: str) -> None:
    """An mp4 with any encoder settings: long GOPs, B frames, open GOPs."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        with ordinary():
            container.start_encoding()
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def build_dataset(
    root: Path,
    *,
    version: str = "v3.0",
    lengths: Sequence[int] = (9, 14, 6),
    cameras: Mapping[str, str] | None = None,
    fps: int = 20,
    state: int = 3,
    per_file: int = 2,
    size: tuple[int, int] = (64, 80),
) -> Built:
    """A v3.0 or v2.1 dataset. cameras: key -> "libx264", "libx265", "libsvtav1", "png" (in parquet) or "file" (named by parquet).

    Episode e has task e % 2. v3.0: `per_file` episodes share a data file and an mp4; the second camera has one mp4 an episode.
    """
    cameras = {TOP: "libx264"} if cameras is None else cameras
    images: dict[tuple[str, int], np.ndarray] = {}
    height, width = size
    spans: dict[tuple[str, int], dict[str, Any]] = {}
    for order, (camera, codec) in enumerate(cameras.items()):
        if codec in ("png", "file"):
            images |= {(camera, e): np.stack([*moving(n, seed=10 * order + e, height=height, width=width)]) for e, n in enumerate(lengths)}
        else:
            group = 1 if version == "v2.1" or order else per_file
            _videos(root, camera, version=version, codec=codec, lengths=lengths, fps=fps, group=group, size=size, found=(images, spans))
    tables = _rows(root, cameras, images, lengths=lengths, fps=fps, state=state)
    _write_info(root, version, cameras, lengths=lengths, fps=fps, state=state, size=size)
    if version == "v2.1":
        _write_v21(root, tables, lengths)
    else:
        _write_v30(root, tables, spans, per_file=per_file)
    return Built(root, images)


def edit_parquet(path: Path, edit: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(edit(pq.read_table(path)), path)


def set_column(path: Path, name: str, values: Any, kind: pa.DataType | None = None) -> None:
    """Replace or add one column of a parquet file."""

    def edit(table: pa.Table) -> pa.Table:
        column = pa.array(values, kind)
        if name not in table.column_names:
            return table.append_column(name, column)
        return table.set_column(table.column_names.index(name), name, column)

    edit_parquet(path, edit)


def edit_info(root: Path, **changes: Any) -> None:
    path = root / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _videos(
    root: Path,
    camera: str,
    *,
    version: str,
    codec: str,
    lengths: Sequence[int],
    fps: int,
    group: int,
    size: tuple[int, int],
    found: tuple[dict, dict],
) -> None:
    images, spans = found
    for file in range(0, len(lengths), group):
        parts = []
        for e in range(file, min(file + group, len(lengths))):
            parts.append(root / f"part-{e}.mp4")
            encode_video(parts[-1], moving(lengths[e], seed=e, height=size[0], width=size[1]), fps, codec=codec)
            images[camera, e] = plain_decode(parts[-1])
        place = {"chunk_index": 0, "file_index": file // group}
        name = VIDEO_V21.format(episode_chunk=0, video_key=camera, episode_index=file)
        out = root / (name if version == "v2.1" else VIDEO_V30.format(video_key=camera, **place))
        for e, (start, stop) in enumerate(concat_videos(parts, out), start=file):
            spans[camera, e] = place | {"from_timestamp": start, "to_timestamp": stop}
        for part in parts:
            part.unlink()


def _rows(
    root: Path, cameras: Mapping[str, str], images: Mapping, *, lengths: Sequence[int], fps: int, state: int
) -> list[dict[str, pa.Array]]:
    tables, row = [], 0
    for e, n in enumerate(lengths):
        rng = np.random.default_rng(e)
        columns = {
            camera: _cells(root, camera, e, images[camera, e], kind) for camera, kind in cameras.items() if (kind in ("png", "file"))
        }
        if state:
            columns["observation.state"] = pa.FixedSizeListArray.from_arrays(pa.array(rng.random(n * state), pa.float32()), state)
        columns["action"] = pa.FixedSizeListArray.from_arrays(pa.array(rng.random(n * 2), pa.float32()), 2)
        columns["next.success"] = pa.array([False] * (n - 1) + [e % 2 == 0])
        columns["timestamp"] = pa.array(np.arange(n) / fps, pa.float32())
        columns["frame_index"] = pa.array(range(n), pa.int64())
        columns["episode_index"] = pa.array([e] * n, pa.int64())
        columns["index"] = pa.array(range(row, row + n), pa.int64())
        columns["task_index"] = pa.array([e % 2] * n, pa.int64())
        tables.append(columns)
        row += n
    return tables


def _cells(root: Path, camera: str, episode: int, images: np.ndarray, kind: str) -> pa.Array:
    cells = []
    for i, image in enumerate(images):
        name = f"images/{camera}/episode-{episode:06d}/frame-{i:06d}.png"
        buffer = io.BytesIO()
        PIL.Image.fromarray(image).save(buffer, "PNG")
        if kind == "file":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(buffer.getvalue())
        cells.append({"bytes": None if kind == "file" else buffer.getvalue(), "path": name})
    return pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def _write_info(
    root: Path, version: str, cameras: Mapping[str, str], *, lengths: Sequence[int], fps: int, state: int, size: tuple[int, int]
) -> None:
    visual = {key: "image" if kind in ("png", "file") else "video" for key, kind in cameras.items()}
    names = ["height", "width", "channels"]
    features: dict[str, Any] = {key: {"dtype": dtype, "shape": [*size, 3], "names": names} for key, dtype in visual.items()}
    if state:
        features["observation.state"] = {"dtype": "float32", "shape": [state], "names": None}
    features |= {"action": {"dtype": "float32", "shape": [2]}, "next.success": {"dtype": "bool", "shape": [1]}}
    info = {
        "codebase_version": version,
        "fps": fps,
        "features": features,
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "chunks_size": 1000,
        "data_path": DATA_V21 if version == "v2.1" else DATA_V30,
        "video_path": (VIDEO_V21 if version == "v2.1" else VIDEO_V30) if "video" in visual.values() else None,
    }
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))


def _write_v21(root: Path, tables: Sequence[dict], lengths: Sequence[int]) -> None:
    for e, columns in enumerate(tables):
        path = root / DATA_V21.format(episode_chunk=0, episode_index=e)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)
    episodes = [{"episode_index": e, "tasks": [TASKS[e % 2]], "length": n} for e, n in enumerate(lengths)]
    tasks = [{"task_index": i, "task": task} for i, task in enumerate(TASKS)]
    for name, entries in (("episodes", episodes), ("tasks", tasks)):
        (root / "meta" / f"{name}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def _write_v30(root: Path, tables: Sequence[dict], spans: Mapping, *, per_file: int) -> None:
    entries: list[dict[str, Any]] = []
    row = 0
    for e, columns in enumerate(tables):
        n = len(columns["index"])
        entry = {"episode_index": e, "tasks": [TASKS[e % 2]], "length": n, "data/chunk_index": 0, "data/file_index": e // per_file}
        entry |= {"dataset_from_index": row, "dataset_to_index": row + n}
        entry |= {f"videos/{camera}/{key}": value for (camera, of), span in spans.items() if of == e for key, value in span.items()}
        entries.append(entry | {"stats/action/mean": [0.5, 0.5]})
        row += n
    for file in range(0, len(tables), per_file):
        whole = pa.concat_tables([pa.table(columns) for columns in tables[file : file + per_file]])
        path = root / DATA_V30.format(chunk_index=0, file_index=file // per_file)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(whole, path, row_group_size=7)
    meta = root / "meta" / "episodes" / "chunk-000"
    meta.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(entries[:1]), meta / "file-000.parquet")
    pq.write_table(pa.Table.from_pylist(entries[1:]), meta / "file-001.parquet")
    pq.write_table(pa.table({"task_index": range(len(TASKS)), "task": TASKS}), root / "meta" / "tasks.parquet")
