"""One episode's figure: sample frames with their own numbers, then for each head the curves over the true stages, and the predicted
stage probabilities; weights as a strip at the end. Time in seconds throughout; frame t is [t - 1/2, t + 1/2) / fps.

Places are computed in inches, without a layout engine: a figure with long names grows, and nothing is cut off or covered. The size of
letters does not depend on the width: a figure as wide as a page or a column can be printed as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle, pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle, StepPatch

from milepost.core import Signal, count_noun
from milepost.figures.style import CURVE_STYLES, INK, TRUTH_STYLE, WEIGHTS, ink_on, quiet, shortened, stage_style, wrap

FRAMES = 8
NARROWEST_FRAME, FRAME_GAP = 0.9, 0.08
"""Inches: if the width has no room for all sample frames, some are left out."""
LEFT, RIGHT, EDGE = 0.62, 1.95, 0.12
"""Inches: width of the axes' labels, width of the legends, margin of the figure."""
NARROW, NARROWEST = 6.0, 3.0
"""Inches of a figure's width: below the first, legends move above the curves; below the second, nothing is drawn."""
LEGEND_TEXT = RIGHT - EDGE - 0.4
"""Inches of a legend's text; the remaining width is for its line or patch."""
TITLE, CAPTION, LEGEND = 9.0, 7.0, 7.0
"""Font sizes in points."""
NUMBER: dict[str, Any] = {"fontsize": 7.0, "ha": "center", "va": "center"}
"""Style of a stage's number. In grey print, or with more than eight stages, only the number identifies a stage."""
LINE = 1.3 / 72
"""Inches a line takes for each point of its font size."""


@dataclass(frozen=True, eq=False)
class HeadView:
    """The content of one head's axes. Stages are numbered by their position in `stage_names`, for the truth and for the probabilities.

    curves: name -> (T,), NaN where unknown. truth (T,) and true_stage (T,), -1 where unknown: None if nothing is known.
    probabilities: name -> (T, K). computed: the frames that a model computed, if it did not compute all. scores: name -> the
    signal that was normalised to progress, for models that have one.
    """

    curves: Mapping[str, Float[np.ndarray, "T"]]
    truth: Float[np.ndarray, "T"] | None = None
    truth_source: str = ""
    true_stage: Int[np.ndarray, "T"] | None = None
    stage_names: Sequence[str] = ()
    probabilities: Mapping[str, Float[np.ndarray, "T K"]] = field(default_factory=dict)
    computed: Sequence[int] = ()
    scores: Mapping[str, Signal] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class EpisodeView:
    """The content of one episode's figure: head name -> its content, at least one, and the parts above and below."""

    title: str
    fps: float
    heads: Mapping[str, HeadView]
    weight: Float[np.ndarray, "T"] | None = None
    frames: UInt8[np.ndarray, "N H W 3"] | None = None
    frames_at: Sequence[int] = ()

    @property
    def seconds(self) -> Float[np.ndarray, "T"]:
        """Returns the time of every frame."""
        return np.arange(len(next(iter(next(iter(self.heads.values())).curves.values())))) / self.fps

    @property
    def edges(self) -> Float[np.ndarray, "N"]:
        """Returns the start time of every frame and the end of the last one: (T + 1,)."""
        return (np.arange(len(self.seconds) + 1) - 0.5) / self.fps

    @property
    def whole(self) -> float:
        """Returns the seconds from the first edge to the last."""
        return float(len(self.seconds) / self.fps)


@dataclass(frozen=True)
class _Strip:
    """One row of the figure: the space above and the height in inches, the function that draws it, and whether its x axis is time."""

    above: float
    height: float
    draw: Callable[[Axes], None]
    time: bool = True


def sample_frames(length: int, count: int = FRAMES) -> list[int]:
    """Returns frame numbers spread evenly over an episode, first and last included."""
    return sorted(set(np.linspace(0, length - 1, count).round().astype(int).tolist()))


