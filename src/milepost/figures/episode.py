"""One episode's figure: sample frames with their own numbers, then for each head the curves over the stages that really were, and the
predicted stage probabilities; weights as a strip at the end. Time in seconds throughout; frame t is [t - 1/2, t + 1/2) / fps.

Places are computed in inches, not left to a layout engine: a figure with long names grows, nothing in it is cut off or laid over.
Letters have one size whatever the width: at the width of a page or of a column it is for print as it is.
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

from milepost.core import Signal
from milepost.figures.style import CURVE_STYLES, INK, TRUTH_STYLE, WEIGHTS, ink_on, quiet, shortened, stage_style, wrap

FRAMES = 8
NARROWEST_FRAME, FRAME_GAP = 0.9, 0.08
"""Inches: where there is no room for all sample frames in this width, some are left out."""
LEFT, RIGHT, EDGE = 0.62, 1.95, 0.12
"""Inches: of the axes' labels, of the legends, of the figure's margin."""
NARROW, NARROWEST = 6.0, 3.0
"""Inches of a figure's width: below the first legends stand under the curves; below the second nothing is drawn."""
LEGEND_TEXT = RIGHT - EDGE - 0.4
"""Inches of a legend's text; the rest is its line or patch."""
TITLE, CAPTION, LEGEND = 9.0, 7.0, 7.0
"""Font sizes in points."""
NUMBER: dict[str, Any] = {"fontsize": 7.0, "ha": "center", "va": "center"}
"""A stage's number where it is drawn: in grey, or in a colour that comes twice, it says which stage this is."""
LINE = 1.3 / 72
"""Inches a line takes for each point of its font size."""


@dataclass(frozen=True, eq=False)
class HeadPicture:
    """What is drawn of one head. Stages are numbered by their place in `stage_names`, in the truth as in the probabilities.

    curves: name -> (T,), NaN where unknown. truth (T,) and true_stage (T,), -1 where unknown: None if nothing is known.
    probabilities: name -> (T, K). computed: the frames a model looked at, if it did not look at all of them. scores: name ->
    the signal that progress was stretched from, for models of which that is so.
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
class EpisodePicture:
    """All that goes into one episode's figure: head name -> its picture, at least one, and what is above and below."""

    title: str
    fps: float
    heads: Mapping[str, HeadPicture]
    weight: Float[np.ndarray, "T"] | None = None
    frames: UInt8[np.ndarray, "N H W 3"] | None = None
    frames_at: Sequence[int] = ()

    @property
    def seconds(self) -> Float[np.ndarray, "T"]:
        """Time of every frame."""
        return np.arange(len(next(iter(next(iter(self.heads.values())).curves.values())))) / self.fps

    @property
    def edges(self) -> Float[np.ndarray, "N"]:
        """Where every frame begins, and the last one ends: (T + 1,)."""
        return (np.arange(len(self.seconds) + 1) - 0.5) / self.fps

    @property
    def whole(self) -> float:
        """Seconds from the first edge to the last."""
        return float(len(self.seconds) / self.fps)


@dataclass(frozen=True)
class _Strip:
    """One row of the figure: inches of space above, inches high, and who draws it; whether along time."""

    above: float
    height: float
    draw: Callable[[Axes], None]
    time: bool = True


def sample_frames(length: int, count: int = FRAMES) -> list[int]:
    """Frame numbers spread evenly over an episode, first and last included."""
    return sorted(set(np.linspace(0, length - 1, count).round().astype(int).tolist()))


