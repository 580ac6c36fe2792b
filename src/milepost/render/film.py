"""An episode as a film: its cameras side by side, untouched but for their size, and the panel under them.

Small pictures are made larger by a whole factor, each pixel a square, so that words are legible and pixels stay the source's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from milepost.console import Tick
from milepost.plots import EpisodePicture, sample_frames
from milepost.render.panel import Panel
from milepost.types import DataError, Episode
from milepost.video import film_writer, gif_writer

NARROWEST = 320
"""Pixels of a film's width under which words do not fit; pictures are made larger until they reach it."""
GIF_WIDTH, GIF_FPS, GIF_SAMPLES = 480, 12.5, 16
"""At most so wide and so many frames a second: a GIF of everything is larger than the mp4 by a factor of ten and more."""
_CHUNK = 16


@dataclass(frozen=True)
class _Place:
    """Where a camera's picture stands, and how large it is drawn."""

    top: int
    left: int
    height: int
    width: int

    def paint(self, image: UInt8[np.ndarray, "H W 3"], canvas: UInt8[np.ndarray, "H2 W2 3"]) -> None:
        area = canvas[self.top : self.top + self.height, self.left : self.left + self.width]
        factor, rest = divmod(self.height, image.shape[0])
        if factor and not rest and self.width == factor * image.shape[1]:
            wide = image if factor == 1 else image.repeat(factor, axis=1)
            for row in range(factor):
                area[row::factor] = wide
        else:
            area[:] = np.asarray(Image.fromarray(image).resize((self.width, self.height), Image.Resampling.LANCZOS))


class _Layout:
    """Where everything stands, for pictures of these sizes. `frame(images, number)` is the film's frame."""

    def __init__(self, picture: EpisodePicture, cameras: Sequence[str], sizes: Sequence[tuple[int, int]], heights: Sequence[int]) -> None:
        widths = [round(height / size[0] * size[1]) for size, height in zip(sizes, heights, strict=True)]
        gap = 4 if len(sizes) > 1 else 0
        wide = sum(widths) + gap * (len(sizes) - 1)
        tall, self.width = max(heights), max(wide, NARROWEST) + max(wide, NARROWEST) % 2
        left, self.places = (self.width - wide) // 2, []
        for height, width in zip(heights, widths, strict=True):
            self.places.append(_Place((tall - height) // 2, left, height, width))
            left += width + gap
        captions = [(place.left, place.width, name) for place, name in zip(self.places, cameras, strict=True)]
        self.panel = Panel(picture, self.width, tall, captions if len(cameras) > 1 else ())
        self.tall, self.height = tall, tall + self.panel.height
        self._ground = np.full((self.height, self.width, 3), 255, np.uint8)

    def frame(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], number: int) -> UInt8[np.ndarray, "H W 3"]:
        """The same array every time: the next frame is painted over it."""
        for place, image in zip(self.places, images, strict=True):
            place.paint(image, self._ground)
        self.panel.draw(number, self._ground[self.tall :])
        return self._ground


def render_film(
    episode: Episode,
    picture: EpisodePicture,
    cameras: Sequence[str],
    path: Path,
    *,
    height: int | None = None,
    gif: Path | None = None,
    tick: Tick | None = None,
) -> None:
    """Write the film of an episode as mp4, and as GIF too if `gif` says where. Each frame is read once; files appear when complete.

    picture: what is said of the episode, by one head. height: of the pictures in pixels; by default their own, times a whole number if
    they are small. DataError for no or an unknown camera, or pictures that cannot be read.
    """
    if not cameras:
        raise DataError(f"episode {episode.index} has no camera: there is nothing to show")
    reels = [_each(episode.camera(camera).chunks(_CHUNK)) for camera in cameras]
    first = [next(reel) for reel in reels]
    sizes = [(image.shape[0], image.shape[1]) for image in first]
    layout = _Layout(picture, cameras, sizes, _heights(sizes, height))
    with ExitStack() as stack:
        add = [(1, layout, stack.enter_context(film_writer(path, (layout.height, layout.width), episode.fps)))]
        if gif is not None:
            add.append(_gif(stack, gif, episode, (picture, cameras, sizes, layout)))
        images: Sequence[np.ndarray] = first
        for number in range(episode.length):
            images = first if number == 0 else [next(reel) for reel in reels]
            for step, each, write in add:
                if number % step == 0:
                    write(each.frame(images, number))
            if tick is not None:
                tick(number + 1, episode.length)


def _gif(
    stack: ExitStack, path: Path, episode: Episode, film: tuple[EpisodePicture, Sequence[str], Sequence[tuple[int, int]], _Layout]
) -> tuple[int, _Layout, Callable[[np.ndarray], None]]:
    """Every how many frames, in which layout, and what takes them."""
    picture, cameras, sizes, layout = film
    if layout.width > GIF_WIDTH:
        layout = _Layout(picture, cameras, sizes, [max(1, place.height * GIF_WIDTH // layout.width) for place in layout.places])
    step = max(1, int(np.ceil(episode.fps / GIF_FPS - 1e-6)))
    at = sample_frames(episode.length, GIF_SAMPLES)
    shots = zip(*(episode.camera(camera)[np.array(at)] for camera in cameras), strict=True)
    samples = np.stack([layout.frame(images, number).copy() for images, number in zip(shots, at, strict=True)])
    return step, layout, stack.enter_context(gif_writer(path, samples, episode.fps / step))


def _each(chunks: Iterator[UInt8[np.ndarray, "N H W 3"]]) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    for chunk in chunks:
        yield from chunk


def _heights(sizes: Sequence[tuple[int, int]], asked: int | None) -> list[int]:
    """How high each camera is drawn: as asked; else a whole number of times its own, as near the tallest as that allows."""
    if asked is not None:
        return [asked] * len(sizes)
    tallest = max(height for height, _ in sizes)
    level = [tallest // height for height, _ in sizes]
    wide = sum(factor * width for factor, (_, width) in zip(level, sizes, strict=True))
    factor = -(-NARROWEST // wide) if wide < NARROWEST else 1
    return [factor * each * height for each, (height, _) in zip(level, sizes, strict=True)]
