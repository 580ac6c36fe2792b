"""An episode's pictures as a browser plays them: the dataset's own mp4 where it can, else the episode alone in H.264, made once and kept.

Files are found by episode number and camera key. Refuses a file outside the dataset, whatever the dataset's own metadata say of it.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

from milepost.core import DataError, Frames, clear_leftovers
from milepost.datasets import LeRobotDataset, VideoInfo, probe
from milepost.figures import blank, film_writer, read_planes, views

GUESSED = {"av1": "av01.0.08M.08", "h264": "avc1.640028", "hevc": "hvc1.1.6.L120.B0"}
"""For a file that is still on the Hub: what its codec usually is."""
FILM = "avc1.640028"
"""What `film_writer` makes: High profile."""
SETTINGS = "1"
"""Of the films; another number makes them anew."""


def codec_string(tag: str, settings: bytes) -> str | None:
    """A codec as RFC 6381 writes it, from the mp4's four letters and decoder settings (avcC, av1C, hvcC); None for others.

    >>> codec_string("avc1", bytes.fromhex("01640028ffe1"))
    'avc1.640028'
    """
    if tag in ("avc1", "avc3") and len(settings) >= 4 and settings[0] == 1:
        return f"{tag}.{settings[1:4].hex()}"
    if tag == "av01" and len(settings) >= 3 and settings[0] == 0x81:
        depth = 8 if not settings[2] & 0x40 else 12 if settings[2] & 0x20 else 10
        return f"av01.{settings[1] >> 5}.{settings[1] & 31:02d}{'H' if settings[2] & 0x80 else 'M'}.{depth:02d}"
    if tag in ("hvc1", "hev1") and len(settings) >= 13 and settings[0] == 1:
        space, tier = ("", "A", "B", "C")[settings[1] >> 6], "H" if settings[1] & 0x20 else "L"
        compatible = int(f"{int.from_bytes(settings[2:6], 'big'):032b}"[::-1], 2)
        limits = [f"{byte:X}" for byte in settings[6:12].rstrip(b"\0")]
        return ".".join([f"{tag}.{space}{settings[1] & 31}", f"{compatible:X}", f"{tier}{settings[12]}", *limits])
    return None


def mime(codec: str) -> str:
    return f'video/mp4; codecs="{codec}"'


def source_file(dataset: LeRobotDataset, number: int, camera: str) -> Path | None:
    """The dataset's own mp4, downloaded if it is on the Hub; None for pictures in parquet and for a file outside the dataset."""
    span = dataset.meta.episodes[number].videos.get(camera)
    if span is None or not dataset.files.holds(span.path):
        return None
    path = dataset.files.path(span.path)
    return path if path.is_file() and _type(path, path.stat().st_mtime_ns) is not None else None


def source_type(dataset: LeRobotDataset, number: int, camera: str) -> str | None:
    """Its MIME type with the codec, None where it cannot be told. Nothing is downloaded for this."""
    span = dataset.meta.episodes[number].videos.get(camera)
    if span is None or not dataset.files.holds(span.path):
        return None
    path = dataset.root / span.path
    if path.is_file():
        even = dataset.video_start(number, camera) is not None  # else the page would show other pictures than are read
        return _type(path, path.stat().st_mtime_ns) if even else None
    feature = dataset.meta.features[camera]
    told = (feature.get("info") or feature.get("video_info") or {}).get("video.codec")
    return mime(GUESSED[told]) if not dataset.is_local and told in GUESSED else None


def own_film(dataset: LeRobotDataset, number: int, camera: str) -> tuple[Path, str] | None:
    """The dataset's own mp4 and its type, if it is this episode's alone from its first picture on, and in what every browser plays."""
    span = dataset.meta.episodes[number].videos.get(camera)
    start_s = dataset.video_start(number, camera) if span is not None and (dataset.root / span.path).is_file() else None
    if span is None or start_s is None or start_s > 1e-3 or len(dataset.hints.video_parts[span.path]) > 1:
        return None
    path, kind = dataset.files.path(span.path), source_type(dataset, number, camera)
    plain = kind is not None and kind.startswith(mime("avc1")[:-1]) and probe(path).pix_fmt in ("yuv420p", "yuvj420p")
    return (path, kind) if plain and kind is not None else None


@lru_cache(maxsize=4096)
def _type(path: Path, stamp: int) -> str | None:
    """stamp: when the file was written, so that another file of this name is looked at again."""
    try:
        found: VideoInfo = probe(path)
    except DataError:
        return None
    codec = codec_string(found.tag, found.settings)
    return mime(codec) if codec is not None else None