def episode_figure(picture: EpisodePicture, width: float = 9.0) -> Figure:
    """Frames on top; for every head the progress and below it the stage probabilities; the weights as a strip at the bottom.

    width: inches, at least 3 (a journal's column). ValueError if it is less.
    """
    if width < NARROWEST:
        raise ValueError(f"a figure must be at least {NARROWEST:g} inches wide, got {width:g}")
    picture = _thinned(picture, width)
    title = [line for text in _title(picture) for line in shortened(wrap(text[:1000], width - 2 * EDGE, TITLE), 5)]
    strips = [] if picture.frames is None else [_frame_strip(picture, width)]
    for name, head in picture.heads.items():
        strips += _head_strips(picture, name, head, width)
    if picture.weight is not None:
        strips.append(_Strip(0.12, 0.16, partial(_draw_weight, picture=picture, wide=width >= NARROW)))
    top = EDGE + len(title) * TITLE * LINE
    height = top + sum(strip.above + strip.height for strip in strips) + 0.45
    figure = Figure(figsize=(width, height), dpi=160)
    FigureCanvasAgg(figure)
    figure.text(EDGE / width, 1 - EDGE / height, "\n".join(title), fontsize=TITLE, color=INK, va="top", linespacing=1.1, parse_math=False)
    last = [strip for strip in strips if strip.time][-1]
    for strip in strips:
        left, right = (LEFT, _right(width)) if strip.time else (EDGE, EDGE)
        top += strip.above + strip.height
        ax = figure.add_axes((left / width, 1 - top / height, (width - left - right) / width, strip.height / height))
        strip.draw(ax)
        if strip.time:
            ax.set_xlim(picture.edges[0], picture.edges[-1])
            ax.tick_params(labelbottom=strip is last)
            if len(picture.seconds) == 1:
                ax.set_xticks([0.0])
        if strip is last:
            ax.set_xlabel("time (s)", fontsize=8, color=INK)
    return figure


def _right(width: float) -> float:
    """Inches right of the axes."""
    return RIGHT if width >= NARROW else EDGE


def _title(picture: EpisodePicture) -> list[str]:
    """The title, and what of the curves is missing."""
    notes = []
    for name, head in picture.heads.items():
        for who, curve in head.curves.items():
            if missing := int(np.isnan(curve).sum()):
                which = f"{who} ({name})" if len(picture.heads) > 1 else who
                notes.append(f"{which}: {missing} of {len(curve)} frames have no progress")
    if any(head.computed for head in picture.heads.values()):
        notes.append("dots: frames a model looked at; between them its curve is interpolated, and stages are pale")
    return [picture.title, *(["; ".join(notes)] if notes else [])]


# Sample frames


def caption(picture: EpisodePicture, frame: int) -> list[str]:
    """What stands under a sample frame: when it was, and what each head says of exactly this frame by its first curve."""
    lines = [f"{frame / picture.fps:.2f} s, frame {frame}"]
    for name, head in picture.heads.items():
        who, curve = next(iter(head.curves.items()))
        label = name if len(picture.heads) > 1 else who if len(head.curves) > 1 else "progress"
        lines.append(f"{label} {curve[frame]:.2f}" if not np.isnan(curve[frame]) else f"{label} unknown")
        stage, known = _stage_at(head, frame)
        if stage >= 0:
            lines.append(f"{stage + 1} {head.stage_names[stage]}" + ("" if known == "predicted" else " (truth)"))
    return lines


def stage_track(head: HeadPicture) -> tuple[Int[np.ndarray, "T"], str]:
    """The likeliest stage of every frame by the first curve's model; of a model without stages the true one; -1 where it is unknown.
    And which of the two it is: "predicted" or "true"."""
    first, curve = next(iter(head.curves.items()))
    if first in head.probabilities:
        probability = head.probabilities[first]
        known = ~np.isnan(probability).any(axis=1)
        return np.where(known, np.where(known[:, None], probability, 0).argmax(axis=1), -1), "predicted"
    return (np.full(len(curve), -1) if head.true_stage is None else head.true_stage.astype(np.int64)), "true"


def _stage_at(head: HeadPicture, frame: int) -> tuple[int, str]:
    stage, known = stage_track(head)
    return int(stage[frame]), known


def _room(width: float) -> int:
    """Sample frames for which there is room side by side."""
    return min(FRAMES, int((width - 2 * EDGE + FRAME_GAP) / (NARROWEST_FRAME + FRAME_GAP)))


def _thinned(picture: EpisodePicture, width: float) -> EpisodePicture:
    """With no more sample frames than there is room for, spread over those there are."""
    if picture.frames is None or len(picture.frames) <= _room(width):
        return picture
    kept = sample_frames(len(picture.frames), _room(width))
    return replace(picture, frames=picture.frames[kept], frames_at=[picture.frames_at[i] for i in kept])


