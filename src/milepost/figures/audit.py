"""The figure of an audit: the real curves beside those of each control, one small panel a control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from milepost.core import count_noun
from milepost.figures.style import CURVE_STYLES, FAINT, INK, quiet, wrap
from milepost.metrics import WORDS, EpisodeCurves, Estimate

_COLUMNS, _POINTS = 4, 101
_REAL, _EDITED = "#A6A6A6", CURVE_STYLES[1]["color"]
_LEGEND = 1.8
"""Inches at the right of the title that the legend takes."""
_TITLES = {**WORDS, "regressed": "played to two thirds, back to one third, and on to the end"}
_NUMBERS = {
    **dict.fromkeys(("frozen_first", "frozen_middle", "frozen_last"), ("frozen", "frozen frames keep {} of the rise")),
    "reversed": ("backwards", "{} of the rise"),
    "shuffled": ("shuffled", "{} of the rise"),
    "cut_50": ("end_ahead", "ends ahead by {} of the rise"),
    "cut_80": ("final_cut_80", "final {}"),
    "stalled": ("stalled", "rises meanwhile by {} of that third"),
    "regressed": ("regressed", "fall when played back: {} of that third"),
    "images_frozen": ("states_rise", "{} of the rise"),
    "states_frozen": ("images_share", "images make {} of its changes"),
    "other_task": ("instruction_contrast", "ends lower by {}"),
    "empty_task": ("final_empty_task", "final {}"),
}
"""Control -> the audit's row that rests on it, and the words around its number. The others have a row `change_NAME`."""


def audit_figure(
    curves: Sequence[EpisodeCurves], *, title: str = "", rows: Mapping[str, Estimate] | None = None, width: float = 10.0
) -> Figure:
    """Draws one panel a control. Over each copy's time: the mean of successful episodes as recorded (grey, wide) and edited (brown), and
    each edited episode (brown, thin).

    Every curve is stretched to the same width, that of a shortened recording to its part of it. title: its lines are kept. rows: the
    audit's numbers by name; a panel has the one that rests on its control. ValueError without an episode.
    """
    good = [each for each in curves if each.success is not False]
    outcome, good = ("that succeeded, or may have", good) if good else ("that failed", list(curves))
    if not good:
        raise ValueError("an audit's figure needs at least one episode")
    names = [name for name in WORDS if any(name in each.controls for each in good)]
    count = -(-max(1, len(names)) // _COLUMNS)
    lines = [*title.splitlines(), f"{count_noun(len(good), 'episode')} {outcome}"]
    wrapped = [part for line in lines for part in wrap(line, width - _LEGEND, 9.0)]
    figure = Figure(figsize=(width, 0.5 + 0.17 * max(3, len(wrapped)) + 1.9 * count), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join([*wrapped, *[" "] * (3 - len(wrapped))]), fontsize=9, x=0.01, ha="left")
    panels = np.atleast_2d(figure.subplots(count, _COLUMNS, sharey=True)).ravel()
    for panel, name in zip(panels, names, strict=False):
        _draw(panel, name, good)
        panel.set_title("\n".join(_title(name, rows or {}, width / _COLUMNS - 0.3)), fontsize=7.5, color=INK, loc="left")
    _label_outer(panels, len(names), "progress" if all(each.scaled for each in good) else "raw score")
    if names:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, fontsize=7.5, frameon=False, loc="upper right", handlelength=1.8, labelspacing=0.3)
    return figure


def _title(name: str, rows: Mapping[str, Estimate], inches: float) -> list[str]:
    """Returns the lines of a panel's title: what was edited, and the number that rests on it where the audit has one."""
    row, words = _NUMBERS.get(name, (f"change_{name}", "changes by {} of the rise"))
    estimate = rows.get(row)
    number = "" if estimate is None or np.isnan(estimate.value) else words.format(f"{estimate.value:z.2f}")
    return [*wrap(_TITLES[name], inches, 7.5), *(wrap(number, inches, 7.5) if number else [])]


def _label_outer(panels: np.ndarray, used: int, score: str) -> None:
    """Labels the first panel of each row and the lowest one of each column, and hides the panels that are not used."""
    for place, panel in enumerate(panels):
        panel.set_visible(place < used)
        panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"] if place + _COLUMNS >= used else ["", "", ""])
        if place + _COLUMNS >= used:
            panel.set_xlabel("time, as a part of the episode", fontsize=7, color=INK)
        if place % _COLUMNS == 0:
            panel.set_ylabel(score, fontsize=7, color=INK)
        panel.tick_params(labelsize=6.5)


def _draw(ax: Axes, name: str, curves: Sequence[EpisodeCurves]) -> None:
    quiet(ax)
    time, within = np.linspace(0, 1, _POINTS), {"cut_50": 0.5, "cut_80": 0.8}.get(name, 1.0)
    real = np.array([_stretched(each.real) for each in curves])
    edited = np.array([_stretched(each.controls[name]) for each in curves if name in each.controls])
    ax.plot(time, _mean(real), color=_REAL, linewidth=4.5, label="as recorded, mean")  # wide: both are seen where they are equal
    for place, each in enumerate(edited):
        ax.plot(time * within, each, color=_EDITED, linewidth=0.5, alpha=0.4, label="" if place else "edited, each episode")
    ax.plot(time * within, _mean(edited), color=_EDITED, linewidth=1.4, label="edited, mean")
    ax.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
    ax.set_xlim(-0.03, 1.03)
    unknown = [whose for whose, values in (("as recorded", real), ("edited", edited)) if np.isnan(values).all()]
    if unknown:
        words = "no known values" if len(unknown) == 2 else f"{unknown[0]}: no known values"
        ax.text(0.5, 0.5, words, transform=ax.transAxes, fontsize=7.5, color=INK, ha="center", va="center")


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
