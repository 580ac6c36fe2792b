"""Figures in one style: progress curves over stage bands with sample frames, weights, deltas. Colour-blind safe, readable in grey.

A stage has the same colour everywhere. matplotlib's Figure is used directly, so no global state and no display.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from milepost.weights import Weighed, over_episode

STAGE_COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00", "#999999")
CURVE_COLOURS = ("#0B3C5D", "#B3446C", "#5B5B5B", "#D55E00")
TRUTH_STYLE: dict[str, Any] = {"color": "#111111", "linestyle": (0, (4, 2)), "linewidth": 1.3}
INK, FAINT = "#222222", "#DDDDDD"


@dataclass(frozen=True, eq=False)
class EpisodePicture:
    """All that goes into one episode's figure; only `curves` must be there."""

    title: str
    fps: float
    curves: Mapping[str, Float[np.ndarray, "T"]]
    truth: Float[np.ndarray, "T"] | None = None
    stage: Int[np.ndarray, "T"] | None = None
    stage_names: Sequence[str] = ()
    weight: Float[np.ndarray, "T"] | None = None
    frames: UInt8[np.ndarray, "N H W 3"] | None = None
    frames_at: Sequence[int] = field(default=())


def sample_frames(length: int, count: int = 8) -> list[int]:
    """Frame numbers spread evenly over an episode, first and last included."""
    return sorted(set(np.linspace(0, length - 1, count).round().astype(int).tolist()))


def episode_figure(picture: EpisodePicture, width: float = 9.0) -> Figure:
    """Frames on top, the curves over the stage bands below, the weights as a strip under them. Time in seconds throughout."""
    has_frames, has_weight = picture.frames is not None, picture.weight is not None
    heights = [1.15] * has_frames + [2.3] + [0.16] * has_weight
    figure = Figure(figsize=(width, sum(heights) + 0.95), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    if has_frames:
        _draw_frames(axes[0], picture)
    _draw_curves(axes[1 if has_frames else 0], picture)
    if has_weight:
        _draw_weight(axes[-1], picture)
    axes[-1].set_xlabel("time (s)", fontsize=8, color=INK)
    figure.suptitle(picture.title, fontsize=9, color=INK, x=0.01, ha="left")
    return figure


def _seconds(picture: EpisodePicture) -> np.ndarray:
    return np.arange(len(next(iter(picture.curves.values())))) / picture.fps


def _draw_frames(ax: Axes, picture: EpisodePicture) -> None:
    assert picture.frames is not None
    gap = np.full((picture.frames.shape[1], max(1, picture.frames.shape[2] // 24), 3), 255, dtype=np.uint8)
    tiles = [part for frame in picture.frames for part in (frame, gap)][:-1]
    ax.imshow(np.concatenate(tiles, axis=1), interpolation="lanczos", aspect="equal")
    ax.set_axis_off()
    step = picture.frames.shape[2] + gap.shape[1]
    for place, frame in enumerate(picture.frames_at):
        ax.text(place * step + 2, -3, f"{frame / picture.fps:.1f} s", fontsize=6.5, color=INK, va="bottom")


def _draw_curves(ax: Axes, picture: EpisodePicture) -> None:
    seconds = _seconds(picture)
    legend = []
    if picture.stage is not None:
        legend += _draw_stages(ax, picture, seconds)
    if picture.truth is not None:
        legend += ax.plot(seconds, picture.truth, label="truth", **TRUTH_STYLE)
    for colour, (name, curve) in zip(CURVE_COLOURS, picture.curves.items(), strict=False):
        legend += ax.plot(seconds, curve, label=name, color=colour, linewidth=1.9, solid_capstyle="round")
    ax.set_ylim(-0.03, 1.05)
    ax.set_xlim(seconds[0], max(seconds[-1], 1 / picture.fps))
    ax.set_ylabel("progress", fontsize=8, color=INK)
    _quiet(ax)
    ax.legend(handles=legend, fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.02))


def _draw_stages(ax: Axes, picture: EpisodePicture, seconds: np.ndarray) -> list:
    assert picture.stage is not None
    stage, half = picture.stage, 0.5 / picture.fps
    cuts = np.flatnonzero(np.diff(stage)) + 1
    for start, stop in zip([0, *cuts], [*cuts, len(stage)], strict=True):
        if stage[start] >= 0:
            colour = STAGE_COLOURS[stage[start] % len(STAGE_COLOURS)]
            ax.axvspan(seconds[start] - half, seconds[stop - 1] + half, color=colour, alpha=0.22, linewidth=0)
    return [
        Patch(color=STAGE_COLOURS[k % len(STAGE_COLOURS)], alpha=0.35, label=f"{k + 1} {name}")
        for k, name in enumerate(picture.stage_names)
    ]


def _draw_weight(ax: Axes, picture: EpisodePicture) -> None:
    assert picture.weight is not None
    seconds, half = _seconds(picture), 0.5 / picture.fps
    extent = (seconds[0] - half, seconds[-1] + half, 0.0, 1.0)
    ramp = ListedColormap(["#7A0403", "#C75B39", "#E8B084", "#A9C9A4", "#2E7D5B"])
    ax.imshow(picture.weight[None], aspect="auto", extent=extent, cmap=ramp, vmin=0, vmax=1, interpolation="nearest")
    ax.set_xlim(seconds[0], max(seconds[-1], 1 / picture.fps))
    ax.set_yticks([])
    ax.set_ylabel("weight", fontsize=7, color=INK, rotation=0, ha="right", va="center")
    _quiet(ax)


def _quiet(ax: Axes) -> None:
    ax.tick_params(labelsize=7, colors=INK, length=2)
    ax.grid(axis="y", color=FAINT, linewidth=0.5)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(FAINT)


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
    _quiet(right)
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
    _quiet(ax)


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
