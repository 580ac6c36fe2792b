"""The panel under the images of a video: task, current values, stage and weight, and the curves over the whole episode.

It is drawn once. Each frame copies it and writes only what changes: short texts, squares of colour, the played part, a cursor. Matplotlib
would cost more than the encoder, so it is not used here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, UInt8

from milepost.figures.episode import EpisodeView, HeadView, stage_runs, stage_track
from milepost.figures.film import curves
from milepost.figures.film.planes import Planes, planes, to_i420
from milepost.figures.film.text import Font, fit, fonts, height_of, lines, tile, width_of
from milepost.figures.style import CURVE_STYLES, FULL, INK, PART, ZERO, ink_on, ramp

NOTHING = "\u2013"
_CURSOR = (45, 128, 128)
"""INK as YUV planes."""
SMALLEST, LARGEST = 12, 26
"""Font sizes in pixels."""


@dataclass(frozen=True, eq=False)
class _Words:
    """A text with few values; each value is drawn once. It is grey, so only the brightness plane is written."""

    top: int
    left: int
    width: int
    font: Font
    say: Callable[[int], str]
    tiles: dict[str, np.ndarray] = field(default_factory=dict)

    def draw(self, frame: int, out: Planes) -> None:
        words = self.say(frame)
        if words not in self.tiles:
            self.tiles[words] = _bright(tile(words, self.font, self.width))
        box = self.tiles[words]
        out[0][self.top : self.top + len(box), self.left : self.left + self.width] = box


@dataclass(frozen=True, eq=False)
class _Number:
    """A number that differs on every frame, composed of pre-drawn digits: to draw text costs as much as to encode a small image."""

    top: int
    right: int
    font: Font
    say: Callable[[int], str]
    tiles: dict[str, np.ndarray] = field(default_factory=dict)

    def draw(self, frame: int, out: Planes) -> None:
        text = self.say(frame)
        if text not in self.tiles:
            for letter in set(text) - self.tiles.keys():
                self.tiles[letter] = _bright(tile(letter, self.font, round(self.font.getlength(letter))))
            self.tiles[text] = np.concatenate([self.tiles[letter] for letter in text], axis=1)
        box = self.tiles[text]
        out[0][self.top : self.top + len(box), self.right - box.shape[1] : self.right] = box


@dataclass(frozen=True, eq=False)
class _Square:
    """A square whose colour changes from frame to frame. Position and size are even, because the colour planes have half the resolution."""

    top: int
    left: int
    size: int
    colours: UInt8[np.ndarray, "T 3"]

    def draw(self, frame: int, out: Planes) -> None:
        for plane, value, each in zip(out, self.colours[frame], (1, 2, 2), strict=True):
            top, left, size = self.top // each, self.left // each, self.size // each
            plane[top : top + size, left : left + size] = value


def _square(top: int, left: int, size: int, colours: UInt8[np.ndarray, "T 3"]) -> _Square:
    blocks = to_i420(colours.repeat(2, axis=0)[None].repeat(2, axis=0))
    bright, *chroma = planes(blocks)
    return _Square(_even(top), _even(left), _even(size), np.stack([bright[0, ::2], *(each[0] for each in chroma)], axis=1))


def _bright(grey: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W"]:
    return np.round(16 + grey[..., 0] * (219 / 255)).astype(np.uint8)


def _even(number: int) -> int:
    return number - number % 2


class Panel:
    """`draw(frame, out)` paints one frame's panel into the planes of an image (height, width), both even.

    captions: (left, width, name) of the cameras above, if there are several. tall: the height of the images. width and tall set the font
    size.
    """

    def __init__(self, view: EpisodeView, width: int, tall: int, captions: Sequence[tuple[int, int, str]] = ()) -> None:
        (self._head,) = view.heads.values()
        self._length = len(view.seconds)
        self._view, self._width, self._moving = view, width, list[_Words | _Number | _Square]()
        self._size = size = int(np.clip(min(width / 46, tall / 22), SMALLEST, LARGEST))
        letters = "".join([view.title, *self._head.curves, *self._head.stage_names, *(name for *_, name in captions)])
        self._font, self._small = fonts(letters, (size, max(10, round(0.8 * size))))
        self._pad = size // 2
        self._thick = max(2, round(size / 7))
        self._rows: list[np.ndarray] = []
        self._top = 0
        self._stage, self._source = stage_track(self._head)
        self._captions(captions)
        self._title()
        self._values()
        self._now()
        self._over_time()
        self._clock()
        self._room(self._pad)
        still = np.concatenate(self._rows)
        played = still.copy()
        played[slice(*self._span), self._x0 :][:, : self._played.shape[1]] = self._played
        both = planes(to_i420(np.concatenate([still, played])))
        self._still, self._all_played = (tuple(np.split(plane, 2)[i] for plane in both) for i in (0, 1))
        self.height = self._top

    def draw(self, frame: int, out: Planes) -> None:
        """Paints this frame's panel."""
        x0, thick = self._x0, self._thick + self._thick % 2
        now = x0 + _even(curves.column_of(frame, self._played.shape[1], self._length))
        for place, (plane, still, played) in enumerate(zip(out, self._still, self._all_played, strict=True)):
            each = 1 if place == 0 else 2
            rows = slice(self._span[0] // each, self._span[1] // each)
            plane[:] = still
            plane[rows, x0 // each : now // each] = played[rows, x0 // each : now // each]
            plane[rows, now // each : (now + thick) // each] = _CURSOR[place]
        for moving in self._moving:
            moving.draw(frame, out)

    def _room(self, height: int) -> np.ndarray:
        """Adds an even number of white rows to the panel and returns them."""
        height += height % 2
        self._rows.append(np.full((height, self._width, 3), 255, np.uint8))
        self._top += height
        return self._rows[-1]

    def _captions(self, captions: Sequence[tuple[int, int, str]]) -> None:
        if not captions:
            return
        row = self._room(height_of(self._small))
        for left, width, name in captions:
            words = fit(name, self._small, width - self._pad)
            _write(row, left + (width - width_of(words, self._small)) // 2, words, self._small)

    def _title(self) -> None:
        self._room(self._pad // 2)
        width = self._width - 2 * self._pad
        for line in lines(self._view.title, self._font, width, 2):
            _write(self._room(height_of(self._font)), self._pad, line, self._font)

    def _values(self) -> None:
        """Draws every curve's mark, name and current value, in as many lines as needed."""
        size, high, box = self._size, height_of(self._font), width_of("0.00", self._font)
        at, row = self._width, np.empty(0)
        head = self._head
        styled = [*zip(head.curves.items(), CURVE_STYLES, strict=False)]
        entries = [(name, curve, style["color"]) for (name, curve), style in styled]
        if head.truth is not None:
            entries.append((_truth_name(head), head.truth, "#111111"))
        mark, apart = _even(round(1.1 * size)), size // 2
        for place, (name, curve, colour) in enumerate(entries):
            words = fit(name, self._font, int(0.45 * self._width))
            wide = mark + apart + width_of(words, self._font) + apart + box
            if at + wide > self._width - self._pad:
                row, at = self._room(high), self._pad
            top = self._top - len(row) + (high - mark) // 2
            if place == 0:
                row[(high - mark) // 2 :][:mark, at : at + mark] = curves.rgb(colour)
                colours = np.where(np.isnan(curve)[:, None], 255, ramp(curve)).astype(np.uint8)
                self._moving.append(_square(top + self._thick, at + self._thick, mark - 2 * self._thick, colours))
            else:
                dashes = np.ones(mark, bool) if place < len(head.curves) else np.arange(mark) % (mark // 2) < mark // 3
                row[high // 2 - self._thick // 2 :][: self._thick, at : at + mark][:, dashes] = curves.rgb(colour)
            at += mark + apart
            at = _write(row, at, words, self._font, colour) + apart
            at += box
            self._moving.append(_Number(self._top - len(row), at, self._font, _value(curve)))
            at += 2 * apart

    def _now(self) -> None:
        """Draws the current stage, and the weight on the right."""
        weight, has_stage = self._view.weight, (self._stage >= 0).any()
        if weight is None and not has_stage:
            return
        high, size = height_of(self._font), self._size
        row = self._room(high)
        mark, apart = _even(round(0.9 * size)), size // 2
        top, right = self._top - len(row), self._width - self._pad
        if weight is not None:
            self._moving.append(_Number(top, right, self._font, _value(weight)))
            right -= width_of("weight 0.00", self._font)
            _write(row, right, "weight", self._font)
            right -= mark + apart
            self._moving.append(_square(top + (high - mark) // 2, right, mark, _weight_colours(weight)))
        if has_stage:
            x0 = self._pad + mark + apart
            names, wide = self._stage_names(right - apart - x0), right - apart - x0
            self._moving.append(_square(top + (high - mark) // 2, self._pad, mark, curves.stage_colours(self._stage)))
            self._moving.append(_Words(top, x0, wide, self._font, lambda frame: names[self._stage[frame]]))

    def _stage_names(self, width: int) -> list[str]:
        """Returns the text of every stage, and at the end the text for an unknown stage."""
        note = f" ({_truth_name(self._head)})" if self._source == "true" else ""
        return [fit(f"{k + 1} {name}{note}", self._font, width) for k, name in enumerate(self._head.stage_names)] + ["stage unknown"]

    def _over_time(self) -> None:
        """Draws curves, stages and weights over the episode, played and not yet played."""
        size, gap = self._size, max(2, self._pad // 3)
        self._x0 = _even(self._pad + width_of("0.5", self._small) + self._pad // 2 + 1)
        width, high = self._width - self._x0 - self._pad, 6 * size
        self._room(self._pad)
        above = self._top
        parts = [curves.curves_area([*self._head.curves.values()], self._head.truth, (high, width), self._thick)]
        if (self._stage >= 0).any():
            parts.append(self._numbered(curves.strip(curves.stage_colours(self._stage), (height_of(self._small), width))))
        if self._view.weight is not None:
            parts.append(curves.strip(_weight_colours(self._view.weight), (max(5, size // 2), width)))
        far, played = (_stacked(each, gap) for each in zip(*parts, strict=True))
        row = self._room(len(far))
        row[:, self._x0 : self._x0 + width] = far
        self._played, self._span = played, (above, self._top)
        for level in (0.0, 0.5, 1.0):
            middle = curves.rows_of(np.array([level]), high, self._thick)[0]
            label = tile(f"{level:g}", self._small, width_of("0.5", self._small))
            top = int(np.clip(middle - len(label) / 2, 0, len(row) - len(label)))
            row[top : top + len(label), self._pad : self._pad + label.shape[1]] = label

    def _numbered(self, band: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Draws stage numbers in the middle of their runs, where there is room."""
        for stage, start, stop in stage_runs(self._stage):
            number = str(stage + 1)
            wide = width_of(number, self._small)
            x0, x1 = (round(edge / self._length * band[0].shape[1]) for edge in (start, stop))
            if x1 - x0 > wide + 4:
                ink = 255 - tile(number, self._small, wide)
                at = (x0 + x1 - wide) // 2
                for each, colour in zip(band, (INK, ink_on(stage)), strict=True):
                    each[:, at : at + wide] = curves.blend(each[:, at : at + wide], curves.rgb(colour), ink / (255 - curves.rgb(INK)))
        return band

    def _clock(self) -> None:
        """Draws the time on the left and the frame number on the right."""
        last, high, apart = (self._length - 1) / self._view.fps, height_of(self._small), self._pad // 2
        row = self._room(high)
        at = self._x0 + width_of(f"{last:.2f}", self._small)
        self._moving.append(_Number(self._top - len(row), at, self._small, lambda frame: f"{frame / self._view.fps:.2f}"))
        _write(row, at + apart, f"of {last:.2f} s", self._small)
        right = self._width - self._pad
        self._moving.append(_Number(self._top - len(row), right, self._small, str))
        _write(row, right - width_of(f"frame {self._length - 1}", self._small) - 2, "frame", self._small)


def _write(row: UInt8[np.ndarray, "H W 3"], left: int, words: str, font: Font, colour: str = INK) -> int:
    """Writes text on a row of its height; returns the x position of its end."""
    box = tile(words, font, width_of(words, font), colour)
    row[: len(box), left : left + box.shape[1]] = box[:, : max(0, row.shape[1] - left)]
    return left + box.shape[1]


def _value(curve: Float[np.ndarray, "T"]) -> Callable[[int], str]:
    return lambda frame: NOTHING if np.isnan(curve[frame]) else f"{curve[frame]:.2f}"


def _weight_colours(weight: Float[np.ndarray, "T"]) -> UInt8[np.ndarray, "T 3"]:
    return np.where(np.isnan(weight)[:, None], 255, ramp(weight, (ZERO, PART, FULL))).astype(np.uint8)


def _stacked(parts: Sequence[np.ndarray], gap: int) -> UInt8[np.ndarray, "H W 3"]:
    """Stacks the parts vertically with white space between them, and below if needed for an even height."""
    paper = np.full((gap, parts[0].shape[1], 3), 255, np.uint8)
    whole = np.concatenate([part for each in parts for part in (paper, each)][1:])
    return np.pad(whole, ((0, len(whole) % 2), (0, 0), (0, 0)), constant_values=255)


def _truth_name(head: HeadView) -> str:
    """Returns the name of the dashed curve: an annotation is not a measured truth."""
    return "as annotated" if head.truth_source == "annotation" else "truth"
