"""What weights would do, before anything is trained: shares by task and quality, a sweep of kappa, dropped spans, warnings, better options.

Arithmetic on a `Weighed` and on what is known of its episodes. It recommends only options whose reason it has measured on these rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from milepost.weights.config import RabcConfig
from milepost.weights.deltas import deltas, smoothed, sort_rows
from milepost.weights.rules import PHASES
from milepost.weights.weighed import Weighed, effective_share, places, reweigh, suggested_kappa

DROPPED = 0.1
"""A frame that weighs less counts as dropped."""
_FACTORS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Note:
    """What is known of an episode: its task, how it was done ("expert", "hesitating", ...), whether it succeeded."""

    task: str = ""
    kind: str = ""
    success: bool | None = None

    @property
    def quality(self) -> str:
        """In a word or two."""
        end = {True: "success", False: "failure", None: ""}[self.success]
        return ": ".join(part for part in (end, self.kind) if part) or "unknown"


@dataclass(frozen=True)
class Group:
    """Episodes that have something in common, and what they weigh. share: of the weight of all, beside `frames` of all."""

    name: str
    episodes: int
    frames: int
    mean_weight: float
    zero: float
    full: float
    share: float


@dataclass(frozen=True, eq=False)
class EpisodeWeights:
    """One row an episode: its number, frames in the file, mean weight, share of frames dropped."""

    number: Int[np.ndarray, "E"]
    frames: Int[np.ndarray, "E"]
    mean: Float[np.ndarray, "E"]
    dropped: Float[np.ndarray, "E"]


@dataclass(frozen=True)
class Sweep:
    """Another threshold and its effect. factor: in units of the mean delta where kappa is one number, else of today's, and kappa is NaN."""

    factor: float
    kappa: float
    mean_weight: float
    full: float
    zero: float
    effective: float
    successes: float
    failures: float


@dataclass(frozen=True)
class Span:
    """Frames of one episode that are dropped, by index: [start, stop)."""

    episode: int
    start: int
    stop: int


@dataclass(frozen=True)
class Findings:
    """What is looked for in the rows."""

    still_share: float
    still_weight: float
    """Frames that stand still: how many, and what they weigh on average."""
    end_weight: float
    rest_weight: float
    end_rescaled: float
    """Mean weight of the last tenth of episodes, of the rest, and of the last tenth had its horizon been rescaled."""
    slow_phase_weight: float
    slow_phase: float
    """The lowest mean weight of frames that do advance, by progress, and at which progress."""
    noise: float
    pace: float
    """Frame noise of progress, and the usual delta of a frame that advances."""


@dataclass(frozen=True)
class Advice:
    """A warning, and the options that would answer it (none if it is no matter of options)."""

    text: str
    change: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def by_episode(weighed: Weighed) -> EpisodeWeights:
    """In the order of their frames."""
    rows, order = sort_rows(weighed.index, weighed.episode_index)
    weight = weighed.weight if order is None else weighed.weight[order]
    frames = rows.lengths
    mean, dropped = (np.add.reduceat(each.astype(np.float64), rows.start) / frames for each in (weight, weight < DROPPED))
    return EpisodeWeights(rows.episode[rows.start], frames, mean, dropped)


def by_name(weighed: Weighed, names: Mapping[int, str]) -> list[Group]:
    """One group a name; names: episode number -> name, episodes without one left out."""
    numbers, where = np.unique(weighed.episode_index, return_inverse=True)
    labels = [names.get(int(number), "") for number in numbers]
    kinds = sorted({label for label in labels if label})
    place = {kind: i for i, kind in enumerate(kinds)}
    group = np.array([place.get(label, len(kinds)) for label in labels])[where]
    size = len(kinds) + 1
    frames = np.bincount(group, minlength=size)
    total, zero, full = (
        np.bincount(group, weights=each, minlength=size) for each in (weighed.weight, weighed.weight == 0, weighed.weight >= 1)
    )
    everything = max(float(weighed.weight.sum(dtype=np.float64)), np.finfo(float).tiny)
    return [
        Group(kind, labels.count(kind), int(n), total[i] / n, zero[i] / n, full[i] / n, total[i] / everything)
        for i, kind in enumerate(kinds)
        if (n := max(int(frames[i]), 1))
    ]


