"""Segments <-> stage and tau; how long each stage usually takes; stage and tau -> progress (SARM, arXiv 2509.25358, eqs. 1-2).

Stage and tau are two arrays, never one float: k + tau cannot tell "end of stage k" from "start of stage k + 1".
Stages may repeat, be skipped or stop early. What nobody knows is marked so (stage -1, tau NaN) and stays out of every loss:
a run that fell back, or the last run of an attempt that failed, has a stage but no tau.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from milepost.core.types import DataError, Episode, Segment


@dataclass(frozen=True)
class Stages:
    """The stages of a task in order, and the share of an episode each usually takes (alpha, sums to 1)."""

    names: tuple[str, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.names or len(self.names) != len(self.shares) or len(set(self.names)) != len(self.names):
            raise DataError(f"stages need distinct names and one share each, got {self.names} and {self.shares}")
        if not (min(self.shares) >= 0 and abs(sum(self.shares) - 1) <= 1e-4):  # NaN is neither
            raise DataError(f"the shares of the stages must be >= 0 and sum to 1, got {self.shares}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def starts(self) -> Float[np.ndarray, "K"]:
        """Progress at the start of each stage (P_{k-1})."""
        return np.concatenate([[0.0], np.cumsum(self.shares)[:-1]])

    @classmethod
    def from_proportions(cls, proportions: Mapping[str, float]) -> Stages:
        """From a `temporal_proportions_*.json` object, whose order is the order of the stages. Shares are scaled to sum to 1."""
        total = sum(proportions.values())
        if not proportions or not (total > 0 and min(proportions.values()) >= 0):  # NaN is neither
            raise DataError(f"temporal proportions must be a non-empty object of shares >= 0, got {dict(proportions)}")
        return cls(tuple(proportions), tuple(share / total for share in proportions.values()))


WHOLE = Stages(("task",), (1.0,))


Span = tuple[str, float | int, float | int]
"""Name of a stage, first frame, frame after the last: a segment as it stands somewhere, before it is known to be one."""


@dataclass(frozen=True)
class SegmentFault:
    """What is wrong with one segment of an episode. place: which one, by position. words: the fault, as the rest of "segment ..."."""

    kind: Literal["unknown", "outside", "order"]
    place: int
    words: str

    def __str__(self) -> str:
        return self.words if self.kind == "unknown" else f"segment {self.words}"


def segment_faults(
    segments: Iterable[Segment | Span],
    length: float | int,
    names: Sequence[str] | None = None,
    *,
    head: str = "",
    episode: str = "the episode",
    notes: Sequence[str] = (),
) -> list[SegmentFault]:
    """Returns all that keeps segments from being an annotation of an episode of this many frames; [] if nothing does.

    They must be of known stages, inside [0, length), and begin where the one before ends or later. names: the stages there are, None if
    nothing lists them. head, episode: what they are called in the words. notes: what to say of each segment that another one overlaps.

    >>> [str(fault) for fault in segment_faults([Segment("reach", 0, 5), Segment("lift", 4, 9)], 8)]
    ["segment 'lift' starts at frame 4, before 'reach' ends at 5", "segment 'lift' ends at frame 9, the episode has 8"]
    """
    spans = [each if isinstance(each, tuple) else (each.name, each.start, each.stop) for each in segments]
    faults, last = [], -1
    for place, (name, start, stop) in enumerate(spans):
        if names is not None and name not in names:
            faults.append(SegmentFault("unknown", place, _unknown(name, names, head)))
        if last >= 0 and start < spans[last][2]:
            before = f"'{spans[last][0]}'{notes[last] if notes else ''} ends at {spans[last][2]}"
            faults.append(SegmentFault("order", place, f"'{name}' starts at frame {start}, before {before}"))
        if not 0 <= start <= stop:
            faults.append(SegmentFault("outside", place, f"'{name}' goes from frame {start} to {stop}"))
        elif stop > length:
            faults.append(SegmentFault("outside", place, f"'{name}' ends at frame {stop}, {episode} has {length}"))
        last = place if last < 0 or stop > spans[last][2] else last
    return faults


def _unknown(name: str, names: Sequence[str], head: str) -> str:
    near = next((each for each in names if alike([each, name])), None)
    hint = "" if near is None else f" ('{near}' differs by case or white space alone)"
    return f"unknown {f'{head} stage' if head else 'stage'} '{name}'{hint}; the stages are: {', '.join(names)}"


def check(segments: Sequence[Segment], names: Sequence[str] | None, length: int) -> None:
    """Raises DataError with the first of the `segment_faults`, if there is one."""
    for fault in segment_faults(segments, length, names):
        raise DataError(str(fault))


def unfit(segments: Sequence[Segment], head: str, stages: Stages | None, length: int) -> str:
    """Returns why segments are no annotation of an episode, in words, "" if they are. stages: of the head, None if nothing lists them."""
    try:
        check(segments, stages.names if stages is not None else None, length)
    except DataError as error:
        return f"its {head} annotation is wrong: {error}"
    return ""


def annotation_fault(episode: Episode, head: str, stages: Stages | None) -> str:
    """Returns why nobody can learn or judge by an episode's annotation, in words, "" if one can."""
    return episode.annotation_faults.get(head) or unfit(episode.segments.get(head, ()), head, stages, episode.length)


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Returns the names that differ by case and white space alone, together.

    >>> alike(["pick up", "place", "Pick  up"])
    [('pick up', 'Pick  up')]
    """
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault("".join(name.casefold().split()), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def names_in_order(annotations: Iterable[Sequence[Segment]]) -> tuple[str, ...]:
    """Stage names by the average place of their first appearance: the order to use when no proportions file gives one."""
    places: dict[str, list[float]] = {}
    for segments in annotations:
        seen = list(dict.fromkeys(segment.name for segment in segments))
        for place, name in enumerate(seen):
            places.setdefault(name, []).append(place / len(seen))
    return tuple(sorted(places, key=lambda name: (float(np.mean(places[name])), name)))


def finished(segments: Sequence[Segment], names: Sequence[str], success: bool | None) -> bool:
    """Did the attempt complete its last segment? What the dataset says of success decides; else reaching the last stage does."""
    if success is not None:
        return success
    return bool(segments) and segments[-1].name == names[-1]


def proportions(annotations: Iterable[Sequence[Segment]], names: Sequence[str]) -> Stages:
    """Eq. 1: alpha_k is the mean over episodes of stage k's share of the annotated frames (a mean of shares, not a ratio of sums)."""
    rows = []
    for segments in annotations:
        frames = np.array([sum(s.stop - s.start for s in segments if s.name == name) for name in names], dtype=float)
        if frames.sum() > 0:
            rows.append(frames / frames.sum())
    if not rows:
        raise DataError("no annotated episode to take stage proportions from")
    return Stages(tuple(names), tuple(float(share) for share in np.mean(rows, axis=0)))


