"""Figures of sample weights: deltas by weight, weights over an episode's time, other kappas, weights of episodes and of qualities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from milepost.core import count_noun
from milepost.figures.style import CURVE_STYLES, FULL, INK, PART, UNKNOWN, WEIGHTS, ZERO, quiet, shortened, wrap
from milepost.weights import Sweep, WeightGroup, WeightResult, over_episode, places

_ROWS, _COLUMNS = 200, 60
_TEXT, _TITLE = 8.0, 9.0
_LABEL = 0.13
"""Inches that the label of an episode takes, with the room to the next one."""
_BELOW: dict[str, Any] = {
    "fontsize": 7, "loc": "upper center", "bbox_to_anchor": (0.5, -0.18), "ncols": 3, "frameon": False, "handlelength": 1.6,
    "columnspacing": 1.0,
}  # fmt: skip
"""Places a legend under its axes, where it covers no data."""


@dataclass(frozen=True, eq=False)
class AdviceView:
    """The content of the weight report's figure. groups: heading ("quality", "task") -> its groups. order (E,): episode indices, top to
    bottom."""

    title: str
    result: WeightResult
    sweep: Sequence[Sweep]
    groups: Mapping[str, Sequence[WeightGroup]]
    order: Sequence[int]


def weights_figure(result: WeightResult, width: float = 9.0) -> Figure:
    """Draws the deltas against kappa (left) and the weights over an episode's time (right), which shows whether ends get low weights."""
    figure = Figure(figsize=(width, 3.0), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _draw_deltas(left, result)
    _draw_time(right, result)
    return figure


def advice_figure(view: AdviceView, width: float = 12.0) -> Figure:
    """Draws the weight report. Above: deltas, time, other kappas. Below: every episode over its time, and the weights of each quality and
    task."""
    bars = sum(len(groups) + 1.4 for groups in view.groups.values())
    above, below = 3.3, max(3.2, 0.8 + 0.21 * bars)
    figure = Figure(figsize=(width, above + below), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = np.asarray(figure.subfigures(2, 1, height_ratios=(above, below)))
    deltas, time, sweep = upper.subplots(1, 3)
    _draw_deltas(deltas, view.result)
    _draw_time(time, view.result)
    _draw_sweep(sweep, view.sweep, view.result)
    axes = lower.subplots(1, 2) if view.groups else [lower.subplots()]
    _draw_episodes(axes[0], view.result, view.order, int((below - 0.9) / _LABEL))
    if view.groups:
        _draw_groups(axes[1], view.groups)
    lines = shortened(wrap(view.title, width - 0.4, _TITLE), 3)
    upper.suptitle("\n".join(lines), fontsize=_TITLE + 1, color=INK, x=0.01, ha="left", parse_math=False)
    return figure


def _heading(ax: Axes, text: str) -> None:
    ax.set_title(text, fontsize=_TITLE, color=INK, loc="left")


def _labels(ax: Axes, x: str, y: str) -> None:
    ax.set_xlabel(x, fontsize=_TEXT, color=INK)
    ax.set_ylabel(y, fontsize=_TEXT, color=INK)
    quiet(ax)


def _highest(result: WeightResult) -> str:
    """Returns the words for full weight: whether there is more than 1."""
    return "1 or more" if (result.weight > 1).any() else "1"


def _fallback(result: WeightResult) -> str:
    return f"progress unknown (weight {result.config.fallback_weight:g})"


def _draw_deltas(ax: Axes, result: WeightResult) -> None:
    has_delta = ~np.isnan(result.delta)
    delta, weight, kappa = result.delta[has_delta], result.weight[has_delta], result.one_kappa
    if len(delta):
        low, high = np.quantile(delta, (0.001, 0.999))
        edges = np.linspace(min(low, 0), max(high, min(kappa or 0, 3 * high), 1e-3), 41)
        parts = [weight <= 0, (weight > 0) & (weight < 1), weight >= 1]
        names = [f"{name} ({part.mean():.0%})" for name, part in zip(("weight 0", "between", _highest(result)), parts, strict=True)]
        values = [np.clip(delta[part], edges[0], edges[-1]) for part in parts]
        ax.hist(values, bins=edges.tolist(), stacked=True, color=[ZERO, PART, FULL], label=names)
        if kappa is not None and result.config.rule == "rabc" and kappa <= edges[-1]:
            ax.axvline(kappa, color=INK, linewidth=1, linestyle=":", label=f"kappa {kappa:.3g}")
        ax.legend(**_BELOW | {"ncols": 2})
    _labels(ax, f"delta: progress over the next {count_noun(result.config.chunk_size, 'frame')}", "frames")
    _heading(ax, "Deltas")


def _draw_time(ax: Axes, result: WeightResult, bins: int = 20) -> None:
    """Draws the proportions of zero, full and unknown weights as areas, the mean as a line."""
    which = np.minimum((places(result) * bins).astype(int), bins - 1)
    count = np.maximum(np.bincount(which, minlength=bins), 1)
    unknown = result.is_unknown
    full, zero, grey = (
        np.bincount(which, weights=part, minlength=bins) / count
        for part in (~unknown & (result.weight >= 1), ~unknown & (result.weight <= 0), unknown)
    )
    middle = (np.arange(bins) + 0.5) / bins
    edges = np.linspace(0, 1, bins + 1)
    ax.stairs(full, edges, fill=True, color=FULL, alpha=0.85, label=_highest(result))
    ax.stairs(1 - grey - zero, edges, baseline=full, fill=True, color=PART, alpha=0.85, label="between")
    ax.stairs(1 - grey, edges, baseline=1 - grey - zero, fill=True, color=ZERO, alpha=0.85, label="0")
    if unknown.any():
        ax.stairs(np.ones(bins), edges, baseline=1 - grey, fill=True, color=UNKNOWN, alpha=0.85, label=_fallback(result))
    ax.plot(middle, over_episode(result, bins), color="#FFFFFF", linewidth=3)
    ax.plot(middle, over_episode(result, bins), color=INK, linewidth=1.4, marker="o", markersize=2.5, label="mean weight")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, max(1.0, float(np.nanmax(over_episode(result, bins), initial=0.0)) * 1.05))
    ax.legend(**_BELOW)
    _labels(ax, "position in the episode (0 start, 1 end)", "proportion of frames")
    _heading(ax, "Over an episode's time")


def _draw_sweep(ax: Axes, sweep: Sequence[Sweep], result: WeightResult) -> None:
    _heading(ax, "Other kappas")
    if not sweep:
        ax.text(0.5, 0.5, f"rule {result.config.rule} has no kappa", ha="center", va="center", fontsize=_TEXT, transform=ax.transAxes)
        ax.set_axis_off()
        return
    one = result.one_kappa
    x = [row.factor if one is None else row.kappa for row in sweep]
    lines = {
        "mean weight": ([row.mean_weight for row in sweep], INK, "solid"),
        "effective proportion": ([row.effective for row in sweep], CURVE_STYLES[1]["color"], "dashdot"),
        "successes": ([row.successes for row in sweep], CURVE_STYLES[2]["color"], "dashed"),
        "failures": ([row.failures for row in sweep], ZERO, "dotted"),
    }
    for name, (y, colour, style) in lines.items():
        if not np.all(np.isnan(y)):
            ax.plot(x, y, color=colour, linestyle=style, linewidth=1.5, marker="o", markersize=2, label=name)
    ax.axvline(1.0 if one is None else one, color=INK, linewidth=1, linestyle=":", label="now")
    ax.set_ylim(0, 1.05)
    ax.legend(**_BELOW)
    per = f"kappa: progress over {count_noun(result.config.chunk_size, 'frame')}"
    _labels(ax, "kappa, in units of today's" if one is None else per, "weight, proportion of frames")


def _draw_episodes(ax: Axes, result: WeightResult, order: Sequence[int], tall: int) -> None:
    """Draws one row per episode, at most _ROWS, evenly sampled. The colour is the mean weight of that part of the episode, without the
    frames whose progress is unknown; a part without others is grey. tall: the number of labels that fit above each other."""
    if len(order) > _ROWS:
        order = [order[i] for i in np.linspace(0, len(order) - 1, _ROWS).round().astype(int)]
    cells = _cells(result, order)
    highest, colours = max(1.0, float(np.nanmax(cells, initial=0.0))), WEIGHTS.with_extremes(bad=UNKNOWN)
    image = ax.imshow(cells, aspect="auto", cmap=colours, vmin=0, vmax=highest, interpolation="nearest")
    image.set_extent((0, 1, len(order), 0))
    bar = ax.figure.colorbar(image, ax=ax, pad=0.01, fraction=0.04)
    bar.ax.tick_params(labelsize=7, colors=INK, length=2)
    bar.set_label("mean weight", fontsize=_TEXT, color=INK)
    if np.isnan(cells).any():
        ax.legend(handles=[Patch(color=UNKNOWN, label=_fallback(result))], **_BELOW)
    _labels(ax, "position in the episode (0 start, 1 end)", "episode, highest weight on top")
    every = max(1, int(np.ceil(len(order) / tall)))
    ax.set_yticks(np.arange(0, len(order), every) + 0.5, [str(number) for number in order[::every]])
    ax.grid(visible=False)
    _heading(ax, "Weight of every episode" if len(order) < _ROWS else f"Weight of {len(order)} episodes, spread over all")


def _cells(result: WeightResult, order: Sequence[int]) -> Float[np.ndarray, "E C"]:
    """Returns the mean weight of each part of each episode; NaN where the progress of all its frames is unknown."""
    numbers = np.asarray(order)
    ranked = np.argsort(numbers)
    place = np.searchsorted(numbers[ranked], result.episode_index)
    rows = np.flatnonzero(numbers[ranked][np.minimum(place, len(numbers) - 1)] == result.episode_index)
    row = ranked[place[rows]]
    column = np.minimum((places(result)[rows] * _COLUMNS).astype(int), _COLUMNS - 1)
    cell = row * _COLUMNS + column
    size, has_delta = len(numbers) * _COLUMNS, ~result.is_unknown[rows]
    has_frames = np.bincount(cell, minlength=size).reshape(len(numbers), _COLUMNS) > 0
    count = np.bincount(cell, weights=has_delta, minlength=size)
    total = np.bincount(cell, weights=np.where(has_delta, result.weight[rows], 0), minlength=size)
    means = np.where(count > 0, total / np.maximum(count, 1), np.nan).reshape(len(numbers), _COLUMNS)
    for each, own in zip(means, has_frames, strict=True):  # in a short episode a cell without a frame shows the frame before it
        filled = np.flatnonzero(own)
        if len(filled):
            each[:] = each[filled[np.maximum(np.searchsorted(filled, np.arange(_COLUMNS), side="right") - 1, 0)]]
    return means


def _draw_groups(ax: Axes, groups: Mapping[str, Sequence[WeightGroup]]) -> None:
    """Draws one bar per group: its mean weight; beside it the number of episodes and the proportion of the total weight."""
    place, ticks, names = 0.0, [], []
    for heading, members in groups.items():
        ax.text(0, place, f"by {heading}", fontsize=_TEXT, color=INK, va="center", weight="bold")
        for group in members:
            place += 1
            ax.barh(place, group.mean_weight, height=0.72, color=WEIGHTS(min(group.mean_weight, 1.0)))
            note = f" {group.mean_weight:.2f}  ({group.episodes} ep., {group.share:.0%} of all weight)"
            ax.text(group.mean_weight, place, note, fontsize=7, color=INK, va="center")
            ticks.append(place)
            names.append(shortened(wrap(group.name, 1.6, 7.0), 1)[0])
        place += 1.4
    ax.set_yticks(ticks, names, parse_math=False)
    ax.set_ylim(place - 0.6, -0.8)
    highest = max(1.0, *(group.mean_weight for members in groups.values() for group in members))
    ax.set_xlim(0, highest * 1.6)
    _labels(ax, "mean weight", "")
    ax.set_xticks([tick for tick in ax.get_xticks() if tick <= highest])
    ax.grid(visible=False)
    _heading(ax, "Mean weight by group")
