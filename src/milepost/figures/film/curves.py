"""Curves and strips over an episode's time as pixels, in two versions: not yet played and played. This file knows no text and no video.

A column of the area is a moment of the episode: frame t of T covers the columns [t, t + 1) / T of its width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw

from milepost.figures.style import CURVE_STYLES, FAINT, STAGE_COLOURS, ramp

FINE = 4
"""Curves are drawn this many times larger and then reduced, which gives smooth lines."""
FAR = 0.5
"""Opacity of what is not yet played."""
UNKNOWN = "#EFEFEF"
DASH = {"solid": (1, 1), "dashdot": (7, 10), "dotted": (2, 4), "dashed": (5, 8)}
"""(length of a dash, period) along x, in line widths."""


def rgb(colour: str) -> UInt8[np.ndarray, "3"]:
    """Returns "#RRGGBB" as numbers."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)


def blend(below: np.ndarray, above: np.ndarray, alpha: float | np.ndarray) -> np.ndarray:
    """Blends `above` over `below` with opacity alpha; broadcasts."""
    return np.round(below + (above.astype(np.float32) - below) * np.asarray(alpha, np.float32)).astype(np.uint8)


def frames_of(columns: int, length: int) -> Int[np.ndarray, "W"]:
    """Returns the frame that each column shows."""
    return np.minimum((np.arange(columns) + 0.5) / columns * length, length - 1).astype(np.int64)


def column_of(frame: int, columns: int, length: int) -> int:
    """Returns the column in the middle of a frame's own."""
    return min(columns - 1, int((frame + 0.5) / length * columns))


def between(curve: Float[np.ndarray, "T"], columns: int) -> Float[np.ndarray, "W"]:
    """Interpolates the curve at every column between known frames; NaN within unknown frames."""
    at = np.clip((np.arange(columns) + 0.5) / columns * len(curve) - 0.5, 0, len(curve) - 1)
    below = np.floor(at).astype(np.int64)
    above = np.minimum(below + 1, len(curve) - 1)
    straight = curve[below] + (curve[above] - curve[below]) * (at - below)
    return np.where(np.isnan(straight), curve[np.round(at).astype(np.int64)], straight)


def line_mask(curve: Float[np.ndarray, "T"], size: tuple[int, int], thick: int, dash: str = "solid") -> Float[np.ndarray, "H W"]:
    """Returns how much of each pixel the curve's line covers, 0 to 1: nothing where the curve is unknown, a dot on a single known frame."""
    height, width = size
    image = Image.new("L", (FINE * width, FINE * height))
    draw = ImageDraw.Draw(image)
    x = (np.arange(len(curve)) + 0.5) / len(curve) * FINE * width
    y = rows_of(curve, height, thick) * FINE
    frames = np.flatnonzero(~np.isnan(curve))
    for run in np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1):
        if len(run) == 1:
            spot = thick * FINE
            draw.ellipse((x[run[0]] - spot, y[run[0]] - spot, x[run[0]] + spot, y[run[0]] + spot), fill=255)
        elif len(run):
            draw.line([*zip(x[run].tolist(), y[run].tolist(), strict=True)], fill=255, width=FINE * thick, joint="curve")
    on, of = DASH[dash]
    dashes = np.arange(width) % (of * thick) < on * thick if dash != "solid" else np.ones(width, bool)
    return np.asarray(image.reduce(FINE), np.float32) / 255 * dashes


def rows_of(curve: Float[np.ndarray, "N"], height: int, thick: int) -> Float[np.ndarray, "N"]:
    """Returns the y position of a value in an area of this height: 1 at the top, 0 at the bottom, one line width from the edges."""
    return thick + (1 - curve) * (height - 1 - 2 * thick)


def curves_area(
    curves: Sequence[Float[np.ndarray, "T"]], truth: Float[np.ndarray, "T"] | None, size: tuple[int, int], thick: int
) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W 3"]]:
    """Draws (not yet played, played): the area under the played part of the first curve has the colour of its progress; grey where it is
    unknown."""
    height, width = size
    far = np.full((height, width, 3), 255, np.uint8)
    value = between(curves[0], width)
    far[:, np.isnan(value)] = rgb(UNKNOWN)
    for level in (0.0, 0.5, 1.0):
        far[round(float(rows_of(np.array([level]), height, thick)[0]))] = rgb(FAINT)
    under = np.arange(height)[:, None] >= rows_of(value, height, thick)  # NaN is under nothing
    played = np.where(under[..., None], blend(far, ramp(value)[None], 0.85), far)
    lines: list[tuple[np.ndarray, dict[str, Any]]] = [] if truth is None else [(truth, {"color": "#111111", "linestyle": "dashed"})]
    lines += [*zip(curves, CURVE_STYLES, strict=False)][::-1]
    for curve, style in lines:
        mask = line_mask(curve, size, thick, style["linestyle"])[..., None]
        far, played = blend(far, rgb(style["color"]), FAR * mask), blend(played, rgb(style["color"]), mask)
    return far, played


def stage_colours(stage: Int[np.ndarray, "N"]) -> UInt8[np.ndarray, "N 3"]:
    """Returns each stage's colour, white where it is unknown."""
    palette = np.stack([rgb(colour) for colour in STAGE_COLOURS])
    return np.where((stage >= 0)[:, None], palette[stage % len(palette)], 255).astype(np.uint8)


def strip(colours: UInt8[np.ndarray, "T 3"], size: tuple[int, int]) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W 3"]]:
    """Draws (not yet played, played): a band of these colours, one per frame."""
    height, width = size
    played = np.broadcast_to(colours[frames_of(width, len(colours))], (height, width, 3))
    return blend(np.full((height, width, 3), 255, np.uint8), played, FAR), played.copy()