def targets(
    segments: Sequence[Segment], names: Sequence[str], length: int, success: bool | None = None
) -> tuple[Int[np.ndarray, "T"], Float[np.ndarray, "T"]]:
    """Stage (T,) int64, -1 where unknown, and tau (T,) float32 in [0, 1], NaN where unknown.

    tau = (t - start) / (stop - start) inside a run that ends by advancing; 1 on the last frame of a finished attempt and after it.
    Before the first segment: its stage, tau 0. In a gap: the stage before, tau 1 if it advanced. After the last segment of an
    unfinished attempt: unknown.
    """
    check(segments, names, length)
    stage = np.full(length, -1, dtype=np.int64)
    tau = np.full(length, np.nan, dtype=np.float32)
    runs = [segment for segment in segments if segment.stop > segment.start]
    if not runs:
        return stage, tau
    order = {name: k for k, name in enumerate(names)}
    done = finished(runs, names, success)
    stage[: runs[0].start], tau[: runs[0].start] = order[runs[0].name], 0.0
    for place, run in enumerate(runs):
        last = place == len(runs) - 1
        until = length if last and done else run.stop if last else runs[place + 1].start
        stage[run.start : until] = order[run.name]
        if (last and not done) or (not last and order[runs[place + 1].name] <= order[run.name]):
            continue
        span = run.stop - run.start
        ends_here = last and run.stop == length
        tau[run.start : run.stop] = np.arange(span) / max(1, span - 1 if ends_here else span)
        tau[run.stop : until] = 1.0
        if ends_here:
            tau[-1] = 1.0
    return stage, tau