def sweep(weighed: Weighed, notes: Mapping[int, Note]) -> list[Sweep]:
    """Other thresholds beside today's. One kappa: multiples of the mean delta, and today's. By task or pace: multiples of today's."""
    one = weighed.one_kappa
    unit = weighed.kappa if one is None else max(weighed.delta_mean, weighed.config.epsilon)
    factors = sorted({*_FACTORS, *([] if one is None else [one / float(unit)])})
    success, failure = (_of_success(weighed, notes, wanted) for wanted in (True, False))
    rows = []
    for factor in factors:
        kappa = factor * unit
        new = reweigh(weighed, kappa if one is None else float(kappa))
        rows.append(
            Sweep(
                factor=factor,
                kappa=float("nan") if one is None else float(kappa),
                mean_weight=float(new.weight.mean(dtype=np.float64)),
                full=new.full,
                zero=new.zero,
                effective=new.effective,
                successes=_mean(new.weight[success]),
                failures=_mean(new.weight[failure]),
            )
        )
    return rows


def _of_success(weighed: Weighed, notes: Mapping[int, Note], wanted: bool) -> np.ndarray:
    chosen = [number for number, note in notes.items() if note.success is wanted]
    return np.isin(weighed.episode_index, chosen)


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else float("nan")


def dropped_spans(weighed: Weighed, count: int, notes: Mapping[int, Note] | None = None) -> list[Span]:
    """The longest run of dropped frames of an episode, for that many episodes: the longest of each quality in turn, then the next ones."""
    rows, order = sort_rows(weighed.index, weighed.episode_index)
    low = (weighed.weight if order is None else weighed.weight[order]) < DROPPED
    fresh = np.concatenate([[True], (low[1:] != low[:-1]) | (rows.episode[1:] != rows.episode[:-1]) | (np.diff(rows.index) > 1)])
    start = np.flatnonzero(fresh)
    stop = np.append(start[1:], len(low))
    runs = np.flatnonzero(low[start])
    longest: dict[int, Span] = {}
    for run in runs[np.argsort(start[runs] - stop[runs], kind="stable")]:
        span = Span(int(rows.episode[start[run]]), int(rows.index[start[run]]), int(rows.index[stop[run] - 1]) + 1)
        longest.setdefault(span.episode, span)
    turns: dict[str, int] = {}
    ranked = []
    for span in longest.values():
        quality = notes[span.episode].quality if notes and span.episode in notes else ""
        turns[quality] = turns.get(quality, 0) + 1
        ranked.append((turns[quality], span))
    return [span for _, span in sorted(ranked, key=lambda each: each[0])[:count]]


def frame_noise(index: Int[np.ndarray, "N"], episode_index: Int[np.ndarray, "N"], value: Float[np.ndarray, "N"]) -> float:
    """Standard deviation of noise that is new in every frame, from second differences (median absolute, so that steps do not count)."""
    rows, order = sort_rows(index, episode_index)
    value = np.asarray(value, dtype=np.float64) if order is None else np.asarray(value, dtype=np.float64)[order]
    near = (rows.episode[2:] == rows.episode[:-2]) & (rows.index[2:] - rows.index[:-2] == 2)
    bend = np.abs(value[2:] - 2 * value[1:-1] + value[:-2])[near]
    bend = bend[~np.isnan(bend)]
    return float(1.4826 * np.median(bend) / 6**0.5) if len(bend) else 0.0