def _frame_strip(picture: EpisodePicture, width: float) -> _Strip:
    assert picture.frames is not None
    each = (width - 2 * EDGE + FRAME_GAP) / _room(width) - FRAME_GAP
    high = each * picture.frames.shape[1] / picture.frames.shape[2]
    captions = [
        [part for line in caption(picture, at) for part in shortened(wrap(line[:200], each, CAPTION), 6)] for at in picture.frames_at
    ]
    height = high + 0.1 + max(map(len, captions)) * CAPTION * LINE
    return _Strip(0.06, height, partial(_draw_frames, picture=picture, captions=captions, size=(each, high)), time=False)


def _draw_frames(ax: Axes, picture: EpisodePicture, captions: Sequence[Sequence[str]], size: tuple[float, float]) -> None:
    """Each frame an image of its own in inches, its colours as they are, a bar of its stage's colour and its caption under it."""
    assert picture.frames is not None
    each, high = size
    head = next(iter(picture.heads.values()))
    for place, (at, frame, lines) in enumerate(zip(picture.frames_at, picture.frames, captions, strict=True)):
        left = place * (each + FRAME_GAP)
        image = ax.imshow(frame, extent=(left, left + each, high, 0), aspect="auto")
        image.set_gid(f"frame {at}")
        stage = _stage_at(head, at)[0]
        if stage >= 0:
            ax.add_patch(Rectangle((left, high + 0.015), each, 0.045, **stage_style(stage)))
        for row, line in enumerate(lines):
            text = ax.text(left, high + 0.17 + row * CAPTION * LINE, line, fontsize=CAPTION, color=INK, parse_math=False)
            text.set_gid(f"caption {at}")
    wide, deep = _inches(ax)
    ax.set_xlim(0, wide)
    ax.set_ylim(deep, 0)
    ax.set_axis_off()


# A head: its curves, its stages


def _head_strips(picture: EpisodePicture, name: str, head: HeadPicture, width: float) -> list[_Strip]:
    """The progress, and one strip of probabilities for each model that has them; together high enough for the legend beside them,
    or below it."""
    prefix = f"{name} " if len(picture.heads) > 1 else ""
    entries = [_entry(entry) for entry in ("truth", *head.curves, *_numbered(head.stage_names))]
    legend = sum(len(lines) * LEGEND * LINE + 0.035 for lines in entries) + 0.1
    strips = [
        _Strip(0.27 if len(head.curves) > 1 else 0.1, 1.2, partial(_draw_probabilities, picture=picture, head=head, who=who, prefix=prefix))
        for who in head.probabilities
    ]
    if head.scores:
        strips.append(_Strip(0.12, 0.8, partial(_draw_scores, picture=picture, head=head)))
    beside = sum(strip.above + strip.height for strip in strips)
    draw = partial(_draw_progress, picture=picture, head=head, prefix=prefix)
    if width >= NARROW:
        return [_Strip(0.22, max(1.7, legend - beside), partial(draw, named=True)), *strips]
    return [_Strip(0.1, legend, partial(_draw_legend, picture=picture, head=head), time=False), _Strip(0.1, 1.7, draw), *strips]


def _entry(name: str) -> list[str]:
    return shortened(wrap(name[:200], LEGEND_TEXT, LEGEND), 6)


def _numbered(names: Sequence[str]) -> list[str]:
    return [f"{k + 1} {name}" for k, name in enumerate(names)]


def _draw_legend(ax: Axes, picture: EpisodePicture, head: HeadPicture) -> None:
    """The legend alone, of curves that are drawn elsewhere."""
    _legend(ax, [*_draw_curves(ax, picture, head), *_stage_patches(head)], left=0.0)
    for drawn in (*ax.lines,):
        drawn.set_visible(False)
    ax.set_axis_off()


