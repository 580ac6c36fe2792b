"""Datasets as they are found: each kind of oddness, in several forms. Every picture says its row: right, or refused, and `info` says so.

Names are KIND or KIND/VARIATION. Where a kind was reported in public, the report is in the makers' words only; the inputs are our own.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from milepost.cli.entry import main
from milepost.core.errors import DataError, DataWarning, UnreadableError
from milepost.core.types import Episode
from milepost.datasets.reader import open_dataset
from milepost.datasets.validation import DatasetReport, validate
from odd_datasets import (
    CAMERA,
    DATA,
    ENTRY,
    FILM,
    FPS,
    LENGTHS,
    PICTURE,
    SECOND,
    TASKS,
    data_v21,
    drawn,
    drop,
    edit_entries,
    edit_info,
    edit_lines,
    film,
    film_v21,
    lost_bytes,
    png,
    put,
    repacked,
    said,
    save_lines,
    table_of,
    turned,
    v3,
    v21,
    zero_length,
)  # fmt: skip

Make = Callable[[Path], Any]


@dataclass(frozen=True)
class Case:
    """make: writes it. right: episodes whose pictures and rows are right. refused: those that are UnreadableErrors. info: what it says.

    warns: words of a DataWarning that reading must give; none are allowed if empty.
    """

    make: Make
    right: tuple[int, ...] = (0, 1, 2)
    refused: tuple[int, ...] = ()
    info: tuple[str, ...] = ()
    healthy: bool = True
    warns: str = ""


def entries(root: Path, change: Callable[[list[dict[str, Any]]], Any], **made: Any) -> None:
    edit_entries(v3(root, **made), change)


def spans(change: Callable[[dict[str, Any], int], Any], **made: Any) -> Make:
    """Every entry of a v3.0 dataset changed in turn."""
    return lambda root: entries(root, lambda rows: [change(row, place) for place, row in enumerate(rows)], **made)


def each(root: Path, change: Callable[[Path, int], Any]) -> None:
    for number in range(len(LENGTHS)):
        change(data_v21(root, number), number)


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def set_(where: dict[str, Any], key: str, value: Any) -> None:
    where[key] = value


# makers ---------------------------------------------------------------------------------------------------------------


def deleted_by_hand(root: Path, number: int = 1, *, total: bool = True) -> None:
    v21(root)
    data_v21(root, number).unlink()
    film_v21(root, number).unlink()
    edit_lines(root / "meta/episodes.jsonl", lambda lines: [line for line in lines if line["episode_index"] != number])
    if total:
        edit_info(root, lambda info: info.update(total_episodes=2, total_frames=sum(LENGTHS) - LENGTHS[number]))


def renumbered(root: Path, new: tuple[int, ...]) -> None:
    """v2.1 whose episodes have numbers of their own, in files named by them, ten thousand a folder."""
    v21(root)
    for old, number in reversed(list(enumerate(new))):
        for path, place in ((data_v21(root, old), "data"), (film_v21(root, old), f"videos/{CAMERA}")):
            target = root / place / f"part-{number // 10000}" / f"{number:08d}{path.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
            if path.suffix == ".parquet":
                put(target, "episode_index", lambda table, number=number: pa.array([number] * table.num_rows))
    edit_lines(root / "meta/episodes.jsonl", lambda lines: [{**line, "episode_index": new[line["episode_index"]]} for line in lines])
    data, films = "data/part-{episode_chunk}/{episode_index:08d}.parquet", "videos/{video_key}/part-{episode_chunk}/{episode_index:08d}.mp4"
    edit_info(root, lambda info: info.update(chunks_size=10000, data_path=data, video_path=films))


def drift(step: float, lengths: tuple[int, ...] = (6, 5, 7, 6, 8, 5)) -> Make:
    def change(entry: dict[str, Any], place: int) -> None:
        entry[f"{ENTRY}/from_timestamp"] += place * step / FPS
        entry[f"{ENTRY}/to_timestamp"] += (place + 1) * step / FPS

    return spans(change, lengths=lengths)


def fragments(path: Path, images: list[np.ndarray]) -> None:
    movflags = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    film(path, images, options={"g": "30", "bf": "2"}, container=movflags)


def cut_without_key(path: Path, images: list[np.ndarray]) -> None:
    """The first two pictures are cut away by packets, and with them the key frame that the next ones need."""
    whole = path.with_suffix(".whole.mp4")
    film(whole, [drawn(60000), drawn(60001), *images], options={"g": "6", "bf": "0", "crf": "16"})
    repacked(whole, path, lambda place: place >= 2, earlier_s=2 / FPS)
    whole.unlink()


def more(front: int = 0, back: int = 0) -> Callable[[Path, list[np.ndarray]], None]:
    return lambda path, images: film(path, [*map(drawn, range(50000, 50000 + front)), *images, *map(drawn, range(51000, 51000 + back))])


def fewer(first: int, last: int) -> Callable[[Path, list[np.ndarray]], None]:
    return lambda path, images: film(path, images[first : len(images) - last])


def late_after(root: Path, pictures: int, films: Any, first: int = 1) -> None:
    """From episode `first` on meta/'s times are that many pictures late."""

    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows[first:]:
            row[f"{ENTRY}/from_timestamp"] += pictures / FPS
            row[f"{ENTRY}/to_timestamp"] += pictures / FPS

    entries(root, change, films=films)