def episode_figure(view: EpisodeView, width: float = 9.0) -> Figure:
    """Draws frames on top; for every head the progress and below it the stage probabilities; the weights as a strip at the bottom.

    width: inches, at least 3 (a journal's column). ValueError if it is less, or there is no head.
    """
    if width < NARROWEST:
        raise ValueError(f"a figure must be at least {NARROWEST:g} inches wide, got {width:g}")
    if not view.heads:
        raise ValueError("there is nothing to draw: name at least one head")
    view = _thinned(view, width)
    title = [line for text in _title(view) for line in shortened(wrap(text[:1000], width - 2 * EDGE, TITLE), 5)]
    strips = [] if view.frames is None else [_frame_strip(view, width)]
    for name, head in view.heads.items():
        strips += _head_strips(view, name, head, width)
    if view.weight is not None:
        strips.append(_Strip(0.12, 0.16, partial(_draw_weight, view=view, wide=width >= NARROW)))
    top = EDGE + len(title) * TITLE * LINE
    height = top + sum(strip.above + strip.height for strip in strips) + 0.45
    figure = Figure(figsize=(width, height), dpi=160)
    FigureCanvasAgg(figure)
    figure.text(EDGE / width, 1 - EDGE / height, "\n".join(title), fontsize=TITLE, color=INK, va="top", linespacing=1.1, parse_math=False)
    last = [strip for strip in strips if strip.time][-1]
    for strip in strips:
        x0, margin = (LEFT, _right(width)) if strip.time else (EDGE, EDGE)
        top += strip.above + strip.height
        ax = figure.add_axes((x0 / width, 1 - top / height, (width - x0 - margin) / width, strip.height / height))
        strip.draw(ax)
        if strip.time:
            ax.set_xlim(view.edges[0], view.edges[-1])
            ax.tick_params(labelbottom=strip is last)
            if len(view.seconds) == 1:
                ax.set_xticks([0.0])
        if strip is last:
            ax.set_xlabel("time (s)", fontsize=8, color=INK)
    return figure


def _right(width: float) -> float:
    """Returns the inches to the right of the axes."""
    return RIGHT if width >= NARROW else EDGE


def _title(view: EpisodeView) -> list[str]:
    """Returns the title, and a note on missing values of the curves."""
    notes = []
    for name, head in view.heads.items():
        for who, curve in head.curves.items():
            if missing := int(np.isnan(curve).sum()):
                which = f"{who} ({name})" if len(view.heads) > 1 else who
                notes.append(f"{which}: {missing} of {count_noun(len(curve), 'frame')} {'has' if missing == 1 else 'have'} no progress")
    if any(head.computed for head in view.heads.values()):
        notes.append("dots: frames a model looked at; between them its curve is interpolated, and stages are pale")
    return [view.title, *(["; ".join(notes)] if notes else [])]


# Sample frames


def caption(view: EpisodeView, frame: int) -> list[str]:
    """Returns the lines under a sample frame: its time, and each head's value at exactly this frame by its first curve."""
    lines = [f"{frame / view.fps:.2f} s, frame {frame}"]
    for name, head in view.heads.items():
        who, curve = next(iter(head.curves.items()))
        label = name if len(view.heads) > 1 else who if len(head.curves) > 1 else "progress"
        lines.append(f"{label} {curve[frame]:.2f}" if not np.isnan(curve[frame]) else f"{label} unknown")
        stage, source = _stage_at(head, frame)
        if stage >= 0:
            lines.append(f"{stage + 1} {head.stage_names[stage]}" + ("" if source == "predicted" else " (truth)"))
    return lines


