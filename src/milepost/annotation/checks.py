"""Labels in seconds -> segments in frames that cover the episode, or the faults that forbid it.

Small faults are repaired by the rules in `check_timed_labels`, and every repair is recorded. Large faults are named, so that the model can
be asked again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import pairwise

from milepost.annotation.faults import Fault, Kind, Repair, quoted
from milepost.annotation.reply import ParsedReply, parse_reply
from milepost.annotation.sampling import FrameSample, every_frame
from milepost.annotation.subtasks import SubtaskList, words
from milepost.core import DataError, Segment

ALIKE = 0.85
"""Two words with one first letter count as one misspelt word from this ratio of common letters on (difflib): grsp/grasp 0.89, insert/invert
0.83.
"""


@dataclass(frozen=True)
class Rules:
    """How much is repaired. tolerance_s: how far a boundary is moved at most without asking, but no more than `tolerance_share` of the
    episode and no less than the time between two frames of the sample. shortest_s: the shortest stage.
    """

    tolerance_s: float = 1.0
    tolerance_share: float = 0.1
    shortest_s: float = 0.2

    def __post_init__(self) -> None:
        if min(self.tolerance_s, self.tolerance_share, self.shortest_s) < 0:
            raise DataError(f"tolerances and the shortest stage are 0 or more, got {self}")

    def tolerance(self, sample: FrameSample) -> float:
        """Returns the tolerance for this sample, in seconds."""
        return max(1.01 * sample.step_s, min(self.tolerance_s, self.tolerance_share * sample.duration_s))


@dataclass(frozen=True)
class Checked:
    """segments: None if a fault is fatal. Ask again while there are faults; if they stay, segments with a fault that is not fatal may be
    stored.
    """

    segments: tuple[Segment, ...] | None
    repairs: tuple[Repair, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def moved_s(self) -> float:
        """Returns the farthest that a repair moved a boundary, in seconds."""
        return max((repair.moved_s for repair in self.repairs), default=0.0)


def check_reply(
    text: str, subtasks: SubtaskList, sample: FrameSample, *, cut: bool = False, success: bool | None = None, rules: Rules | None = None
) -> Checked:
    """Returns a model's answer in words as an annotation. cut: the answer was cut off. Every text gives segments or faults; nothing is
    raised.
    """
    return check_timed_labels(parse_reply(text, times_s=sample.times_s, cut=cut), subtasks, sample, success=success, rules=rules)


def check_segments(
    segments: Sequence[Segment], subtasks: SubtaskList, length: int, fps: float, *, success: bool | None = None, rules: Rules | None = None
) -> Checked:
    """Returns the result of the same checks on segments in frames that a person wrote. Nothing is moved by more than a frame unless `rules`
    allow it.
    """
    sample = every_frame(length, fps)
    case = _Case.of_frames(subtasks, sample, rules or Rules(tolerance_s=0.0))
    return _checked([_Timed(each.name, each.start, each.stop) for each in segments], case, success=success)


def trivial_answer(subtasks: SubtaskList, length: int) -> tuple[Segment, ...] | None:
    """Returns the annotation of a head whose only stage covers the episode; None where the model has to be asked."""
    only = subtasks.subtasks[0]
    if len(subtasks) > 1 or only.optional or only.repeatable or not subtasks.covers:
        return None
    return (Segment(only.name, 0, length),)


def check_timed_labels(
    parsed: ParsedReply, subtasks: SubtaskList, sample: FrameSample, *, success: bool | None = None, rules: Rules | None = None
) -> Checked:
    """Returns segments, repairs and faults, by these rules. success: False lets an attempt end before the last stages of the list.

    Names: case, punctuation, articles, numbering and misspelt letters are repaired; a digit, a first letter or a whole word never.

    Order: labels are sorted by time, and then stages must follow the list's order. Only repeatable stages may come back, only optional ones
    may be absent.

    Lengths: an empty optional stage did not happen. A stage that ends before its start, or lasts less than `shortest_s`, is a fault.

    Boundaries: a gap or overlap up to the tolerance is closed at its midpoint, and outer boundaries within the tolerance of the episode's
    ends are moved there. More is a fault; but where the list does not cover the episode, time without a stage stays.

    Frames: round(t fps), the same number for both sides of a boundary.

    Whole seconds throughout are accepted, with a fault that is not fatal, where frames of the sample are less than a second apart.
    """
    case = _Case.of_seconds(subtasks, sample, rules or Rules(), parsed.faults)
    timed = [_Timed(label.name, label.start_s, label.stop_s) for label in parsed.labels]
    return _checked(timed, case, success=success, whole_seconds=parsed.whole_seconds)


def _checked(timed: Sequence[_Timed], case: _Case, *, success: bool | None, whole_seconds: bool = False) -> Checked:
    """Returns the result of the rules of `check_timed_labels`, in the case's unit of time."""
    if case.faults:
        return case.outcome(None)
    labels = _sorted(_clipped(_with_known_names(timed, case), case), case)
    if not case.faults:
        labels = _merged(labels, case)
        _check_sequence(labels, case, unfinished=success is False)
    if case.faults:
        return case.outcome(None)
    segments = _frames(_without_gaps(labels, case), case)
    if not case.faults and whole_seconds and len(segments) > 1 and case.sample.step_s < 1:
        message = "every time is a whole number of seconds; read them off the frames, with decimals, as in 3.5"
        case.faults.append(Fault("whole seconds", message, fatal=False))
    return case.outcome(segments)


