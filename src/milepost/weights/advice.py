"""Advice about weights before a training run: groups by task and quality, a sweep of kappa, dropped spans, warnings, better options.

Everything is arithmetic on a `WeightResult` and on facts about its episodes. It recommends an option only for a reason
that it measured on these rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from milepost.core import Brief, count_noun
from milepost.weights.config import RabcConfig
from milepost.weights.deltas import deltas, smoothed, sort_rows
from milepost.weights.episode_values import ByEpisode
from milepost.weights.result import WeightResult, effective_proportion, in_words_unknown, places, reweigh, suggested_kappa
from milepost.weights.rules import PHASES

DROPPED = 0.1
"""A frame with a lower weight counts as dropped."""
WORSE = 0.05
"""A mean weight that recommended options change by more, in the wrong direction, is worth a sentence."""
_FACTORS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class EpisodeInfo:
    """Facts about one episode: its task, its kind ("expert", "hesitating", ...), and whether it succeeded (None: unknown)."""

    task: str = ""
    kind: str = ""
    success: bool | None = None

    @property
    def quality(self) -> str:
        """Returns success or failure and the kind, as far as they are known, else "outcome unknown"."""
        end = {True: "success", False: "failure", None: ""}[self.success]
        return ": ".join(part for part in (end, self.kind) if part) or "outcome unknown"


@dataclass(frozen=True)
class WeightGroup:
    """Episodes with the same task or quality, and their weights. share: the proportion of the dataset's total weight that these episodes
    hold."""

    name: str
    episodes: int
    frames: int
    mean_weight: float
    zero: float
    full: float
    share: float  # this name is a key of `weigh --json`, so it stays


@dataclass(frozen=True, eq=False)
class EpisodeWeights:
    """One row per episode: its index, its number of frames in the file, its mean weight, and the proportion of its frames that are
    dropped."""

    episode_index: Int[np.ndarray, "E"]
    frames: Int[np.ndarray, "E"]
    mean: Float[np.ndarray, "E"]
    dropped: Float[np.ndarray, "E"]


@dataclass(frozen=True)
class Sweep:
    """Another threshold and its effect. factor: in units of the mean delta where all frames have one kappa; else in units of today's kappa,
    and `kappa` is NaN."""

    factor: float
    kappa: float
    mean_weight: float
    full: float
    zero: float
    effective: float
    successes: float
    failures: float


@dataclass(frozen=True)
class FrameSpan:
    """Dropped frames of one episode, as dataset indices: [start, stop)."""

    episode: int
    start: int
    stop: int


@dataclass(frozen=True, repr=False)
class Diagnosis(Brief):
    """Measurements on the rows that the advice is based on."""

    still_share: float
    still_weight: float
    """Frames without progress: their proportion and their mean weight."""
    end_weight: float
    rest_weight: float
    end_rescaled: float
    """Mean weight of the last tenth of episodes, of all other frames, and of the last tenth if its horizon were rescaled."""
    slow_phase_weight: float
    slow_phase: float
    """The lowest mean weight of advancing frames among 20 bins of progress, and the progress at the middle of that bin."""
    noise: float
    pace: float
    """Standard deviation of the frame noise of progress, and the median delta of advancing frames."""


@dataclass(frozen=True)
class Advice:
    """A warning, and the options that would help (empty if no option helps)."""

    text: str
    change: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def by_episode(result: WeightResult) -> EpisodeWeights:
    """Returns one row per episode, in the order of their frames."""
    rows, order = sort_rows(result.index, result.episode_index)
    weight = result.weight if order is None else result.weight[order]
    frames = rows.lengths
    mean, dropped = (np.add.reduceat(each.astype(np.float64), rows.start) / frames for each in (weight, weight < DROPPED))
    return EpisodeWeights(rows.episode[rows.start], frames, mean, dropped)


def by_name(result: WeightResult, names: Mapping[int, str]) -> list[WeightGroup]:
    """Returns one group per name. names: episode index -> name; an episode without a name is left out."""
    numbers, where = np.unique(result.episode_index, return_inverse=True)
    by_number = ByEpisode.of(names)
    code, labels = by_number.codes(numbers), (*by_number.values_once, "")  # -1, no name, is the last one
    kinds = sorted({labels[each] for each in np.unique(code)} - {""})
    place = {kind: i for i, kind in enumerate(kinds)}
    of_episode = np.array([place.get(label, len(kinds)) for label in labels])[code]
    group, size = of_episode[where], len(kinds) + 1
    episodes = np.bincount(of_episode, minlength=size)
    frames = np.bincount(group, minlength=size)
    total, zero, full = (
        np.bincount(group, weights=each, minlength=size) for each in (result.weight, result.weight == 0, result.weight >= 1)
    )
    everything = max(float(result.weight.sum(dtype=np.float64)), np.finfo(float).tiny)
    return [
        WeightGroup(kind, int(episodes[i]), int(n), total[i] / n, zero[i] / n, full[i] / n, total[i] / everything)
        for i, kind in enumerate(kinds)
        if (n := max(int(frames[i]), 1))
    ]


def sweep(result: WeightResult, notes: Mapping[int, EpisodeInfo]) -> list[Sweep]:
    """Returns the effect of other thresholds and of today's. One kappa: multiples of the mean delta. A kappa by task or pace: multiples of
    today's."""
    one = result.one_kappa
    unit = result.kappa if one is None else max(result.delta_mean, result.config.epsilon)
    factors = sorted({*_FACTORS, *([] if one is None else [one / float(unit)])})
    success, failure = (_of_success(result, notes, outcome) for outcome in (True, False))
    rows = []
    for factor in factors:
        kappa = factor * unit
        new = reweigh(result, kappa if one is None else float(kappa))
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