def deleted_and_renumbered(root: Path) -> None:
    """Episode 1 of three is taken out of meta/ and data and its number given to the last; the film is left as it was."""
    v3(root)
    table = pq.read_table(root / DATA)
    pq.write_table(table.filter(pa.compute.not_equal(table["episode_index"], 1)), root / DATA)
    put(root / DATA, "episode_index", [0] * 12 + [1] * 15)
    put(root / DATA, "index", list(range(27)))
    edit_entries(root, lambda rows: (rows.pop(1), rows[1].update(episode_index=1, dataset_from_index=12, dataset_to_index=27)))
    edit_info(root, lambda info: info.update(total_episodes=2, total_frames=27))


def films_at(*numbers: int, lengths: tuple[int, ...] = (9, 9, 9)) -> Make:
    """A film an episode; these are the numbers of the films that meta/ says."""
    return spans(lambda row, place: row.update({f"{ENTRY}/file_index": numbers[place]}), lengths=lengths, files=[[0], [1], [2]])


def cameras_exchanged(root: Path) -> None:
    """Two cameras of other sizes, each with the other's film."""
    v3(root, cameras=(CAMERA, SECOND))
    edit_info(root, lambda info: info["features"][SECOND].update(shape=[96, 192, 3]))
    large = [image.repeat(2, 0).repeat(2, 1) for image in map(drawn, range(36))]
    with av.open(str(root / FILM), "w") as out:
        stream = out.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = 96, 192, "yuv420p"
        for image in large:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode())


def hole(superfluous: float | None) -> Callable[[Path, list[np.ndarray]], None]:
    """Picture 4 is lost; there is another at the slot `superfluous`, or at the end."""

    def write(path: Path, images: list[np.ndarray]) -> None:
        slots = sorted([place for place in range(len(images)) if place != 4] + [len(images) if superfluous is None else superfluous])
        film(path, [images[min(round(slot), len(images) - 1)] for slot in slots], times=[round(slot * 100) for slot in slots])

    return write


def at_rate(fps: float) -> Callable[[Path, list[np.ndarray]], None]:
    return lambda path, images: film(path, images, fps=fps)


def clock(path: Path, images: list[np.ndarray]) -> None:
    """Stamped by a clock: every step a little different, the film as long as its rows."""
    film(path, images, times=(np.arange(len(images)) * 130 + np.random.default_rng(0).integers(0, 60, len(images))).tolist())


def clocked(root: Path, *, films: Any = film, make: Any = v21) -> None:
    make(root, films=films)
    times = lambda table: pa.array((np.arange(table.num_rows) * 0.137 + 0.021).astype(np.float32))  # noqa: E731
    each(root, lambda path, _: put(path, "timestamp", times))


def cells(make_cell: Callable[[int], Any], kind: pa.DataType = PICTURE, **feature: Any) -> Make:
    """Pictures in rows, each made anew from its row's number."""

    def make(root: Path) -> None:
        v3(root, kind="image")
        put(root / DATA, CAMERA, lambda table: pa.array([make_cell(row) for row in table["index"].to_pylist()], kind))
        edit_info(root, lambda info: info["features"][CAMERA].update(feature))

    return make


def on_its_side(number: int, orientation: int = 6) -> dict[str, Any]:
    """A JPEG stored turned, with the EXIF tag that turns it back."""
    jpeg = png(np.ascontiguousarray(np.rot90(drawn(number), {6: 1, 8: 3, 3: 2}[orientation])), "JPEG", quality=95)
    tag = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)
    return {"bytes": jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(tag) + 2) + tag + jpeg[2:], "path": None}


def depth(number: int) -> dict[str, Any]:
    return {"bytes": png(drawn(number)[..., 0].astype(np.uint16) * 16), "path": None}


def grey(number: int) -> dict[str, Any]:
    return {"bytes": png(drawn(number)[..., 0]), "path": None}


def coded(codec: str, name: str, **options: str) -> Make:
    def make(root: Path) -> None:
        v3(root, films=lambda path, images: film(path, images, codec=codec, options=options or None))
        edit_info(root, lambda info: info["features"][CAMERA]["info"].update({"video.codec": name}))

    return make


def in_files(root: Path, name: str, values: Any) -> None:
    v3(root)
    put(root / DATA, name, values)


def stale(root: Path) -> None:
    entries(root, lambda rows: rows[1].update({"data/file_index": 0}), files=[[0], [1, 2]])


def swapped_files(root: Path) -> None:
    entries(root, lambda rows: [row.update({"data/file_index": 2 - row["data/file_index"]}) for row in rows], files=[[0], [1], [2]])


