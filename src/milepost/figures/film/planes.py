"""Camera images as yuv420p planes, from any camera to mp4 (H.264) or GIF, without a conversion to RGB and back.

An image of (H, W), both even, is one (3 H / 2, W) uint8 array: H rows of brightness, then the two half-size colour planes (I420, BT.601,
16 to 235). White is 235, 128, 128; grey is in the brightness plane alone. No model is trained on these planes: models get RGB from
`datasets/video.py`. The planes of a decoder's or an encoder's frame are views into it, so an image is copied once, from one to the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from jaxtyping import UInt8

from milepost.core import DataError, Frames, require_uint8
from milepost.datasets import VideoFrames, add_encoder, quarter_turns, to_rgb, upright, video_writer

_SETTINGS = {"preset": "veryfast", "crf": "18"}
"""For people, not for training: near lossless, one key frame per second."""
_BT601 = (2, 5, 6)
"""FFmpeg's numbers of colour spaces that are BT.601: unspecified (how swscale takes it), BT.470BG, SMPTE 170M."""
_CHUNK = 16
Frame: TypeAlias = av.VideoFrame
Planes = tuple[np.ndarray, np.ndarray, np.ndarray]
"""The planes of an image: brightness (H, W) and two colours (H / 2, W / 2), uint8."""


def to_i420(image: UInt8[np.ndarray, "H W 3"], converter: VideoReformatter | None = None) -> UInt8[np.ndarray, "H2 W2"]:
    """Converts an RGB image to planes; an odd side is padded with a copy of its last line. One converter for many images of a size is
    faster."""
    require_uint8(image, "an image of a video")
    if image.shape[0] % 2 or image.shape[1] % 2:
        image = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")
    frame = Frame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    return (converter or VideoReformatter()).reformat(frame, format="yuv420p").to_ndarray()


def planes(i420: UInt8[np.ndarray, "H2 W"]) -> tuple[UInt8[np.ndarray, "H W"], UInt8[np.ndarray, "H4 W4"], UInt8[np.ndarray, "H4 W4"]]:
    """Returns brightness and the two colours, as views into the array."""
    height, width = i420.shape[0] * 2 // 3, i420.shape[1]
    colours = i420[height:].reshape(2, height // 2, width // 2)
    return i420[:height], colours[0], colours[1]


def views(frame: Frame) -> Planes:
    """Returns brightness and the two colours of a yuv420p frame, as views into it."""
    rows = [np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width] for plane in frame.planes]
    return rows[0], rows[1], rows[2]


def blank(height: int, width: int) -> Frame:
    """Returns a white frame. Paint on its `views`, and pass it to a video's `add` again and again."""
    frame = Frame(width, height, "yuv420p")
    for plane, white in zip(views(frame), (235, 128, 128), strict=True):
        plane[:] = white
    return frame


def read_planes(frames: Frames, factor: int = 1) -> Generator[Planes, None, None]:
    """Yields every image of a camera once, in order; the planes must not be written to.

    An image that must be converted is enlarged first, each pixel to a square of `factor` x `factor`, so that it keeps all its colours; the
    decoder's own planes are unchanged.
    """
    converter = VideoReformatter()
    if not isinstance(frames, VideoFrames):
        for chunk in frames.chunks(_CHUNK):
            for image in chunk:
                yield planes(to_i420(_larger(image, factor), converter))
        return
    coloured = VideoReformatter()
    with closing(frames.decoded()) as decoded:
        for frame in decoded:
            plain = frame.format.name == "yuv420p" and frame.color_range != ColorRange.JPEG and frame.colorspace in _BT601
            if plain and not quarter_turns(frame) and frame.width % 2 == frame.height % 2 == 0:
                yield views(frame)
            else:
                yield planes(to_i420(_larger(upright(to_rgb(frame, coloured), frame), factor), converter))


def _larger(image: UInt8[np.ndarray, "H W 3"], factor: int) -> UInt8[np.ndarray, "H2 W2 3"]:
    return image if factor == 1 else image.repeat(factor, axis=0).repeat(factor, axis=1)


