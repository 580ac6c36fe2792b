"""Reads a folder of videos and a CSV with one row per episode: file, task, and where they are known success and a state file.

With several cameras the columns are `file.top`, `file.wrist` and so on. The frame rate is that of the videos if they have one and the same,
even and whole. Otherwise the user names it, and each frame is the image nearest in time; how many videos that concerns is said.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from milepost.core import DataError, count_noun, read_text
from milepost.datasets import Recording, VideoFrames, video_index
from milepost.importing.channels import Outcomes, even_images
from milepost.importing.source import CHUNK, Choices, Entry, Source
from milepost.importing.state_files import read_state_file

SAME_RATE = 0.002
"""Two frame rates are one if they differ by less: 29.97 and 30 do."""
JITTER = 0.1
"""Images of a video are evenly spaced if no two neighbours are further from the usual distance than this part of it."""
CAMERA = "observation.images.camera"
"""The camera, if the column is called `file` alone."""
WORDS = {"true": True, "yes": True, "1": True, "success": True, "false": False, "no": False, "0": False, "failure": False}


@dataclass(frozen=True, eq=False)
class _Video:
    """A video: stamps (N,) in seconds, ascending; size (height, width), upright."""

    path: Path
    stamps: Float[np.ndarray, "N"]
    size: tuple[int, int]

    @classmethod
    def of(cls, path: Path, who: str) -> _Video:
        """Reads the index and the first image. Raises DataError if it is not there or cannot be decoded."""
        if not path.is_file():
            raise DataError(f"{who} names {path}, which is not there; file names are relative to the folder of the CSV")
        try:
            stamps = video_index(path, 30).stamps
            (first,) = VideoFrames(path, stamps[:1], 30)[np.array([0])]
        except DataError as error:
            raise DataError(f"{who}: {error}") from error
        return cls(path, stamps, first.shape[:2])

    @property
    def rate(self) -> float | None:
        """Returns the frames per second; None if the images are not evenly spaced, or there is only one."""
        steps = np.diff(self.stamps)
        if not len(steps) or np.abs(steps - np.median(steps)).max() > JITTER * np.median(steps):
            return None
        return len(steps) / float(self.stamps[-1] - self.stamps[0])

    def frames(self, fps: int) -> Int[np.ndarray, "T"]:
        """Returns the image of each frame: all of them, in order, if the video has this rate, else those nearest in time."""
        count = len(self.stamps)
        if count == 1 or (self.rate is not None and abs(self.rate - fps) < SAME_RATE * fps):
            return np.arange(count)
        duration_s = (self.stamps[-1] - self.stamps[0]) + float(np.median(np.diff(self.stamps)))
        times = self.stamps[0] + np.arange(max(1, round(duration_s * fps))) / fps
        after = np.clip(np.searchsorted(self.stamps, times), 1, count - 1)
        return np.where(times - self.stamps[after - 1] <= self.stamps[after] - times, after - 1, after)

    def images(self, fps: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """Yields the image of each frame."""
        times = self.stamps[self.frames(fps)]
        for images in VideoFrames(self.path, times, fps, placing=lambda _, exact: exact).chunks(CHUNK):
            yield from images


@dataclass(frozen=True, eq=False)
class _Row:
    """A row of the CSV. who: the file and line, for messages."""

    who: str
    videos: Mapping[str, _Video]
    task: str
    success: bool | None
    state: Path | None


def open_videos(path: Path, choices: Choices) -> Source:
    """Opens a folder with one CSV, or the CSV itself. Raises DataError for a row that cannot be imported, naming its line."""
    table = path
    if path.is_dir():
        tables = sorted(each for each in path.glob("*.csv") if not each.name.startswith("."))
        if len(tables) != 1:
            raise DataError(f"{path} has {count_noun(len(tables), 'CSV file')}; give the name of the one that lists the videos")
        table = tables[0]
    cells = list(_cells(table))
    if not cells:
        raise DataError(f"{table} has a header and no row, so there is no episode to import")
    of_numbers = choices.each(choices.numbers(range(len(cells))), lambda number: _row(table, *cells[number], choices=choices))
    rows = list(of_numbers.values())
    fps = _rate(rows, choices)
    choices.each(of_numbers, lambda number: _check(of_numbers[number], rows[0], fps))
    outcomes = Outcomes([row.success for row in rows])
    resampled = sum(len(video.frames(fps)) != len(video.stamps) or video.rate is None for row in rows for video in row.videos.values())
    notes = []
    if resampled:
        notes.append(f"{count_noun(resampled, 'video')} of another or uneven frame rate: each frame is the image nearest in time")
    if odd := sum(video.size[0] % 2 + video.size[1] % 2 > 0 for video in rows[0].videos.values()):
        notes.append(f"a video needs even sides, so the last row or column of {count_noun(odd, 'camera')} is cut off")
    entries = []
    for place, (number, row) in enumerate(of_numbers.items()):
        length = len(next(iter(row.videos.values())).frames(fps))
        entries.append(Entry(number, row.who, length, partial(_recording, row, place, fps, outcomes, choices)))
    return Source("videos and a CSV", path, fps, tuple(rows[0].videos), entries, notes)


def _cells(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the line and the cells of each row of a CSV with commas or semicolons. DataError if a column is missing or unknown."""
    text = read_text(table).removeprefix("\ufeff")
    header = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=";" if ";" in header and "," not in header else ",", restval="")
    names = [name.strip() for name in reader.fieldnames or ()]
    cameras = [name for name in names if name == "file" or name.startswith("file.")]
    unknown = [name for name in names if name not in (*cameras, "task", "success", "state")]
    if not cameras or unknown:
        fault = f"a column '{unknown[0]}', which means nothing here" if cameras else "no column 'file'"
        raise DataError(f"{table} has {fault}; its columns are file (or file.CAMERA for each camera), task, success and state")
    for cells in reader:
        if None in cells:
            raise DataError(f"{table}, line {reader.line_num}: there are more cells than columns; put a text with commas into quotes")
        yield reader.line_num, {str(name).strip(): (value or "").strip() for name, value in cells.items()}


