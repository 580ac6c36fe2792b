"""One episode's annotation: the middle frame of every subtask with its name and times, and a coloured timeline; one head above the other.

Where a model was asked several times, each answer is a thin row under the timeline, and a bracket over each boundary spans them all. Places
are computed in inches: long names (up to nine lines) and many stages make the figure higher. A stage has its colour of every figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from milepost.core import Segment
from milepost.figures.style import INK, ZERO, quiet, shortened, stage_style, wrap

WIDTH, EDGE, GAP = 9.0, 0.12, 0.1
LEFT = 0.62
"""Inches: width, margin and gap between images; then the width of the timelines' labels."""
FEWEST, MOST = 4, 8
"""Images in a row."""
HIGHEST = 1.5
"""The largest height of an image in inches: portrait frames are narrower instead."""
BAR, ROW = 0.26, 0.1
"""Inches: the timeline, one repeat under it."""
TITLE, CAPTION = 9.0, 7.0
LINE = 1.3 / 72
"""Inches a line takes for each point of its font size."""


@dataclass(frozen=True, eq=False)
class HeadTimeline:
    """One head of an episode. segments in order; frames: the middle frame of each. stage_names: what the colours count.

    spreads: (frame of the boundary, first, last) over the repeats; repeats: their annotations, None where one failed.
    """

    segments: Sequence[Segment]
    stage_names: Sequence[str]
    frames: UInt8[np.ndarray, "N H W 3"] | None = None
    spreads: Sequence[tuple[int, int, int]] = ()
    repeats: Sequence[Sequence[Segment] | None] = ()
    note: str = ""


@dataclass(frozen=True, eq=False)
class AnnotationView:
    """All that is drawn of one episode: head -> its timeline, at least one. length: frames."""

    title: str
    fps: float
    length: int
    heads: Mapping[str, HeadTimeline]


@dataclass(frozen=True)
class _Grid:
    """Images in rows, in inches: a cell's width, an image's size, captions, the height of each row."""

    columns: int
    cell: float
    size: tuple[float, float]
    captions: Sequence[Sequence[str]]
    rows: Sequence[float]


