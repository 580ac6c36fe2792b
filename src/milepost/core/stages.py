"""Segments <-> stage and tau; how long each stage usually takes; stage and tau -> progress (SARM, arXiv 2509.25358, eqs. 1-2).

Stage and tau are two arrays, never one float: k + tau cannot tell "end of stage k" from "start of stage k + 1".
Stages may repeat, be skipped or stop early. Unknown frames have stage -1 and tau NaN, and no loss counts them. A run that is followed by an
earlier stage, or that ends a failed attempt, has a stage but no tau: nobody knows how far it got.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from milepost.core.errors import DataError
from milepost.core.files import shortlist
from milepost.core.types import Episode, Segment


@dataclass(frozen=True)
class Stages:
    """The stages of a task in order. shares: the proportion of an episode that each stage usually takes (alpha, sums to 1).

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> milepost.open_dataset("dots").stages["sparse"].names
    ('reach', 'carry', 'place')
    """

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
        """Returns the progress at the start of each stage (P_{k-1})."""
        return np.concatenate([[0.0], np.cumsum(self.shares)[:-1]])

    @classmethod
    def from_proportions(cls, proportions: Mapping[str, float]) -> Stages:
        """Returns the stages of a `temporal_proportions_*.json` object, in its order. The proportions are scaled to sum to 1."""
        total = sum(proportions.values())
        if not proportions or not (total > 0 and min(proportions.values()) >= 0):  # NaN is neither
            raise DataError(f"temporal proportions must be a non-empty object of shares >= 0, got {dict(proportions)}")
        return cls(tuple(proportions), tuple(proportion / total for proportion in proportions.values()))


WHOLE = Stages(("task",), (1.0,))


SegmentTuple = tuple[str, float | int, float | int]
"""(name of a stage, first frame, frame after the last): a segment as a file has it, before it is checked."""


@dataclass(frozen=True)
class SegmentFault:
    """A fault of one segment. place: the segment's position in the list. words: the fault, to be read after the word "segment"."""

    kind: Literal["unknown", "outside", "order"]
    place: int
    words: str

    def __str__(self) -> str:
        return self.words if self.kind == "unknown" else f"segment {self.words}"


def segment_faults(
    segments: Iterable[Segment | SegmentTuple],
    length: float | int,
    names: Sequence[str] | None = None,
    *,
    head: str = "",
    episode: str = "the episode",
    notes: Sequence[str] = (),
) -> list[SegmentFault]:
    """Returns the faults that keep segments from being an annotation of an episode of `length` frames; [] if there are none.

    Segments must have a known stage, lie inside [0, length), and start where the one before ends, or later. names: the known stages; None
    if nothing lists them. head, episode: their names in the message. notes: for each segment, what the message adds to its name.

    >>> [str(fault) for fault in segment_faults([Segment("reach", 0, 5), Segment("lift", 4, 9)], 8)]
    ["segment 'lift' starts at frame 4, before 'reach' ends at 5", "segment 'lift' ends at frame 9, the episode has 8"]
    """
    spans = [each if isinstance(each, tuple) else (each.name, each.start, each.stop) for each in segments]
    faults, last = [], -1
    for position, (name, start, stop) in enumerate(spans):
        if names is not None and name not in names:
            faults.append(SegmentFault("unknown", position, _unknown(name, names, head)))
        if last >= 0 and start < spans[last][2]:
            before = f"'{spans[last][0]}'{notes[last] if notes else ''} ends at {spans[last][2]}"
            faults.append(SegmentFault("order", position, f"'{name}' starts at frame {start}, before {before}"))
        if not 0 <= start <= stop:
            faults.append(SegmentFault("outside", position, f"'{name}' goes from frame {start} to {stop}"))
        elif stop > length:
            faults.append(SegmentFault("outside", position, f"'{name}' ends at frame {stop}, {episode} has {length}"))
        last = position if last < 0 or stop > spans[last][2] else last
    return faults


def _unknown(name: str, names: Sequence[str], head: str) -> str:
    near = next((each for each in names if alike([each, name])), None)
    hint = "" if near is None else f" ('{near}' differs by case or white space alone)"
    return f"unknown {f'{head} stage' if head else 'stage'} '{name}'{hint}; the stages are: {', '.join(names)}"


def require_sound_segments(segments: Sequence[Segment], names: Sequence[str] | None, length: int) -> None:
    """Raises DataError with the first of the `segment_faults`, if there is one."""
    for fault in segment_faults(segments, length, names):
        raise DataError(str(fault))


def segments_fault(segments: Sequence[Segment], head: str, stages: Stages | None, length: int) -> str:
    """Returns, in words, why segments are not an annotation of an episode, "" if they are. stages: None if nothing lists them."""
    try:
        require_sound_segments(segments, stages.names if stages is not None else None, length)
    except DataError as error:
        return f"its {head} annotation is wrong: {error}"
    return ""


