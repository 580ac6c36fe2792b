"""Pictures as films hold them, from any camera to mp4 (H.264) or GIF: yuv420p planes, so that nothing is converted to RGB and back.

A picture of (H, W), both even, is one (3 H / 2, W) uint8 array: H rows of brightness, then the two half-size colour planes (I420, BT.601,
16 to 235). White is 235, 128, 128; whatever is grey is brightness alone. No model learns from these: it gets RGB of `datasets/video.py`.
Planes of a frame of the decoder's or the encoder's are views into it, so a picture is copied once, from one to the other.
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

_SETTINGS = {"preset": "veryfast", "crf": "18", "x264-params": "mbtree=0"}
"""To look at, not to learn from: near lossless, a key frame a second. With its macroblock tree x264 reads memory that nobody wrote, and
makes different films of the same pictures (8 of 30, with one thread too); without it, the same in 60 of 60."""
_BT601 = (2, 5, 6)
"""FFmpeg's numbers of colour spaces that are BT.601: unspecified (how swscale takes it), BT.470BG, SMPTE 170M."""
_CHUNK = 16
Frame: TypeAlias = av.VideoFrame
Planes = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of a picture: brightness (H, W) and two colours (H / 2, W / 2), uint8."""


def to_i420(image: UInt8[np.ndarray, "H W 3"], converter: VideoReformatter | None = None) -> UInt8[np.ndarray, "H2 W2"]:
    """The planes of an RGB image; an odd side is made even by its last line, twice. One converter for many images of a size is faster."""
    require_uint8(image, "a picture of a film")
    if image.shape[0] % 2 or image.shape[1] % 2:
        image = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")
    frame = Frame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    return (converter or VideoReformatter()).reformat(frame, format="yuv420p").to_ndarray()


def planes(i420: UInt8[np.ndarray, "H2 W"]) -> tuple[UInt8[np.ndarray, "H W"], UInt8[np.ndarray, "H4 W4"], UInt8[np.ndarray, "H4 W4"]]:
    """Brightness and the two colours, as views into the array."""
    height, width = i420.shape[0] * 2 // 3, i420.shape[1]
    colours = i420[height:].reshape(2, height // 2, width // 2)
    return i420[:height], colours[0], colours[1]


def views(frame: Frame) -> Planes:
    """Brightness and the two colours of a yuv420p frame, as views into it."""
    rows = [np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width] for plane in frame.planes]
    return rows[0], rows[1], rows[2]


def blank(height: int, width: int) -> Frame:
    """A white frame to paint on, by its `views`, and to give to a film's `add`, again and again."""
    frame = Frame(width, height, "yuv420p")
    for plane, white in zip(views(frame), (235, 128, 128), strict=True):
        plane[:] = white
    return frame


def read_planes(frames: Frames, factor: int = 1) -> Generator[Planes, None, None]:
    """Every picture of a camera once, in order; not to be written to.

    Pictures that must be converted come with each pixel a square of `factor` x `factor`, so that they keep all their colours; planes of the
    decoder's own come as they are.
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
def film_writer(path: Path, size: tuple[int, int], fps: float | int) -> Iterator[Callable[[Frame], None]]:
    """`add(frame)` appends a picture to an mp4 that browsers play: H.264, yuv420p, index in front. Atomic: on any error nothing is left.

    size: (height, width). DataError if one is odd; at the end, for no picture.
    """
    settings = _SETTINGS | {"g": str(max(1, round(fps)))}
    with video_writer(path, options={"movflags": "+faststart"}) as container:
        stream = add_encoder(container, path, (*size, 3), codec="libx264", fps=fps, options=settings)
        stream.codec_context.colorspace = Colorspace.ITU601  # untagged, players guess by the size
        stream.codec_context.color_range = ColorRange.MPEG
        count = itertools.count()

        def add(frame: Frame) -> None:  # x264 copies a picture before it returns, so the frame can be painted over
            container.mux(stream.encode(_stamped(frame, next(count), 1 / stream.average_rate)))

        yield add
        if not next(count):
            raise DataError(f"film {path}: there are no frames to write")
        container.mux(stream.encode())


@contextmanager
def gif_writer(path: Path, samples: UInt8[np.ndarray, "N H2 W"], fps: float | int) -> Iterator[Callable[[Frame], None]]:
    """`add(frame)` appends a picture to a GIF that repeats for ever. Its 256 colours are those the samples need. Atomic.

    samples: pictures spread over the whole, of the size of all of them. Time in a GIF counts hundredths of a second.
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

        def add(frame: Frame | None) -> None:  # the filter keeps what it is given, so that is a copy
            source.push(None if frame is None else _frame(frame.to_ndarray(), next(count), tick))
            for frame in _pulled(sink):
                container.mux(stream.encode(frame))

        yield add
        add(None)
        container.mux(stream.encode())


def _palette(samples: UInt8[np.ndarray, "N H2 W"]) -> Frame:
    """The 256 colours that serve these pictures best, as paletteuse wants them."""
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
    """What a filter has ready."""
    while True:
        try:
            yield sink.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
