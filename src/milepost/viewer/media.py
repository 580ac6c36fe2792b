"""An episode's video for a browser: the dataset's own mp4 if the browser can play it, else this episode in H.264, which is made once and
cached.

Files are identified by episode index and camera key. A file outside the dataset is refused, even if the dataset's metadata name it.
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
from milepost.figures import blank, mp4_writer, read_planes, views

GUESSED = {"av1": "av01.0.08M.08", "h264": "avc1.640028", "hevc": "hvc1.1.6.L120.B0"}
"""The usual codec string, for a file that is not yet downloaded from the Hub."""
VIDEO = "avc1.640028"
"""The codec of `mp4_writer`: H.264, High profile."""
SETTINGS = "1"
"""Version of the encoder's settings; a new number makes all cached videos again."""


def codec_string(tag: str, settings: bytes) -> str | None:
    """Returns a codec as RFC 6381 writes it, from the mp4's four letters and decoder settings (avcC, av1C, hvcC); None for others.

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
    """Returns the dataset's own mp4, downloaded if it is on the Hub; None for images in parquet and for a file outside the dataset."""
    span = dataset.meta.episodes[number].videos.get(camera)
    if span is None or not dataset.files.holds(span.path):
        return None
    path = dataset.files.path(span.path)
    return path if path.is_file() and _type(path, path.stat().st_mtime_ns) is not None else None


def source_type(dataset: LeRobotDataset, number: int, camera: str) -> str | None:
    """Returns the MIME type with the codec, or None if it is unknown. Nothing is downloaded for this."""
    span = dataset.meta.episodes[number].videos.get(camera)
    if span is None or not dataset.files.holds(span.path):
        return None
    path = dataset.root / span.path
    if path.is_file():
        same_images = (
            dataset.video_start(number, camera) is not None
        )  # without a common start, a player would show other images than the reader
        return _type(path, path.stat().st_mtime_ns) if same_images else None
    feature = dataset.meta.features[camera]
    codec = (feature.get("info") or feature.get("video_info") or {}).get("video.codec")
    return mime(GUESSED[codec]) if not dataset.is_local and codec in GUESSED else None


def own_video(dataset: LeRobotDataset, number: int, camera: str) -> tuple[Path, str] | None:
    """Returns the dataset's own mp4 and its type, if it contains only this episode from its first image on, and every browser plays it."""
    span = dataset.meta.episodes[number].videos.get(camera)
    start_s = dataset.video_start(number, camera) if span is not None and (dataset.root / span.path).is_file() else None
    if span is None or start_s is None or start_s > 1e-3 or len(dataset.hints.video_parts[span.path]) > 1:
        return None
    path, kind = dataset.files.path(span.path), source_type(dataset, number, camera)
    plays_everywhere = kind is not None and kind.startswith(mime("avc1")[:-1]) and probe(path).pix_fmt in ("yuv420p", "yuvj420p")
    return (path, kind) if plays_everywhere and kind is not None else None


@lru_cache(maxsize=4096)
def _type(path: Path, stamp: int) -> str | None:
    """Returns the MIME type of an mp4. stamp: the file's modification time, so that a new file of this name is probed again."""
    try:
        info: VideoInfo = probe(path)
    except DataError:
        return None
    codec = codec_string(info.tag, info.settings)
    return mime(codec) if codec is not None else None


def cameras(dataset: LeRobotDataset, number: int) -> dict[str, Any]:
    """Returns `cameras` of `GET /api/episodes/{n}`."""
    by_camera = {}
    for camera in dataset.cameras:
        height, width = _size(dataset, camera)
        kind, span = source_type(dataset, number, camera), dataset.meta.episodes[number].videos.get(camera)
        here = span is not None and kind is not None and (dataset.root / span.path).is_file()
        start_s = dataset.video_start(number, camera) if here else span.start_s if span else None
        own = {"url": f"/media/source/{number}/{camera}", "type": kind, "start_s": round(start_s or 0.0, 6)}
        source = own if span and kind else None
        copy = {"url": f"/media/h264/{number}/{camera}", "type": mime(VIDEO)}
        by_camera[camera] = {"width": width, "height": height, "source": source, "h264": copy}
    return by_camera


