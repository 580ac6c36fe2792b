"""One camera of one episode in the films, as `types.Frames`: which film, and which of its pictures; or why there is no telling.

What is odd though certain is a DataWarning; what is not certain is refused when a picture is asked for, and never before.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int, UInt8

from milepost.hub import Files
from milepost.placement import Part, Placed, offsets, place, unsteady
from milepost.records import EpisodeRecord, Metadata
from milepost.types import DataError, DataWarning, Frames, UnreadableError
from milepost.video import FilmIndex, VideoFrames, film_index


class Voice:
    """Says each kind of oddness of a dataset once: the warning names the first episode, and `milepost info` all of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._kinds: set[str] = set()

    def __call__(self, kind: str, message: str) -> None:
        if kind not in self._kinds:
            self._kinds.add(kind)
            warnings.warn(f"{self.name}: {message}", DataWarning, stacklevel=2)


@dataclass(frozen=True)
class LostFrames:
    """The pictures of a camera that meta/ has no place for in this episode, as `types.Frames`: to ask for one is an UnreadableError."""

    length: int
    reason: str

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, frames: Int[np.ndarray, "N"]) -> UInt8[np.ndarray, "N H W 3"]:
        raise UnreadableError(self.reason)

    def chunks(self, size: int = 64) -> Iterator[UInt8[np.ndarray, "N H W 3"]]:
        raise UnreadableError(self.reason)


def film_frames(
    camera: str, record: EpisodeRecord, times: Float[np.ndarray, "T"], meta: Metadata, files: Files, *, strays: int, say: Voice
) -> Frames:
    """Returns an episode's pictures. times: its rows' own stamps. UnreadableError if those contradict the part that it has of its film."""
    if camera in record.lost:
        return LostFrames(record.length, record.lost[camera])
    span = record.videos[camera]
    parts = meta.films[span.path]
    if len(parts) > 1 and (span.stop_s is None or round((span.stop_s - span.start_s) * meta.fps) == record.length):
        try:
            offsets(times, Placed(0, record.length), meta.fps)
        except UnreadableError as error:
            raise UnreadableError(f"episode {record.index}, camera '{camera}': the video {error}") from error
    placing = partial(
        _stamps, parts, record.index, meta.fps, _elsewhere(camera, parts, meta, strays), f"video {files.root / span.path}", say
    )
    return VideoFrames(partial(files.path, span.path), times, meta.fps, placing)


def even_start(camera: str, record: EpisodeRecord, meta: Metadata, files: Files, *, strays: int) -> float | None:
    """Returns the second at which an episode's pictures begin in its film, if they follow one another evenly at the dataset's rate."""
    span = record.videos.get(camera)
    if span is None:
        return None
    parts = meta.films[span.path]
    try:
        film = film_index(files.path(span.path))
    except DataError:
        return None
    placed = place(parts, len(film.stamps), meta.fps, film.fps, float(film.stamps[0]), _elsewhere(camera, parts, meta, strays))[
        record.index
    ]
    if placed.fault or placed.note or placed.step != 1 or placed.count != record.length:
        return None
    mine = film.stamps[placed.first : placed.first + record.length]
    even = np.abs(mine - mine[0] - np.arange(len(mine)) / meta.fps).max() < 0.25 / meta.fps
    return float(mine[0]) if even else None


def _elsewhere(camera: str, parts: tuple[Part, ...], meta: Metadata, strays: int) -> tuple[int, ...]:
    """How many rows may follow in a film that meta/ places nowhere."""
    return strays, meta.rows_without_film(camera, max(part.episode for part in parts))


def _stamps(
    parts: tuple[Part, ...],
    episode: int,
    fps: float,
    strays: tuple[int, ...],
    who: str,
    say: Voice,
    film: FilmIndex,
    times: Float[np.ndarray, "T"],
) -> Float[np.ndarray, "T"]:
    """Returns where in the film an episode's pictures are, in its own seconds. UnreadableError if there is no telling."""
    placed = place(parts, len(film.stamps), fps, film.fps, float(film.stamps[0]), strays)[episode]
    if fault := placed.fault or unsteady(film.stamps, fps * placed.step):
        raise UnreadableError(f"{who} {fault}")
    try:
        inside, oddness = offsets(times, placed, fps)
    except UnreadableError as error:
        raise UnreadableError(f"{who} {error}") from error
    for kind, note in (("late start", placed.note), ("clock", oddness)):
        if note:
            say(kind, f"{who} (episode {episode}): {note}")
    return film.stamps[(placed.first + inside) * placed.step]
