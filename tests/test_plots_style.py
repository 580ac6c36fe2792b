"""Colours stay apart for the colour-blind and in grey print; letters are drawn in fonts that have them; files are the same twice.

Colour blindness: Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB. Distance: CIEDE2000, checked against the pairs of
Sharma, Wu and Dalal (2005).
"""

import re
from importlib.resources import files
from itertools import combinations, pairwise

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure

from milepost.figures.style import (
    CURVE_STYLES,
    FULL,
    INK,
    PART,
    STAGE_COLOURS,
    TRUTH_STYLE,
    WEIGHTS,
    ZERO,
    families,
    figure_bytes,
    font_file,
    ink_on,
    missing_letters,
    texts_of,
    wrap,
)

SEEN_BY = {
    "all colours": np.eye(3),
    "no red": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "no green": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "no blue": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
CURVES = tuple(style["color"] for style in CURVE_STYLES[:4])


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of linear RGB."""
    xyz = XYZ @ light / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def ciede2000(one: np.ndarray, other: np.ndarray) -> float:
    chroma = (np.hypot(*one[1:]) + np.hypot(*other[1:])) / 2
    stretch = 1.5 - 0.5 * np.sqrt(chroma**7 / (chroma**7 + 25**7))
    c1, c2 = (np.hypot(stretch * each[1], each[2]) for each in (one, other))
    h1, h2 = (np.degrees(np.arctan2(each[2], stretch * each[1])) % 360 for each in (one, other))
    turn = (h2 - h1 + 180) % 360 - 180
    hue, light, c = np.radians(h1 + turn / 2), (one[0] + other[0]) / 2, (c1 + c2) / 2
    across = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    t = 1 - 0.17 * np.cos(hue - np.radians(30)) + 0.24 * np.cos(2 * hue)
    t += 0.32 * np.cos(3 * hue + np.radians(6)) - 0.20 * np.cos(4 * hue - np.radians(63))
    sl, sc, sh = 1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2), 1 + 0.045 * c, 1 + 0.015 * c * t
    bend = 60 * np.exp(-((((np.degrees(hue) % 360) - 275) / 25) ** 2))
    both = -2 * np.sqrt(c**7 / (c**7 + 25**7)) * np.sin(np.radians(bend))
    dl, dc, dh = (other[0] - one[0]) / sl, (c2 - c1) / sc, across / sh
    return float(np.sqrt(dl**2 + dc**2 + dh**2 + both * dc * dh))


def nearest(colours: tuple[str, ...], seen_by: str) -> float:
    seen = [lab(np.clip(SEEN_BY[seen_by] @ linear(colour), 0, 1)) for colour in colours]
    return min(ciede2000(one, other) for one, other in combinations(seen, 2))


def grey(colour: str) -> float:
    """L* of 0 to 100: what is left in a black-and-white print."""
    return float(lab(linear(colour))[0])


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio, 1 to 21."""
    low, high = sorted(float(XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, 2.5, 0.0), (50.0, 0.0, -2.5), 4.3065),
        ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_distance_is_the_published_one(one, other, distance) -> None:
    assert ciede2000(np.array(one), np.array(other)) == pytest.approx(distance, abs=1e-4)


@pytest.mark.parametrize(("seen_by", "least"), [("all colours", 20), ("no red", 12), ("no green", 11.5), ("no blue", 10.5)])
def test_stages_are_told_apart_by_everyone(seen_by: str, least: float) -> None:
    assert nearest(STAGE_COLOURS, seen_by) >= least
    if seen_by in ("no red", "no green"):
        assert nearest(STAGE_COLOURS[:4], seen_by) >= 20


def test_stages_in_grey() -> None:
    """Those that follow each other, and any two of the first four."""
    levels = [grey(colour) for colour in STAGE_COLOURS]
    assert min(abs(one - other) for one, other in pairwise(levels)) >= 11
    assert min(abs(one - other) for one, other in combinations(levels[:4], 2)) >= 11


@pytest.mark.parametrize("seen_by", SEEN_BY)
def test_models_are_told_apart_by_everyone(seen_by: str) -> None:
    assert nearest((*CURVES, TRUTH_STYLE["color"]), seen_by) >= 18


def test_models_in_grey() -> None:
    """By lightness or by the kind of line."""
    for one, other in combinations(CURVE_STYLES, 2):
        assert abs(grey(one["color"]) - grey(other["color"])) >= 6 or one["linestyle"] != other["linestyle"]
    assert all(contrast(colour, "#FFFFFF") >= 3 for colour in CURVES)


def test_weights_darken_as_they_fall() -> None:
    ramp = [grey("#" + "".join(f"{round(255 * c):02X}" for c in WEIGHTS(at)[:3])) for at in np.linspace(0, 1, 21)]
    assert (np.diff(ramp) > 1).all()
    assert min(nearest((ZERO, PART, FULL), seen_by) for seen_by in SEEN_BY) >= 16


def test_numbers_can_be_read_on_their_stage() -> None:
    assert all(contrast(ink_on(k), colour) >= 4 for k, colour in enumerate(STAGE_COLOURS))
    assert ink_on(8) == ink_on(0)


def text_figure(words: str) -> Figure:
    figure = Figure(figsize=(3, 1))
    figure.text(0.1, 0.5, words, parse_math=False)
    return figure


@pytest.mark.parametrize(("form", "head"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_files_of_each_form_and_the_same_bytes(form, head) -> None:
    files = [figure_bytes(text_figure("reach $x_1$"), form) for _ in range(2)]
    assert files[0] == files[1]
    assert files[0].startswith(head)


def test_letters_that_no_font_has_are_told(recwarn) -> None:
    """A letter of a script that was never encoded in any font; Latin, Greek and Cyrillic are always there."""
    nowhere = "\U000e0fff\U0001fbff\U0003fffd"
    lost = missing_letters([f"reach \u03b1 \u0436 {nowhere}"])
    assert set(lost) <= set(nowhere)
    figure_bytes(text_figure(f"reach {nowhere}"), "png")
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_a_font_that_has_the_letters_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The house's font lacks them, STIX (which matplotlib ships) has them: \u2a6b is mathematics that DejaVu Sans has not."""
    letter = next(
        chr(code) for code in range(0x2900, 0x2B00) if families(chr(code)) != ("DejaVu Sans",) and not missing_letters([chr(code)])
    )
    assert families(f"grasp {letter}")[0] == "DejaVu Sans"
    assert len(families(f"grasp {letter}")) == 2
    file = font_file(f"grasp {letter}")
    assert ord(letter) in font_manager.get_font(file).get_charmap()
    assert figure_bytes(text_figure(letter), "png") != figure_bytes(text_figure("\U0003fffd"), "png")
    assert wrap(f"grasp {letter}", 3.0, 9.0) == [f"grasp {letter}"]
    assert texts_of(text_figure(letter)) == [letter]
    assert TRUTH_STYLE["color"] != INK


def test_the_page_draws_models_in_the_colours_of_the_figures() -> None:
    css = (files("milepost") / "viewer" / "page" / "base.css").read_text()
    light = re.findall(r"--m(\d): (#[0-9a-f]{6})", css)[:4]
    assert light == [(str(i), CURVE_STYLES[i]["color"].lower()) for i in range(4)]