def annotation_fault(episode: Episode, head: str, stages: Stages | None) -> str:
    """Returns, in words, why an episode's annotation cannot be used for training or evaluation, "" if it can."""
    return episode.annotation_faults.get(head) or segments_fault(episode.segments.get(head, ()), head, stages, episode.length)


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Returns the groups of names that differ only by case and white space.

    >>> alike(["pick up", "place", "Pick  up"])
    [('pick up', 'Pick  up')]
    """
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault("".join(name.casefold().split()), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def names_in_order(annotations: Iterable[Sequence[Segment]]) -> tuple[str, ...]:
    """Returns stage names by the mean relative position of their first appearance: the order to use without a proportions file."""
    positions: dict[str, list[float]] = {}
    for segments in annotations:
        names = list(dict.fromkeys(segment.name for segment in segments))
        for position, name in enumerate(names):
            positions.setdefault(name, []).append(position / len(names))
    return tuple(sorted(positions, key=lambda name: (float(np.mean(positions[name])), name)))


def is_finished(segments: Sequence[Segment], names: Sequence[str], success: bool | None) -> bool:
    """Returns whether the attempt completed its last segment: its `success` if known, else whether it reached the last stage."""
    if success is not None:
        return success
    return bool(segments) and segments[-1].name == names[-1]


def proportions(annotations: Iterable[Sequence[Segment]], names: Sequence[str]) -> Stages:
    """Returns the stages with eq. 1: alpha_k is the mean over episodes of stage k's proportion of the annotated frames.

    It is a mean of proportions, not a ratio of sums, so a long episode counts no more than a short one.
    """
    rows = []
    for segments in annotations:
        frames = np.array([sum(s.stop - s.start for s in segments if s.name == name) for name in names], dtype=float)
        if frames.sum() > 0:
            rows.append(frames / frames.sum())
    if not rows:
        raise DataError("no annotated episode to take stage proportions from")
    return Stages(tuple(names), tuple(float(proportion) for proportion in np.mean(rows, axis=0)))


def targets(
    segments: Sequence[Segment], names: Sequence[str], length: int, success: bool | None = None
) -> tuple[Int[np.ndarray, "T"], Float[np.ndarray, "T"]]:
    """Returns stage (T,) int64, -1 where unknown, and tau (T,) float32 in [0, 1], NaN where unknown.

    Inside a run that is followed by a later stage, tau = (t - start) / (stop - start). It is 1 on the last frame of a finished attempt and
    after it. Before the first segment the stage is that segment's and tau is 0. A gap has the stage before it, and tau 1 if the run
    advanced. After the last segment of an unfinished attempt both are unknown.
    """
    require_sound_segments(segments, names, length)
    stage = np.full(length, -1, dtype=np.int64)
    tau = np.full(length, np.nan, dtype=np.float32)
    runs = [segment for segment in segments if segment.stop > segment.start]
    if not runs:
        return stage, tau
    order = {name: k for k, name in enumerate(names)}
    complete = is_finished(runs, names, success)
    stage[: runs[0].start], tau[: runs[0].start] = order[runs[0].name], 0.0
    for i, run in enumerate(runs):
        last = i == len(runs) - 1
        end = length if last and complete else run.stop if last else runs[i + 1].start
        stage[run.start : end] = order[run.name]
        if (last and not complete) or (not last and order[runs[i + 1].name] <= order[run.name]):
            continue
        span = run.stop - run.start
        ends_here = last and run.stop == length
        tau[run.start : run.stop] = np.arange(span) / max(1, span - 1 if ends_here else span)
        tau[run.stop : end] = 1.0
        if ends_here:
            tau[-1] = 1.0
    return stage, tau


def progress(stage: Int[np.ndarray, "*T"], tau: Float[np.ndarray, "*T"], stages: Stages) -> Float[np.ndarray, "*T"]:
    """Returns eq. 2, P_{k-1} + alpha_k tau, as float32 in [0, 1]; NaN where stage is -1 or tau is NaN."""
    safe = np.maximum(stage, 0)
    value = stages.starts[safe] + np.asarray(stages.shares)[safe] * tau
    return np.where(stage < 0, np.nan, np.clip(value, 0.0, 1.0)).astype(np.float32)


@dataclass(frozen=True)
class Attempt:
    """An annotated attempt without its images: what the metadata of the dataset has."""

    episode: int
    task: str
    segments: Sequence[Segment]
    success: bool | None = None

    @property
    def order(self) -> tuple[str, ...]:
        """Returns the stages of the attempt in the order of their first appearance."""
        return tuple(dict.fromkeys(segment.name for segment in self.segments if segment.stop > segment.start))


def contradictions(attempts: Sequence[Attempt], names: Sequence[str]) -> list[str]:
    """Returns, in words, what contradicts that the stages of the task are `names` in this order; [] if nothing does.

    There are three kinds. Most attempts have two stages in the opposite order. No attempt has the last stage, so all would count as
    unfinished. Each task has its own stages, so a finished attempt at one task would count as an unfinished attempt at another.
    """
    usable = [attempt for attempt in attempts if attempt.order and set(attempt.order) <= set(names)]
    return [*_in_other_order(usable, names), *(_without_last(usable, names) or _of_their_own(usable, names))] if usable else []


def doubts(attempts: Sequence[Attempt], stages: Stages) -> list[str]:
    """Returns, in words, what looks like a mistake in annotations that do not contradict their stages: see the functions called here."""
    names = stages.names
    return [
        *alike_names(attempts, names),
        *_without_share(attempts, stages),
        *_some_in_other_order(attempts, names),
        *_early(attempts, names),
    ]


def alike_names(attempts: Sequence[Attempt], names: Sequence[str]) -> list[str]:
    """Returns, in words, which stages have names that differ only by case or white space."""
    attempt_names = [name for attempt in attempts for name in attempt.order]
    return [
        f"{' and '.join(map(repr, group))} differ by case or white space alone: they are taken for different stages; annotate with one name"
        for group in alike([*names, *attempt_names])
    ]


def _without_share(attempts: Sequence[Attempt], stages: Stages) -> list[str]:
    """Returns the stages of proportion 0 that some episode has: progress cannot rise in them."""
    zero_names = [name for name, proportion in zip(stages.names, stages.shares, strict=True) if proportion == 0]
    counts = {name: sum(name in attempt.order for attempt in attempts) for name in zero_names}
    return [
        f"stage '{name}' has a share of 0, and {count} annotated episodes show it: progress stands still in it; remove the proportions "
        "file to have the shares taken from the annotation"
        for name, count in counts.items()
        if count
    ]


def _some_in_other_order(attempts: Sequence[Attempt], names: Sequence[str]) -> list[str]:
    """Returns the pair of stages that most episodes have in the opposite order. If more than half do, it is a contradiction instead."""
    pairs = [
        (first, second) for attempt in attempts for position, second in enumerate(attempt.order) for first in attempt.order[position + 1 :]
        if first in names and second in names and names.index(first) < names.index(second)
    ]  # fmt: skip
    if not pairs:
        return []
    (first, second), opposite = Counter(pairs).most_common(1)[0]
    with_both = [attempt for attempt in attempts if first in attempt.order and second in attempt.order]
    opposite_episodes = [attempt.episode for attempt in with_both if attempt.order.index(second) < attempt.order.index(first)]
    return [
        f"in {opposite} of {len(with_both)} annotated episodes '{second}' comes before '{first}', against the order of the stages "
        f"({', '.join(names)}): progress falls back there; episodes {shortlist(sorted(opposite_episodes))}"
    ]


def _early(attempts: Sequence[Attempt], names: Sequence[str]) -> list[str]:
    """Returns a doubt if most attempts of unknown success end before the last stage: they will count as unfinished."""
    undecided = [attempt for attempt in attempts if attempt.order and attempt.success is None]
    early_attempts = [attempt for attempt in undecided if not is_finished(attempt.segments, names, None)]
    if 2 * len(early_attempts) <= len(undecided):
        return []
    return [
        f"{len(early_attempts)} of {len(undecided)} annotated episodes do not end in the last stage, '{names[-1]}', and the dataset does "
        "not say whether they succeeded: they count as unfinished attempts, and their own last stage teaches no progress. If that stage is "
        "optional, annotate without it, or add a column next.success"
    ]


def _in_other_order(attempts: Sequence[Attempt], names: Sequence[str]) -> list[str]:
    """Returns the pair of stages that most episodes have in the opposite order, if these are more than half of those that have both."""
    worst = (0, 0, "", "")
    orders = [{name: position for position, name in enumerate(attempt.order)} for attempt in attempts]
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            is_opposite = [order[first] > order[second] for order in orders if first in order and second in order]
            if 2 * sum(is_opposite) > len(is_opposite):
                worst = max(worst, (sum(is_opposite), len(is_opposite), first, second))
    opposite, total, first, second = worst
    if not opposite:
        return []
    return [
        f"the order of the stages is {', '.join(names)}, but in {opposite} of {total} annotated episodes '{second}' comes before "
        f"'{first}': progress would run backwards; put the stages of the proportions file into the order in which they happen"
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
    successful_tasks = {attempt.task for attempt in attempts if attempt.success}
    for task, stages in by_task.items():
        # An attempt that stops early has the first stages of the list; any others are stages of its own.
        is_beginning = stages == set(names[: len(stages)])
        if names[-1] not in stages and (task in successful_tasks or not is_beginning):
            return [
                f"tasks have stages of their own: the episodes of '{task}' show {', '.join(n for n in names if n in stages)} and never the "
                f"last stage of the list ({', '.join(names)}): finished attempts at it would not end at 1; train one model for each task, "
                "with --episodes"
            ]
    return []


def annotated_stages(attempts: Sequence[Attempt]) -> Stages:
    """Returns the stages of the attempts' annotations: names in their usual order, proportions by eq. 1 over finished attempts.

    If no attempt is finished, all count. Raises DataError if none is annotated.
    """
    with_segments = [attempt for attempt in attempts if attempt.segments]
    names = names_in_order(attempt.segments for attempt in with_segments)
    finished_segments = [attempt.segments for attempt in with_segments if is_finished(attempt.segments, names, attempt.success)]
    return proportions(finished_segments or [attempt.segments for attempt in with_segments], names)