def stage_track(head: HeadView) -> tuple[Int[np.ndarray, "T"], str]:
    """Returns (stage, source). stage: the most likely stage of every frame by the first curve's model, or the true one for a model without
    stages; -1 where unknown. source: "predicted" or "true"."""
    first, curve = next(iter(head.curves.items()))
    if first in head.probabilities:
        probability = head.probabilities[first]
        has_stage = ~np.isnan(probability).any(axis=1)
        return np.where(has_stage, np.where(has_stage[:, None], probability, 0).argmax(axis=1), -1), "predicted"
    return (np.full(len(curve), -1) if head.true_stage is None else head.true_stage.astype(np.int64)), "true"


def _stage_at(head: HeadView, frame: int) -> tuple[int, str]:
    stage, source = stage_track(head)
    return int(stage[frame]), source


def _room(width: float) -> int:
    """Returns how many sample frames fit side by side."""
    return min(FRAMES, int((width - 2 * EDGE + FRAME_GAP) / (NARROWEST_FRAME + FRAME_GAP)))


def _thinned(view: EpisodeView, width: float) -> EpisodeView:
    """Returns the content with no more sample frames than fit, spread evenly over the available ones."""
    if view.frames is None or len(view.frames) <= _room(width):
        return view
    picks = sample_frames(len(view.frames), _room(width))
    return replace(view, frames=view.frames[picks], frames_at=[view.frames_at[i] for i in picks])


def _frame_strip(view: EpisodeView, width: float) -> _Strip:
    assert view.frames is not None
    each = (width - 2 * EDGE + FRAME_GAP) / _room(width) - FRAME_GAP
    high = each * view.frames.shape[1] / view.frames.shape[2]
    captions = [[part for line in caption(view, at) for part in shortened(wrap(line[:200], each, CAPTION), 6)] for at in view.frames_at]
    height = high + 0.1 + max(map(len, captions)) * CAPTION * LINE
    return _Strip(0.06, height, partial(_draw_frames, view=view, captions=captions, size=(each, high)), time=False)


def _draw_frames(ax: Axes, view: EpisodeView, captions: Sequence[Sequence[str]], size: tuple[float, float]) -> None:
    """Draws each frame as an image in inches with unchanged colours; under it a bar in its stage's colour, and its caption."""
    assert view.frames is not None
    each, high = size
    head = next(iter(view.heads.values()))
    for place, (at, frame, lines) in enumerate(zip(view.frames_at, view.frames, captions, strict=True)):
        x0 = place * (each + FRAME_GAP)
        image = ax.imshow(frame, extent=(x0, x0 + each, high, 0), aspect="auto")
        image.set_gid(f"frame {at}")
        stage = _stage_at(head, at)[0]
        if stage >= 0:
            ax.add_patch(Rectangle((x0, high + 0.015), each, 0.045, **stage_style(stage)))
        for row, line in enumerate(lines):
            text = ax.text(x0, high + 0.17 + row * CAPTION * LINE, line, fontsize=CAPTION, color=INK, parse_math=False)
            text.set_gid(f"caption {at}")
    wide, deep = _inches(ax)
    ax.set_xlim(0, wide)
    ax.set_ylim(deep, 0)
    ax.set_axis_off()


# A head: its curves, its stages


def _head_strips(view: EpisodeView, name: str, head: HeadView, width: float) -> list[_Strip]:
    """Returns the progress strip and one strip of probabilities for each model that has them. Together they are high enough for the legend
    beside them; in a narrow figure the legend has a strip of its own."""
    prefix = f"{name} " if len(view.heads) > 1 else ""
    entries = [_entry(entry) for entry in ("truth", *head.curves, *_numbered(head.stage_names))]
    legend = sum(len(lines) * LEGEND * LINE + 0.035 for lines in entries) + 0.1
    strips = [
        _Strip(0.27 if len(head.curves) > 1 else 0.1, 1.2, partial(_draw_probabilities, view=view, head=head, who=who, prefix=prefix))
        for who in head.probabilities
    ]
    if head.scores:
        above = 0.27 if len(head.scores) < len(head.curves) else 0.12
        strips.append(_Strip(above, 0.8, partial(_draw_scores, view=view, head=head)))
    beside = sum(strip.above + strip.height for strip in strips)
    draw = partial(_draw_progress, view=view, head=head, prefix=prefix)
    if width >= NARROW:
        return [_Strip(0.22, max(1.7, legend - beside), partial(draw, with_legend=True)), *strips]
    return [_Strip(0.1, legend, partial(_draw_legend, view=view, head=head), time=False), _Strip(0.1, 1.7, draw), *strips]


