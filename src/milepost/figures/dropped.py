"""The figure of dropped frames: for each span its images, and the episode's curve with the span shaded. It reads no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from milepost.figures.style import CURVE_STYLES, INK, ZERO, quiet, shortened, wrap

IMAGES = 6
_EDGE, _CURVE, _TITLE, _TEXT = 0.12, 2.4, 9.0, 7.0
"""Inches of margin, inches of a curve, font sizes."""


@dataclass(frozen=True, eq=False)
class DroppedSpan:
    """Frames [start, stop) of an episode. progress, weight (T,) of the whole episode; images (N, H, W, 3) of the frames `at`."""

    title: str
    fps: float
    start: int
    stop: int
    progress: Float[np.ndarray, "T"]
    weight: Float[np.ndarray, "T"]
    images: UInt8[np.ndarray, "N H W 3"]
    at: Sequence[int]


def span_frames(start: int, stop: int, count: int = IMAGES) -> list[int]:
    """Returns frame numbers spread evenly over [start, stop), first and last included."""
    return sorted(set(np.linspace(start, stop - 1, count).round().astype(int).tolist()))


def dropped_figure(spans: Sequence[DroppedSpan], width: float = 10.0) -> Figure:
    """Draws one row per span. ValueError if there is none."""
    if not spans:
        raise ValueError("no span to draw")
    each = (width - _CURVE - 0.75 - 2 * _EDGE) / IMAGES
    heights = [max(0.9, each * span.images.shape[1] / span.images.shape[2]) for span in spans]
    title, caption, gap = 0.24, 0.16, 0.2
    height = sum(heights) + len(spans) * (title + caption + gap) + 0.4
    figure = Figure(figsize=(width, height), dpi=130)
    FigureCanvasAgg(figure)
    top = 0.05
    for span, tall in zip(spans, heights, strict=True):
        line = shortened(wrap(span.title, width - 2 * _EDGE, _TITLE), 1)[0]
        figure.text(_EDGE / width, 1 - (top + 0.02) / height, line, fontsize=_TITLE, color=INK, va="top", parse_math=False)
        top += title
        for place, (image, frame) in enumerate(zip(span.images, span.at, strict=True)):
            ax = figure.add_axes(((_EDGE + place * each) / width, 1 - (top + tall) / height, (each - 0.05) / width, tall / height))
            ax.imshow(image)
            ax.set_axis_off()
            value = "unknown" if np.isnan(span.progress[frame]) else f"{span.progress[frame]:.2f}"
            ax.text(
                0.5, -0.03, f"{frame / span.fps:.1f} s: {value}", fontsize=_TEXT, color=INK, ha="center", va="top", transform=ax.transAxes
            )
        edge = width - _CURVE - _EDGE
        _draw_curve(figure.add_axes((edge / width, 1 - (top + tall) / height, _CURVE / width, tall / height)), span)
        top += tall + caption + gap
    figure.axes[-1].set_xlabel("time (s)", fontsize=8, color=INK)
    legend = "under each image: its time and progress; shaded: the dropped frames; dotted: weight"
    figure.text(_EDGE / width, 0.08 / height, legend, fontsize=_TEXT, color=INK, va="bottom")
    return figure


def _draw_curve(ax: Axes, span: DroppedSpan) -> None:
    seconds = np.arange(len(span.progress)) / span.fps
    ax.axvspan((span.start - 0.5) / span.fps, (span.stop - 0.5) / span.fps, color=ZERO, alpha=0.18, linewidth=0)
    ax.plot(seconds, span.progress, linewidth=1.5, **CURVE_STYLES[0])
    ax.plot(seconds, span.weight, color=ZERO, linewidth=1.0, linestyle="dotted", drawstyle="steps-mid")
    ax.set_ylim(0, 1.02)
    ax.set_xlim(-0.5 / span.fps, max(seconds[-1], 1e-3) + 0.5 / span.fps)
    ax.set_ylabel("progress", fontsize=8, color=INK)
    quiet(ax)
