"""How sample weights came out: the deltas against kappa, and the mean weight over an episode's time."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from milepost.plots.style import INK, quiet
from milepost.weights import Weighed, over_episode


def weights_figure(weighed: Weighed, width: float = 9.0) -> Figure:
    """Left: how deltas fall against kappa. Right: mean weight over an episode's time, which shows whether ends are starved."""
    figure = Figure(figsize=(width, 2.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _draw_deltas(left, weighed)
    mean = over_episode(weighed)
    right.bar((np.arange(len(mean)) + 0.5) / len(mean), mean, width=0.045, color="#2E7D5B")
    right.set_ylim(0, 1.05)
    right.set_xlabel("share of the episode gone by", fontsize=8)
    right.set_ylabel("mean weight", fontsize=8)
    quiet(right)
    return figure


def _draw_deltas(ax: Axes, weighed: Weighed) -> None:
    known = weighed.delta[~np.isnan(weighed.delta)]
    kappa = weighed.config.kappa
    if len(known):
        edges = np.linspace(min(known.min(), 0), max(known.max(), kappa, 1e-3), 41)
        for mask, colour, name in (
            (known < 0, "#7A0403", "backwards: 0"),
            ((known >= 0) & (known <= kappa), "#E8B084", "soft"),
            (known > kappa, "#2E7D5B", "full: 1"),
        ):
            ax.hist(known[mask], bins=edges.tolist(), color=colour, label=f"{name} ({mask.mean():.0%})")
        ax.axvline(kappa, color=INK, linewidth=1, linestyle=":", label=f"kappa {kappa:g}")
        ax.legend(fontsize=7, frameon=False)
    ax.set_xlabel(f"delta: progress over the next {weighed.config.chunk_size} frames", fontsize=8)
    ax.set_ylabel("frames", fontsize=8)
    quiet(ax)