def _entry(name: str) -> list[str]:
    return shortened(wrap(name[:200], LEGEND_TEXT, LEGEND), 6)


def _numbered(names: Sequence[str]) -> list[str]:
    return [f"{k + 1} {name}" for k, name in enumerate(names)]


def _draw_legend(ax: Axes, view: EpisodeView, head: HeadView) -> None:
    """Draws the legend alone, for curves that are drawn in another strip."""
    _legend(ax, [*_draw_curves(ax, view, head), *_stage_patches(head)], x0=0.0)
    for line in (*ax.lines,):
        line.set_visible(False)
    ax.set_axis_off()


def _draw_progress(ax: Axes, view: EpisodeView, head: HeadView, prefix: str, with_legend: bool = False) -> None:
    if head.true_stage is not None:
        for stage, start, stop in stage_runs(head.true_stage):
            x0, x1 = view.edges[start], view.edges[stop]
            ax.axvspan(x0, x1, **stage_style(stage, alpha=0.25))
            if (x1 - x0) / view.whole * _inches(ax)[0] > 2 * _clear(stage):
                ax.text((x0 + x1) / 2, -0.05, str(stage + 1), color=INK, **NUMBER)
    legend = _draw_curves(ax, view, head)
    for at in view.frames_at if view.frames is not None else ():
        ax.plot(at / view.fps, 1.06, marker="v", markersize=3.5, color=INK, clip_on=False)
    ax.set_ylim(-0.1, 1.06)
    ax.set_yticks(np.linspace(0, 1, 6))
    _label(ax, f"{prefix}progress")
    if with_legend:
        _legend(ax, [*legend, *_stage_patches(head)], x0=1.01)


def _draw_curves(ax: Axes, view: EpisodeView, head: HeadView) -> list[Artist]:
    legend: list[Artist] = []
    if head.truth is not None:
        source = f" ({head.truth_source})" if head.truth_source else ""
        legend += _line(ax, view, head.truth, f"truth{source}", (), zorder=2.5, **TRUTH_STYLE)
    for style, (name, curve) in zip(cycle(CURVE_STYLES), head.curves.items(), strict=False):
        legend += _line(ax, view, curve, "\n".join(_entry(name)), head.computed, linewidth=1.9, **style)
    return legend


def _stage_patches(head: HeadView) -> list[Artist]:
    return [Patch(label="\n".join(_entry(name)), **stage_style(k)) for k, name in enumerate(_numbered(head.stage_names))]


def _line(
    ax: Axes, view: EpisodeView, curve: Float[np.ndarray, "T"], label: str, computed: Sequence[int], **style: Any
) -> Sequence[Artist]:
    """Draws the curve, with gaps where it is unknown. Dots mark frames that a model computed, and single frames between gaps, which no line
    would show."""
    dots = sorted({*_alone(curve), *computed})
    ax.plot(view.seconds[dots], curve[dots], "o", markersize=2.8, color=style["color"], zorder=2.6)
    return ax.plot(view.seconds, curve, label=label, **style)