def findings(weighed: Weighed, value: Float[np.ndarray, "N"], delta: Float[np.ndarray, "N"] | None = None) -> Findings:
    """Measured on the weights and the curve they come from, rows in the same order. delta: tells which frames stand still; theirs if None,
    or another's, to see what other options make of the same frames."""
    delta, weight = weighed.delta if delta is None else delta, weighed.weight
    forward = delta[delta > 0]
    pace = float(np.median(forward)) if len(forward) else 0.0
    still = np.abs(delta) <= 0.05 * pace
    late = places(weighed) >= 0.9
    known = ~np.isnan(delta) & ~np.isnan(value)
    moving = known & (delta > 0.05 * pace) & ~late
    low, high = (float(np.nanmin(value)), float(np.nanmax(value))) if known.any() else (0.0, 0.0)
    width = max(high - low, np.finfo(float).tiny) / PHASES
    phase = np.minimum(((value[moving] - low) / width).astype(np.int64), PHASES - 1)
    count = np.bincount(phase, minlength=PHASES)
    mean = np.bincount(phase, weights=weight[moving], minlength=PHASES) / np.maximum(count, 1)
    mean[count < 0.002 * len(delta)] = np.inf
    slowest = int(np.argmin(mean))
    return Findings(
        still_share=float(still.mean()) if len(still) else 0.0,
        still_weight=_mean(weight[still]),
        end_weight=_mean(weight[late & known]),
        rest_weight=_mean(weight[~late & known]),
        end_rescaled=_mean(_rescaled(weighed, value)[late & known]),
        slow_phase_weight=float(mean[slowest]) if np.isfinite(mean[slowest]) else float("nan"),
        slow_phase=low + (slowest + 0.5) * width,
        noise=frame_noise(weighed.index, weighed.episode_index, value),
        pace=pace,
    )


def _rescaled(weighed: Weighed, value: np.ndarray) -> Float[np.ndarray, "N"]:
    """The weights, had the horizon been rescaled at the end and nothing else been changed."""
    config = weighed.config
    if config.end == "rescale" or config.rule != "rabc":
        return weighed.weight
    if config.smooth:
        value = smoothed(weighed.index, weighed.episode_index, value, config.smooth)
    delta = deltas(weighed.index, weighed.episode_index, value, config.chunk_size, "rescale")
    return reweigh(dataclasses.replace(weighed, delta=delta), weighed.kappa).weight


def advise(weighed: Weighed, found: Findings, tasks: Sequence[Group], notes: Mapping[int, Note]) -> list[Advice]:
    """What a user should know before training with these weights, most important first."""
    config, mean = weighed.config, float(weighed.weight.mean(dtype=np.float64))
    said = [*_of_the_curve(weighed, found, mean)]
    if config.rule == "rabc":
        said += _of_the_rule(weighed, found, tasks, mean)
    success, failure = (_mean(weighed.weight[_of_success(weighed, notes, wanted)]) for wanted in (True, False))
    if success - failure < 0.1:  # False where one of them is not known
        said.append(Advice(f"successes weigh {success:.2f} and failures {failure:.2f} on average: these weights hardly tell them apart"))
    if effective_share(weighed.weight) < 0.1:
        said.append(Advice(f"the weights leave what {effective_share(weighed.weight):.1%} of the frames are worth: few to learn from"))
    return said


def _of_the_curve(weighed: Weighed, found: Findings, mean: float) -> list[Advice]:
    config, said = weighed.config, []
    _, frames = np.unique(weighed.episode_index, return_counts=True)
    if weighed.delta_mean <= 0:
        said.append(
            Advice("the mean delta is not above 0: by this curve the demonstrations make no progress; look at it with milepost plot")
        )
    if config.rule != "uniform" and len(frames) and config.chunk_size >= frames.max():
        said.append(
            Advice(
                f"the chunk of {config.chunk_size} frames is longer than every episode (the longest has {frames.max()}): a delta is "
                "all that is left of the episode, and says nothing of the frames in between; use a smaller --chunk-size"
            )
        )
    elif config.rule != "uniform" and len(frames) and config.chunk_size > np.median(frames) / 2:
        said.append(
            Advice(
                f"the chunk of {config.chunk_size} frames is over half of a usual episode ({np.median(frames):.0f}): what goes wrong for "
                "less than a chunk is averaged away; a smaller --chunk-size sees it, whatever the policy's own chunk"
            )
        )
    if mean < 0.1:
        said.append(Advice(f"mean weight is {mean:.2f}: almost nothing is left to learn from; lower kappa, or look at the curves"))
    if weighed.unknown:
        said.append(Advice(f"{weighed.unknown:.1%} of the frames have no delta and get weight {config.fallback_weight:g}"))
    return said