@dataclass(frozen=True)
class _Timed:
    """A stage from `start` to `stop`, in the unit of time of its case: seconds of a model's words, or frames of a person's segments."""

    name: str
    start: float | int
    stop: float | int


@dataclass(frozen=True)
class _Case:
    """One annotation under test: the rules for it, and the faults and repairs so far.

    Times are in one unit throughout: it lasts `unit_s` seconds and has `per_unit` frames. end: of the episode.
    """

    subtasks: SubtaskList
    sample: FrameSample
    tolerance: float | int
    shortest: float | int
    end: float | int
    unit_s: float | int
    per_unit: float | int
    faults: list[Fault]
    repairs: list[Repair]

    @classmethod
    def of_seconds(cls, subtasks: SubtaskList, sample: FrameSample, rules: Rules, faults: Sequence[Fault]) -> _Case:
        """Returns the case of a model's words, which are in seconds."""
        return cls(subtasks, sample, rules.tolerance(sample), rules.shortest_s, sample.duration_s, 1.0, sample.fps, list(faults), [])

    @classmethod
    def of_frames(cls, subtasks: SubtaskList, sample: FrameSample, rules: Rules) -> _Case:
        """Returns the case of segments, which are in frames and stay so."""
        tolerance, shortest = rules.tolerance(sample) * sample.fps, rules.shortest_s * sample.fps
        return cls(subtasks, sample, tolerance, shortest, sample.length, 1 / sample.fps, 1.0, [], [])

    def s(self, time: float | int) -> str:
        """Returns a time in seconds, for a message."""
        return f"{time * self.unit_s:.2f} s"

    def span(self, timed: _Timed) -> str:
        """Returns a stage with its times, for a message."""
        return f"{quoted(timed.name)} ({self.s(timed.start)} to {self.s(timed.stop)})"

    def fault(self, kind: Kind, message: str) -> None:
        """Records a fault that is fatal."""
        self.faults.append(Fault(kind, message))

    def repair(self, kind: Kind, message: str, moved: float | int = 0.0) -> None:
        """Records a repair that moved a boundary by `moved`, in the case's unit."""
        self.repairs.append(Repair(kind, message, moved * self.unit_s))

    def visible(self, time: float | int) -> bool:
        """Returns whether a time is longer than half a frame, which is mere rounding."""
        return abs(time) > 0.5 / self.per_unit + 1e-9

    def outcome(self, segments: tuple[Segment, ...] | None) -> Checked:
        """Returns the segments, unless a fault is fatal, with all repairs and faults."""
        fatal = any(fault.fatal for fault in self.faults)
        return Checked(None if fatal else segments, tuple(self.repairs), tuple(self.faults))


def _with_known_names(labels: Sequence[_Timed], case: _Case) -> list[_Timed]:
    names, out = case.subtasks.names, []
    for label in labels:
        name = match(label.name, names)
        if name is None:
            choices = ", ".join(f"'{each}'" for each in names)
            case.fault("unknown name", f"{quoted(label.name)} is not in the list of stages, which is: {choices}")
            continue
        if name != label.name:
            case.repair("unknown name", f"{quoted(label.name)} was read as '{name}'")
        out.append(replace(label, name=name))
    return out


def match(name: str, names: Sequence[str]) -> str | None:
    """Returns the known name that this one spells, None if there is none or more than one.

    >>> match("1. Reach for the cbue", ["reach for the cube", "reach for the cup"])
    'reach for the cube'
    """
    if name in names:
        return name
    bare = re.sub(r"^\W*(?:(?:stage|step|subtask)\s*)?\d+\s*[.):-]\s*", "", name, flags=re.IGNORECASE)
    for spelling in (name, bare, bare.split(":")[0]):
        equal = [each for each in names if words(each) == words(spelling)]
        close = [each for each in names if _misspelt(words(spelling), words(each))]
        if len(equal or close) == 1:
            return (equal or close)[0]
    return None


def _misspelt(words_written: tuple[str, ...], words_listed: tuple[str, ...]) -> bool:
    def alike(a: str, b: str) -> bool:
        letters = a[:1] == b[:1] and not re.search(r"\d", a + b)
        return a == b or (letters and (sorted(a) == sorted(b) or SequenceMatcher(None, a, b, autojunk=False).ratio() >= ALIKE))

    return len(words_written) == len(words_listed) and all(alike(a, b) for a, b in zip(words_written, words_listed, strict=True))