def _draw_probabilities(ax: Axes, view: EpisodeView, head: HeadView, who: str, prefix: str) -> None:
    """Draws the probabilities stacked in the order of the stages. The true stages are above them, and as lines through them."""
    probability, edges = head.probabilities[who], view.edges
    below = np.zeros(len(probability))
    seam = 0.6 * min(1.0, 150 / len(probability))  # fades where frames are narrower than a line: a noisy curve would be all seam
    for stage in range(probability.shape[1]):
        above = below + probability[:, stage]
        fill: dict[str, Any] = {"baseline": below, "label": head.stage_names[stage], **stage_style(stage)}
        line: dict[str, Any] = {"baseline": None, "fill": False, "edgecolor": "#FFFFFF", "linewidth": seam * (stage > 0)}
        ax.add_artist(StepPatch(above, edges, snap=False, **fill))  # ax.stairs takes seconds on a long episode, to find its limits
        ax.add_artist(StepPatch(below, edges, **line))
        for frame in _thick(probability[:, stage], _places(ax, view, head, stage)):
            ink = INK if head.computed else ink_on(stage)
            ax.text(frame / view.fps, (below[frame] + above[frame]) / 2, str(stage + 1), color=ink, zorder=3, **NUMBER)
        below = above
    _pale(ax, view, head.computed)
    inch = 1 / (_inches(ax)[1] - 0.2)  # what an inch is on the y axis, with 0.2 inches above 1 for the truth
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 0.5, 1])
    if head.true_stage is not None:
        for stage, start, stop in stage_runs(head.true_stage):
            ax.add_patch(Rectangle((edges[start], 1 + 0.07 * inch), edges[stop] - edges[start], 0.13 * inch, **stage_style(stage)))
            if start:
                ax.axvline(edges[start], zorder=2.5, **TRUTH_STYLE)
        ax.set_ylim(0, 1 + 0.2 * inch)
        ax.set_yticks([0, 0.5, 1, 1 + 0.135 * inch], ["0.0", "0.5", "1.0", "truth"])
    _label(ax, f"{prefix}stages" if prefix else "stage probability")
    if len(head.curves) > 1:
        ax.set_title(who, fontsize=LEGEND, color=INK, loc="left", pad=3, parse_math=False)


def _draw_scores(ax: Axes, view: EpisodeView, head: HeadView) -> None:
    """Draws the models' raw scores, each in its curve's style: progress always reaches 1, a raw score may stay low."""
    styles = dict(zip(head.curves, cycle(CURVE_STYLES), strict=False))
    for name, score in head.scores.items():
        frames = np.flatnonzero(~np.isnan(score.values))
        style: dict[str, Any] = dict(styles[name])
        ax.plot(view.seconds[frames], score.values[frames], marker="o", markersize=2.2, **{**style, "linewidth": 1.0})
    _label(ax, _unit_of(head.scores))
    if len(head.scores) < len(head.curves):
        ax.set_title(", ".join(head.scores), fontsize=LEGEND, color=INK, loc="left", pad=3, parse_math=False)


def _unit_of(scores: Mapping[str, Signal]) -> str:
    """Returns the label of the scores' axis: their unit, if all have the same one."""
    units = {score.unit for score in scores.values()}
    unit = units.pop() if len(units) == 1 else ""
    return {"nats": "log P (nats)", "": "score"}.get(unit, f"score ({unit})")


def stage_runs(stage: Int[np.ndarray, "T"]) -> list[tuple[int, int, int]]:
    """Returns (stage, start, stop) of every run of a known stage."""
    changes = [0, *(np.flatnonzero(np.diff(stage)) + 1).tolist(), len(stage)]
    return [(int(stage[start]), start, stop) for start, stop in pairwise(changes) if stage[start] >= 0]


def _alone(curve: Float[np.ndarray, "T"]) -> list[int]:
    """Returns the known frames between unknown ones: a line does not show them."""
    is_known: Bool[np.ndarray, "N"] = np.pad(~np.isnan(curve), 1)
    return np.flatnonzero(is_known[1:-1] & ~is_known[:-2] & ~is_known[2:]).tolist()


