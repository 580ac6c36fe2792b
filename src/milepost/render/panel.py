"""What stands under the pictures of a film: task, values, stage and weight now, and the curves over the whole episode.

Drawn once; a frame copies it and writes what moves: small boxes of words, squares of colour, the played part, a cursor. No matplotlib here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, UInt8

from milepost.plots import EpisodePicture
from milepost.plots.episode import stage_runs, stage_track
from milepost.plots.style import CURVE_STYLES, INK, ramp
from milepost.plots.weights import FULL, PART, ZERO
from milepost.render import curves
from milepost.render.text import Font, fit, fonts, height_of, lines, tile, width_of

NOTHING = "\u2013"
SMALLEST, LARGEST = 12, 26
"""Pixels of the letters."""


@dataclass(frozen=True, eq=False)
class _Words:
    """A box of words that change from frame to frame; each is drawn once."""

    top: int
    left: int
    width: int
    font: Font
    say: Callable[[int], str]
    drawn: dict[str, np.ndarray] = field(default_factory=dict)

    def draw(self, frame: int, out: UInt8[np.ndarray, "H W 3"]) -> None:
        words = self.say(frame)
        if words not in self.drawn:
            if len(self.drawn) > 256:  # seconds never come twice
                self.drawn.clear()
            self.drawn[words] = tile(words, self.font, self.width)
        box = self.drawn[words]
        out[self.top : self.top + len(box), self.left : self.left + self.width] = box


@dataclass(frozen=True, eq=False)
class _Square:
    """A square whose colour changes from frame to frame."""

    top: int
    left: int
    size: int
    colours: UInt8[np.ndarray, "T 3"]

    def draw(self, frame: int, out: UInt8[np.ndarray, "H W 3"]) -> None:
        out[self.top : self.top + self.size, self.left : self.left + self.size] = self.colours[frame]


class Panel:
    """`draw(frame, out)` paints what belongs to a frame into `out` (height, width, 3).

    captions: (left, width, name) of the cameras above, if there are several. tall: how high the pictures are; both sizes set the letters'.
    """

    def __init__(self, picture: EpisodePicture, width: int, tall: int, captions: Sequence[tuple[int, int, str]] = ()) -> None:
        (self._head,) = picture.heads.values()
        self._picture, self._width, self._moving = picture, width, list[_Words | _Square]()
        self._size = size = int(np.clip(min(width / 46, tall / 22), SMALLEST, LARGEST))
        letters = "".join([picture.title, *self._head.curves, *self._head.stage_names, *(name for *_, name in captions)])
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
        self._room(self._pad + (self._top + self._pad + tall) % 2)
        self._still = np.concatenate(self._rows)
        self.height = self._top

    def draw(self, frame: int, out: UInt8[np.ndarray, "H W 3"]) -> None:
        """Paint this frame's panel."""
        out[:] = self._still
        left, (top, stop) = self._left, self._span
        now = curves.column_of(frame, self._played.shape[1], self._length)
        out[top:stop, left : left + now] = self._played[:, :now]
        out[top:stop, left + now : left + now + self._thick] = curves.rgb(INK)
        for each in self._moving:
            each.draw(frame, out)

    @property
    def _length(self) -> int:
        return len(self._picture.seconds)

    def _room(self, height: int) -> np.ndarray:
        """Paper for the next rows of the panel."""
        self._rows.append(np.full((height, self._width, 3), 255, np.uint8))
        self._top += height
        return self._rows[-1]

    def _captions(self, captions: Sequence[tuple[int, int, str]]) -> None:
        if not captions:
            return
        row = self._room(height_of(self._small))
        for left, width, name in captions:
            words = fit(name, self._small, width - self._pad)
            box = tile(words, self._small, width_of(words, self._small))
            start = left + (width - box.shape[1]) // 2
            row[:, start : start + box.shape[1]] = box[:, : self._width - start]

    def _title(self) -> None:
        self._room(self._pad // 2)
        width = self._width - 2 * self._pad
        for line in lines(self._picture.title, self._font, width, 2):
            self._room(height_of(self._font))[:, self._pad : self._pad + width] = tile(line, self._font, width)

    def _values(self) -> None:
        """Every curve's mark, name and value now, in as many lines as they need."""
        size, high, box = self._size, height_of(self._font), width_of("0.00", self._font)
        at, row = self._width, np.empty(0)
        head = self._head
        known = [*zip(head.curves.items(), CURVE_STYLES, strict=False)]
        entries = [(name, curve, style["color"]) for (name, curve), style in known]
        if head.truth is not None:
            entries.append(("truth", head.truth, "#111111"))
        mark, apart = round(1.1 * size), size // 2
        for place, (name, curve, colour) in enumerate(entries):
            words = fit(name, self._font, 0.45 * self._width)
            wide = mark + apart + width_of(words, self._font) + apart + box
            if at + wide > self._width - self._pad:
                row, at = self._room(high), self._pad
            top = self._top - high + (high - mark) // 2
            if place == 0:
                self._frame(row, (high - mark) // 2, at, mark, colour)
                colours = np.where(np.isnan(curve)[:, None], 255, ramp(curve)).astype(np.uint8)
                self._moving.append(_Square(top + self._thick, at + self._thick, mark - 2 * self._thick, colours))
            else:
                drawn = np.ones(mark, bool) if name != "truth" else np.arange(mark) % (mark // 2) < mark // 3
                row[high // 2 - self._thick // 2 :][: self._thick, at : at + mark][:, drawn] = curves.rgb(colour)
            at += mark + apart
            row[:, at : at + width_of(words, self._font)] = tile(words, self._font, width_of(words, self._font), colour)
            at += width_of(words, self._font) + apart
            self._moving.append(_Words(self._top - high, at, box, self._font, _value(curve)))
            at += box + 2 * apart

    def _frame(self, row: np.ndarray, top: int, left: int, size: int, colour: str) -> None:
        row[top : top + size, left : left + size] = curves.rgb(colour)

    def _now(self) -> None:
        """The stage now, and the weight at the right."""
        weight, known = self._picture.weight, (self._stage >= 0).any()
        if weight is None and not known:
            return
        high, size = height_of(self._font), self._size
        self._room(high)
        mark, apart = round(0.9 * size), size // 2
        top, right = self._top - high, self._width - self._pad
        if weight is not None:
            wide = width_of("weight 0.00", self._font)
            right -= wide
            self._moving.append(_Words(top, right, wide, self._font, _value(weight, "weight ")))
            right -= mark + apart
            self._moving.append(_Square(top + (high - mark) // 2, right, mark, _weight_colours(weight)))
        if known:
            left = self._pad + mark + apart
            names, wide = self._stage_names(right - apart - left), right - apart - left
            self._moving.append(_Square(top + (high - mark) // 2, self._pad, mark, curves.stage_colours(self._stage)))
            self._moving.append(_Words(top, left, wide, self._font, lambda frame: names[self._stage[frame]]))

    def _stage_names(self, width: int) -> list[str]:
        """Of every stage, and at the end what is said where none is known."""
        note = " (truth)" if self._source == "true" else ""
        return [fit(f"{k + 1} {name}{note}", self._font, width) for k, name in enumerate(self._head.stage_names)] + ["stage unknown"]

    def _over_time(self) -> None:
        """Curves, stages and weights over the episode: what is played, and what is not yet."""
        size, gap = self._size, max(2, self._pad // 3)
        self._left = self._pad + width_of("0.5", self._small) + self._pad // 2
        width, high = self._width - self._left - self._pad, 6 * size
        self._room(self._pad)
        above = self._top
        parts = [curves.curves_area([*self._head.curves.values()], self._head.truth, (high, width), self._thick)]
        if (self._stage >= 0).any():
            parts.append(self._numbered(curves.strip(curves.stage_colours(self._stage), (height_of(self._small), width))))
        if self._picture.weight is not None:
            parts.append(curves.strip(_weight_colours(self._picture.weight), (max(5, size // 2), width)))
        far, played = (_stacked(each, gap) for each in zip(*parts, strict=True))
        row = self._room(len(far))
        row[:, self._left : self._left + width] = far
        self._played, self._span = played, (above, self._top)
        for level in (0.0, 0.5, 1.0):
            middle = curves.rows_of(np.array([level]), high, self._thick)[0]
            label = tile(f"{level:g}", self._small, width_of("0.5", self._small))
            top = int(np.clip(middle - len(label) / 2, 0, len(row) - len(label)))
            row[top : top + len(label), self._pad : self._pad + label.shape[1]] = label

    def _numbered(self, band: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Stage numbers amid their runs, where there is room."""
        for stage, start, stop in stage_runs(self._stage):
            number = str(stage + 1)
            wide = width_of(number, self._small)
            left, right = (round(edge / self._length * band[0].shape[1]) for edge in (start, stop))
            if right - left > wide + 4:
                ink = 255 - tile(number, self._small, wide)
                at = (left + right - wide) // 2
                for each in band:
                    each[:, at : at + wide] = curves.blend(each[:, at : at + wide], curves.rgb(INK), ink / (255 - curves.rgb(INK)))
        return band

    def _clock(self) -> None:
        """Time at the left, the frame's number at the right."""
        total = f" of {(self._length - 1) / self._picture.fps:.2f} s"
        high = height_of(self._small)
        self._room(high)
        most = width_of(f"frame {self._length - 1}", self._small) + 2
        long = width_of(f"{(self._length - 1) / self._picture.fps:.2f}{total}", self._small) + self._pad
        left, right = self._left, self._width - self._pad - most
        self._moving.append(
            _Words(self._top - high, left, long, self._small, lambda frame: f"{frame / self._picture.fps:.2f}{total}"),
        )
        self._moving.append(_Words(self._top - high, right, most, self._small, lambda frame: f"frame {frame}"))


def _value(curve: Float[np.ndarray, "T"], before: str = "") -> Callable[[int], str]:
    return lambda frame: f"{before}{NOTHING if np.isnan(curve[frame]) else f'{curve[frame]:.2f}'}"


def _weight_colours(weight: Float[np.ndarray, "T"]) -> UInt8[np.ndarray, "T 3"]:
    return np.where(np.isnan(weight)[:, None], 255, ramp(weight, (ZERO, PART, FULL))).astype(np.uint8)


def _stacked(parts: Sequence[np.ndarray], gap: int) -> UInt8[np.ndarray, "H W 3"]:
    paper = np.full((gap, parts[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([part for each in parts for part in (paper, each)][1:])
