"""An episode as a video: its cameras side by side, unchanged except for their size, and the panel under them.

Small images are enlarged by a whole factor, each pixel to a square, so that text is legible and pixels are the source's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from milepost.core import DataError, Episode, Frames, Tick, require_whole
from milepost.figures.episode import EpisodeView, sample_frames
from milepost.figures.film.panel import Panel
from milepost.figures.film.planes import Frame, Planes, blank, gif_writer, mp4_writer, planes, read_planes, to_i420, views

NARROWEST = 320
"""Below this width in pixels the panel's text does not fit; images are enlarged until they reach it."""
LOWEST, HIGHEST = 16, 4320
"""Limits of the height of the images that a user asks for."""
GIF_WIDTH, GIF_FPS, GIF_SAMPLES = 480, 12.5, 16
"""Limits of width and frames per second, and images for its palette: without limits a GIF is more than ten times larger than the mp4."""
Add = Callable[[Frame], None]


@dataclass(frozen=True)
class _Place:
    """Position and size of a camera's image, all even. full: its height with each pixel enlarged to a whole square."""

    top: int
    left: int
    height: int
    width: int
    full: int

    def paint(self, image: Planes, canvas: Planes) -> None:
        factor = self.full // len(image[0])
        for place, (plane, onto) in enumerate(zip(image, canvas, strict=True)):
            top, left, height, width = (number // (1 if place == 0 else 2) for number in (self.top, self.left, self.height, self.width))
            wide, high = plane.repeat(factor, axis=1) if factor > 1 else plane, factor
            if (high * wide.shape[0], wide.shape[1]) != (height, width):
                larger = Image.fromarray(np.ascontiguousarray(wide.repeat(high, axis=0)))
                wide, high = np.asarray(larger.resize((width, height), Image.Resampling.LANCZOS)), 1
            for row in range(high):
                onto[top + row : top + height : high, left : left + width] = wide


class _Layout:
    """The position of every part, for images of these sizes. `frame(images, number)` is the video's frame."""

    def __init__(self, view: EpisodeView, cameras: Sequence[str], sizes: Sequence[tuple[int, int]], full: Sequence[int]) -> None:
        gap = 4 if len(sizes) > 1 else 0
        wide = sum(width for _, width in sizes) + gap * (len(sizes) - 1)
        self.tall, self.width = max(height for height, _ in sizes), max(wide, NARROWEST)
        x0, self.places = _even((self.width - wide) // 2), []
        for (height, width), whole in zip(sizes, full, strict=True):
            self.places.append(_Place(_even((self.tall - height) // 2), x0, height, width, whole))
            x0 += width + gap
        captions = [(place.left, place.width, name) for place, name in zip(self.places, cameras, strict=True)]
        self.panel = Panel(view, self.width, self.tall, captions if len(cameras) > 1 else ())
        self.height = self.tall + self.panel.height
        self._canvas = blank(self.height, self.width)
        bright, *colours = self._planes = views(self._canvas)
        self._below = bright[self.tall :], colours[0][self.tall // 2 :], colours[1][self.tall // 2 :]

    def frame(self, images: Sequence[Planes], number: int) -> Frame:
        """Paints over the one frame of this layout and returns it; the caller must use it before the next call."""
        for place, each in zip(self.places, images, strict=True):
            place.paint(each, self._planes)
        self.panel.draw(number, self._below)
        return self._canvas


def require_height(height: int | None) -> None:
    """Raises DataError unless the height of the images is left to themselves (None) or a whole number of pixels from 16 to 4320."""
    if height is None:
        return
    require_whole([height], "the height of the images")
    if not LOWEST <= height <= HIGHEST:
        raise DataError(f"the height of the images must be {LOWEST} to {HIGHEST} pixels, got {height}")


def render_video(
    episode: Episode,
    view: EpisodeView,
    cameras: Sequence[str],
    path: Path,
    *,
    height: int | None = None,
    gif: Path | None = None,
    tick: Tick | None = None,
) -> None:
    """Writes the video of an episode as mp4, and as GIF too if `gif` is a path. Each frame is decoded once; files appear when they are
    complete.

    view: the content of the panel, with one head. height: of the images in pixels; None takes their own, times a whole number if they
    are small. DataError for no or an unknown camera, or images that cannot be read.
    """
    require_height(height)
    if not cameras:
        raise DataError(f"episode {episode.index} has no camera: there is nothing to show")
    footage = [episode.camera(camera) for camera in cameras]
    sizes = [each[np.array([0])].shape[1:3] for each in footage]
    factors = _factors(sizes, height)
    whole = [(_even(factor * high + 1), _even(factor * wide + 1)) for factor, (high, wide) in zip(factors, sizes, strict=True)]
    full = [high for high, _ in whole]
    reels = [read_planes(each, factor) for each, factor in zip(footage, factors, strict=True)]
    layout = _Layout(view, cameras, [_scaled_size(size, height) for size in whole], full)
    with ExitStack() as stack:
        add: list[tuple[int, _Layout, Add]] = [
            (1, layout, stack.enter_context(mp4_writer(path, (layout.height, layout.width), episode.fps)))
        ]
        if gif is not None:
            small = (
                layout if layout.width <= GIF_WIDTH else _Layout(view, cameras, [_gif_size(layout, place) for place in layout.places], full)
            )
            step = max(1, math.ceil(episode.fps / GIF_FPS - 1e-6))
            samples = _samples(small, footage, factors)
            add.append((step, small, stack.enter_context(gif_writer(gif, samples, episode.fps / step))))
        for number in range(episode.length):
            images = [next(reel) for reel in reels]
            for step, each, write in add:
                if number % step == 0:
                    write(each.frame(images, number))
            if tick is not None:
                tick(number + 1, episode.length)


def _factors(sizes: Sequence[tuple[int, int]], height: int | None) -> list[int]:
    """Returns the enlargement of each camera: as near to the tallest as whole numbers allow, then all by one more factor until the text
    fits."""
    if height is not None:
        return [1] * len(sizes)
    tallest = max(height for height, _ in sizes)
    level = [tallest // height for height, _ in sizes]
    wide = sum(factor * width for factor, (_, width) in zip(level, sizes, strict=True))
    return [factor * max(1, math.ceil(NARROWEST / wide)) for factor in level]


def _scaled_size(size: tuple[int, int], target: int | None) -> tuple[int, int]:
    """Returns the (height, width) of an image in the video: its own, or that of the user's height."""
    own_height, width = size
    return size if target is None else (_even(target + 1), _even(round(target / own_height * width) + 1))


def _gif_size(layout: _Layout, place: _Place) -> tuple[int, int]:
    scale = GIF_WIDTH / layout.width
    return max(2, _even(int(place.height * scale))), max(2, _even(int(place.width * scale)))


def _samples(layout: _Layout, footage: Sequence[Frames], factors: Sequence[int]) -> UInt8[np.ndarray, "N H2 W"]:
    """Returns frames spread over the video."""
    at = sample_frames(len(footage[0]), GIF_SAMPLES)
    larger = (each[np.array(at)].repeat(factor, axis=1).repeat(factor, axis=2) for each, factor in zip(footage, factors, strict=True))
    rows = zip(*larger, strict=True)
    return np.stack([layout.frame([planes(to_i420(image)) for image in images], at[i]).to_ndarray() for i, images in enumerate(rows)])


def _even(number: int) -> int:
    return number - number % 2
