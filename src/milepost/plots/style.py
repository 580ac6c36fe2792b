"""What all figures share: colours, hatches, quiet axes, lines of text that fit, PNG bytes."""

from __future__ import annotations

import bisect
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font
from matplotlib.textpath import text_to_path

STAGE_COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00", "#999999")
HATCHES = (None, "////", "....", "xxxx")
"""Of the first eight stages, the next eight, and so on: colours repeat, colour and hatch together do not for 32 stages."""
CURVE_STYLES: tuple[dict[str, Any], ...] = tuple(
    {"color": colour, "linestyle": line}
    for line in ("solid", "dashdot", "dotted")
    for colour in ("#0B3C5D", "#B3446C", "#5B5B5B", "#D55E00")
)
TRUTH_STYLE: dict[str, Any] = {"color": "#111111", "linestyle": (0, (4, 2)), "linewidth": 1.3}
PROGRESS_COLOURS = ("#440154", "#3B528B", "#21918C", "#5EC962", "#FDE725")
"""Of progress 0 to 1 (viridis): dark to light, in grey and to the colour-blind as well."""
INK, FAINT = "#222222", "#DDDDDD"


def stage_style(stage: int, *, alpha: float = 1.0) -> dict[str, Any]:
    """Fill of a stage, for any patch."""
    colour, hatch = STAGE_COLOURS[stage % len(STAGE_COLOURS)], HATCHES[stage // len(STAGE_COLOURS) % len(HATCHES)]
    return {"facecolor": colour, "hatch": hatch, "edgecolor": "#FFFFFF", "linewidth": 0, "alpha": alpha}


def wrap(text: str, inches: float, size: float) -> list[str]:
    """`text` in lines no wider than this at a font size in points. Nothing is cut off."""
    font = FontProperties(size=size)

    def fits(line: str) -> bool:
        width = text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] / 72
        return width <= 0.94 * inches  # letters are set on whole pixels, which makes a line up to 5 % wider

    return wrap_by(text, fits)


def wrap_by(text: str, fits: Callable[[str], bool]) -> list[str]:
    """`text` in lines that fit; a word too long for a line is broken inside."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if fits(joined) or not fits(word):
            lines[-1] = joined
        else:
            lines.append(word)
        while len(lines[-1]) > 1 and not fits(lines[-1]):
            long = lines.pop()
            cut = max(1, longest(long, fits))
            lines += [long[:cut], long[cut:]]
    return lines


def longest(text: str, fits: Callable[[str], bool]) -> int:
    """How many letters from the beginning fit; -1 if not even none do."""
    return bisect.bisect_left(range(len(text) + 1), True, key=lambda n: not fits(text[:n])) - 1


def quiet(ax: Axes) -> None:
    """Small ticks, faint grid, no box."""
    ax.tick_params(labelsize=7, colors=INK, length=2)
    ax.grid(axis="y", color=FAINT, linewidth=0.5)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(FAINT)


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def shortened(lines: list[str], most: int) -> list[str]:
    """At most that many lines, the last one ending in an ellipsis if there were more."""
    return lines if len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1][:-1]}\u2026"]


def ramp(value: Float[np.ndarray, "N"], colours: Sequence[str] = PROGRESS_COLOURS) -> UInt8[np.ndarray, "N 3"]:
    """Colours of values in [0, 1] (others are clipped, NaN is the first), drawn straight between these."""
    known = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours])
    at = np.linspace(0, 1, len(known))
    return np.stack([np.interp(np.nan_to_num(value), at, channel) for channel in known.T], axis=1).round().astype(np.uint8)


def font_file(text: str = "") -> str:
    """A font with all letters of `text`: matplotlib's own DejaVu Sans, else one of the system's, else DejaVu (which draws boxes)."""
    own = font_manager.findfont("DejaVu Sans")
    letters = {letter for letter in text if letter.isprintable() and not letter.isspace()}
    installed = [] if _has(own, letters) else [entry.fname for entry in font_manager.fontManager.ttflist if entry.style == "normal"]
    return next((file for file in installed if _has(file, letters)), own)


def _has(file: str, letters: set[str]) -> bool:
    if not letters or "LastResort" in file:  # a font of boxes, one for every letter there is
        return not letters
    known = FT2Font(file).get_charmap()
    return all(ord(letter) in known for letter in letters)