def _of_the_rule(weighed: Weighed, found: Findings, tasks: Sequence[Group], mean: float) -> list[Advice]:
    config, said = weighed.config, []
    pace: dict[str, Any] = {} if config.kappa_pace is not None else {"kappa_pace": 0.5}
    by_task: dict[str, Any] = {"statistics": "task"} if len(tasks) > 1 else {}
    if mean > 0.95 and pace:
        said.append(
            Advice(
                f"mean weight is {mean:.2f}: kappa {weighed.one_kappa or config.kappa:g} is so low that this is plain behaviour cloning; "
                f"try --kappa {suggested_kappa(weighed):g} (the mean delta)",
                pace | by_task,
            )
        )
    if (smooth := smoothing_for(found, config)) > config.smooth:
        said.append(
            Advice(f"progress jitters by {found.noise:.3f} a frame, a chunk's usual progress is {found.pace:.3f}", {"smooth": smooth})
        )
    if config.end == "truncate" and found.end_weight < 0.7 * found.rest_weight and found.end_rescaled > found.end_weight + 0.05:
        said.append(
            Advice(
                f"the last tenth of an episode weighs {found.end_weight:.2f}, the rest {found.rest_weight:.2f}: ends are down-weighted, "
                f"also because the horizon is cut there; rescaled, the last tenth would weigh {found.end_rescaled:.2f}",
                {"end": "rescale"},
            )
        )
    if config.ramp == "soft" and found.still_share > 0.02 and found.still_weight > 0.1:
        said.append(
            Advice(
                f"{found.still_share:.0%} of the frames stand still and weigh {found.still_weight:.2f} on average",
                {"ramp": "linear"} | pace | by_task,
            )
        )
    if pace and found.slow_phase_weight < 0.4 * mean:
        said.append(
            Advice(
                f"frames that advance around progress {found.slow_phase:.2f} weigh {found.slow_phase_weight:.2f} on average: a phase "
                "that is always slow is starved",
                pace | by_task,
            )
        )
    lowest = min(tasks, key=lambda group: group.mean_weight, default=None)
    if lowest is not None and len(tasks) > 1 and config.statistics == "dataset" and lowest.mean_weight < 0.5 * mean:
        said.append(
            Advice(
                f"task '{lowest.name}' weighs {lowest.mean_weight:.2f} on average, all together {mean:.2f}: it is starved", pace | by_task
            )
        )
    return said


def smoothing_for(found: Findings, config: RabcConfig) -> int:
    """The fewest frames of smoothing (odd, within the chunk) that bring a delta's noise to a quarter of the usual delta; 0 for none.

    Of a window of W frames the noise of a mean is left by 1 / sqrt(W), that of a delta sqrt(2) times it.
    """
    if not found.pace or 2**0.5 * found.noise <= 0.25 * found.pace:
        return 0
    wanted = int(np.ceil(32 * (found.noise / found.pace) ** 2)) | 1
    most = config.chunk_size + 1 - config.chunk_size % 2
    return max(3, min(wanted, most))


def recommended(config: RabcConfig, advice: Sequence[Advice]) -> RabcConfig:
    """The options with every change that was advised; the same if none was."""
    changes: dict[str, Any] = {}
    for each in advice:
        changes |= each.change
    if "kappa_pace" in changes:
        changes |= {"kappa": RabcConfig.kappa, "kappa_duration_s": None, "kappa_quantile": None, "kappa_keep": None}
    return dataclasses.replace(config, **changes)


def flags(config: RabcConfig) -> str:
    """The options as `milepost weigh` takes them, those at their default left out."""
    names = [f.name for f in dataclasses.fields(config) if config.changed(f.name)]
    return " ".join(f"--{name.replace('_', '-')} {_flag(getattr(config, name))}" for name in names if name != "awr_centre") + (
        " --no-awr-centre" if "awr_centre" in names else ""
    )


def _flag(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
