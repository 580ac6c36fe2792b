"""Features of every frame of an episode: decoded once, encoded once in large batches, stored in half precision.

There is one file an episode and camera, `<folder>/<dataset fingerprint>/<encoder>-<hash of its preprocessing>/<camera>-<episode>.npy`. It
is written whole or not at all, so that an interrupted run can continue and two runs may share a folder. Without a folder the numbers are
the same. While a batch is encoded, the next one is decoded and resized in a second thread.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Int, Shaped, UInt8
from torch import Tensor

from milepost.core import DataError, EditedFrames, Episode, Frames, Tick, UnreadableError, atomic_path, require_writable, write_text
from milepost.encoders.encoder import Encoder

Item = TypeVar("Item")
ABOUT = "about.json"
_DECODED = 16  # frames decoded before they are made small: at 1920 x 1080 these are 100 MB
_AHEAD = 2  # batches made ready while one is encoded


def cache_folder() -> Path:
    """Returns where features are stored by default: $MILEPOST_CACHE, else ~/.cache/milepost/features."""
    folder = os.environ.get("MILEPOST_CACHE")
    return Path(folder).expanduser() if folder else Path.home() / ".cache" / "milepost" / "features"


class FeatureCache:
    """Features of one dataset's episodes by one encoder. Floats are rounded to float16, stored or not; integers stay as they are."""

    def __init__(
        self,
        folder: Path | None,
        fingerprint: str,
        *,
        encoder: Encoder,
        overlap: bool = True,
        half: bool = True,
        on_frames: Tick | None = None,
    ) -> None:
        """Takes a folder (None stores nothing) and `Dataset.fingerprint`. overlap: decode in a second thread.

        half: False does not round, and only without a folder: what is on disk is float16.
        on_frames(done, all) counts frames of all cameras, of one call at a time.
        """
        assert half or folder is None
        self.half = half
        self.fingerprint = fingerprint
        self.encoder = encoder
        self.overlap = overlap
        self.on_frames = on_frames
        kind = f"{encoder.name}-{hashlib.sha256(encoder.preprocessing.encode()).hexdigest()[:8]}"
        self._of_copies: WeakKeyDictionary[Frames, np.ndarray] = WeakKeyDictionary()
        """Features of changed images, and of the recordings whose copies were asked for, while these are in memory."""
        self.folder = None if folder is None else Path(folder) / _file_name(fingerprint) / _file_name(kind)

    def features(self, episode: Episode, cameras: Sequence[str]) -> Shaped[np.ndarray, "T C E"]:
        """Returns the features of every frame, float16 (uint8 of the built-in encoder), from disk where they are there.

        DataError for an unknown camera, an unreadable video, features that are not finite in half precision, or a folder that cannot be
        written; what is done by then is kept.
        """
        if any(isinstance(episode.camera(camera), EditedFrames) for camera in cameras):
            return np.stack([self._edited(episode, camera) for camera in cameras], axis=1)
        with closing(self.stream([episode], cameras)) as arrays:
            return next(arrays)

    def _edited(self, episode: Episode, camera: str) -> Shaped[np.ndarray, "T E"]:
        """Returns the features of one camera of an edited copy: the recording's own in another order, or new ones.

        New ones are kept on disk if their change has a key.
        """
        frames = episode.camera(camera)
        if not isinstance(frames, EditedFrames):
            return self.features(episode, [camera])[:, 0]
        if frames.change is not None:
            return self._once(frames, partial(self._changed, episode, camera, frames))
        state = np.zeros((len(frames.source), 0), dtype=np.float32)
        recording = Episode(episode.index, episode.row, episode.task, episode.fps, len(state), state, {frames.name: frames.source})
        return self._once(frames.source, lambda: self.features(recording, [frames.name])[:, 0])[frames.order]

    def _changed(self, episode: Episode, camera: str, frames: EditedFrames) -> Shaped[np.ndarray, "T E"]:
        if frames.key and (stored := self._read(episode, camera, frames.key)) is not None:
            return stored
        work = self._batches(frames, f"a copy of episode {episode.index}, camera '{camera}'")
        with closing(_prefetched(work) if self.overlap else work) as batches:
            features = np.concatenate([self._rounded(self.encoder.encode(batch)) for batch in batches])
        if frames.key:
            self._write(episode, camera, features, frames.key)
        return features

    def _once(self, frames: Frames, make: Callable[[], np.ndarray]) -> Shaped[np.ndarray, "T E"]:
        """Returns what `make` returns for these frames, and keeps it as long as they are in memory, if they are told apart by identity."""
        if type(frames).__hash__ is not object.__hash__ or not type(frames).__weakrefoffset__:
            return make()
        if frames not in self._of_copies:
            self._of_copies[frames] = make()
        return self._of_copies[frames]

    def stream(self, episodes: Sequence[Episode], cameras: Sequence[str]) -> Generator[Shaped[np.ndarray, "T C E"], None, None]:
        """Yields `features` of each episode, in order. The next one is decoded while this one is encoded, however short they are."""
        if not cameras:
            raise DataError("features need at least one camera, none was named")
        if any(isinstance(episode.camera(camera), EditedFrames) for episode in episodes for camera in cameras):
            for episode in episodes:  # what is on disk is of the recording: an edited copy takes its features from there by its order
                yield self.features(episode, cameras)
            return
        frames = [[episode.camera(camera) for camera in cameras] for episode in episodes]
        total = sum(len(camera) for views in frames for camera in views)
        tick = _counter(total, self.on_frames)
        work = self._work(episodes, frames, cameras)
        with closing(_prefetched(work) if self.overlap else work) as parts:
            for episode in episodes:
                views = [self._collect(parts, episode, camera, tick) for camera in cameras]
                yield np.stack(views, axis=1)

    def features_at(self, episode: Episode, cameras: Sequence[str], frames: Int[np.ndarray, "N"]) -> Shaped[np.ndarray, "N C E"]:
        """Returns `features` of these frames only, given in order. They are read from disk where the whole episode is there, but not
        stored.
        """
        if any(isinstance(episode.camera(camera), EditedFrames) for camera in cameras):
            return self.features(episode, cameras)[frames]
        views, tick = [], _counter(len(frames) * len(cameras), self.on_frames)
        for name in cameras:
            camera, stored, size = episode.camera(name), self._read(episode, name), self.encoder.batch
            parts = [] if stored is None else [stored[frames]]
            for batch in np.split(frames, np.arange(size, len(frames), size)) if stored is None else ():
                parts.append(self._rounded(self.encoder.images(camera[batch])))
                tick(len(batch))
            views.append(np.concatenate(parts))
        return np.stack(views, axis=1)

    def _work(
        self, episodes: Sequence[Episode], frames: Sequence[Sequence[Frames]], cameras: Sequence[str]
    ) -> Generator[np.ndarray | Tensor, None, None]:
        """Yields, for each episode and camera, its features if they are on disk, else its prepared images in batches."""
        for episode, views in zip(episodes, frames, strict=True):
            for name, camera in zip(cameras, views, strict=True):
                stored = self._read(episode, name)
                if stored is not None:
                    yield stored
                else:
                    yield from self._batches(camera, f"episode {episode.index}, camera '{name}'")

    def _batches(self, camera: Frames, who: str) -> Generator[UInt8[Tensor, "N ..."], None, None]:
        """Yields a camera's prepared images, in batches that depend on nothing but the encoder: same batch, same bits."""
        size, frames_read = self.encoder.batch, 0
        whole, rest = divmod(len(camera), size)
        with closing(_chunks(camera)) as chunks:
            small = _in_turn(self.encoder.prepare(images) for images in chunks)
            for count in itertools.chain(itertools.repeat(size, whole), [rest] * bool(rest)):
                batch = list(itertools.islice(small, count))
                frames_read += len(batch)
                if len(batch) != count:
                    raise UnreadableError(f"{who}: {len(camera)} frames were promised, the reader gave {frames_read}")
                yield torch.stack(batch)

    def _collect(
        self, parts: Iterator[np.ndarray | Tensor], episode: Episode, camera: str, tick: Callable[[int], None]
    ) -> Shaped[np.ndarray, "T E"]:
        """Returns one camera's features out of the stream of work, and stores them if they are new."""
        batches: list[np.ndarray] = []
        while sum(map(len, batches)) < episode.length:
            part = next(parts)
            if isinstance(part, np.ndarray):
                tick(len(part))
                return part
            batches.append(self._rounded(self.encoder.encode(part)))
            tick(len(part))
        features = np.concatenate(batches)
        self._write(episode, camera, features)
        return features

    def _rounded(self, features: Shaped[np.ndarray, "N E"]) -> Shaped[np.ndarray, "N E"]:
        return in_half(features, self.encoder.name) if self.half else features

    def _path(self, episode: Episode, camera: str, key: str) -> Path:
        assert self.folder is not None
        return self.folder / _file_name(key) / f"{_file_name(camera)}-{episode.index:06d}.npy"

    def _read(self, episode: Episode, camera: str, key: str = "") -> Shaped[np.ndarray, "T E"] | None:
        """Returns stored features; None if there are none, or the file is damaged or of another length: then they are computed again."""
        if self.folder is None:
            return None
        try:
            stored = np.load(self._path(episode, camera, key), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            require_cache(self.folder)  # now, before minutes of encoding
            return None
        return stored if stored.ndim == 2 and len(stored) == episode.length else None

    def _write(self, episode: Episode, camera: str, features: Shaped[np.ndarray, "T E"], key: str = "") -> None:
        if self.folder is None:
            return
        require_cache(self.folder)
        about = {"encoder": self.encoder.name, "preprocessing": self.encoder.preprocessing, "width": features.shape[1]}
        if not (self.folder / ABOUT).is_file():
            write_text(self.folder / ABOUT, json.dumps(about, indent=2, allow_nan=False) + "\n")
        path = self._path(episode, camera, key)
        path.parent.mkdir(exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, features)


def in_half(features: Shaped[np.ndarray, "N E"], who: str) -> Shaped[np.ndarray, "N E"]:
    """Returns floats as float16, other numbers as they are. DataError if one is too large for it; `who` made them."""
    if not np.issubdtype(features.dtype, np.floating):
        return features
    with np.errstate(over="ignore"):
        half = features.astype(np.float16)
    if not np.isfinite(half).all():
        raise DataError(f"features of {who} do not fit in half precision: the largest is {np.abs(features).max()}, the limit 65504")
    return half


def require_cache(folder: Path) -> None:
    """Raises DataError, with the way out, if features cannot be written in this folder (made if missing)."""
    try:
        require_writable(folder)
    except OSError as error:
        raise DataError(
            f"features cannot be kept in {folder} ({error.strerror}); set MILEPOST_CACHE to a folder that can be written, or keep none "
            "with --no-cache"
        ) from error


def _file_name(name: str) -> str:
    """Returns any text as one file name; different texts stay different."""
    return quote(name, safe=" +@")


def _counter(total: int, on_frames: Tick | None) -> Callable[[int], None]:
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        if on_frames is not None:
            on_frames(done, total)

    return tick


def _chunks(camera: Frames) -> Generator[UInt8[np.ndarray, "N H W 3"], None, None]:
    """Yields `camera.chunks` from a generator, which can be closed: a video stays open as long as it is read."""
    yield from camera.chunks(_DECODED)


def _in_turn(chunks: Iterator[Tensor]) -> Iterator[Tensor]:
    """Yields the rows of each chunk, one after another."""
    for chunk in chunks:
        yield from chunk


def _prefetched(items: Generator[Item, None, None]) -> Generator[Item, None, None]:
    """Yields the same items, made in one other thread, at most `_AHEAD` of them before they are needed.

    What goes wrong there is raised here. Closing this, by an interrupt too, waits for the item in the making and closes `items`.
    """
    end = object()
    pending: deque[Future] = deque()
    with closing(items), ThreadPoolExecutor(1, thread_name_prefix="milepost-decode") as pool:
        try:
            pending.extend(pool.submit(next, items, end) for _ in range(_AHEAD))
            while (item := pending.popleft().result()) is not end:
                pending.append(pool.submit(next, items, end))
                yield item
        finally:
            for future in pending:
                future.cancel()