def restarting(root: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows[1:]:
            row["dataset_from_index"] -= 12
            row["dataset_to_index"] -= 12

    entries(root, change, files=[[0], [1, 2]])


def lists_of_one(root: Path) -> None:
    v3(root)
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        put(root / DATA, name, lambda table, name=name: pa.FixedSizeListArray.from_arrays(table[name].combine_chunks(), 1))


def like_groot(root: Path) -> None:
    """No `frame_index`, no `index`; the first row is stamped one frame late."""
    v21(root)
    for number in range(len(LENGTHS)):
        drop(data_v21(root, number), "frame_index", "index")
        put(data_v21(root, number), "timestamp", lambda table: pa.array((np.arange(1, table.num_rows + 1) / FPS).astype(np.float32)))
    edit_info(root, lambda info: [info["features"].pop(name) for name in ("frame_index", "index")])
    edit_info(root, lambda info: info.update(codebase_version="v2.0"))


def without_places(root: Path) -> None:
    v3(root, cameras=(CAMERA, SECOND))
    edit_entries(root, lambda rows: [set_(rows[2], key, None) for key in list(rows[2]) if key.startswith(f"videos/{CAMERA}/")])


def line_separators(root: Path) -> None:
    v21(root)
    words = ("stack\u2028the cubes", "close\x85the lid")
    save_lines(root / "meta/tasks.jsonl", [{"task_index": number, "task": word} for number, word in enumerate(words)])
    edit_lines(root / "meta/episodes.jsonl", lambda lines: [{**line, "tasks": [words[line["episode_index"] % 2]]} for line in lines])


def named_index(root: Path) -> None:
    v3(root)
    notes = {"index_columns": ["words"], "columns": [], "column_indexes": [], "pandas_version": "2.3"}
    table = pa.table({"task_index": [0, 1], "words": TASKS}).replace_schema_metadata({"pandas": json.dumps(notes)})
    pq.write_table(table, root / "meta/tasks.parquet")


def several_tasks(root: Path) -> None:
    v3(root)
    put(root / DATA, "task_index", [0] * 6 + [1] * 6 + [1] * 9 + [0] * 15)
    edit_entries(root, lambda rows: rows[0].update(tasks=list(TASKS)))


def camera_first(root: Path) -> None:
    v3(root)
    edit_info(root, lambda info: info["features"][CAMERA].update(shape=[3, 48, 96], names=["rgb", "height", "width"]))


def wide_state(root: Path) -> None:
    v3(root, files=[[0], [1, 2]])
    wide = lambda table: pa.array(  # noqa: E731
        [[*row, 0.0] for row in table["observation.state"].to_pylist()], pa.list_(pa.float32(), 4)
    )
    put(root / "data/chunk-000/file-001.parquet", "observation.state", wide)


def empty_file(root: Path) -> None:
    v3(root)
    pq.write_table(table_of(0, range(1)).slice(0, 0), root / "data/chunk-000/file-001.parquet")


def rotated(root: Path, matrix: tuple[float, ...] = (0, 1, -1, 0)) -> None:
    v3(root)
    turned(root / FILM, matrix)


BLACK = np.zeros_like(drawn(0))
CASES: dict[str, Case] = {
    "sound": Case(v3),
    "sound/v2.1": Case(v21),
    "sound/a film an episode": Case(lambda root: v3(root, files=[[0], [1], [2]])),
    # 1. rows are found by what the data say
    "stale file index": Case(stale, info=("places warning",), warns="misplaces the rows of 1 episode, first of episode 1"),
    "stale file index/all wrong": Case(swapped_files, info=("places warning",), warns="misplaces the rows of 2 episodes"),
    "merged file index": Case(
        lambda root: entries(root, lambda rows: rows[2].update({"data/file_index": 1})), info=("places warning",), warns="of episode 2"
    ),
    "merged file index/chunk": Case(
        spans(lambda row, _: row.update({"data/chunk_index": 3})), info=("places warning",), warns="misplaces the rows of 3 episodes"
    ),
    "float places with NaN": Case(
        spans(lambda row, place: row.update({"data/file_index": float("nan") if place == 1 else 0.0})),
        info=("data-place warning", "places warning"),
        warns="nowhere by meta/",
    ),
    "no places at all": Case(
        spans(lambda row, _: [row.pop(key) for key in list(row) if key.startswith("data/")]),
        info=("data-place warning", "places warning"),
        warns="nowhere by meta/",
    ),
    "restarting rows": Case(restarting, info=("episode-rows error", "places warning"), healthy=False, warns="'index' counts without fault"),
    "restarting rows/null": Case(
        spans(lambda row, _: row.update(dataset_from_index=None, dataset_to_index=None)), info=("episode-rows error",), healthy=False
    ),
    "deleted by hand": Case(deleted_by_hand, right=(0, 2), info=("episode-numbers note", "places warning"), warns="'index' counts"),
    "deleted by hand/the first": Case(
        lambda root: deleted_by_hand(root, 0), right=(1, 2), info=("episode-numbers note",), warns="'index' counts"
    ),
    "deleted by hand/total kept": Case(
        lambda root: deleted_by_hand(root, total=False), right=(0, 2), info=("totals error",), healthy=False, warns="info.json counts 3"
    ),
    "numbers by task": Case(lambda root: renumbered(root, (10, 20, 10010)), right=(10, 20, 10010), info=("episode-numbers note",)),
    "index restarts": Case(
        lambda root: each(v21(root), lambda path, _: put(path, "index", lambda table: table["frame_index"])),
        info=("places warning",),
        warns="counted by position",
    ),
    "index restarts/per file": Case(
        lambda root: [
            v3(root, files=[[0], [1, 2]]),
            put(root / "data/chunk-000/file-001.parquet", "index", np.arange(24), pa.int64()),
        ],
        info=("places warning",),
        warns="counted by position",
    ),
    "index restarts/missing": Case(
        lambda root: each(v21(root), lambda path, _: drop(path, "index")), info=("columns error",), healthy=False, warns="no column 'index'"
    ),
    "index as floats": Case(lambda root: in_files(root, "index", np.arange(36.0)), info=("column-types warning",)),
    "like GR00T": Case(like_groot, info=("version note", "columns warning", "timestamp error"), healthy=False, warns="no column"),
    "lists of one": Case(lists_of_one, info=("column-types error",), healthy=False),
    "length missing": Case(spans(lambda row, _: row.pop("length"))),
    "stray rows": Case(
        lambda root: [
            entries(root, lambda rows: rows.pop()),
            edit_info(root, lambda info: info.update(total_episodes=2, total_frames=21)),
        ],
        right=(0, 1),
        info=("stray-rows error",),
        healthy=False,
    ),
    # one bad episode does not stop the others
    "zero length": Case(zero_length, right=(0, 1, 3), refused=(2,), info=("no-frames error",), healthy=False),
    "length of 1e12": Case(
        lambda root: entries(root, lambda rows: rows[1].update(length=10**12)),
        right=(0, 2),
        refused=(1,),
        info=("episodes error",),
        healthy=False,
    ),
    "a missing film": Case(
        lambda root: film_v21(v21(root), 1).unlink(), right=(0, 2), refused=(1,), info=("video-file error",), healthy=False
    ),
    "a folder for a film": Case(
        lambda root: [v21(root), film_v21(root, 1).unlink(), film_v21(root, 1).mkdir()],
        right=(0, 2),
        refused=(1,),
        info=("video-file error",),
        healthy=False,
    ),
    "a pipe for a data file": Case(
        lambda root: [v21(root), data_v21(root, 1).unlink(), os.mkfifo(data_v21(root, 1))],
        right=(0, 2),
        refused=(1,),
        info=("data-file error",),
        healthy=False,
    ),
    "camera place null": Case(without_places, right=(0, 1), refused=(2,), info=("episodes error",), healthy=False),
    "from_timestamp NaN": Case(
        spans(lambda row, place: place == 1 and row.update({f"{ENTRY}/from_timestamp": float("nan")})),
        right=(0, 2),
        refused=(1,),
        info=("episodes error",),
        healthy=False,
    ),
    "from_timestamp NaN/last": Case(
        spans(lambda row, place: place == 2 and row.update({f"{ENTRY}/from_timestamp": None})),
        right=(0, 1),
        refused=(2,),
        info=("episodes error",),
        healthy=False,
    ),
    "to_timestamp null": Case(spans(lambda row, _: row.update({f"{ENTRY}/to_timestamp": None}))),
    "to_timestamp zero": Case(spans(lambda row, _: row.update({f"{ENTRY}/to_timestamp": 0.0}))),
    # 2. never a wrong picture
    "drift up": Case(drift(0.4), right=(0,), refused=(1, 2, 3, 4, 5), info=("video-span error",), healthy=False),
    "drift down": Case(drift(-0.4), right=(0,), refused=(1, 2, 3, 4, 5), info=("video-overlap error",), healthy=False),
    "drift slow": Case(drift(0.08, (3,) * 14), right=(0, 1), refused=tuple(range(2, 14)), info=("video-span error",), healthy=False),
    "one start is wrong": Case(
        spans(lambda row, place: place == 1 and row.update({f"{ENTRY}/from_timestamp": 99.0, f"{ENTRY}/to_timestamp": 99.9})),
        right=(0, 2),
        refused=(1,),
        info=("video-span error",),
        healthy=False,
    ),
    "late start": Case(lambda root: v3(root, films=fragments), info=("video-start warning",), warns="stamped 0.2000 s"),
    "late start/v2.1": Case(lambda root: v21(root, films=fragments), info=("video-start warning",), warns="time is counted from there"),
    "late start/moved": Case(
        lambda root: v3(root, films=lambda path, images: film(path, images, first=7, container={"movflags": "frag_keyframe+empty_moov"})),
        info=("video-start warning",),
        warns="time is counted from there",
    ),
    "transport stream": Case(
        lambda root: v3(root, films=lambda path, images: film(path, images, form="mpegts")), info=("video-start warning",), warns="counted"
    ),
    "raw stream": Case(
        lambda root: v3(root, films=lambda path, images: film(path, images, form="h264")),
        right=(),
        refused=(0, 1, 2),
        info=("video-file error",),
        healthy=False,
    ),
    "more pictures": Case(
        lambda root: v3(root, films=more(front=3)), right=(), refused=(0, 1, 2), info=("video-more error",), healthy=False
    ),
    "more pictures/behind": Case(
        lambda root: v3(root, films=more(back=1)), right=(), refused=(0, 1, 2), info=("video-more error",), healthy=False
    ),
    "one more, v2.1": Case(
        lambda root: v21(root, films=more(front=1)), right=(), refused=(0, 1, 2), info=("video-more error",), healthy=False
    ),
    "late by spare pictures": Case(
        lambda root: late_after(root, 1, more(back=1)), right=(), refused=(0, 1, 2), info=("video-span error",), healthy=False
    ),
    "late by spare pictures/three": Case(
        lambda root: late_after(root, 3, more(back=3)), right=(), refused=(0, 1, 2), info=("video-span error",), healthy=False
    ),
    "late by spare pictures/all": Case(
        lambda root: late_after(root, 1, more(back=1), first=0), right=(), refused=(0, 1, 2), info=("video-span error",), healthy=False
    ),
    "late by spare pictures/the last": Case(
        lambda root: late_after(root, 2, more(back=2), first=2), right=(), refused=(0, 1, 2), info=("video-span error",), healthy=False
    ),
    "early by one": Case(
        lambda root: late_after(root, -1, film), right=(0,), refused=(1, 2), info=("video-overlap error",), healthy=False
    ),
    "early by one/a spare in front": Case(
        lambda root: late_after(root, 1, more(front=2), first=0), right=(), refused=(0, 1, 2), info=("video-more error",), healthy=False
    ),
    "renumbered after deleting": Case(deleted_and_renumbered, right=(0, 1), info=("video-spare warning",), warns="9 pictures"),
    "film numbers/too high": Case(
        films_at(1, 2, 2), right=(), refused=(0, 1, 2), info=("video-choice error",), healthy=False
    ),
    "film numbers/too high, one missing": Case(films_at(1, 2, 3), right=(), refused=(0, 1, 2), info=("video-choice error",), healthy=False),
    "film numbers/too low": Case(films_at(-1, 0, 1), right=(), refused=(0, 1, 2), info=("video-choice error",), healthy=False),
    "film numbers/too low, from zero": Case(films_at(0, 0, 1), right=(), refused=(0, 1, 2), info=("video-choice error",), healthy=False),
    "film numbers/one is far off": Case(
        films_at(0, 1, 7), right=(0, 1), refused=(2,), info=("video-choice error",), healthy=False, warns="belongs to no episode"
    ),
    "film numbers/one is stale": Case(
        films_at(0, 0, 2), right=(2,), refused=(0, 1), info=("video-choice error",), healthy=False, warns="belongs to no episode"
    ),
    "film numbers/of its own length": Case(  # no other film has as many pictures
        films_at(0, 1, 7, lengths=(9, 8, 7)), right=(0, 1), refused=(2,), info=("video-choice error", "video-file error"), healthy=False,
        warns="belongs to no episode",
    ),
    "film numbers/two exchanged": Case(films_at(1, 0, 2), right=(2,), info=("video-order warning",), warns="an earlier film"),
    "film numbers/two exchanged, other lengths": Case(
        films_at(1, 0, 2, lengths=(9, 8, 7)), right=(2,), refused=(0, 1), info=("video-more error", "video-short error"), healthy=False
    ),
    "a film of nobody": Case(
        lambda root: film(v3(root) / FILM.replace("file-000", "file-004"), [drawn(3)] * 5), info=("stray-film warning",), warns="no episode"
    ),
    "films in another order": Case(
        lambda root: v3(root, files=[[2, 0], [1]]), info=("video-order warning",), warns="not in the order of their numbers"
    ),
    "episodes in another order": Case(  # right here; no count could tell if meta/ were wrong
        lambda root: v3(root, files=[[2, 0, 1]]), info=("video-order warning",), warns="not in the order of their numbers"
    ),
    "a copy of another film": Case(
        lambda root: shutil.copy(film_v21(v21(root, (9, 9, 9)), 1), film_v21(root, 2)),
        right=(0, 1),
        info=("video-copy warning",),
        warns="episode_000001.mp4 and",
    ),
    "cameras exchanged": Case(cameras_exchanged, right=(), refused=(0, 1, 2), info=("video-size error",), healthy=False),
    "missing and superfluous": Case(
        lambda root: v21(root, films=hole(superfluous=6.5)), right=(), refused=(0, 1, 2), info=("video-times error",), healthy=False
    ),
    "a hole": Case(  # or a pause of the camera: nothing tells
        lambda root: v21(root, films=hole(superfluous=None)),
        right=(),
        info=("video-pause warning", "video-fps error"),
        healthy=False,
        warns="the film pauses 1.0 pictures long before frame 4",
    ),
    "one fewer": Case(
        lambda root: v21(root, films=fewer(1, 0)), right=(), refused=(0, 1, 2), info=("video-short error",), healthy=False
    ),
    "one fewer/v3.0": Case(
        lambda root: v3(root, films=fewer(0, 1)), right=(), refused=(0, 1, 2), info=("video-short error",), healthy=False
    ),
    "29.97 for 30": Case(
        lambda root: v3(root, (400, 300, 200), films=at_rate(30000 / 1001), fps=30), info=("video-fps error",), healthy=False
    ),
    "29.97 for 30/v2.1": Case(
        lambda root: v21(root, (700, 5, 6), films=at_rate(30000 / 1001), fps=30), info=("video-fps error",), healthy=False
    ),
    "film of three times the rate": Case(
        lambda root: v21(root, films=lambda path, images: film(path, [image for one in images for image in (one,) * 3], fps=3 * FPS)),
        info=("video-fps error",),
        healthy=False,
    ),
    "real clock": Case(clocked, info=("timestamp error",), healthy=False, warns="position decides"),
    "real clock/film too": Case(
        lambda root: clocked(root, films=clock), info=("timestamp error", "video-fps error"), healthy=False, warns="position decides"
    ),
    "first pictures lost": Case(
        lambda root: v21(root, films=cut_without_key), right=(0,), refused=(1, 2), info=("video-damaged error",), healthy=False
    ),
    "damaged middle": Case(
        lambda root: [v3(root, (60, 40, 5), films=lambda p, i: film(p, i, options={"g": "2", "bf": "0"})), lost_bytes(root / FILM, 25, 35)],
        right=(1, 2),
        refused=(0,),
        info=("video-damaged error",),
        healthy=False,
    ),
    "intra refresh": Case(coded("libx264", "h264", **{"x264-params": "intra-refresh=1:keyint=8"})),
    "intra refresh/hevc": Case(coded("libx265", "hevc", **{"x265-params": "log-level=none:intra-refresh=1:keyint=8:bframes=0"})),
    "mpeg4 called mp4v": Case(coded("mpeg4", "mp4v", g="2")),
    "EXIF": Case(cells(on_its_side)),
    "EXIF/other turns": Case(cells(lambda number: on_its_side(number, (3, 8)[number % 2]))),
    "black": Case(lambda root: v21(root, films=lambda path, images: film(path, [BLACK] * len(images))), right=(), info=("black warning",)),
    # 3. info compares columns
    "extra column": Case(lambda root: in_files(root, "note", np.arange(36.0)), info=("columns error",), healthy=False),
    "extra column/text": Case(lambda root: in_files(root, "words", ["hm"] * 36), info=("columns error",), healthy=False),
    "state width": Case(wide_state, info=("column-types error",), healthy=False),
    "action is text": Case(lambda root: in_files(root, "action", ["left"] * 36), info=("column-types error", "columns error"), healthy=False),  # noqa: E501
    "action in doubles": Case(
        lambda root: in_files(root, "action", pa.array([[0.0, 1.0]] * 36, pa.list_(pa.float64(), 2))), info=("column-types warning",)
    ),
    "unfinished file": Case(
        lambda root: (v3(root) / "data/chunk-000/file-001.parquet").write_bytes(b"PAR1" + bytes(90)), info=("stray-file error",), healthy=False  # noqa: E501
    ),
    "unfinished file/no byte": Case(
        lambda root: (v3(root) / "data/chunk-000/file-001.parquet").write_bytes(b""), info=("stray-file error",), healthy=False
    ),
    "empty file": Case(empty_file, info=("empty-file error",), healthy=False),
    "rgb first": Case(camera_first),
    "task as string": Case(spans(lambda row, _: row.update(tasks=row["tasks"][0]))),
    # 4. columns nobody asked for
    "null vectors": Case(
        lambda root: in_files(root, "force", [[1.0, 2.0] if row % 2 else None for row in range(36)]),
        info=("columns error",),
        healthy=False,
        warns="holds lists of lengths",
    ),
    "ragged": Case(
        lambda root: in_files(root, "touch", [[0.0] * (row % 3) for row in range(36)]), info=("columns error",), healthy=False, warns="left out"  # noqa: E501
    ),
    "nested": Case(lambda root: in_files(root, "box", [{"a": 1}] * 36), info=("columns error",), healthy=False),
    # 6. other ways to write the same
    "binary cells": Case(cells(lambda number: png(drawn(number)), pa.binary())),
    "large binary cells": Case(cells(lambda number: png(drawn(number)), pa.large_binary())),
    "list cells": Case(cells(lambda number: drawn(number).tolist(), pa.list_(pa.list_(pa.list_(pa.uint8()))))),
    "list cells/channels first": Case(cells(lambda number: np.moveaxis(drawn(number), -1, 0).tolist(), pa.list_(pa.list_(pa.list_(pa.int64()))))),  # noqa: E501
    "grey cells": Case(cells(grey, shape=[48, 96, 1])),
    "v3.1": Case(lambda root: edit_info(v3(root), lambda info: info.update(codebase_version="v3.1")), info=("version note",)),
    "3.0": Case(lambda root: edit_info(v3(root), lambda info: info.update(codebase_version="3.0")), info=("version note",)),
    "v2.0": Case(lambda root: edit_info(v21(root), lambda info: info.update(codebase_version="v2.0")), info=("version note",)),
    "no paths": Case(
        lambda root: edit_info(v3(root), lambda info: [info.pop(key) for key in ("data_path", "video_path", "chunks_size")]),
        info=("info note",),
    ),
    "no paths/v2.1": Case(
        lambda root: edit_info(v21(root), lambda info: [info.pop(key) for key in ("data_path", "video_path", "chunks_size")]),
        info=("info note",),
    ),
    "line separators": Case(line_separators),
    "named index": Case(named_index),
    "several tasks": Case(several_tasks, info=("several-tasks note",), warns="has several tasks"),
    "uncompressed": Case(lambda root: put(v3(root) / DATA, "index", lambda table: table["index"], compression="NONE")),
    "a bad line": Case(
        lambda root: append(v21(root) / "meta/episodes.jsonl", '{"episode_index": 3, "len'),
        info=("episodes error",),
        healthy=False,
        warns="line 4",
    ),
}  # fmt: skip


def read(root: Path) -> tuple[list[int], list[int], list[str], list[Episode]]:
    """Episodes whose every picture and row is right, those refused when their pictures are asked for, the warnings, what was read."""
    right, refused, whole, messages = [], [], [], []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = open_dataset(root)
        for number in dataset.episode_indices:
            try:
                episode = dataset.episode(number)
                pictures = np.concatenate([*episode.camera(CAMERA).chunks(7)])
                last = episode.camera(CAMERA)[np.array([len(episode) - 1, 0])]
            except UnreadableError as error:
                refused.append(number)
                messages.append(str(error))
                continue
            whole.append(episode)
            rows = episode.state[:, 0].astype(int).tolist()
            assert dataset.row_range(number) == (episode.row, episode.row + len(episode))
            fine = [said(picture) for picture in pictures] == rows and [said(picture) for picture in last] == [rows[-1], rows[0]]
            right += [number] if fine else []
    assert all(message.isprintable() and len(message) < 600 for message in messages), messages
    return right, refused, [str(one.message) for one in caught if isinstance(one.message, DataWarning)], whole


def codes(report: DatasetReport) -> set[str]:
    return {f"{finding.code} {finding.severity}" for finding in report.findings}


@pytest.mark.parametrize("name", CASES)
def test_right_or_refused_and_info_says_so(name: str, tmp_path: Path) -> None:
    case, root = CASES[name], tmp_path / "set"
    case.make(root)
    right, refused, warned, _ = read(root)
    assert (tuple(right), tuple(refused)) == (case.right, case.refused), warned
    assert any(case.warns in words for words in warned) if case.warns else not warned, warned
    report = validate(root)
    assert set(case.info) <= codes(report), report.findings
    assert report.healthy == case.healthy, report.findings
    if not case.info:
        assert not report.findings


# what the table above does not say ------------------------------------------------------------------------------------


def unreadable(root: Path, number: int = 0) -> str:
    """Why the pictures of an episode are refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        episode = open_dataset(root).episode(number)
    with pytest.raises(UnreadableError) as caught:
        list(episode.camera(CAMERA).chunks())
    return str(caught.value)


def test_rows_are_numbered_by_the_data_where_their_numbers_are_sound(tmp_path: Path) -> None:
    deleted_by_hand(tmp_path / "gap")
    each(v21(tmp_path / "restarts"), lambda path, _: put(path, "index", lambda table: table["frame_index"]))
    assert [(episode.index, episode.row) for episode in read(tmp_path / "gap")[3]] == [(0, 0), (2, 21)]
    assert [episode.row for episode in read(tmp_path / "restarts")[3]] == [0, 12, 21]


def test_a_column_nobody_asked_for_is_left_out_and_the_others_stay(tmp_path: Path) -> None:
    in_files(tmp_path, "force", [[1.0, 2.0] if row % 2 else None for row in range(36)])
    with pytest.warns(DataWarning, match="force.* holds lists of lengths missing, 2"):
        episode = open_dataset(tmp_path)[1]
    assert set(episode.columns) == {"action", "timestamp"}
    assert not read(v3(tmp_path / "whole"))[2]


def test_state_and_action_must_be_numbers_of_one_width(tmp_path: Path) -> None:
    in_files(tmp_path, "observation.state", [[0.0] * (1 + row % 2) for row in range(36)])
    with pytest.raises(UnreadableError, match=r"observation\.state' holds lists of lengths 1, 2"):
        open_dataset(tmp_path)[0]


def test_each_frame_keeps_its_task(tmp_path: Path) -> None:
    several_tasks(tmp_path)
    with pytest.warns(DataWarning, match="episode 0 has several tasks"):
        episode = open_dataset(tmp_path)[0]
    assert episode.task == TASKS[0]
    assert [(part.name, part.start, part.stop) for part in episode.instructions] == [(TASKS[0], 0, 6), (TASKS[1], 6, 12)]
    assert open_dataset(tmp_path)[1].instructions == ()


def test_words_are_read_whole(tmp_path: Path) -> None:
    line_separators(tmp_path / "lines")
    named_index(tmp_path / "index")
    assert open_dataset(tmp_path / "lines").tasks == ("stack\u2028the cubes", "close\x85the lid")
    assert open_dataset(tmp_path / "index").tasks == TASKS
    entries(tmp_path / "string", lambda rows: [row.update(tasks=row["tasks"][0]) for row in rows])
    assert open_dataset(tmp_path / "string").task_of(1) == TASKS[1]


def test_the_size_of_a_camera_is_where_its_names_say(tmp_path: Path) -> None:
    camera_first(tmp_path)
    assert open_dataset(tmp_path).image_size(CAMERA) == (48, 96)


@pytest.mark.parametrize(("matrix", "quarters"), [((0, 1, -1, 0), 3), ((0, -1, 1, 0), 1), ((-1, 0, 0, -1), 2)])
def test_a_film_is_turned_as_its_track_says(tmp_path: Path, matrix: tuple[float, ...], quarters: int) -> None:
    """A track that says "turn by a quarter, with the clock" is what a phone held upright writes."""
    rotated(tmp_path, matrix)
    image = open_dataset(tmp_path)[0].camera(CAMERA)[np.array([4])][0]
    assert image.shape == ((96, 48, 3) if quarters % 2 else (48, 96, 3))
    assert said(np.rot90(image, -quarters)) == 4
    report = validate(tmp_path)
    assert codes(report) == ({"video-turned warning"} if quarters % 2 else set())
    assert open_dataset(tmp_path)[0].camera(CAMERA)[np.array([], np.int64)].shape == (0, *image.shape)


def test_depth_is_no_camera_unless_it_is_asked_for(tmp_path: Path) -> None:
    cells(depth, shape=[48, 96, 1])(tmp_path)
    assert open_dataset(tmp_path).cameras == ()
    assert codes(validate(tmp_path)) == {"depth note"}
    image = open_dataset(tmp_path, cameras=[CAMERA])[0].camera(CAMERA)[np.array([3])][0]
    stored = drawn(3).astype(int) * 16
    np.testing.assert_array_equal(image, stored * 255 // 65535)


def test_sixteen_bits_told_as_colours_are_refused_and_never_clipped(tmp_path: Path) -> None:
    cells(depth)(tmp_path)
    assert "more than 8 bits a channel" in unreadable(tmp_path)
    assert "picture-damaged error" in codes(validate(tmp_path))


def test_colours_by_the_films_own_matrix(tmp_path: Path) -> None:
    """Red (220, 40, 30) in BT.709 is Y 63, Cb 103, Cr 198 or so; by BT.601's matrix it would come out as (204, 22, 31)."""
    import av

    def tagged(path: Path, images: list[np.ndarray]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as out:
            stream = out.add_stream("libx264", rate=FPS, options={"g": "2", "crf": "4"})
            stream.height, stream.width, stream.pix_fmt = 48, 96, "yuv420p"
            stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1
            for place, _ in enumerate(images):
                frame = av.VideoFrame(96, 48, "yuv420p")
                for plane, value in zip(frame.planes, (63, 110, 211), strict=True):
                    plane.update(bytes([value]) * plane.buffer_size)
                frame.pts, frame.colorspace, frame.color_range = place, 1, 1
                out.mux(stream.encode(frame))
            out.mux(stream.encode())

    v3(tmp_path, (4, 3, 2), films=tagged)
    red = open_dataset(tmp_path)[0].camera(CAMERA)[np.array([2])][0, 20, 20].astype(float)
    luma, blue, red_ = (63 - 16) * 255 / 219, (110 - 128) * 255 / 224, (211 - 128) * 255 / 224
    wanted = [luma + 1.5748 * red_, luma - 0.1873 * blue - 0.4681 * red_, luma + 1.8556 * blue]
    np.testing.assert_allclose(red, np.clip(wanted, 0, 255), atol=3)


def test_pictures_black_or_damaged_in_the_middle_are_found_by_looking_at_all(tmp_path: Path) -> None:
    v3(tmp_path, (60, 40, 5), films=lambda path, images: film(path, images, options={"g": "2", "bf": "0"}))
    lost_bytes(tmp_path / FILM, 10, 14)
    assert validate(tmp_path).healthy, "neither first, middle nor last"
    assert {(f.code, f.episode) for f in validate(tmp_path, deep=True).findings} == {("video-damaged", 0)}
    assert validate(tmp_path, quick=True).healthy
    assert main(["info", str(tmp_path), "--deep"]) == 1
    with pytest.raises(ValueError, match="exclude each other"):
        validate(tmp_path, quick=True, deep=True)


def test_one_line_for_many_files(tmp_path: Path) -> None:
    v21(tmp_path, films=lambda path, images: film(path, images, codec="mpeg4", options={"g": "2"}))
    findings = validate(tmp_path).findings
    assert [(f.code, f.severity) for f in findings] == [("video-codec", "warning")]
    assert findings[0].message.endswith("is mpeg4, info.json says h264, and 2 more")


def test_colons_in_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    v3(tmp_path / "run12:30:05")
    monkeypatch.chdir(tmp_path)
    assert main(["info", "run12:30:05"]) == 0
    assert read(Path("run12:30:05"))[0] == [0, 1, 2]


# messages, limits and paths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [b"\x89PNG\r\n\x1a\nno picture at all" * 9, b"\xff\xd8\xff\xe1" + bytes(50), b""])
def test_no_message_shows_what_is_in_a_cell(tmp_path: Path, cell: bytes) -> None:
    cells(lambda _: cell, pa.binary())(tmp_path)
    message = unreadable(tmp_path)
    assert "cannot be read" in message
    assert "PNG" not in message
    assert "\\x" not in message


def test_a_picture_of_implausible_size_is_not_decoded(tmp_path: Path) -> None:
    huge = io.BytesIO()
    import PIL.Image

    PIL.Image.new("1", (13300, 13300)).save(huge, "PNG")
    cells(lambda _: {"bytes": huge.getvalue(), "path": None})(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of it, and goes on
        assert "is 13300 x 13300: at most 50 million pixels" in unreadable(tmp_path)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "images/../../secret.png"])
def test_a_row_names_no_picture_outside_the_dataset(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.png").write_bytes(png(drawn(0)))
    cells(lambda _: {"bytes": None, "path": name})(tmp_path / "set")
    assert "does not stay inside its folder" in unreadable(tmp_path / "set")


@pytest.mark.parametrize(
    "template",
    ["../{chunk_index}.mp4", "/elsewhere/{file_index}.mp4", "{chunk_index:>3000000000}", "{chunk_index.__class__}", "{0}", "{nothing}", "{", "{video_key:03d}"],  # noqa: E501
)  # fmt: skip
def test_path_templates_are_plain(tmp_path: Path, template: str) -> None:
    edit_info(v3(tmp_path), lambda info: info.update(video_path=template))
    assert len(unreadable(tmp_path)) < 400
    assert not validate(tmp_path).healthy
    edit_info(tmp_path, lambda info: info.update(data_path=template, video_path=None))
    with pytest.warns(DataWarning, match="nowhere by meta/"):
        assert open_dataset(tmp_path)[2].row == 21


def test_a_link_to_a_film_elsewhere_is_refused_and_a_linked_folder_followed(tmp_path: Path) -> None:
    v3(tmp_path / "set")
    shutil.move(tmp_path / "set" / FILM, tmp_path / "elsewhere.mp4")
    (tmp_path / "set" / FILM).symlink_to(tmp_path / "elsewhere.mp4")
    assert "is a link to a file outside the dataset" in unreadable(tmp_path / "set")
    assert "video-file error" in codes(validate(tmp_path / "set"))
    v3(tmp_path / "other")
    shutil.move(tmp_path / "other/videos" / CAMERA, tmp_path / "disk")
    (tmp_path / "other/videos" / CAMERA).symlink_to(tmp_path / "disk")
    assert read(tmp_path / "other")[0] == [0, 1, 2]


def test_links_inside_a_copy_of_the_hubs_cache_are_its_own(tmp_path: Path) -> None:
    snapshot = v3(tmp_path / "datasets--me--set/snapshots/abc")
    blob = tmp_path / "datasets--me--set/blobs/123"
    blob.parent.mkdir()
    shutil.move(snapshot / FILM, blob)
    (snapshot / FILM).symlink_to(blob)
    assert read(snapshot)[0] == [0, 1, 2]


@pytest.mark.parametrize("fps", [float("nan"), float("inf"), 1e300, -1, 0, "ten", None, True, [30]])
def test_impossible_rates_are_refused_in_words(tmp_path: Path, fps: Any) -> None:
    edit_info(v3(tmp_path), lambda info: info.update(fps=fps))
    with pytest.raises(DataError, match=r"meta/info\.json: .*fps"):
        open_dataset(tmp_path)
    assert not validate(tmp_path).healthy


def test_two_columns_of_one_name_are_refused_in_words(tmp_path: Path) -> None:
    v3(tmp_path)
    table = pq.read_table(tmp_path / DATA)
    pq.write_table(pa.table([*table.columns, table["action"]], names=[*table.column_names, "action"]), tmp_path / DATA)
    with pytest.raises(UnreadableError, match="two columns of the name 'action'"):
        open_dataset(tmp_path)[0]
    assert "data-file error" in codes(validate(tmp_path))


def test_a_hundred_thousand_episodes_too_many_are_not_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milepost.datasets.parquet.MOST_ROWS", 20)
    v3(tmp_path)
    with pytest.raises(UnreadableError, match="has 36 rows in one place; at most 20"):
        open_dataset(tmp_path)[0]