def middle_frame(segment: Segment) -> int:
    """Returns the frame in the middle of a segment; of an empty segment, its start."""
    return max(segment.start, (segment.start + segment.stop - 1) // 2)


def annotation_figure(view: AnnotationView) -> Figure:
    """Draws for each head its images and under them its timeline; only the last timeline has the time axis."""
    notes = [f"{name}: {head.note}" for name, head in view.heads.items() if head.note]
    title = [line for text in (view.title, *notes) for line in shortened(wrap(text[:1000], WIDTH - 2 * EDGE, TITLE), 4)]
    grids = {name: _grid(view, head) for name, head in view.heads.items()}
    heights = {name: (sum(grids[name].rows), _above(head) + BAR + _below(head)) for name, head in view.heads.items()}
    top = EDGE + len(title) * TITLE * LINE
    height = top + sum(0.12 + images + 0.05 + timeline + 0.1 for images, timeline in heights.values()) + 0.4
    figure = Figure(figsize=(WIDTH, height), dpi=160)
    FigureCanvasAgg(figure)
    figure.text(EDGE / WIDTH, 1 - EDGE / height, "\n".join(title), fontsize=TITLE, color=INK, va="top", linespacing=1.1, parse_math=False)
    for place, (name, head) in enumerate(view.heads.items()):
        images, timeline = heights[name]
        top += 0.12 + images
        _draw_images(_axes(figure, top, images, x0=EDGE), head, grids[name])
        top += 0.05 + timeline
        ax = _axes(figure, top, timeline, x0=LEFT)
        _draw_timeline(ax, view, head, timeline)
        ax.set_ylabel(name, fontsize=8, color=INK, rotation=0, ha="right", va="center", parse_math=False)
        ax.tick_params(labelbottom=place == len(view.heads) - 1)
        top += 0.1
    figure.axes[-1].set_xlabel("time (s)", fontsize=8, color=INK)
    return figure


def _axes(figure: Figure, bottom: float, high: float, *, x0: float) -> Axes:
    height = figure.get_figheight()
    return figure.add_axes((x0 / WIDTH, 1 - bottom / height, (WIDTH - x0 - EDGE) / WIDTH, max(high, 1e-3) / height))


# Images


def _grid(view: AnnotationView, head: HeadTimeline) -> _Grid:
    columns = min(max(len(head.segments), FEWEST), MOST)
    if len(head.segments) > MOST:  # rows of about one length
        columns = -(-len(head.segments) // -(-len(head.segments) // MOST))
    cell = (WIDTH - 2 * EDGE + GAP) / columns - GAP
    size = (0.0, 0.0)
    if head.frames is not None and len(head.frames):
        tall, wide = head.frames.shape[1:3]
        high = min(HIGHEST, cell * tall / wide)
        size = high * wide / tall, high
    captions = [_caption(segment, head.stage_names, view.fps, cell) for segment in head.segments]
    rows = [size[1] + 0.2 + max(map(len, captions[start : start + columns])) * CAPTION * LINE for start in range(0, len(captions), columns)]
    return _Grid(columns, cell, size, captions, rows)


def _caption(segment: Segment, names: Sequence[str], fps: float, inches: float) -> list[str]:
    number = f"{names.index(segment.name) + 1} " if segment.name in names else ""
    times = f"{segment.start / fps:.2f} to {segment.stop / fps:.2f} s"
    return [times, *shortened(wrap(f"{number}{segment.name}"[:300], 0.88 * inches, CAPTION), 9)]  # bold is wider


def _draw_images(ax: Axes, head: HeadTimeline, grid: _Grid) -> None:
    ax.set_axis_off()
    ax.set_xlim(0, WIDTH - 2 * EDGE)
    ax.set_ylim(max(sum(grid.rows), 1e-3), 0)
    wide, high = grid.size
    for place, (segment, lines) in enumerate(zip(head.segments, grid.captions, strict=True)):
        x0, top = place % grid.columns * (grid.cell + GAP), sum(grid.rows[: place // grid.columns])
        if head.frames is not None:
            image = ax.imshow(head.frames[place], extent=(x0, x0 + wide, top + high, top), aspect="auto")
            image.set_gid(f"frame {middle_frame(segment)}")
        ax.add_patch(Rectangle((x0, top + high + 0.02), wide or grid.cell, 0.05, **_style(segment.name, head.stage_names)))
        for row, line in enumerate(lines):
            down = top + high + 0.19 + row * CAPTION * LINE
            text = ax.text(x0, down, line, fontsize=CAPTION, color=INK, weight="bold" if row else "normal", parse_math=False)
            text.set_gid(f"caption {place}")
    ax.set_xlim(0, WIDTH - 2 * EDGE)
    ax.set_ylim(max(sum(grid.rows), 1e-3), 0)


# The timeline


def _above(head: HeadTimeline) -> float:
    """Returns the inches above the bar, for brackets."""
    return 0.14 if head.repeats else 0.02


def _below(head: HeadTimeline) -> float:
    """Returns the inches under the bar, for repeats."""
    return ROW * len(head.repeats) + 0.02 * bool(head.repeats)


def _draw_timeline(ax: Axes, view: AnnotationView, head: HeadTimeline, inches: float) -> None:
    """Draws one timeline. y is in inches from the bottom: repeats, the bar, brackets."""
    whole, bar = view.length / view.fps, _below(head)
    ax.set_xlim(0, whole)
    ax.set_ylim(0, inches)
    ax.add_patch(Rectangle((0, bar), whole, BAR, facecolor="#F4F4F4", edgecolor="#BBBBBB", linewidth=0.4, hatch=None))
    for row, annotation in enumerate(reversed(head.repeats)):
        _draw_row(ax, view, head, annotation, row * ROW)
    room = (WIDTH - LEFT - EDGE) / whole
    for segment in head.segments:
        start, lasts = segment.start / view.fps, (segment.stop - segment.start) / view.fps
        ax.add_patch(Rectangle((start, bar), lasts, BAR, **_style(segment.name, head.stage_names)))
        ax.plot([start, start], [bar, bar + BAR], color="#FFFFFF", linewidth=0.8)
        label = str(head.stage_names.index(segment.name) + 1) if segment.name in head.stage_names else "?"
        if lasts * room > 0.07 * len(label) + 0.05:  # inches: the label must not touch a boundary
            text = ax.text(start + lasts / 2, bar + BAR / 2, label, fontsize=7, color=INK, ha="center", va="center_baseline")
            text.set_path_effects([withStroke(linewidth=2.0, foreground="#FFFFFF", alpha=0.75)])  # hatches would eat it
    for at, first, last in head.spreads:
        _draw_bracket(ax, (at / view.fps, first / view.fps, last / view.fps), bar + BAR)
    quiet(ax)
    ax.grid(visible=False)
    ax.set_yticks([])


def _draw_row(ax: Axes, view: AnnotationView, head: HeadTimeline, annotation: Sequence[Segment] | None, low: float) -> None:
    if annotation is None:
        ax.text(0, low + ROW / 2, " failed", fontsize=6.5, color=ZERO, va="center")
    for segment in annotation or ():
        where = (segment.start / view.fps, low + 0.01)
        ax.add_patch(Rectangle(where, (segment.stop - segment.start) / view.fps, ROW - 0.02, **_style(segment.name, head.stage_names)))


def _draw_bracket(ax: Axes, times: tuple[float, float, float], low: float) -> None:
    """Draws a bracket from the earliest to the latest repeat of a boundary, and a mark at their median."""
    at, first, last = times
    y = low + 0.07
    style: dict[str, Any] = {"color": INK, "linewidth": 1.0, "solid_capstyle": "butt"}
    ax.plot([first, last], [y, y], **style)
    for end in (first, last):
        ax.plot([end, end], [y - 0.035, y + 0.035], **style)
    ax.plot([at], [y - 0.045], marker="v", markersize=2.6, color=INK)
    if last > first:
        ax.axvspan(first, last, facecolor=INK, alpha=0.16, linewidth=0)


def _style(name: str, names: Sequence[str]) -> dict[str, Any]:
    """Returns a stage's fill; a dark grey for a name that is not in the list."""
    return stage_style(names.index(name)) if name in names else {"facecolor": "#444444", "linewidth": 0}