def _of_success(result: WeightResult, notes: Mapping[int, EpisodeInfo], success: bool) -> np.ndarray:
    """Returns a mask of the rows whose episodes are known to have this outcome."""
    by_number = ByEpisode.of(notes)
    return np.isin(result.episode_index, by_number.number[by_number.where(lambda note: note.success is success)])


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else float("nan")


def dropped_spans(result: WeightResult, count: int, notes: Mapping[int, EpisodeInfo] | None = None) -> list[FrameSpan]:
    """Returns the longest run of dropped frames of each of `count` episodes. The qualities take turns: first the longest run of each, then
    the next ones."""
    rows, order = sort_rows(result.index, result.episode_index)
    low = (result.weight if order is None else result.weight[order]) < DROPPED
    fresh = np.concatenate([[True], (low[1:] != low[:-1]) | (rows.episode[1:] != rows.episode[:-1]) | (np.diff(rows.index) > 1)])
    start = np.flatnonzero(fresh)
    stop = np.append(start[1:], len(low))
    runs = np.flatnonzero(low[start])
    longest: dict[int, FrameSpan] = {}
    for run in runs[np.argsort(start[runs] - stop[runs], kind="stable")]:
        span = FrameSpan(int(rows.episode[start[run]]), int(rows.index[start[run]]), int(rows.index[stop[run] - 1]) + 1)
        longest.setdefault(span.episode, span)
    turns: dict[str, int] = {}
    ranked = []
    for span in longest.values():
        quality = notes[span.episode].quality if notes and span.episode in notes else ""
        turns[quality] = turns.get(quality, 0) + 1
        ranked.append((turns[quality], span))
    return [span for _, span in sorted(ranked, key=lambda each: each[0])[:count]]


def frame_noise(index: Int[np.ndarray, "N"], episode_index: Int[np.ndarray, "N"], value: Float[np.ndarray, "N"]) -> float:
    """Returns the standard deviation of the noise that is independent between frames. It is estimated from second differences; their median
    absolute value ignores real steps of the curve."""
    rows, order = sort_rows(index, episode_index)
    value = np.asarray(value, dtype=np.float64) if order is None else np.asarray(value, dtype=np.float64)[order]
    near = (rows.episode[2:] == rows.episode[:-2]) & (rows.index[2:] - rows.index[:-2] == 2)
    bend = np.abs(value[2:] - 2 * value[1:-1] + value[:-2])[near]
    bend = bend[~np.isnan(bend)]
    # 1.4826 turns a median absolute value of normal noise into its sigma; a second difference has 1 + 4 + 1 = 6 times the variance.
    return float(1.4826 * np.median(bend) / 6**0.5) if len(bend) else 0.0


