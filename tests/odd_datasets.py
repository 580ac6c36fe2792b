"""Small LeRobot datasets in which every picture says the number of its row, and ways in which such datasets come out odd.

A picture is 4 x 8 squares: the bits of the row's number, then the same bits inverted, so that a picture that is no number of ours is known.
`state[:, 0]` is the row's number too: what reading gives can be compared frame by frame.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

SIDE, HEIGHT, WIDTH = 12, 48, 96
LENGTHS = (12, 9, 15)
FPS = 10
TASKS = ("stack the cubes", "close the lid")
CAMERA, SECOND = "observation.images.front", "observation.images.hand"
DATA = "data/chunk-000/file-000.parquet"
FILM = f"videos/{CAMERA}/chunk-000/file-000.mp4"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
ENTRY = f"videos/{CAMERA}"
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
Film = Callable[[Path, list[np.ndarray]], None]


def drawn(number: int) -> np.ndarray:
    """The picture that says this number."""
    bits = [(number >> bit) & 1 for bit in range(16)]
    squares = np.array([*bits, *(1 - bit for bit in bits)], np.uint8).reshape(4, 8)
    return np.where(squares, 210, 45).astype(np.uint8).repeat(SIDE, 0).repeat(SIDE, 1)[..., None].repeat(3, -1)


def said(image: np.ndarray) -> int | None:
    """The number that a picture says; None if it says none."""
    grey = np.asarray(image, float).mean(-1)
    squares = grey.reshape(4, SIDE, 8, SIDE).mean((1, 3)).reshape(-1) > 128
    number = sum(int(bit) << place for place, bit in enumerate(squares[:16]))
    return number if np.array_equal(squares[:16], ~squares[16:]) else None


def film(
    path: Path,
    images: Iterable[np.ndarray],
    *,
    fps: float = FPS,
    codec: str = "libx264",
    form: str = "mp4",
    options: Any = None,
    **more: Any,
) -> None:
    """A film with a picture every 1 / fps s. times: instead, the stamp of each in ms. first: pictures before the first stamp."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w", format=form, options=more.get("container", {})) as out:
        stream = out.add_stream(codec, rate=rate, options=options or {"g": "2", "crf": "16"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        tick = Fraction(1, 1000) if "times" in more else 1 / rate
        stream.codec_context.time_base = tick
        for place, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = int(more["times"][place]) if "times" in more else place + more.get("first", 0)
            frame.time_base = tick
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def numbers(lengths: Sequence[int] = LENGTHS) -> list[range]:
    """The rows of each episode."""
    starts = [sum(lengths[:place]) for place in range(len(lengths))]
    return [range(start, start + length) for start, length in zip(starts, lengths, strict=True)]


def table_of(episode: int, rows: range, *, fps: float = FPS, kind: str = "video") -> pa.Table:
    frame = np.arange(len(rows))
    state = np.stack([np.array(rows), np.sin(frame), np.cos(frame)], 1).astype(np.float32)
    columns: dict[str, Any] = {
        "observation.state": pa.FixedSizeListArray.from_arrays(pa.array(state.reshape(-1)), 3),
        "action": pa.FixedSizeListArray.from_arrays(pa.array(state[:, :2].reshape(-1)), 2),
        "timestamp": pa.array((frame / fps).astype(np.float32)),
        "frame_index": pa.array(frame.astype(np.int64)),
        "episode_index": pa.array(np.full(len(rows), episode, np.int64)),
        "index": pa.array(np.array(rows, np.int64)),
        "task_index": pa.array(np.full(len(rows), episode % 2, np.int64)),
    }
    if kind == "image":
        columns[CAMERA] = pa.array([{"bytes": png(drawn(row)), "path": None} for row in rows], PICTURE)
    return pa.table(columns)


def png(image: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, form, **options)
    return buffer.getvalue()


def info_of(version: str, lengths: Sequence[int], *, kind: str, cameras: Sequence[str], fps: float) -> dict[str, Any]:
    features: dict[str, Any] = {
        camera: {"dtype": kind, "shape": [HEIGHT, WIDTH, 3], "names": ["height", "width", "channels"]} for camera in cameras
    }
    if kind == "video":
        for camera in cameras:
            features[camera]["info"] = {"video.fps": fps, "video.codec": "h264", "video.pix_fmt": "yuv420p"}
    features |= {"observation.state": {"dtype": "float32", "shape": [3]}, "action": {"dtype": "float32", "shape": [2]}}
    features |= {"timestamp": {"dtype": "float32", "shape": [1]}}
    features |= {name: {"dtype": "int64", "shape": [1]} for name in ("frame_index", "episode_index", "index", "task_index")}
    data = "chunk-{chunk_index:03d}/file-{file_index:03d}" if version == "v3.0" else "chunk-{episode_chunk:03d}/episode_{episode_index:06d}"
    films = f"{{video_key}}/{data}" if version == "v3.0" else "chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}"
    return {
        "codebase_version": version, "robot_type": "arm", "fps": fps, "features": features, "chunks_size": 1000, "total_tasks": len(TASKS),
        "total_episodes": len(lengths), "total_frames": sum(lengths), "data_path": f"data/{data}.parquet",
        "video_path": f"videos/{films}.mp4" if kind == "video" else None,
    }  # fmt: skip


def v3(
    root: Path,
    lengths: Sequence[int] = LENGTHS,
    *,
    films: Film = film,
    kind: str = "video",
    files: Sequence[Sequence[int]] | None = None,
    cameras: Sequence[str] = (CAMERA,),
    fps: float = FPS,
) -> Path:
    """A v3.0 dataset. files: the episodes of each data file and film; all in one if not given."""
    rows, entries = numbers(lengths), {}
    for place, group in enumerate(files or [range(len(lengths))]):
        path = root / f"data/chunk-000/file-{place:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables([table_of(number, rows[number], fps=fps, kind=kind) for number in group]), path)
        at = 0
        for number in group:
            entries[number] = {
                "episode_index": number, "tasks": [TASKS[number % 2]], "length": lengths[number], "data/chunk_index": 0,
                "data/file_index": place, "dataset_from_index": rows[number].start, "dataset_to_index": rows[number].stop,
            }  # fmt: skip
            for camera in cameras if kind == "video" else ():
                span = {"chunk_index": 0, "file_index": place, "from_timestamp": at / fps, "to_timestamp": (at + lengths[number]) / fps}
                entries[number] |= {f"videos/{camera}/{name}": value for name, value in span.items()}
            at += lengths[number]
        for camera in cameras if kind == "video" else ():
            films(root / f"videos/{camera}/chunk-000/file-{place:03d}.mp4", [drawn(row) for number in group for row in rows[number]])
    (root / EPISODES).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([entries[number] for number in sorted(entries)]), root / EPISODES)
    pq.write_table(pa.table({"task_index": range(len(TASKS)), "task": TASKS}), root / "meta/tasks.parquet")
    save(root / "meta/stats.json", {"action": {"mean": [0.0, 0.0]}, "observation.state": {"mean": [0.0, 0.0, 0.0]}})
    save(root / "meta/info.json", info_of("v3.0", lengths, kind=kind, cameras=cameras, fps=fps))
    return root


def v21(root: Path, lengths: Sequence[int] = LENGTHS, *, films: Film = film, kind: str = "video", fps: float = FPS) -> Path:
    """A v2.1 dataset: files of its own for each episode."""
    for number, rows in enumerate(numbers(lengths)):
        path = data_v21(root, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table_of(number, rows, fps=fps, kind=kind), path)
        if kind == "video":
            films(film_v21(root, number), [drawn(row) for row in rows])
    entries = [{"episode_index": number, "tasks": [TASKS[number % 2]], "length": length} for number, length in enumerate(lengths)]
    save_lines(root / "meta/episodes.jsonl", entries)
    save_lines(root / "meta/tasks.jsonl", [{"task_index": number, "task": task} for number, task in enumerate(TASKS)])
    save(root / "meta/info.json", info_of("v2.1", lengths, kind=kind, cameras=[CAMERA], fps=fps))
    return root


def data_v21(root: Path, number: int) -> Path:
    return root / f"data/chunk-000/episode_{number:06d}.parquet"


def film_v21(root: Path, number: int) -> Path:
    return root / f"videos/chunk-000/{CAMERA}/episode_{number:06d}.mp4"


def save(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def save_lines(path: Path, entries: Iterable[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries), encoding="utf-8")


def edit_info(root: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((root / "meta/info.json").read_text(encoding="utf-8"))
    change(content)
    save(root / "meta/info.json", content)


def edit_entries(root: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    entries = pq.read_table(root / EPISODES).to_pylist()
    change(entries)
    pq.write_table(pa.Table.from_pylist(entries), root / EPISODES)


def edit_lines(path: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    save_lines(path, change([json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]))


def put(path: Path, name: str, values: Any, kind: pa.DataType | None = None, **writing: Any) -> None:
    """Set or add a column of a parquet file; a function makes it from the table."""
    table = pq.read_table(path)
    made = values(table) if callable(values) else values
    column = made if isinstance(made, pa.Array | pa.ChunkedArray) else pa.array(made, kind)
    place = table.schema.get_field_index(name)
    pq.write_table(table.append_column(name, column) if place < 0 else table.set_column(place, name, column), path, **writing)


def drop(path: Path, *names: str) -> None:
    pq.write_table(pq.read_table(path).drop_columns(list(names)), path)


def repacked(source: Path, target: Path, keep: Callable[[int], bool], *, earlier_s: float = 0.0) -> None:
    """Some packets of a film, undecoded, that much earlier."""
    with av.open(str(source)) as old, av.open(str(target), "w", format="mp4") as new:
        stream = old.streams.video[0]
        made, shift = new.add_stream_from_template(stream), round(earlier_s / stream.time_base)
        for place, packet in enumerate(packet for packet in old.demux(stream) if packet.size):
            if keep(place):
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, made
                new.mux(packet)


def turned(path: Path, matrix: Sequence[float]) -> None:
    """Write a turn into an mp4's track header: a, b, c, d of its matrix."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44
    a, b, c, d = (round(value * 65536) for value in matrix)
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(content))


def lost_bytes(path: Path, first: int, last: int) -> None:
    """Zeros over the pictures [first, last) of a film, its index left as it is."""
    with av.open(str(path)) as container:
        spots = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for position, size in spots[first:last]:
        content[position + 8 : position + size] = bytes(size - 8)
    path.write_bytes(bytes(content))


def zero_length(root: Path) -> Path:
    """Episode 2 of four has no frames."""
    v3(root)
    empty = {"episode_index": 2, "length": 0, "dataset_from_index": 21, "dataset_to_index": 21}
    empty |= {f"{ENTRY}/from_timestamp": 2.1, f"{ENTRY}/to_timestamp": 2.1}
    edit_entries(root, lambda rows: (rows[2].update(episode_index=3, tasks=[TASKS[0]]), rows.insert(2, {**rows[1], **empty})))
    put(root / DATA, "episode_index", [0] * 12 + [1] * 9 + [3] * 15)
    edit_info(root, lambda info: info.update(total_episodes=4))
    return root


def sixteen_bits(root: Path) -> Path:
    """A camera of distances: 16-bit PNGs of one channel, in rows."""
    v3(root, kind="image")
    made = [{"bytes": png(drawn(row)[..., 0].astype(np.uint16) * 16), "path": None} for row in range(sum(LENGTHS))]
    put(root / DATA, CAMERA, pa.array(made, PICTURE))
    edit_info(root, lambda info: info["features"][CAMERA].update(shape=[HEIGHT, WIDTH, 1]))
    return root
