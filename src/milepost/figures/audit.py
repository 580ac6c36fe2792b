"""The figure of an audit: the real curves beside those of each control, one small panel a control."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from milepost.core import count_noun
from milepost.figures.style import CURVE_STYLES, FAINT, INK, quiet, wrap
from milepost.metrics import WORDS, EpisodeCurves

_COLUMNS, _POINTS = 4, 101


def audit_figure(curves: Sequence[EpisodeCurves], *, title: str = "", width: float = 10.0) -> Figure:
    """Draws one panel a control. Over each copy's time: the mean of successful episodes as recorded (grey) and edited, and each episode.

    Every curve is stretched to the same width, that of a shortened recording to its part of it. ValueError without an episode.
    """
    good = [each for each in curves if each.success is not False]
    outcome, good = ("that succeeded, or may have", good) if good else ("that failed", list(curves))
    if not good:
        raise ValueError("an audit's figure needs at least one episode")
    names = [name for name in WORDS if any(name in each.controls for each in good)]
    rows = -(-len(names) // _COLUMNS)
    figure = Figure(figsize=(width, 0.5 + 1.75 * max(1, rows)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    words = f"{count_noun(len(good), 'episode')} {outcome}. Thick: the mean. Thin: each one, edited."
    figure.suptitle(f"{title}{': ' if title else ''}{words}", fontsize=9, x=0.01, ha="left")
    panels = np.atleast_2d(figure.subplots(max(1, rows), _COLUMNS, sharey=True)).ravel()
    for panel, name in zip(panels, names, strict=False):
        _draw(panel, name, good, width / _COLUMNS)
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    if names:
        lines, labels = panels[0].get_legend_handles_labels()
        figure.legend(lines, labels, fontsize=7.5, frameon=False, loc="upper right", ncols=2, handlelength=1.4)
    return figure


def _draw(ax: Axes, name: str, curves: Sequence[EpisodeCurves], inches: float) -> None:
    quiet(ax)
    time, within = np.linspace(0, 1, _POINTS), {"cut_50": 0.5, "cut_80": 0.8}.get(name, 1.0)
    real = np.array([_stretched(each.real) for each in curves])
    edited = np.array([_stretched(each.controls[name]) for each in curves if name in each.controls])
    ax.plot(time * within, edited.T, color=CURVE_STYLES[0]["color"], linewidth=0.5, alpha=0.25)
    ax.plot(time, _mean(real), color="#888888", linewidth=1.6, label="as recorded")
    ax.plot(time * within, _mean(edited), color=CURVE_STYLES[1]["color"], linewidth=1.6, label="edited")
    ax.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
    ax.set_title("\n".join(wrap(WORDS[name], inches - 0.3, 7.5)), fontsize=7.5, color=INK, loc="left")
    ax.set_xticks([])
    ax.tick_params(labelsize=6.5)


def _mean(curves: np.ndarray) -> np.ndarray:
    is_known = ~np.isnan(curves)
    count = is_known.sum(axis=0)
    return np.where(count > 0, np.where(is_known, curves, 0).sum(axis=0) / np.maximum(count, 1), np.nan)


def _stretched(value: np.ndarray) -> np.ndarray:
    """Returns a curve at equally many points from its first to its last frame; all NaN if nothing is known."""
    frames = np.flatnonzero(~np.isnan(value))
    if not len(frames):
        return np.full(_POINTS, np.nan)
    return np.interp(np.linspace(0, len(value) - 1, _POINTS), frames, value[frames])