@contextmanager
def mp4_writer(path: Path, size: tuple[int, int], fps: float | int) -> Iterator[Callable[[Frame], None]]:
    """Opens an mp4 that browsers play (H.264, yuv420p, index in front); `add(frame)` appends an image. It is atomic: after an error no file
    is left.

    size: (height, width). DataError if one is odd, and at the end if there was no image.
    """
    settings = _SETTINGS | {"g": str(max(1, round(fps)))}
    with video_writer(path, options={"movflags": "+faststart"}) as container:
        stream = add_encoder(container, path, (*size, 3), codec="libx264", fps=fps, options=settings)
        stream.codec_context.colorspace = Colorspace.ITU601  # without this tag, players guess the colour space from the size
        stream.codec_context.color_range = ColorRange.MPEG
        count = itertools.count()

        def add(frame: Frame) -> None:  # x264 copies an image before it returns, so the caller may paint over the frame
            container.mux(stream.encode(_stamped(frame, next(count), 1 / stream.average_rate)))

        yield add
        if not next(count):
            raise DataError(f"video {path}: there are no frames to write")
        container.mux(stream.encode())


@contextmanager
def gif_writer(path: Path, samples: UInt8[np.ndarray, "N H2 W"], fps: float | int) -> Iterator[Callable[[Frame], None]]:
    """Opens a GIF that repeats without end; `add(frame)` appends an image. Its 256 colours are those that the samples need. It is atomic.

    samples: images spread over the whole video, of its size. Time in a GIF has a resolution of 0.01 s.
    """
    tick = 1 / Fraction(fps).limit_denominator(1001)
    palette = _palette(samples)
    height, width = planes(samples[0])[0].shape
    with video_writer(path, form="gif") as container:
        stream = container.add_stream("gif", rate=1 / tick)
        stream.height, stream.width, stream.pix_fmt = height, width, "pal8"
        graph, source = _graph(height, width, tick)
        colours = graph.add_buffer(width=palette.width, height=palette.height, format=palette.format.name, time_base=tick)
        use, sink = graph.add("paletteuse", "dither=bayer:bayer_scale=4:diff_mode=rectangle"), graph.add("buffersink")
        source.link_to(use, 0, 0)
        colours.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        colours.push(palette)
        colours.push(None)
        count = itertools.count()

        def add(frame: Frame | None) -> None:  # the filter keeps a reference to its input, so it gets a copy
            source.push(None if frame is None else _frame(frame.to_ndarray(), next(count), tick))
            for frame in _pulled(sink):
                container.mux(stream.encode(frame))

        yield add
        add(None)
        container.mux(stream.encode())


def _palette(samples: UInt8[np.ndarray, "N H2 W"]) -> Frame:
    """Returns the 256 colours that represent these images best, in the form that paletteuse needs."""
    height, width = planes(samples[0])[0].shape
    graph, source = _graph(height, width, Fraction(1))
    make, sink = graph.add("palettegen", "reserve_transparent=0"), graph.add("buffersink")
    source.link_to(make)
    make.link_to(sink)
    graph.configure()
    for number, sample in enumerate(samples):
        source.push(_frame(sample, number, Fraction(1)))
    source.push(None)
    return next(_pulled(sink))


def _graph(height: int, width: int, tick: Fraction) -> tuple[Any, Any]:
    graph = av.filter.Graph()
    return graph, graph.add_buffer(width=width, height=height, format="yuv420p", time_base=tick)


def _frame(i420: UInt8[np.ndarray, "H2 W"], number: int, tick: Fraction) -> Frame:
    return _stamped(Frame.from_ndarray(i420, format="yuv420p"), number, tick)


def _stamped(frame: Frame, number: int, tick: Fraction) -> Frame:
    frame.pts, frame.time_base = number, tick
    frame.colorspace, frame.color_range = Colorspace.ITU601, ColorRange.MPEG
    return frame


def _pulled(sink: Any) -> Iterator[Frame]:
    """Yields the frames that a filter has ready."""
    while True:
        try:
            yield sink.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