def diagnose(result: WeightResult, value: Float[np.ndarray, "N"], delta: Float[np.ndarray, "N"] | None = None) -> Diagnosis:
    """Measures the weights and their curve; the rows must be in the same order. delta: decides which frames stand still. None takes the
    result's own; pass another result's to see how other options treat the same frames."""
    delta, weight = result.delta if delta is None else delta, result.weight
    forward = delta[delta > 0]
    pace = float(np.median(forward)) if len(forward) else 0.0
    still = np.abs(delta) <= 0.05 * pace  # 5 % of the usual pace: below the noise of the curves in docs/rabc_study.md
    late = places(result) >= 0.9
    has_values = ~np.isnan(delta) & ~np.isnan(value)
    moving = has_values & (delta > 0.05 * pace) & ~late
    low, high = (float(np.nanmin(value)), float(np.nanmax(value))) if has_values.any() else (0.0, 0.0)
    width = max(high - low, np.finfo(float).tiny) / PHASES
    phase = np.minimum(((value[moving] - low) / width).astype(np.int64), PHASES - 1)
    count = np.bincount(phase, minlength=PHASES)
    mean = np.bincount(phase, weights=weight[moving], minlength=PHASES) / np.maximum(count, 1)
    mean[count < 0.002 * len(delta)] = np.inf  # a bin of a few frames would give advice about noise
    slowest = int(np.argmin(mean))
    return Diagnosis(
        still_share=float(still.mean()) if len(still) else 0.0,
        still_weight=_mean(weight[still]),
        end_weight=_mean(weight[late & has_values]),
        rest_weight=_mean(weight[~late & has_values]),
        end_rescaled=_mean(_rescaled(result, value)[late & has_values]),
        slow_phase_weight=float(mean[slowest]) if np.isfinite(mean[slowest]) else float("nan"),
        slow_phase=low + (slowest + 0.5) * width,
        noise=frame_noise(result.index, result.episode_index, value),
        pace=pace,
    )


def _rescaled(result: WeightResult, value: np.ndarray) -> Float[np.ndarray, "N"]:
    """Returns the weights as they would be with end="rescale" and no other change."""
    config = result.config
    if config.end == "rescale" or config.rule != "rabc":
        return result.weight
    if config.smooth:
        value = smoothed(result.index, result.episode_index, value, config.smooth)
    delta = deltas(result.index, result.episode_index, value, config.chunk_size, "rescale")
    return reweigh(dataclasses.replace(result, delta=delta), result.kappa).weight


def advise(
    result: WeightResult,
    diagnosis: Diagnosis,
    tasks: Sequence[WeightGroup],
    notes: Mapping[int, EpisodeInfo],
    leave_out: str = "",
) -> list[Advice]:
    """Returns what a user should know before training with these weights, most important first. leave_out: the command that makes a
    dataset without the episodes of which no frame has a delta."""
    config, mean = result.config, float(result.weight.mean(dtype=np.float64))
    advice = [*_of_the_curve(result, mean, leave_out)]
    if config.rule == "rabc":
        advice += _of_the_rule(result, diagnosis, tasks, mean)
    success, failure = (_mean(result.weight[_of_success(result, notes, outcome)]) for outcome in (True, False))
    if success - failure < 0.1:  # a comparison with NaN is False: no advice where one of them is not known
        advice.append(Advice(f"successes weigh {success:.2f} and failures {failure:.2f} on average: these weights hardly tell them apart"))
    if effective_proportion(result.weight) < 0.1:
        advice.append(
            Advice(f"the weights leave what {effective_proportion(result.weight):.1%} of the frames are worth: few to learn from")
        )
    return advice


def _of_the_curve(result: WeightResult, mean: float, leave_out: str) -> list[Advice]:
    config, advice, more = result.config, [], ""
    if words := in_words_unknown(result, leave_out):
        advice.append(Advice(words, {"fallback_weight": 0.0}))
        more = ", in other episodes,"
    _, frames = np.unique(result.episode_index, return_counts=True)
    if result.delta_mean <= 0:
        advice.append(
            Advice("the mean delta is not above 0: by this curve the demonstrations make no progress; look at it with milepost plot")
        )
    if config.rule != "uniform" and len(frames) and config.chunk_size >= frames.max():
        advice.append(
            Advice(
                f"the chunk of {count_noun(config.chunk_size, 'frame')} is longer than every episode (the longest has {frames.max()}): "
                "a delta is all that is left of the episode, and says nothing of the frames in between; use a smaller --chunk-size"
            )
        )
    elif config.rule != "uniform" and len(frames) and config.chunk_size > np.median(frames) / 2:
        advice.append(
            Advice(
                f"the chunk of {count_noun(config.chunk_size, 'frame')} is over half of a usual episode ({np.median(frames):.0f}): "
                "what goes wrong for less than a chunk is averaged away; a smaller --chunk-size sees it, whatever the policy's own chunk"
            )
        )
    if mean < 0.1:
        advice.append(Advice(f"mean weight is {mean:.2f}: almost nothing is left to learn from; lower kappa, or look at the curves"))
    rest = result.is_unknown & ~np.isin(result.episode_index, result.unknown_episodes)
    if rest.any():
        advice.append(Advice(f"{rest.mean():.1%} of the frames{more} have no delta and get weight {config.fallback_weight:g}"))
    return advice