def cameras(dataset: LeRobotDataset, number: int) -> dict[str, Any]:
    """`cameras` of `GET /api/episodes/{n}`."""
    found = {}
    for camera in dataset.cameras:
        height, width = _size(dataset, camera)
        kind, span = source_type(dataset, number, camera), dataset.meta.episodes[number].videos.get(camera)
        here = span is not None and kind is not None and (dataset.root / span.path).is_file()
        start_s = dataset.video_start(number, camera) if here else span.start_s if span else None
        found_source = {"url": f"/media/source/{number}/{camera}", "type": kind, "start_s": round(start_s or 0.0, 6)}
        source = found_source if span and kind else None
        film = {"url": f"/media/h264/{number}/{camera}", "type": mime(FILM)}
        found[camera] = {"width": width, "height": height, "source": source, "h264": film}
    return found


def _size(dataset: LeRobotDataset, camera: str) -> tuple[int | None, int | None]:
    """(height, width) as info.json tells them; unknown where it does not."""
    try:
        return dataset.image_size(camera)
    except DataError:
        return None, None


def films_folder() -> Path:
    """Where films are kept unless told otherwise: $MILEPOST_CACHE, else ~/.cache/milepost, and in it `films`."""
    return Path(os.environ.get("MILEPOST_CACHE") or Path.home() / ".cache" / "milepost").expanduser() / "films"


class StoppedError(Exception):
    """The server ends; the film was given up and nothing is left of it."""


def pictures(dataset: LeRobotDataset, number: int, camera: str) -> tuple[Frames, float]:
    """An episode's pictures and their frames per second."""
    episode = dataset.episode(number)
    return episode.camera(camera), episode.fps


class Films:
    """Episodes in H.264, one file an episode and camera, in `<cache>/films/<fingerprint>/`. However many ask for one, it is made once."""

    def __init__(self, folder: Path | None = None, workers: int | None = None) -> None:
        self.folder = folder or films_folder()
        self._pool = ThreadPoolExecutor(workers or max(1, (os.cpu_count() or 2) - 1), "films")
        self._making: dict[Path, tuple[Future[Path], int]] = {}
        self._lock = threading.RLock()  # cancelling calls back
        self._stopped = False
        _clear(self.folder)

    def path(self, fingerprint: str, number: int, camera: str) -> Path:
        key = hashlib.sha256(f"{SETTINGS}/{camera}".encode()).hexdigest()[:16]
        return self.folder / fingerprint / f"{key}-{number:06d}.mp4"

    def ask(self, dataset: LeRobotDataset, fingerprint: str, number: int, camera: str) -> Future[Path]:
        """The film, made in a thread if it is not there. The future's error is the reader's: DataError, or StoppedError at the end."""
        path = self.path(fingerprint, number, camera)
        with self._lock:
            future, waiting = self._making.get(path, (None, 0))
            if future is None:
                if path.is_file():
                    done: Future[Path] = Future()
                    done.set_result(path)
                    return done
                future = self._pool.submit(self._make, path, dataset, number, camera)
            self._making[path] = future, waiting + 1
        if not waiting:
            future.add_done_callback(lambda _: self._forget(path))
        return future

    def leave(self, fingerprint: str, number: int, camera: str) -> None:
        """One that asked waits no longer. A film that nobody waits for is not begun; one that is begun is finished, for the next time."""
        path = self.path(fingerprint, number, camera)
        with self._lock:
            if path in self._making:
                future, waiting = self._making[path]
                self._making[path] = future, waiting - 1
                if waiting == 1:
                    future.cancel()

    def stop(self) -> None:
        """Give up what is being made, at its next picture. Safe in a signal handler."""
        self._stopped = True

    def close(self) -> None:
        """As `stop`, and wait until it is cleared away."""
        self.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _forget(self, path: Path) -> None:
        with self._lock:
            self._making.pop(path, None)

    def _make(self, path: Path, dataset: LeRobotDataset, number: int, camera: str) -> Path:
        if self._stopped:
            raise StoppedError
        frames, fps = pictures(dataset, number, camera)
        with closing(read_planes(frames)) as read:
            first = next(read)
            frame = blank(*first[0].shape)
            with film_writer(path, first[0].shape, fps) as add:
                for picture in itertools.chain([first], read):
                    if self._stopped:
                        raise StoppedError
                    for plane, seen in zip(views(frame), picture, strict=True):
                        plane[:] = seen
                    add(frame)
        return path


def _clear(folder: Path) -> None:
    """Removes what killed processes left half made."""
    for each in folder.glob("*/"):
        clear_leftovers(each)