def _draw_progress(ax: Axes, picture: EpisodePicture, head: HeadPicture, prefix: str, named: bool = False) -> None:
    if head.true_stage is not None:
        for stage, start, stop in stage_runs(head.true_stage):
            left, right = picture.edges[start], picture.edges[stop]
            ax.axvspan(left, right, **stage_style(stage, alpha=0.25))
            if (right - left) / picture.whole * _inches(ax)[0] > 2 * _clear(stage):
                ax.text((left + right) / 2, -0.05, str(stage + 1), color=INK, **NUMBER)
    legend = _draw_curves(ax, picture, head)
    for at in picture.frames_at if picture.frames is not None else ():
        ax.plot(at / picture.fps, 1.06, marker="v", markersize=3.5, color=INK, clip_on=False)
    ax.set_ylim(-0.1, 1.06)
    ax.set_yticks(np.linspace(0, 1, 6))
    _label(ax, f"{prefix}progress")
    if named:
        _legend(ax, [*legend, *_stage_patches(head)], left=1.01)


def _draw_curves(ax: Axes, picture: EpisodePicture, head: HeadPicture) -> list[Artist]:
    legend: list[Artist] = []
    if head.truth is not None:
        source = f" ({head.truth_source})" if head.truth_source else ""
        legend += _line(ax, picture, head.truth, f"truth{source}", (), zorder=2.5, **TRUTH_STYLE)
    for style, (name, curve) in zip(cycle(CURVE_STYLES), head.curves.items(), strict=False):
        legend += _line(ax, picture, curve, "\n".join(_entry(name)), head.computed, linewidth=1.9, **style)
    return legend


def _stage_patches(head: HeadPicture) -> list[Artist]:
    return [Patch(label="\n".join(_entry(name)), **stage_style(k)) for k, name in enumerate(_numbered(head.stage_names))]


def _line(
    ax: Axes, picture: EpisodePicture, curve: Float[np.ndarray, "T"], label: str, computed: Sequence[int], **style: Any
) -> Sequence[Artist]:
    """The curve, with gaps where it is unknown; dots where a model looked, and on frames alone between gaps, which no line shows."""
    dots = sorted({*_alone(curve), *computed})
    ax.plot(picture.seconds[dots], curve[dots], "o", markersize=2.8, color=style["color"], zorder=2.6)
    return ax.plot(picture.seconds, curve, label=label, **style)


def _draw_probabilities(ax: Axes, picture: EpisodePicture, head: HeadPicture, who: str, prefix: str) -> None:
    """Stacked, in the order of the stages. Above them, and as lines through them, the stages that really were."""
    probability, edges = head.probabilities[who], picture.edges
    below = np.zeros(len(probability))
    seam = 0.6 * min(1.0, 150 / len(probability))  # fades where frames are narrower than a line: a noisy curve would be all seam
    for stage in range(probability.shape[1]):
        above = below + probability[:, stage]
        fill: dict[str, Any] = {"baseline": below, "label": head.stage_names[stage], **stage_style(stage)}
        line: dict[str, Any] = {"baseline": None, "fill": False, "edgecolor": "#FFFFFF", "linewidth": seam * (stage > 0)}
        ax.add_artist(StepPatch(above, edges, snap=False, **fill))  # ax.stairs takes seconds on a long episode, to find its limits
        ax.add_artist(StepPatch(below, edges, **line))
        for frame in _thick(probability[:, stage], _places(ax, picture, head, stage)):
            ink = INK if head.computed else ink_on(stage)
            ax.text(frame / picture.fps, (below[frame] + above[frame]) / 2, str(stage + 1), color=ink, zorder=3, **NUMBER)
        below = above
    _pale(ax, picture, head.computed)
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


def _draw_scores(ax: Axes, picture: EpisodePicture, head: HeadPicture) -> None:
    """What the models said themselves, each in its curve's style: progress always reaches 1, this need not be high."""
    styles = dict(zip(head.curves, cycle(CURVE_STYLES), strict=False))
    for name, score in head.scores.items():
        known = np.flatnonzero(~np.isnan(score.values))
        style: dict[str, Any] = dict(styles[name])
        ax.plot(picture.seconds[known], score.values[known], marker="o", markersize=2.2, **{**style, "linewidth": 1.0})
    _label(ax, _unit_of(head.scores))


def _unit_of(scores: Mapping[str, Signal]) -> str:
    """Returns what stands beside the axis of the scores: their unit, if they all have the same."""
    units = {score.unit for score in scores.values()}
    unit = units.pop() if len(units) == 1 else ""
    return {"nats": "log P (nats)", "": "score"}.get(unit, f"score ({unit})")