def _of_the_rule(result: WeightResult, diagnosis: Diagnosis, tasks: Sequence[WeightGroup], mean: float) -> list[Advice]:
    config, advice = result.config, []
    pace: dict[str, Any] = {} if config.kappa_pace is not None else {"kappa_pace": 0.5}
    by_task: dict[str, Any] = {"statistics": "task"} if len(tasks) > 1 else {}
    if mean > 0.95 and pace:
        advice.append(
            Advice(
                f"mean weight is {mean:.2f}: kappa {result.one_kappa or config.kappa:g} is so low that this is plain behaviour cloning; "
                f"try --kappa {suggested_kappa(result):g} (the mean delta)",
                pace | by_task,
            )
        )
    if (smooth := smoothing_for(diagnosis, config)) > config.smooth:
        advice.append(
            Advice(
                f"progress jitters by {diagnosis.noise:.3f} a frame, a chunk's usual progress is {diagnosis.pace:.3f}", {"smooth": smooth}
            )
        )
    if (
        config.end == "truncate"
        and diagnosis.end_weight < 0.7 * diagnosis.rest_weight
        and diagnosis.end_rescaled > diagnosis.end_weight + 0.05
    ):
        advice.append(
            Advice(
                f"the last tenth of an episode weighs {diagnosis.end_weight:.2f}, the rest {diagnosis.rest_weight:.2f}: ends are "
                f"down-weighted, also because the horizon is cut there; rescaled, the last tenth would weigh {diagnosis.end_rescaled:.2f}",
                {"end": "rescale"},
            )
        )
    if config.ramp == "soft" and diagnosis.still_share > 0.02 and diagnosis.still_weight > 0.1:
        advice.append(
            Advice(
                f"{diagnosis.still_share:.0%} of the frames stand still and weigh {diagnosis.still_weight:.2f} on average",
                {"ramp": "linear"} | pace | by_task,
            )
        )
    if pace and diagnosis.slow_phase_weight < 0.4 * mean:
        advice.append(
            Advice(
                f"frames that advance around progress {diagnosis.slow_phase:.2f} weigh {diagnosis.slow_phase_weight:.2f} on average: a "
                "phase that is always slow is starved",
                pace | by_task,
            )
        )
    lowest = min(tasks, key=lambda group: group.mean_weight, default=None)
    if lowest is not None and len(tasks) > 1 and config.statistics == "dataset" and lowest.mean_weight < 0.5 * mean:
        advice.append(
            Advice(
                f"task '{lowest.name}' weighs {lowest.mean_weight:.2f} on average, all together {mean:.2f}: it is starved", pace | by_task
            )
        )
    return advice


def smoothing_for(diagnosis: Diagnosis, config: RabcConfig) -> int:
    """Returns the smallest window in frames (odd, within the chunk) that reduces a delta's noise to a quarter of the usual delta; 0 if none
    is needed.

    The mean over a window of W frames has 1 / sqrt(W) of the noise; a delta is the difference of two means, so it has sqrt(2) times that.
    """
    if not diagnosis.pace or 2**0.5 * diagnosis.noise <= 0.25 * diagnosis.pace:
        return 0
    window = int(np.ceil(32 * (diagnosis.noise / diagnosis.pace) ** 2)) | 1
    most = config.chunk_size + 1 - config.chunk_size % 2
    return max(3, min(window, most))


def recommended(config: RabcConfig, advice: Sequence[Advice]) -> RabcConfig:
    """Returns the config with every change that the advice suggests, or an equal config if it suggests none."""
    changes: dict[str, Any] = {}
    for each in advice:
        changes |= each.change
    if "kappa_pace" in changes:
        changes |= {"kappa": RabcConfig.kappa, "kappa_duration_s": None}
    return dataclasses.replace(config, **changes)


def drawback(now: Diagnosis, better: Diagnosis) -> str:
    """Returns what the recommended options make worse, in a sentence; "" for nothing. better: on the frames that stand still now."""
    worse = []
    if better.still_weight > now.still_weight + WORSE:
        worse.append(f"frames that stand still weigh {better.still_weight:.2f} on average, more than the {now.still_weight:.2f} now")
    if better.end_weight < now.end_weight - WORSE:
        worse.append(f"the last tenth of an episode weighs {better.end_weight:.2f}, less than the {now.end_weight:.2f} now")
    return f"with the recommended options {', and '.join(worse)}" if worse else ""


def flags(config: RabcConfig) -> str:
    """Returns the options as `milepost weigh` takes them, without those at their default."""
    names = [f.name for f in dataclasses.fields(config) if config.changed(f.name)]
    return " ".join(f"--{name.replace('_', '-')} {_flag(getattr(config, name))}" for name in names)


def _flag(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
