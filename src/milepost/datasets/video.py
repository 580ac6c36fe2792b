"""One camera of one episode in an mp4 that may hold many episodes: frames by time stamp, in order, each decoded once.

The frame of a row is the one whose presentation time is nearest to the row's time. If it is more than half a frame away, this is an error;
a neighbour's image is never returned. Pixels are those of PyAV's `to_ndarray(format="rgb24")`, bit for bit, with the video's own colour
matrix in every PyAV, and turned as the video's track says (as torchcodec, LeRobot's default reader, does). This file also writes, joins
(without re-encoding) and probes mp4 files. Videos for people to watch are made in `figures/film/`.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import Float, Int, UInt8

from milepost.core import (
    DataError,
    FrameIndex,
    UnreadableError,
    flush_to_disk,
    frame_numbers,
    ordinary,
    require,
    require_plain_file,
    temporary_name,
)
from milepost.datasets.colours import to_rgb, upright
from milepost.datasets.stamps import NoTimesError, VideoIndex, index_of, rewriting

require("av")

# LeRobot's encoder settings for datasets: key frames so close that any frame costs at most two to reach.
_ENCODERS: dict[str, dict[str, str]] = {
    "libsvtav1": {"g": "2", "crf": "30", "preset": "12", "svtav1-params": "fast-decode=0"},
    "libx264": {"g": "2", "crf": "30"},
    # with B frames, one short video in 30 came without stamps
    "libx265": {"g": "2", "crf": "30", "x265-params": "log-level=error:bframes=0"},
}
# With its macroblock tree x264 reads uninitialised memory, and makes different videos of the same images: 3 of 400, and 8 of 30 with the
# settings of milepost's own videos.
_SAME_BYTES = {"libx264": {"x264-params": "mbtree=0"}}
_WORTH_A_SEEK = 8  # frames a seek must save: it empties the decoder's pipeline, which costs about as much as a few frames
_WORTH_THREADS = 32  # frames from which decoding several at once pays for filling and draining the pipeline


@dataclass(frozen=True)
class VideoInfo:
    """The properties of an mp4. codec: LeRobot's name ("av1", "h264", "hevc"). duration: seconds.

    tag, settings: the four letters and the bytes (avcC, av1C, hvcC) that a player needs for decoding.
    """

    codec: str
    pix_fmt: str
    width: int
    height: int
    fps: float
    frames: int
    duration: float
    tag: str = ""
    settings: bytes = b""


@dataclass(frozen=True, eq=False)
class VideoFrames:
    """The frames of one episode in an mp4, as `types.Frames`. The file is opened for each call and closed when the call ends.

    path: the mp4, or a function that returns (and downloads) it on first use. times: (T,) seconds in the mp4, ascending.
    fps: frames per second of the rows; a frame may be off by half of 1 / fps.
    placing: a function of the video's index and `times` that returns the exact time stamps of the wanted images.
    Reading raises UnreadableError for a missing, damaged or too short file, and for a time stamp that no frame is near to.
    """

    path: Path | Callable[[], Path]
    times: Float[np.ndarray, "T"]
    fps: float | int
    placing: Callable[[VideoIndex, Float[np.ndarray, "T"]], Float[np.ndarray, "T"]] | None = None

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, frames: FrameIndex) -> UInt8[np.ndarray, "N H W 3"]:
        """Returns the images at these frames, in any order; a frame may repeat and is decoded once. Raises IndexError outside [0, T)."""
        frames = frame_numbers(frames, len(self))
        unique, inverse = np.unique(frames, return_inverse=True)
        if not len(unique):
            return np.empty((0, *self[np.array([0])].shape[1:]), np.uint8)
        with closing(self._images(unique)) as images:
            images_once = _batch(images, len(unique))
        return images_once if np.array_equal(unique, frames) else images_once[inverse]

    def chunks(self, size: int = 64) -> Iterator[UInt8[np.ndarray, "N H W 3"]]:
        """Yields every frame once, in order, at most `size` at a time; memory does not grow with the length of the episode."""
        if size < 1:
            raise ValueError(f"chunks need a size of at least 1, got {size}")
        with closing(self._images(np.arange(len(self)))) as images:
            for start in range(0, len(self), size):
                yield _batch(images, min(size, len(self) - start))

    def decoded(self) -> Generator[av.VideoFrame, None, None]:
        """Yields every frame once, in order, as the decoder returns it."""
        yield from self._decoded(np.arange(len(self)))

    def _file(self) -> Path:
        try:
            return self.path() if callable(self.path) else self.path
        except DataError as error:
            raise UnreadableError(str(error)) from error

    def _images(self, indices: Int[np.ndarray, "N"]) -> Generator[np.ndarray, None, None]:
        """Yields the (H, W, 3) images of these ascending frame indices."""
        converter = VideoReformatter()  # one for all frames: building its tables costs more than converting a small frame
        with closing(self._decoded(indices)) as frames:
            for frame in frames:
                yield upright(to_rgb(frame, converter), frame)

    def _decoded(self, indices: Int[np.ndarray, "N"]) -> Generator[av.VideoFrame, None, None]:
        path = self._file()
        times, slack = self._stamps(path)
        with _open(path) as (container, stream):
            if len(indices) >= _WORTH_THREADS:
                stream.thread_type = "AUTO"
            for run in self._runs(times[indices], container, stream, path):
                yield from self._nearest(_decode_from(container, stream, path, time=float(run[0])), run, path, slack)

    def _stamps(self, path: Path) -> tuple[Float[np.ndarray, "T"], float]:
        """Returns the times of the rows' images in the video, and how far off one may be, in seconds."""
        if self.placing is None:
            return self.times, 0.5 / self.fps + 1e-6
        video = video_index(path, self.fps)
        times = self.placing(video, self.times)
        return times, min(0.5 / self.fps, 0.4 * video.spacing_s)

    def _runs(self, times: Float[np.ndarray, "N"], container: Any, stream: Any, path: Path) -> list[np.ndarray]:
        """Returns the times, split where a seek to the next one saves decoding enough frames in between."""
        cuts = []
        for i in np.flatnonzero(np.diff(times) > _WORTH_A_SEEK / self.fps) + 1:
            saved_s = _key_before(container, stream, path, time=float(times[i])) - times[i - 1]
            if saved_s * self.fps > _WORTH_A_SEEK:
                cuts.append(i)
        return np.split(times, cuts)

    def _nearest(self, frames: Iterator[av.VideoFrame], times: Float[np.ndarray, "N"], path: Path, half: float) -> Iterator[av.VideoFrame]:
        """Yields the decoded frame nearest to each time. A frame within a tenth of a frame is taken without decoding the next."""
        tenth = min(0.1 / self.fps, half / 4)
        before: av.VideoFrame | None = None
        todo = iter(times)
        time = next(todo)
        for frame in frames:
            while time <= frame.time + tenth:
                near = frame if before is None or frame.time - time < time - before.time else before
                if abs(near.time - time) > half:
                    raise self._off(path, time, near.time)
                yield near
                if (time := next(todo, None)) is None:
                    return
            before = frame
        for late in itertools.chain([time], todo):
            if before is None or late - before.time > half:
                raise self._short(path, late)
            yield before

    def _off(self, path: Path, wanted_s: float, found_s: float) -> UnreadableError:
        frame = int(np.searchsorted(self._stamps(path)[0], wanted_s))
        return UnreadableError(
            f"video {path}: frame {frame} of the episode is wanted at {wanted_s:.4f} s, the nearest picture is at {found_s:.4f} s, "
            f"more than half a frame ({0.5 / self.fps:.4f} s) away; the video and the dataset's time stamps do not belong together"
        )

    def _short(self, path: Path, wanted_s: float) -> UnreadableError:
        last, times = (
            None,
            self._stamps(path)[0],
        )  # decoded from the episode's first frame: the run that failed may have begun behind the end
        with _open(path) as (container, stream):
            for frame in _decode_from(container, stream, path, time=float(times[0])):
                last = frame.time
        available = 0 if last is None else int(np.searchsorted(times, last + 0.5 / self.fps))
        end = "there is no picture" if last is None else f"its last picture is at {last:.4f} s"
        return UnreadableError(
            f"video {path} is shorter than its rows: the episode has {len(self)} rows, the video holds {available} of its frames "
            f"({wanted_s:.4f} s is wanted, {end}); record or download the file again"
        )