def _clipped(labels: Sequence[_Timed], case: _Case) -> list[_Timed]:
    """Returns the labels cut to the episode. A label without duration is left out if its stage is optional, else it is a fault."""
    end, out = case.end, []
    for label in labels:
        if label.stop < label.start:
            case.fault("reversed", f"{case.span(label)} ends before it starts")
            continue
        overshoot = max(-label.start, label.stop - end, label.start - end, 0.0)
        if overshoot > case.tolerance + 1e-9:
            case.fault("past the end", f"{case.span(label)} leaves the recording, which lasts from 0.00 s to {case.s(end)}")
            continue
        clipped = replace(label, start=min(max(label.start, 0.0), end), stop=min(max(label.stop, 0.0), end))
        if case.visible(overshoot):
            case.repair("past the end", f"{case.span(label)} was cut to the recording", overshoot)
        if clipped.stop > clipped.start:
            out.append(clipped)
        elif case.subtasks[label.name].optional:
            case.repair("too short", f"{case.span(label)} lasts no time: it did not happen")
        else:
            case.fault("too short", f"{case.span(label)} lasts no time")
    return out


def _sorted(labels: Sequence[_Timed], case: _Case) -> list[_Timed]:
    in_order = sorted(labels, key=lambda label: (label.start, label.stop))
    if in_order != list(labels):
        case.repair("order", "the entries were not in order of time, and were sorted")
    return in_order


def _merged(labels: Sequence[_Timed], case: _Case) -> list[_Timed]:
    """Returns the labels with touching neighbours of one name joined, unless the stage is repeatable."""
    out: list[_Timed] = []
    for label in labels:
        last = out[-1] if out else None
        if last and last.name == label.name and not case.subtasks[label.name].repeatable and label.start - last.stop <= case.tolerance:
            case.repair("repeated", f"{case.span(last)} and {case.span(label)} were joined")
            out[-1] = replace(last, stop=max(last.stop, label.stop))
        else:
            out.append(label)
    return out


def _check_sequence(labels: Sequence[_Timed], case: _Case, *, unfinished: bool) -> None:
    place = {name: position for position, name in enumerate(case.subtasks.names)}
    counts = Counter(label.name for label in labels)
    once = [name for name in counts if not case.subtasks[name].repeatable]
    for name in once:
        if counts[name] > 1:
            case.fault("repeated", f"'{name}' is given {counts[name]} times, and it happens once")
    for before, after in pairwise(labels):
        if place[after.name] < place[before.name] and after.name in once and counts[after.name] == 1:
            case.fault("order", f"{case.span(after)} comes after {case.span(before)}, but the list has it before")
    last_place = max((place[label.name] for label in labels), default=-1)
    for position, subtask in enumerate(case.subtasks):
        is_present = any(label.name == subtask.name for label in labels)
        if not is_present and not subtask.optional and (position < last_place or last_place < 0 or not unfinished):
            case.fault("missing", f"'{subtask.name}' is missing, and it happens in every recording")


def _without_gaps(labels: Sequence[_Timed], case: _Case) -> list[_Timed]:
    """Returns the labels with small gaps and overlaps closed at their midpoints, and the outer boundaries moved to the episode's ends."""
    out, end, covers = list(labels), case.end, case.subtasks.covers
    for position, (before, after) in enumerate(pairwise(labels)):
        gap = after.start - before.stop
        kind: Kind = "gap" if gap > 0 else "overlap"
        midpoint = (before.stop + after.start) / 2
        if abs(gap) > case.tolerance + 1e-9:  # times are decimals: a gap of 0.1 + 0.2 must fit a tolerance of 0.3
            if kind == "overlap" or covers:
                case.fault(kind, f"there is {_article(kind)} of {case.s(abs(gap))} between {case.span(before)} and {case.span(after)}")
            continue
        if case.visible(gap):
            message = f"{kind} of {case.s(abs(gap))} between {case.span(before)} and {case.span(after)} closed at {case.s(midpoint)}"
            case.repair(kind, message, abs(gap) / 2)
        out[position] = replace(out[position], stop=midpoint)
        out[position + 1] = replace(out[position + 1], start=midpoint)
    for position, distance, word in ((0, out[0].start, "first"), (-1, end - out[-1].stop, "last")) if out else ():
        if distance > case.tolerance + 1e-9:
            if covers:
                which = "before the first stage begins" if word == "first" else "after the last stage ends"
                case.fault("coverage", f"{case.s(distance)} of the recording have no stage, {which}: {case.span(labels[position])}")
            continue
        if case.visible(distance):
            case.repair("coverage", f"the {word} border was put on the recording's, {case.s(distance)} away", distance)
        out[position] = replace(out[position], start=0.0) if word == "first" else replace(out[position], stop=end)
    return out


def _article(kind: Kind) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _frames(labels: Sequence[_Timed], case: _Case) -> tuple[Segment, ...]:
    length, out = case.sample.length, []
    for label in labels:
        start, stop = (min(max(round(time * case.per_unit), 0), length) for time in (label.start, label.stop))
        if label.stop - label.start < case.shortest - 1e-9 or stop <= start:
            case.fault("too short", f"{case.span(label)} lasts less than {case.s(max(case.shortest, 1 / case.per_unit))}")
        else:
            out.append(Segment(label.name, start, stop))
    return tuple(out)