def _pale(ax: Axes, view: EpisodeView, computed: Sequence[int]) -> None:
    """Draws a white veil over the spans between the frames that a model computed."""
    half = max(0.5 / view.fps, 0.0125 * view.whole / _inches(ax)[0])
    for before, after in pairwise(computed):
        x0, x1 = before / view.fps + half, after / view.fps - half
        if after - before > 1 and x1 > x0:
            veil = Rectangle((x0, 0), x1 - x0, 1, facecolor="#FFFFFF", alpha=0.55, linewidth=0, zorder=2.2)
            veil.set_gid("interpolated")
            ax.add_patch(veil)


def _clear(stage: int) -> float:
    """Returns the free inches that a stage's number needs on each side."""
    return 0.03 + 0.035 * len(str(stage + 1))


def _places(ax: Axes, view: EpisodeView, head: HeadView, stage: int) -> Bool[np.ndarray, "T"]:
    """Returns a mask of the frames where a stage's number touches no boundary of the true stages and no edge of the axes."""
    changes = [] if head.true_stage is None else [start for _, start, _ in stage_runs(head.true_stage)]
    lines = np.array([0, *changes, len(view.seconds)]) - 0.5
    away = np.abs(np.arange(len(view.seconds))[:, None] - lines).min(axis=1)
    return away / len(view.seconds) * _inches(ax)[0] > _clear(stage)


def _thick(probability: Float[np.ndarray, "T"], free: Bool[np.ndarray, "T"]) -> list[int]:
    """Returns the free frames where an area has room for its number: the middle of each run of a likely stage; for a stage that is never
    likely, near its maximum."""
    runs = [(start, stop) for _, start, stop in stage_runs(np.where(probability > 0.6, 0, -1)) if stop - start > 0.03 * len(probability)]
    amid = [(start + np.flatnonzero(free[start:stop]), (start + stop - 1) // 2) for start, stop in runs]
    if middles := [int(some[np.abs(some - middle).argmin()]) for some, middle in amid if len(some)]:
        return middles
    there = np.where(free, np.nan_to_num(probability), 0.0)
    most = there.max()
    near = np.flatnonzero(there >= 0.95 * most)
    return [int(near[len(near) // 2])] if most > 0.15 else []


def _inches(ax: Axes) -> tuple[float, float]:
    """Returns width and height of the axes."""
    figure, box = ax.figure, ax.get_position()
    assert isinstance(figure, Figure)
    return box.width * figure.get_figwidth(), box.height * figure.get_figheight()


def _label(ax: Axes, label: str) -> None:
    ax.set_ylabel(label, fontsize=8, color=INK, parse_math=False)
    ax.yaxis.set_label_coords(-0.43 / _inches(ax)[0], 0.5)
    quiet(ax)


def _legend(ax: Axes, handles: Sequence[Artist], x0: float) -> None:
    legend = ax.legend(handles=handles, fontsize=LEGEND, frameon=False, loc="upper left", bbox_to_anchor=(x0, 1.0), borderaxespad=0,
                       borderpad=0.3, labelspacing=0.35, handlelength=2.4)  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw_weight(ax: Axes, view: EpisodeView, wide: bool) -> None:
    assert view.weight is not None
    extent = (view.edges[0], view.edges[-1], 0.0, 1.0)
    ax.imshow(view.weight[None], aspect="auto", extent=extent, cmap=WEIGHTS, vmin=0, vmax=1, interpolation="nearest")
    ax.set_yticks([])
    ax.set_ylabel("weight", fontsize=8, color=INK, rotation=0, ha="right", va="center")
    if wide:  # what the colours mean, in the legends' column
        inch = 1 / _inches(ax)[0]
        scale = ax.inset_axes((1 + 0.2 * inch, 0, 0.5 * inch, 1))
        scale.imshow(np.linspace(0, 1, 64)[None], aspect="auto", cmap=WEIGHTS, extent=(0, 1, 0, 1))
        scale.set_axis_off()
        for at, number in ((-0.12, "0"), (1.12, "1")):
            scale.text(at, 0.45, number, color=INK, **NUMBER)
    quiet(ax)