def video_index(path: Path, fps: float | int) -> VideoIndex:
    """Returns the video's index, kept for the last thousand files. UnreadableError if it cannot be read, or its images have no times.

    fps: of the rows, at which a video without times would have to be written again.
    """
    try:
        status = path.stat()
    except OSError:
        status = None
    try:
        return _video_index(path, None if status is None else (status.st_mtime_ns, status.st_size))
    except NoTimesError as error:
        raise UnreadableError(f"{error}; write it again and put the new file in its place: {rewriting(path, fps)}") from error


@lru_cache(maxsize=1024)
def _video_index(path: Path, version: tuple[int, int] | None) -> VideoIndex:
    """Reads the index of a video. version: modification time and size, so that a new file of this name is read again."""
    with _open(path) as (container, stream):
        return index_of(container, stream, path)


def probe(path: Path) -> VideoInfo:
    """Returns codec, size, frame rate, number of frames and duration of an mp4, from its index. Raises DataError if it cannot be read."""
    with _open(path) as (container, stream):
        frames = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
        fps = float(stream.average_rate or 0)
        duration = float(stream.duration * stream.time_base) if stream.duration else frames / fps if fps else 0.0
        context = stream.codec_context
        details = {"tag": context.codec_tag, "settings": bytes(context.extradata or b"")}
        return VideoInfo(context.codec.canonical_name, context.pix_fmt, context.width, context.height, fps, frames, duration, **details)


