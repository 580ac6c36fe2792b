"""Frames that a model can refer to: each under a band with its number and time, one by one or as contact sheets.

The band stands above the image, so it hides nothing and is legible on any background. Small frames are enlarged. Nothing is cut off.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from jaxtyping import Float, UInt8

from milepost.core import DataError

TILE = 192
"""The height of a frame on a sheet in pixels: the band stays legible after hosted models shrink the sheet to their own size."""
BAND = 28
"""The height of the band at that size in pixels, a seventh of the frame; it grows with larger frames."""
NARROWEST = 160
"""The smallest width of a tile in pixels: `120` and `3599.98 s` fit side by side."""
SHEET = (1320, 4)
"""The largest width of a sheet in pixels, and its rows: five by four tiles of 4:3."""
GAP = 6
DARK, PAPER, LIGHT, FAINT = (0, 0, 0), (70, 70, 70), (255, 255, 255), (170, 170, 170)


def beside(cameras: Sequence[UInt8[np.ndarray, "N _H _W 3"]]) -> UInt8[np.ndarray, "N H W 3"]:
    """Returns the same frames of several cameras side by side, all resized to the height of the highest."""
    if not cameras or len({len(camera) for camera in cameras}) != 1:
        raise DataError(f"the cameras should have the same frames, they have {[len(camera) for camera in cameras]}")
    if len(cameras) == 1:
        return cameras[0]
    high = max(camera.shape[1] for camera in cameras)
    return np.concatenate([_resized(camera, high) for camera in cameras], axis=2)


def stamped(
    images: UInt8[np.ndarray, "N H W 3"], times_s: Float[np.ndarray, "N"], *, smallest: int = TILE
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Returns each frame under its band, numbered from 1, at least `smallest` pixels high."""
    _require(images, times_s)
    return [_tile(image, number, float(time_s), max(smallest, image.shape[0])) for number, (image, time_s) in _numbered(images, times_s)]


def sheets(images: UInt8[np.ndarray, "N H W 3"], times_s: Float[np.ndarray, "N"], *, tile: int = TILE) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Returns contact sheets, in order, row by row: as many columns as fit, four rows; the last has only the rows it needs."""
    _require(images, times_s)
    tiles = [_tile(image, number, float(time_s), tile) for number, (image, time_s) in _numbered(images, times_s)]
    high, wide = tiles[0].shape[:2]
    columns = max(1, min((SHEET[0] - GAP) // (wide + GAP), len(tiles)))
    whole = columns * SHEET[1]
    return [_sheet(tiles[start : start + whole], columns, (high, wide)) for start in range(0, len(tiles), whole)]


def _numbered(images: UInt8[np.ndarray, "N H W 3"], times_s: Float[np.ndarray, "N"]) -> enumerate:
    return enumerate(zip(images, times_s, strict=True), start=1)


def _require(images: UInt8[np.ndarray, "N H W 3"], times_s: Float[np.ndarray, "N"]) -> None:
    if not images.size or images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise DataError(f"frames should be (N, H, W, 3) uint8 with at least one pixel, they are {images.dtype} {images.shape}")
    if len(times_s) != len(images):
        raise DataError(f"each frame needs one time: {len(images)} frames, {len(times_s)} times")


def _sheet(tiles: Sequence[np.ndarray], columns: int, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    high, wide = size[0] + GAP, size[1] + GAP
    paper = np.empty((-(-len(tiles) // columns) * high + GAP, columns * wide + GAP, 3), np.uint8)
    paper[:] = PAPER
    for place, tile in enumerate(tiles):
        top, left = place // columns * high + GAP, place % columns * wide + GAP
        paper[top : top + size[0], left : left + size[1]] = tile
    return paper


def _tile(image: UInt8[np.ndarray, "H W 3"], number: int, time_s: float, high: int) -> UInt8[np.ndarray, "h w 3"]:
    band = round(BAND * high / TILE)
    picture = _resized(image[None], high)[0]
    wide = max(picture.shape[1], round(NARROWEST * high / TILE))
    paper = PIL.Image.new("RGB", (wide, high + band), DARK)
    paper.paste(PIL.Image.fromarray(picture), ((wide - picture.shape[1]) // 2, band))
    paper.paste(PAPER, (0, band - 1, wide, band))  # dark frames begin somewhere, too
    draw, font, margin = PIL.ImageDraw.Draw(paper), _font(round(0.8 * band)), band // 4
    draw.text((margin, band / 2), str(number), fill=FAINT, font=font, anchor="lm")
    draw.text((wide - margin, band / 2), f"{time_s:.2f} s", fill=LIGHT, font=font, anchor="rm")
    return np.asarray(paper)


@functools.cache
def _font(size: int) -> PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont:
    return PIL.ImageFont.load_default(size)


def _resized(images: UInt8[np.ndarray, "N H W 3"], high: int) -> UInt8[np.ndarray, "N h w 3"]:
    if images.shape[1] == high:
        return images
    wide = max(1, round(images.shape[2] * high / images.shape[1]))
    smaller = high < images.shape[1]  # PIL's filters widen with the scale, so the cheaper one shrinks as well as any
    method = PIL.Image.Resampling.BILINEAR if smaller else PIL.Image.Resampling.BICUBIC
    sized = [PIL.Image.fromarray(np.ascontiguousarray(image)).resize((wide, high), method) for image in images]
    return np.stack([np.asarray(image) for image in sized])
