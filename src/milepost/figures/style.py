"""What all figures share: colours, hatches, quiet axes, fonts that have the letters, lines of text that fit, files.

Colours stay apart without red or green (protanopia, deuteranopia), and neighbours in grey too: tests/test_plots_style.py computes it.
"""

from __future__ import annotations

import bisect
import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Literal

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

STAGE_COLOURS = ("#56B4E9", "#F0E442", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#BBBBBB", "#CC79A7")
"""Okabe and Ito's, its black a grey, in an order in which stages that follow each other are also apart in grey."""
HATCHES = (None, "////", "....", "xxxx")
"""Of the first eight stages, the next eight, and so on: colours repeat, colour and hatch together do not for 32 stages."""
CURVE_STYLES: tuple[dict[str, Any], ...] = tuple(
    {"color": ("#0B3C5D", "#8C510A", "#008B8B", "#B8860B")[i % 4], "linestyle": ("solid", "dashdot", "dotted")[i % 3]} for i in range(12)
)
"""Of the models, in the order drawn: neighbours differ in colour and in line, twelve in both together."""
TRUTH_STYLE: dict[str, Any] = {"color": "#111111", "linestyle": (0, (4, 2)), "linewidth": 1.3}
PROGRESS_COLOURS = ("#440154", "#3B528B", "#21918C", "#5EC962", "#FDE725")
"""Of progress 0 to 1 (viridis): dark to light, in grey and to the colour-blind as well."""
ZERO, PART, FULL = "#7A0403", "#DD8A4E", "#A8DDBB"
"""Of weights 0, between and 1: the darker, the less is left of a frame."""
WEIGHTS = LinearSegmentedColormap.from_list("weights", (ZERO, PART, FULL))
INK, FAINT = "#222222", "#DDDDDD"
FORMATS = ("png", "svg", "pdf")
Format = Literal["png", "svg", "pdf"]
_HOUSE = "DejaVu Sans"


def stage_style(stage: int, *, alpha: float = 1.0) -> dict[str, Any]:
    """Fill of a stage, for any patch."""
    colour, hatch = STAGE_COLOURS[stage % len(STAGE_COLOURS)], HATCHES[stage // len(STAGE_COLOURS) % len(HATCHES)]
    return {"facecolor": colour, "hatch": hatch, "edgecolor": "#FFFFFF", "linewidth": 0, "alpha": alpha}


def ink_on(stage: int) -> str:
    """The colour of words on a stage's: dark, or white on a dark one."""
    red, green, blue = (int(STAGE_COLOURS[stage % len(STAGE_COLOURS)][i : i + 2], 16) for i in (1, 3, 5))
    return INK if 0.3 * red + 0.59 * green + 0.11 * blue > 100 else "#FFFFFF"


def wrap(text: str, inches: float, size: float) -> list[str]:
    """`text` in lines no wider than this at a font size in points. Nothing is cut off."""
    font = FontProperties(size=size, family=list(families(text)))

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
    return drawn(figure, "png")


def drawn(figure: Figure, form: Format) -> bytes:
    """The figure as a file's bytes, the same for the same figure; each text in fonts that have its letters. PDF and SVG are for print."""
    nameless = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None, "Producer": None, "Creator": None}}
    for text in figure.findobj(Text):
        if (found := families(text.get_text())) != (_HOUSE,):
            text.set_fontfamily(list(found))
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "milepost", "pdf.fonttype": 42}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # `boxes` says it in one line
        figure.savefig(buffer, format=form, metadata=nameless[form])
    return buffer.getvalue()


def boxes(texts: Iterable[str]) -> str:
    """Letters of these texts that no font here has: they are drawn as boxes."""
    return "".join(sorted({letter for text in texts for letter in _letters(text) if _font_with(letter) is None}))


def words_of(figure: Figure) -> list[str]:
    """All texts of a figure."""
    return [text.get_text() for text in figure.findobj(Text)]


def shortened(lines: list[str], most: int) -> list[str]:
    """At most that many lines, the last one ending in an ellipsis if there were more."""
    return lines if len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1][:-1]}\u2026"]


def ramp(value: Float[np.ndarray, "N"], colours: Sequence[str] = PROGRESS_COLOURS) -> UInt8[np.ndarray, "N 3"]:
    """Colours of values in [0, 1] (others are clipped, NaN is the first), drawn straight between these."""
    known = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours])
    at = np.linspace(0, 1, len(known))
    return np.stack([np.interp(np.nan_to_num(value), at, channel) for channel in known.T], axis=1).round().astype(np.uint8)


def font_file(text: str = "") -> str:
    """A font with all letters of `text`: matplotlib's own DejaVu Sans, else one of the system's, else that with the most of them."""
    letters = _letters(text)
    files = [font_manager.findfont(_HOUSE), *(dict.fromkeys(entry.fname for letter in sorted(letters) if (entry := _font_with(letter))))]
    return max(files, key=lambda file: len(letters & _charmap(file)))


def families(text: str) -> tuple[str, ...]:
    """Names of the fonts for `text`, the house's first: the system's for letters that it has not, none for those that none has."""
    found = dict.fromkeys(entry.name for letter in sorted(_letters(text)) if (entry := _font_with(letter)))
    return tuple(dict.fromkeys((_HOUSE, *found)))


def _letters(text: str) -> set[str]:
    return {letter for letter in text if letter.isprintable() and not letter.isspace()}


@cache
def _font_with(letter: str) -> font_manager.FontEntry | None:
    """The house's font if it has this letter, else the first upright one of the system that has."""
    entries = [entry for entry in font_manager.fontManager.ttflist if entry.style == "normal" and "LastResort" not in entry.fname]
    entries.sort(key=lambda entry: (entry.name != _HOUSE, str(entry.weight) not in ("400", "normal", "regular"), entry.fname))
    return next((entry for entry in entries if letter in _charmap(entry.fname)), None)


@cache
def _charmap(file: str) -> frozenset[str]:
    return frozenset(map(chr, FT2Font(file).get_charmap()))