def encode_video(
    path: Path, frames: Iterable[UInt8[np.ndarray, "H W 3"]], fps: float | int, *, codec: str = "libsvtav1"
) -> tuple[int, float]:
    """Writes RGB frames as an mp4 with LeRobot's settings (yuv420p, a key frame every 2); atomic, same frames give same bytes.

    codec: "libsvtav1" (AV1), "libx264" or "libx265". Returns the number of frames and the duration in seconds.
    Raises DataError for no frames, frames that differ in size, or an odd width or height.
    """
    if codec not in _ENCODERS:
        raise ValueError(f"no settings for the codec '{codec}'; there are {', '.join(_ENCODERS)}")
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise DataError(f"video {path}: there are no frames to write")
    count = 0
    with video_writer(path) as container:
        stream = add_encoder(container, path, first.shape, codec=codec, fps=fps, options=_ENCODERS[codec])
        with ordinary():
            container.start_encoding()
        for image in itertools.chain([first], frames):
            if image.shape != first.shape or image.dtype != np.uint8:
                raise DataError(f"video {path}: frame {count} is {image.dtype} {image.shape}, expected uint8 {first.shape} like the first")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
            count += 1
        container.mux(stream.encode())
    return count, count / fps


def concat_videos(paths: Sequence[Path], out: Path) -> list[tuple[float, float]]:
    """Joins mp4 files of one codec and size by copying their packets, without re-encoding; atomic.

    Returns each part's (from_timestamp, to_timestamp) in seconds: its frame i is the joined file's frame at from + i / fps.
    Raises DataError if there are no parts, or if they differ in codec, size, pixel format, frame rate or decoder settings.
    """
    if not paths:
        raise DataError(f"video {out}: there are no parts to join")
    spans: list[tuple[float, float]] = []
    with _open(paths[0]) as (_, template), video_writer(out) as container:
        stream = container.add_stream_from_template(template, opaque=True)
        frames = 0
        delays = [_reorder_delay(paths[0], path, template) for path in paths]
        for path, delay in zip(paths, delays, strict=True):
            # Decoding times must rise across the seam: every part gets the deepest part's head start.
            earlier = max(delays) - delay
            count = _copy_packets(path, container, stream, start=frames / template.average_rate, earlier=earlier)
            spans.append((float(frames / template.average_rate), float((frames + count) / template.average_rate)))
            frames += count
    return spans


def _batch(images: Iterator[np.ndarray], count: int) -> np.ndarray:
    """Returns the next `count` images in one array; no image is in memory twice."""
    first = next(images)
    out = np.empty((count, *first.shape), np.uint8)
    for i, image in enumerate(itertools.chain([first], itertools.islice(images, count - 1))):
        if image.shape != first.shape:
            raise UnreadableError(f"a video changes its size from {first.shape[:2]} to {image.shape[:2]} in the middle")
        out[i] = image
    return out


@contextmanager
def _open(path: Path) -> Iterator[tuple[Any, Any]]:
    """Yields (container, video stream) and closes them at the end."""
    try:
        if path.exists():
            require_plain_file(path, what="video")
        container = av.open(str(path.absolute()))
    except FileNotFoundError as error:
        raise UnreadableError(f"video {path} is missing; download or copy the dataset again") from error
    except DataError as error:
        raise UnreadableError(str(error)) from error
    except av.error.FFmpegError as error:
        raise UnreadableError(f"video {path} cannot be opened: truncated or not an mp4 ({error.strerror})") from error
    with container:
        if not container.streams.video:
            raise UnreadableError(f"video {path} has no video stream")
        if container.streams.video[0].codec_context is None:
            raise UnreadableError(f"video {path} is in a codec this PyAV ({av.__version__}) cannot decode")
        yield container, container.streams.video[0]