def stage_runs(stage: Int[np.ndarray, "T"]) -> list[tuple[int, int, int]]:
    """(stage, start, stop) of every run of a known stage."""
    cuts = [0, *(np.flatnonzero(np.diff(stage)) + 1).tolist(), len(stage)]
    return [(int(stage[start]), start, stop) for start, stop in pairwise(cuts) if stage[start] >= 0]


def _alone(curve: Float[np.ndarray, "T"]) -> list[int]:
    """Known frames between unknown ones: a line does not show them."""
    known: Bool[np.ndarray, "N"] = np.pad(~np.isnan(curve), 1)
    return np.flatnonzero(known[1:-1] & ~known[:-2] & ~known[2:]).tolist()


def _pale(ax: Axes, picture: EpisodePicture, computed: Sequence[int]) -> None:
    """A veil over what lies between the frames a model looked at."""
    half = max(0.5 / picture.fps, 0.0125 * picture.whole / _inches(ax)[0])
    for before, after in pairwise(computed):
        left, right = before / picture.fps + half, after / picture.fps - half
        if after - before > 1 and right > left:
            veil = Rectangle((left, 0), right - left, 1, facecolor="#FFFFFF", alpha=0.55, linewidth=0, zorder=2.2)
            veil.set_gid("interpolated")
            ax.add_patch(veil)


def _clear(stage: int) -> float:
    """Inches between the middle of a stage's number and anything else."""
    return 0.03 + 0.035 * len(str(stage + 1))


def _places(ax: Axes, picture: EpisodePicture, head: HeadPicture, stage: int) -> Bool[np.ndarray, "T"]:
    """The frames on which a stage's number touches neither a border of the true stages nor the edge of the axes."""
    cuts = [] if head.true_stage is None else [start for _, start, _ in stage_runs(head.true_stage)]
    lines = np.array([0, *cuts, len(picture.seconds)]) - 0.5
    away = np.abs(np.arange(len(picture.seconds))[:, None] - lines).min(axis=1)
    return away / len(picture.seconds) * _inches(ax)[0] > _clear(stage)


def _thick(probability: Float[np.ndarray, "T"], free: Bool[np.ndarray, "T"]) -> list[int]:
    """Free frames where an area has room for its number: amid each run of a likely stage; of one never likely, about where it is most
    so."""
    runs = [(start, stop) for _, start, stop in stage_runs(np.where(probability > 0.6, 0, -1)) if stop - start > 0.03 * len(probability)]
    amid = [(start + np.flatnonzero(free[start:stop]), (start + stop - 1) // 2) for start, stop in runs]
    if found := [int(some[np.abs(some - middle).argmin()]) for some, middle in amid if len(some)]:
        return found
    there = np.where(free, np.nan_to_num(probability), 0.0)
    most = there.max()
    near = np.flatnonzero(there >= 0.95 * most)
    return [int(near[len(near) // 2])] if most > 0.15 else []


def _inches(ax: Axes) -> tuple[float, float]:
    """Width and height of the axes."""
    figure, box = ax.figure, ax.get_position()
    assert isinstance(figure, Figure)
    return box.width * figure.get_figwidth(), box.height * figure.get_figheight()


def _label(ax: Axes, label: str) -> None:
    ax.set_ylabel(label, fontsize=8, color=INK, parse_math=False)
    ax.yaxis.set_label_coords(-0.43 / _inches(ax)[0], 0.5)
    quiet(ax)


def _legend(ax: Axes, handles: Sequence[Artist], left: float) -> None:
    legend = ax.legend(handles=handles, fontsize=LEGEND, frameon=False, loc="upper left", bbox_to_anchor=(left, 1.0), borderaxespad=0,
                       borderpad=0.3, labelspacing=0.35, handlelength=2.4)  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw_weight(ax: Axes, picture: EpisodePicture, wide: bool) -> None:
    assert picture.weight is not None
    extent = (picture.edges[0], picture.edges[-1], 0.0, 1.0)
    ax.imshow(picture.weight[None], aspect="auto", extent=extent, cmap=WEIGHTS, vmin=0, vmax=1, interpolation="nearest")
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