def _size(dataset: LeRobotDataset, camera: str) -> tuple[int | None, int | None]:
    """Returns (height, width) from info.json, or (None, None) where it does not have them."""
    try:
        return dataset.image_size(camera)
    except DataError:
        return None, None


def videos_folder() -> Path:
    """Returns the default folder of cached videos: `films` in $MILEPOST_CACHE, else in ~/.cache/milepost."""
    return Path(os.environ.get("MILEPOST_CACHE") or Path.home() / ".cache" / "milepost").expanduser() / "films"


class StoppedError(Exception):
    """The server ends; the video was abandoned, and no part of it is left on disk."""


def camera_frames(dataset: LeRobotDataset, number: int, camera: str) -> tuple[Frames, float]:
    """Returns an episode's images and their frames per second."""
    episode = dataset.episode(number)
    return episode.camera(camera), episode.fps


class VideoCache:
    """Episodes in H.264, one file per episode and camera, in `<cache>/films/<fingerprint>/`. Each is made once, however many clients
    request it."""

    def __init__(self, folder: Path | None = None, workers: int | None = None) -> None:
        self.folder = folder or videos_folder()
        self._pool = ThreadPoolExecutor(workers or max(1, (os.cpu_count() or 2) - 1), "films")
        self._making: dict[Path, tuple[Future[Path], int]] = {}
        self._lock = threading.RLock()  # cancel() runs the callback in the same thread, which takes the lock again
        self._stopped = False
        _clear(self.folder)

    def path(self, fingerprint: str, number: int, camera: str) -> Path:
        """Returns the path of an episode's video, whether or not it exists."""
        key = hashlib.sha256(f"{SETTINGS}/{camera}".encode()).hexdigest()[:16]
        return self.folder / fingerprint / f"{key}-{number:06d}.mp4"

    def ask(self, dataset: LeRobotDataset, fingerprint: str, number: int, camera: str) -> Future[Path]:
        """Returns a future of the video; a thread makes it if it does not exist. The future raises the reader's DataError, or StoppedError
        when the server ends."""
        path = self.path(fingerprint, number, camera)
        with self._lock:
            future, waiting = self._making.get(path, (None, 0))
            if future is None:
                if path.is_file():
                    ready: Future[Path] = Future()
                    ready.set_result(path)
                    return ready
                future = self._pool.submit(self._make, path, dataset, number, camera)
            self._making[path] = future, waiting + 1
        if not waiting:
            future.add_done_callback(lambda _: self._forget(path))
        return future

    def leave(self, fingerprint: str, number: int, camera: str) -> None:
        """Cancels one request. A video that nobody waits for is not started; one that was started is finished, for the next time."""
        path = self.path(fingerprint, number, camera)
        with self._lock:
            if path in self._making:
                future, waiting = self._making[path]
                self._making[path] = future, waiting - 1
                if waiting == 1:
                    future.cancel()

    def stop(self) -> None:
        """Gives up the current work at its next frame. Safe in a signal handler."""
        self._stopped = True

    def close(self) -> None:
        """Stops, and waits until all parts are removed."""
        self.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _forget(self, path: Path) -> None:
        with self._lock:
            self._making.pop(path, None)

    def _make(self, path: Path, dataset: LeRobotDataset, number: int, camera: str) -> Path:
        if self._stopped:
            raise StoppedError
        frames, fps = camera_frames(dataset, number, camera)
        with closing(read_planes(frames)) as images:
            first = next(images)
            frame = blank(*first[0].shape)
            with mp4_writer(path, first[0].shape, fps) as add:
                for image in itertools.chain([first], images):
                    if self._stopped:
                        raise StoppedError
                    for plane, source in zip(views(frame), image, strict=True):
                        plane[:] = source
                    add(frame)
        return path


def _clear(folder: Path) -> None:
    """Removes unfinished files of killed processes."""
    for each in folder.glob("*/"):
        clear_leftovers(each)