def progress(stage: Int[np.ndarray, "*T"], tau: Float[np.ndarray, "*T"], stages: Stages) -> Float[np.ndarray, "*T"]:
    """Eq. 2: P_{k-1} + alpha_k tau, float32 in [0, 1]; NaN where stage is -1 or tau is NaN."""
    safe = np.maximum(stage, 0)
    value = stages.starts[safe] + np.asarray(stages.shares)[safe] * tau
    return np.where(stage < 0, np.nan, np.clip(value, 0.0, 1.0)).astype(np.float32)


@dataclass(frozen=True)
class Attempt:
    """What is known of an annotated attempt before its pictures are looked at."""

    episode: int
    task: str
    segments: Sequence[Segment]
    success: bool | None = None

    @property
    def order(self) -> tuple[str, ...]:
        """The stages it shows, by their first appearance."""
        return tuple(dict.fromkeys(segment.name for segment in self.segments if segment.stop > segment.start))


def contradictions(attempts: Sequence[Attempt], names: Sequence[str]) -> list[str]:
    """Returns what in the annotations cannot be true if the task's stages are `names` in this order; empty if nothing.

    Three kinds: attempts go through two stages in the opposite order; no attempt ever shows the last stage, so that none would count as
    finished; tasks have stages of their own, so that finished attempts of one would count as unfinished attempts of another.
    """
    shown = [attempt for attempt in attempts if attempt.order and set(attempt.order) <= set(names)]
    return [*_in_other_order(shown, names), *(_without_last(shown, names) or _of_their_own(shown, names))] if shown else []


def doubts(attempts: Sequence[Attempt], stages: Stages) -> list[str]:
    """Returns what may be meant otherwise in annotations that do not contradict their stages: see the functions called here."""
    names = stages.names
    return [
        *alike_names(attempts, names),
        *_without_share(attempts, stages),
        *_some_in_other_order(attempts, names),
        *_early(attempts, names),
    ]


def alike_names(attempts: Sequence[Attempt], names: Sequence[str]) -> list[str]:
    """Returns, in words, which stages a person would take for one."""
    used = [name for attempt in attempts for name in attempt.order]
    return [
        f"{' and '.join(map(repr, group))} differ by case or white space alone: they are taken for different stages; annotate with one name"
        for group in alike([*names, *used])
    ]


def _without_share(attempts: Sequence[Attempt], stages: Stages) -> list[str]:
    """Stages that are shown and have no share: progress stands still in them."""
    none = [name for name, share in zip(stages.names, stages.shares, strict=True) if share == 0]
    shown = {name: sum(name in attempt.order for attempt in attempts) for name in none}
    return [
        f"stage '{name}' has a share of 0, and {count} annotated episodes show it: progress stands still in it; remove the proportions "
        "file to have the shares taken from the annotation"
        for name, count in shown.items()
        if count
    ]