def _key_before(container: Any, stream: Any, path: Path, *, time: float) -> float:
    """Returns the time of the key frame that a seek to `time` reaches, from its packet only; minus infinity if there is none."""
    try:
        container.seek(round(time / stream.time_base), stream=stream)
        stamp = next(container.demux(stream)).pts
    except av.error.FFmpegError as error:
        raise UnreadableError(f"video {path} is damaged before {time:.4f} s ({error.strerror}); record or download it again") from error
    return -math.inf if stamp is None else float(stamp * stream.time_base)


def _decode_from(container: Any, stream: Any, path: Path, *, time: float) -> Iterator[av.VideoFrame]:
    """Yields decoded frames in presentation order, the first one at or before `time` (unless the file starts later)."""
    begin = float((stream.start_time or 0) * stream.time_base) - 1.0  # before it: a transport stream is sought by decoding time, too late
    back = 0.0
    while True:
        frames = _decode(container, stream, path, time=max(time - back, begin))
        first = next(frames, None)
        if first is None and time - back > begin:  # a key frame by name that no image follows: with intra refresh it takes several
            back = max(2 * back, 0.5)
            continue
        if first is None:
            return
        # A key frame's place in the file is its decoding time, before its presentation time: the seek may land one too late.
        if first.time <= time + 1e-3 or time - back <= begin:
            break
        back = max(2 * back, first.time - time, 0.1)
    yield first
    yield from frames


def _decode(container: Any, stream: Any, path: Path, *, time: float) -> Iterator[av.VideoFrame]:
    last = None
    try:
        container.seek(round(time / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            if frame.pts is None or frame.is_corrupt:
                raise UnreadableError(f"video {path} is damaged: the picture after {_at(last)} is broken or has no time stamp")
            last = frame.time
            yield frame
    except av.error.FFmpegError as error:
        raise UnreadableError(f"video {path} is damaged after {_at(last)} ({error.strerror}); record or download it again") from error


def _at(time: float | None) -> str:
    return "its start" if time is None else f"{time:.4f} s"


@contextmanager
def video_writer(path: Path, form: str = "mp4", options: dict[str, str] | None = None) -> Iterator[Any]:
    """Yields a container to write into; the file appears under its name only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with av.open(str(temporary), "w", format=form, options=options or {}) as container:
            yield container
        flush_to_disk(temporary)
        temporary.replace(path)
    except av.error.FFmpegError as error:
        raise DataError(f"video {path} cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def add_encoder(container: Any, path: Path, shape: tuple[int, ...], *, codec: str, fps: float | int, options: dict[str, str]) -> Any:
    """Returns a new video stream in yuv420p. Raises DataError for a shape that is not (even H, even W, 3)."""
    if len(shape) != 3 or shape[2] != 3 or shape[0] % 2 or shape[1] % 2:
        raise DataError(f"video {path}: frames must be (H, W, 3) with even H and W, got {shape}")
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints twenty lines a video to stderr and knows no other way to be quiet
    stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options={**_SAME_BYTES.get(codec, {}), **options})
    stream.height, stream.width = shape[:2]
    stream.pix_fmt = "yuv420p"
    return stream


def _reorder_delay(first: Path, path: Path, template: Any) -> Fraction:
    """Returns the seconds by which a part's decoding runs ahead of its images (B frames). Raises DataError if it cannot follow `first`."""

    def traits(stream: Any) -> tuple[Any, ...]:
        context = stream.codec_context
        names = (context.codec.canonical_name, context.width, context.height, context.pix_fmt, stream.average_rate)
        return (*names, bytes(context.extradata or b""))

    with _open(path) as (container, stream):
        # One mp4 track has one set of decoder settings: parts with others would decode to garbage or not at all.
        if not stream.average_rate or traits(stream) != traits(template):
            raise DataError(
                f"videos {first} and {path} cannot be joined without re-encoding: they differ in codec, size, pixel format, "
                f"frame rate or encoder settings ({traits(template)[:-1]} and {traits(stream)[:-1]})"
            )
        dts = next((packet.dts for packet in container.demux(stream) if packet.size), 0)
        return ((stream.start_time or 0) - dts) * stream.time_base


def _copy_packets(path: Path, container: Any, stream: Any, *, start: Fraction, earlier: Fraction) -> int:
    """Copies one part's packets behind those already there, `start` seconds in. Returns its number of frames."""
    count = 0
    with _open(path) as (part, source):
        offset = round(start / source.time_base) - (source.start_time or 0)
        for packet in part.demux(source):
            if packet.size == 0:
                continue
            packet.pts += offset
            packet.dts += offset - round(earlier / source.time_base)
            packet.stream = stream
            container.mux(packet)
            count += 1
    return count
