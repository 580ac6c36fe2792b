"""Text as pixels: in a font that has the letters, shortened or wrapped to a width in pixels."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from milepost.figures.style import INK, font_file, longest, shortened, wrap_by

PAPER = "#FFFFFF"
Font = ImageFont.FreeTypeFont


def fonts(text: str, sizes: tuple[int, ...]) -> list[Font]:
    """Returns the default font in these sizes (pixels), or another font that has all letters of `text`."""
    file = font_file(text)
    return [ImageFont.truetype(file, size) for size in sizes]


def single_line(text: str) -> str:
    """Returns the text on one line with single spaces."""
    return " ".join(text.split())


def width_of(text: str, font: Font) -> int:
    """Returns the width of a line in pixels."""
    return int(np.ceil(font.getlength(single_line(text))))


def height_of(font: Font) -> int:
    """Returns the pixels from one line to the next."""
    return round(1.35 * font.size)


def fit(text: str, font: Font, width: int) -> str:
    """Returns the text if it is no wider than this, else its beginning and an ellipsis; "" if there is no room even for the ellipsis."""
    text = single_line(text)
    if width_of(text, font) <= width:
        return text
    room = longest(text, lambda beginning: width_of(f"{beginning}\u2026", font) <= width)
    return f"{text[:room].rstrip()}\u2026" if room >= 0 else ""


def lines(text: str, font: Font, width: int, most: int) -> list[str]:
    """Returns at most that many lines no wider than this; the last one is shortened if there is more."""
    wrapped = wrap_by(text[:1000], lambda line: width_of(line, font) <= width)
    return [fit(line, font, width) for line in shortened(wrapped, most)]


def tile(text: str, font: Font, width: int, colour: str = INK) -> UInt8[np.ndarray, "H W 3"]:
    """Draws one line on white, from the left, in a box of this width and of a line's height."""
    image = Image.new("RGB", (max(1, width), height_of(font)), PAPER)
    ImageDraw.Draw(image).text((0, round(0.78 * height_of(font))), single_line(text), colour, font, anchor="ls")
    return np.asarray(image)