def _row(table: Path, line: int, cells: Mapping[str, str], *, choices: Choices) -> _Row:
    who = f"{table.name}, line {line}"
    videos = {}
    for name, cell in cells.items():
        if name == "file" or name.startswith("file."):
            if not cell:
                raise DataError(f"{who}: the column '{name}' is empty; name a video")
            camera = CAMERA if name == "file" else f"observation.images.{name.removeprefix('file.')}"
            videos[camera] = _Video.of(table.parent / cell, who)
    word = cells.get("success", "").lower()
    if word and word not in WORDS:
        raise DataError(f"{who}: success is '{cells['success']}', expected true, false, or nothing where it is not known")
    state = table.parent / cells["state"] if cells.get("state") else None
    return _Row(who, videos, choices.words(cells.get("task", ""), who=who), WORDS.get(word), state)


def _rate(rows: Sequence[_Row], choices: Choices) -> int:
    """Returns the frames per second of the dataset. DataError if the videos do not have one whole rate and the user names none."""
    if choices.fps is not None:
        return choices.fps
    rates = {}
    for row in rows:
        for video in row.videos.values():
            if len(video.stamps) == 1:
                continue
            if video.rate is None:
                steps = 1000 * np.diff(video.stamps)
                raise DataError(
                    f"{video.path}: its images are {steps.min():.0f} to {steps.max():.0f} ms apart; name the frame rate with --fps, and "
                    "each frame is the image nearest in time"
                )
            whole = round(video.rate)
            rates[whole if whole and abs(video.rate - whole) < SAME_RATE * whole else video.rate] = video
    if len(rates) > 1:
        each = " and ".join(f"{rate:.5g} ({video.path.name})" for rate, video in list(rates.items())[:2])
        raise DataError(f"the videos have different frame rates, {each}: name one with --fps, and the others are sampled at it")
    return choices.rate(next(iter(rates), None), who="each of these videos", hint="")


def _check(row: _Row, first: _Row, fps: int) -> None:
    """Raises DataError if a row's cameras differ in length, or in size from those of the first row."""
    lengths = {camera: len(video.frames(fps)) for camera, video in row.videos.items()}
    if len(set(lengths.values())) > 1:
        each = " and ".join(f"{length} of {camera.rpartition('.')[2]}" for camera, length in lengths.items())
        raise DataError(f"{row.who}: the cameras of one episode must have equally many frames at {fps} fps, got {each}; cut the videos")
    for camera, video in row.videos.items():
        if video.size != first.videos[camera].size:
            sizes = [f"{size[1]}x{size[0]}" for size in (video.size, first.videos[camera].size)]
            raise DataError(f"{row.who}: {video.path.name} is {sizes[0]}, the first video is {sizes[1]}; scale them to one size")


def _recording(row: _Row, number: int, fps: int, outcomes: Outcomes, choices: Choices) -> Recording:
    frames = next(iter(row.videos.values())).frames(fps)
    state, action, names = _vectors(row, frames)
    images: dict[str, Iterable[np.ndarray]] = {
        camera: even_images(video.images(fps), swap=choices.swap_red_blue) for camera, video in row.videos.items()
    }
    source = " ".join(video.path.name for video in row.videos.values())
    return Recording(
        task=row.task,
        state=state,
        action=action,
        frames=images,
        columns=outcomes.columns(number, len(frames)),
        facts={"source": source, **outcomes.facts(number)},
        names=names,
    )


def _vectors(
    row: _Row, frames: Int[np.ndarray, "T"]
) -> tuple[Float32[np.ndarray, "T S"], Float32[np.ndarray, "T A"], dict[str, list[str]]]:
    """Returns state, action and the names of their channels, from the state file."""
    if row.state is None:
        return np.empty((len(frames), 0), np.float32), np.empty((len(frames), 0), np.float32), {}
    vectors, names = read_state_file(row.state, who=row.who)
    count = len(next(iter(row.videos.values())).stamps)
    for values in vectors:
        if len(values) != count:
            raise DataError(f"{row.state.name} has {count_noun(len(values), 'row')}, the video has {count_noun(count, 'image')}")
    return vectors[0][frames], vectors[1][frames], names
