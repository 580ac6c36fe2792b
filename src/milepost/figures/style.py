"""The common parts of all figures: colours, hatches, plain axes, fonts that have the letters, wrapped text, files.

Colours stay apart without red or green (protanopia, deuteranopia), and neighbours in grey too: tests/test_plots_style.py computes it.
"""

from __future__ import annotations

import bisect
import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.textpath import text_to_path

from milepost.figures.formats import Format

STAGE_COLOURS = ("#56B4E9", "#F0E442", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#BBBBBB", "#CC79A7")
"""The palette of Okabe and Ito with grey in place of black. In this order neighbouring stages also differ when printed in grey."""
HATCHES = (None, "////", "....", "xxxx")
"""One hatch for each eight stages: colours repeat, but colour and hatch together are unique for 32 stages."""
CURVE_STYLES: tuple[dict[str, Any], ...] = tuple(
    {"color": ("#0B3C5D", "#8C510A", "#008B8B", "#B8860B")[i % 4], "linestyle": ("solid", "dashdot", "dotted")[i % 3]} for i in range(12)
)
"""Line styles of the models, in drawing order: neighbours differ in colour and in line; twelve pairs are unique."""
TRUTH_STYLE: dict[str, Any] = {"color": "#111111", "linestyle": (0, (4, 2)), "linewidth": 1.3}
PROGRESS_COLOURS = ("#440154", "#3B528B", "#21918C", "#5EC962", "#FDE725")
"""Colours of progress 0 to 1 (viridis): dark to light, also in grey and for colour-blind readers."""
ZERO, PART, FULL = "#7A0403", "#DD8A4E", "#A8DDBB"
"""Colours of weight 0, between, and 1: a darker colour is a lower weight."""
UNKNOWN = "#B8B8B8"
"""Colour of frames whose weight is the fallback, because their progress is unknown."""
WEIGHTS = LinearSegmentedColormap.from_list("weights", (ZERO, PART, FULL))
INK, FAINT = "#222222", "#DDDDDD"
_DEFAULT_FONT = "DejaVu Sans"


def stage_style(stage: int, *, alpha: float = 1.0) -> dict[str, Any]:
    """Returns the fill of a stage, for any patch."""
    colour, hatch = STAGE_COLOURS[stage % len(STAGE_COLOURS)], HATCHES[stage // len(STAGE_COLOURS) % len(HATCHES)]
    return {"facecolor": colour, "hatch": hatch, "edgecolor": "#FFFFFF", "linewidth": 0, "alpha": alpha}


def ink_on(stage: int) -> str:
    """Returns the colour of text on a stage's colour: dark, or white on a dark one."""
    red, green, blue = (int(STAGE_COLOURS[stage % len(STAGE_COLOURS)][i : i + 2], 16) for i in (1, 3, 5))
    return INK if 0.3 * red + 0.59 * green + 0.11 * blue > 100 else "#FFFFFF"


def wrap(text: str, inches: float, size: float) -> list[str]:
    """Returns `text` in lines no wider than this, at a font size in points. Nothing is cut off."""
    font = FontProperties(size=size, family=list(families(text)))

    def fits(line: str) -> bool:
        width = text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] / 72
        return width <= 0.94 * inches  # letters are set on whole pixels, which makes a line up to 5 % wider

    return wrap_by(text, fits)


def wrap_by(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Returns `text` in lines that fit; a word that is too long for a line is broken."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if fits(joined) or not fits(word):
            lines[-1] = joined
        else:
            lines.append(word)
        while len(lines[-1]) > 1 and not fits(lines[-1]):
            long = lines.pop()
            split = max(1, longest(long, fits))
            lines += [long[:split], long[split:]]
    return lines


def longest(text: str, fits: Callable[[str], bool]) -> int:
    """Returns how many letters from the beginning fit, or -1 if even none does not fit."""
    return bisect.bisect_left(range(len(text) + 1), True, key=lambda n: not fits(text[:n])) - 1


def quiet(ax: Axes) -> None:
    """Sets small ticks, a faint grid and no box."""
    ax.tick_params(labelsize=7, colors=INK, length=2)
    ax.grid(axis="y", color=FAINT, linewidth=0.5)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(FAINT)


def png(figure: Figure) -> bytes:
    """Returns the figure as PNG bytes, the same bytes for the same figure."""
    return figure_bytes(figure, "png")


def figure_bytes(figure: Figure, form: Format) -> bytes:
    """Returns the figure as a file's bytes, the same for the same figure; each text is in fonts that have its letters. PDF and SVG are for
    print."""
    nameless = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None, "Producer": None, "Creator": None}}
    for text in figure.findobj(Text):
        if (fonts := families(text.get_text())) != (_DEFAULT_FONT,):
            text.set_fontfamily(list(fonts))
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "milepost", "pdf.fonttype": 42}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # `missing_letters` reports it in one line
        figure.savefig(buffer, format=form, metadata=nameless[form])
    return buffer.getvalue()


def missing_letters(texts: Iterable[str]) -> str:
    """Returns the letters of these texts that no installed font has: they are drawn as boxes."""
    return "".join(sorted({letter for text in texts for letter in _letters(text) if _font_with(letter) is None}))


def texts_of(figure: Figure) -> list[str]:
    """Returns all texts of a figure."""
    return [text.get_text() for text in figure.findobj(Text)]


def shortened(lines: list[str], most: int) -> list[str]:
    """Returns at most that many lines; the last one ends in an ellipsis if there were more."""
    return lines if len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1][:-1]}\u2026"]


def ramp(value: Float[np.ndarray, "N"], colours: Sequence[str] = PROGRESS_COLOURS) -> UInt8[np.ndarray, "N 3"]:
    """Interpolates colours for values in [0, 1]; other values are clipped, NaN gets the first colour."""
    palette = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours])
    at = np.linspace(0, 1, len(palette))
    return np.stack([np.interp(np.nan_to_num(value), at, channel) for channel in palette.T], axis=1).round().astype(np.uint8)


def font_file(text: str = "") -> str:
    """Returns a font file with all letters of `text`: matplotlib's own DejaVu Sans, else one of the system's, else the one with most of the
    letters."""
    letters = _letters(text)
    files = [
        font_manager.findfont(_DEFAULT_FONT),
        *(dict.fromkeys(entry.fname for letter in sorted(letters) if (entry := _font_with(letter)))),
    ]
    return max(files, key=lambda file: len(letters & _charmap(file)))


def families(text: str) -> tuple[str, ...]:
    """Returns the names of the fonts for `text`: the default font first, then system fonts for the letters that it lacks."""
    names = dict.fromkeys(entry.name for letter in sorted(_letters(text)) if (entry := _font_with(letter)))
    return tuple(dict.fromkeys((_DEFAULT_FONT, *names)))


def _letters(text: str) -> set[str]:
    return {letter for letter in text if letter.isprintable() and not letter.isspace()}


@cache
def _font_with(letter: str) -> font_manager.FontEntry | None:
    """Returns the default font if it has this letter, else the first upright system font that has it."""
    entries = [entry for entry in font_manager.fontManager.ttflist if entry.style == "normal" and "LastResort" not in entry.fname]
    entries.sort(key=lambda entry: (entry.name != _DEFAULT_FONT, str(entry.weight) not in ("400", "normal", "regular"), entry.fname))
    return next((entry for entry in entries if letter in _charmap(entry.fname)), None)


@cache
def _charmap(file: str) -> frozenset[str]:
    return frozenset(map(chr, FT2Font(file).get_charmap()))