def _some_in_other_order(attempts: Sequence[Attempt], names: Sequence[str]) -> list[str]:
    """For the pair of stages that most episodes show against the list's order: how many do. More than half would be a contradiction."""
    pairs = [
        (first, second) for attempt in attempts for place, second in enumerate(attempt.order) for first in attempt.order[place + 1 :]
        if first in names and second in names and names.index(first) < names.index(second)
    ]  # fmt: skip
    if not pairs:
        return []
    (first, second), against = Counter(pairs).most_common(1)[0]
    both = [attempt for attempt in attempts if first in attempt.order and second in attempt.order]
    which = [attempt.episode for attempt in both if attempt.order.index(second) < attempt.order.index(first)]
    numbers = f"{', '.join(map(str, which[:9]))}{' and others' if len(which) > 9 else ''}"
    return [
        f"in {against} of {len(both)} annotated episodes '{second}' comes before '{first}', against the order of the stages "
        f"({', '.join(names)}): progress falls back there; episodes {numbers}"
    ]


def _early(attempts: Sequence[Attempt], names: Sequence[str]) -> list[str]:
    """Most attempts of unknown success end before the last stage, and will count as unfinished."""
    unknown = [attempt for attempt in attempts if attempt.order and attempt.success is None]
    early = [attempt for attempt in unknown if not finished(attempt.segments, names, None)]
    if 2 * len(early) <= len(unknown):
        return []
    return [
        f"{len(early)} of {len(unknown)} annotated episodes do not end in the last stage, '{names[-1]}', and the dataset does not say "
        "whether they succeeded: they count as unfinished attempts, and their own last stage teaches no progress. If that stage is "
        "optional, annotate without it, or add a column next.success"
    ]


def _in_other_order(attempts: Sequence[Attempt], names: Sequence[str]) -> list[str]:
    """For a pair of stages, the episodes that show it in the order of the list, and in the other; the pair with most of the latter."""
    worst = (0, 0, "", "")
    orders = [{name: place for place, name in enumerate(attempt.order)} for attempt in attempts]
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            both = [order[first] > order[second] for order in orders if first in order and second in order]
            if 2 * sum(both) > len(both):
                worst = max(worst, (sum(both), len(both), first, second))
    against, count, first, second = worst
    if not against:
        return []
    return [
        f"the order of the stages is {', '.join(names)}, but in {against} of {count} annotated episodes '{second}' comes before '{first}': "
        "progress would run backwards; put the stages of the proportions file into the order in which they happen"
    ]


def _without_last(attempts: Sequence[Attempt], names: Sequence[str]) -> list[str]:
    if any(names[-1] in attempt.order for attempt in attempts) or any(attempt.success is not None for attempt in attempts):
        return []
    return [
        f"no annotated episode shows the last stage, '{names[-1]}', and the dataset does not say which succeeded: every attempt would "
        "count as unfinished; take the stage out of the proportions file, or add a column next.success"
    ]


def _of_their_own(attempts: Sequence[Attempt], names: Sequence[str]) -> list[str]:
    by_task: dict[str, set[str]] = {}
    for attempt in attempts:
        if attempt.success is not False:
            by_task.setdefault(attempt.task, set()).update(attempt.order)
    done = {attempt.task for attempt in attempts if attempt.success}
    for task, stages in by_task.items():
        begun = stages == set(names[: len(stages)])  # it may have stopped early; other stages than the first ones it did not stop at
        if names[-1] not in stages and (task in done or not begun):
            return [
                f"tasks have stages of their own: the episodes of '{task}' show {', '.join(n for n in names if n in stages)} and never the "
                f"last stage of the list ({', '.join(names)}): finished attempts at it would not end at 1; train one model for each task, "
                "with --episodes"
            ]
    return []


def annotated_stages(attempts: Sequence[Attempt]) -> Stages:
    """Returns the stages of the attempts' own annotation: names by their usual place, shares by eq. 1 over finished attempts.

    DataError if none is annotated.
    """
    marked = [attempt for attempt in attempts if attempt.segments]
    names = names_in_order(attempt.segments for attempt in marked)
    done = [attempt.segments for attempt in marked if finished(attempt.segments, names, attempt.success)]
    return proportions(done or [attempt.segments for attempt in marked], names)
