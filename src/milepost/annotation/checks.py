"""Claims in seconds -> segments in frames that cover the episode, or the faults that forbid it.

Small faults are put right by the rules that `check` states, and every repair is recorded; large ones are named, to be asked about again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import pairwise

from milepost.annotation.faults import Fault, Kind, Repair, quoted
from milepost.annotation.reply import Reading, read
from milepost.annotation.shown import Shown, every_frame
from milepost.annotation.subtasks import SubtaskList, words
from milepost.core import DataError, Segment

ALIKE = 0.85
"""Words with one first letter are one word misspelt from this share of common letters on (difflib): grsp/grasp 0.89, insert/invert 0.83."""


@dataclass(frozen=True)
class Rules:
    """tolerance_s: the most a border is moved without asking, but no more than `tolerance_share` of the episode and no less than the time
    between two frames shown. shortest_s: of a stage."""

    tolerance_s: float = 1.0
    tolerance_share: float = 0.1
    shortest_s: float = 0.2

    def __post_init__(self) -> None:
        if min(self.tolerance_s, self.tolerance_share, self.shortest_s) < 0:
            raise DataError(f"tolerances and the shortest stage are 0 or more, got {self}")

    def tolerance(self, shown: Shown) -> float:
        return max(1.01 * shown.step_s, min(self.tolerance_s, self.tolerance_share * shown.duration_s))


@dataclass(frozen=True)
class Checked:
    """segments: None if a fault is fatal. Ask again while there are faults; if they stay, segments that came with one may still be kept."""

    segments: tuple[Segment, ...] | None
    repairs: tuple[Repair, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def moved_s(self) -> float:
        """The farthest that a repair moved a border."""
        return max((repair.moved_s for repair in self.repairs), default=0.0)


def judge(
    text: str, subtasks: SubtaskList, shown: Shown, *, cut: bool = False, success: bool | None = None, rules: Rules | None = None
) -> Checked:
    """A model's answer in words as an annotation. cut: it was stopped before it was done. Any text is answered with segments or faults."""
    return check(read(text, times_s=shown.times_s, cut=cut), subtasks, shown, success=success, rules=rules)


def check_segments(
    segments: Sequence[Segment], subtasks: SubtaskList, length: int, fps: float, *, success: bool | None = None, rules: Rules | None = None
) -> Checked:
    """The same checks on segments that a person wrote, in frames. Nothing is moved farther than a frame unless `rules` allow it."""
    shown = every_frame(length, fps)
    case = _Case.of_frames(subtasks, shown, rules or Rules(tolerance_s=0.0))
    return _checked([_Timed(each.name, each.start, each.stop) for each in segments], case, success=success)


def unasked(subtasks: SubtaskList, length: int) -> tuple[Segment, ...] | None:
    """The annotation of a head whose one stage covers the episode; None where there is something to ask."""
    only = subtasks.subtasks[0]
    if len(subtasks) > 1 or only.optional or only.repeatable or not subtasks.covers:
        return None
    return (Segment(only.name, 0, length),)


def check(reading: Reading, subtasks: SubtaskList, shown: Shown, *, success: bool | None = None, rules: Rules | None = None) -> Checked:
    """Segments, repairs and faults, by these rules. success: False lets an attempt end before the last stages of the list.

    Names: case, punctuation, articles, numbering and misspelt letters are repaired; a digit, a first letter or a whole word never.
    Order: claims are sorted by time, then stages come in the list's order. Going back is for repeatable stages, absence for optional ones.
    Lengths: an empty optional stage did not happen; ending before the start, or lasting less than `shortest_s`, is a fault.
    Borders: a gap or overlap up to the tolerance is closed at its midpoint, and the outer borders within it of the episode's ends are
    put there. More is a fault; but where the list does not cover the episode, time without a stage stays.
    Frames: round(t fps), one number for both sides of a border.
    Whole seconds throughout are accepted, with a fault that is not fatal, where frames shown are less than a second apart.
    """
    case = _Case.of_seconds(subtasks, shown, rules or Rules(), reading.faults)
    timed = [_Timed(claim.name, claim.start_s, claim.stop_s) for claim in reading.claims]
    return _checked(timed, case, success=success, whole_seconds=reading.whole_seconds)


def _checked(timed: Sequence[_Timed], case: _Case, *, success: bool | None, whole_seconds: bool = False) -> Checked:
    """Applies the rules of `check`, in the case's unit of time."""
    if case.faults:
        return case.outcome(None)
    claims = _sorted(_lasting(_named(timed, case), case), case)
    if not case.faults:
        claims = _merged(claims, case)
        _check_sequence(claims, case, unfinished=success is False)
    if case.faults:
        return case.outcome(None)
    segments = _frames(_bordered(claims, case), case)
    if not case.faults and whole_seconds and len(segments) > 1 and case.shown.step_s < 1:
        message = "every time is a whole number of seconds; read them off the frames, with decimals, as in 3.5"
        case.faults.append(Fault("whole seconds", message, fatal=False))
    return case.outcome(segments)


@dataclass(frozen=True)
class _Timed:
    """A stage from `start` to `stop`, in the unit of time of its case: seconds of a model's words, frames of a person's segments."""

    name: str
    start: float | int
    stop: float | int


@dataclass(frozen=True)
class _Case:
    """One annotation: by what it is judged, and what was found so far.

    Times are in one unit throughout: it lasts `unit_s` seconds and has `per_unit` frames. end: of the episode.
    """

    subtasks: SubtaskList
    shown: Shown
    tolerance: float | int
    shortest: float | int
    end: float | int
    unit_s: float | int
    per_unit: float | int
    faults: list[Fault]
    repairs: list[Repair]

    @classmethod
    def of_seconds(cls, subtasks: SubtaskList, shown: Shown, rules: Rules, faults: Sequence[Fault]) -> _Case:
        """Returns the case of a model's words, which are in seconds."""
        return cls(subtasks, shown, rules.tolerance(shown), rules.shortest_s, shown.duration_s, 1.0, shown.fps, list(faults), [])

    @classmethod
    def of_frames(cls, subtasks: SubtaskList, shown: Shown, rules: Rules) -> _Case:
        """Returns the case of segments, which are in frames and stay so."""
        tolerance, shortest = rules.tolerance(shown) * shown.fps, rules.shortest_s * shown.fps
        return cls(subtasks, shown, tolerance, shortest, shown.length, 1 / shown.fps, 1.0, [], [])

    def s(self, time: float | int) -> str:
        """Returns a time in seconds, for a message."""
        return f"{time * self.unit_s:.2f} s"

    def span(self, timed: _Timed) -> str:
        """Returns a stage with its times, for a message."""
        return f"{quoted(timed.name)} ({self.s(timed.start)} to {self.s(timed.stop)})"

    def fault(self, kind: Kind, message: str) -> None:
        self.faults.append(Fault(kind, message))

    def repair(self, kind: Kind, message: str, moved: float | int = 0.0) -> None:
        self.repairs.append(Repair(kind, message, moved * self.unit_s))

    def visible(self, time: float | int) -> bool:
        """Is it more than rounding: half a frame?"""
        return abs(time) > 0.5 / self.per_unit + 1e-9

    def outcome(self, segments: tuple[Segment, ...] | None) -> Checked:
        fatal = any(fault.fatal for fault in self.faults)
        return Checked(None if fatal else segments, tuple(self.repairs), tuple(self.faults))


def _named(claims: Sequence[_Timed], case: _Case) -> list[_Timed]:
    known, out = case.subtasks.names, []
    for claim in claims:
        name = match(claim.name, known)
        if name is None:
            listed = ", ".join(f"'{each}'" for each in known)
            case.fault("unknown name", f"{quoted(claim.name)} is not in the list of stages, which is: {listed}")
            continue
        if name != claim.name:
            case.repair("unknown name", f"{quoted(claim.name)} was read as '{name}'")
        out.append(replace(claim, name=name))
    return out


def match(name: str, known: Sequence[str]) -> str | None:
    """The known name that this one spells, None if there is none or more than one.

    >>> match("1. Reach for the cbue", ["reach for the cube", "reach for the cup"])
    'reach for the cube'
    """
    if name in known:
        return name
    bare = re.sub(r"^\W*(?:(?:stage|step|subtask)\s*)?\d+\s*[.):-]\s*", "", name, flags=re.IGNORECASE)
    for spelling in (name, bare, bare.split(":")[0]):
        equal = [each for each in known if words(each) == words(spelling)]
        close = [each for each in known if _misspelt(words(spelling), words(each))]
        if len(equal or close) == 1:
            return (equal or close)[0]
    return None


def _misspelt(said: tuple[str, ...], meant: tuple[str, ...]) -> bool:
    def alike(a: str, b: str) -> bool:
        letters = a[:1] == b[:1] and not re.search(r"\d", a + b)
        return a == b or (letters and (sorted(a) == sorted(b) or SequenceMatcher(None, a, b, autojunk=False).ratio() >= ALIKE))

    return len(said) == len(meant) and all(alike(a, b) for a, b in zip(said, meant, strict=True))


def _lasting(claims: Sequence[_Timed], case: _Case) -> list[_Timed]:
    """Clipped to the episode; those that last no time are left out if they may, and faults if not."""
    end, out = case.end, []
    for claim in claims:
        if claim.stop < claim.start:
            case.fault("reversed", f"{case.span(claim)} ends before it starts")
            continue
        past = max(-claim.start, claim.stop - end, claim.start - end, 0.0)
        if past > case.tolerance + 1e-9:
            case.fault("past the end", f"{case.span(claim)} leaves the recording, which lasts from 0.00 s to {case.s(end)}")
            continue
        inside = replace(claim, start=min(max(claim.start, 0.0), end), stop=min(max(claim.stop, 0.0), end))
        if case.visible(past):
            case.repair("past the end", f"{case.span(claim)} was cut to the recording", past)
        if inside.stop > inside.start:
            out.append(inside)
        elif case.subtasks[claim.name].optional:
            case.repair("too short", f"{case.span(claim)} lasts no time: it did not happen")
        else:
            case.fault("too short", f"{case.span(claim)} lasts no time")
    return out


def _sorted(claims: Sequence[_Timed], case: _Case) -> list[_Timed]:
    ordered = sorted(claims, key=lambda claim: (claim.start, claim.stop))
    if ordered != list(claims):
        case.repair("order", "the entries were not in order of time, and were sorted")
    return ordered


def _merged(claims: Sequence[_Timed], case: _Case) -> list[_Timed]:
    """Neighbours of one name that touch are one segment, unless the stage is repeatable."""
    out: list[_Timed] = []
    for claim in claims:
        last = out[-1] if out else None
        if last and last.name == claim.name and not case.subtasks[claim.name].repeatable and claim.start - last.stop <= case.tolerance:
            case.repair("repeated", f"{case.span(last)} and {case.span(claim)} were joined")
            out[-1] = replace(last, stop=max(last.stop, claim.stop))
        else:
            out.append(claim)
    return out


def _check_sequence(claims: Sequence[_Timed], case: _Case, *, unfinished: bool) -> None:
    place = {name: number for number, name in enumerate(case.subtasks.names)}
    counts = Counter(claim.name for claim in claims)
    once = [name for name in counts if not case.subtasks[name].repeatable]
    for name in once:
        if counts[name] > 1:
            case.fault("repeated", f"'{name}' is given {counts[name]} times, and it happens once")
    for before, after in pairwise(claims):
        if place[after.name] < place[before.name] and after.name in once and counts[after.name] == 1:
            case.fault("order", f"{case.span(after)} comes after {case.span(before)}, but the list has it before")
    reached = max((place[claim.name] for claim in claims), default=-1)
    for number, subtask in enumerate(case.subtasks):
        seen = any(claim.name == subtask.name for claim in claims)
        if not seen and not subtask.optional and (number < reached or reached < 0 or not unfinished):
            case.fault("missing", f"'{subtask.name}' is missing, and it happens in every recording")


def _bordered(claims: Sequence[_Timed], case: _Case) -> list[_Timed]:
    """Small gaps and overlaps closed at their midpoints, the ends put on the episode's."""
    out, end, covers = list(claims), case.end, case.subtasks.covers
    for number, (before, after) in enumerate(pairwise(claims)):
        gap = after.start - before.stop
        kind: Kind = "gap" if gap > 0 else "overlap"
        middle = (before.stop + after.start) / 2
        if abs(gap) > case.tolerance + 1e-9:
            if kind == "overlap" or covers:
                case.fault(kind, f"there is {_article(kind)} of {case.s(abs(gap))} between {case.span(before)} and {case.span(after)}")
            continue
        if case.visible(gap):
            closed = f"{kind} of {case.s(abs(gap))} between {case.span(before)} and {case.span(after)} closed at {case.s(middle)}"
            case.repair(kind, closed, abs(gap) / 2)
        out[number] = replace(out[number], stop=middle)
        out[number + 1] = replace(out[number + 1], start=middle)
    for number, missing, word in ((0, out[0].start, "first"), (-1, end - out[-1].stop, "last")) if out else ():
        if missing > case.tolerance + 1e-9:
            if covers:
                which = "before the first stage begins" if word == "first" else "after the last stage ends"
                case.fault("coverage", f"{case.s(missing)} of the recording have no stage, {which}: {case.span(claims[number])}")
            continue
        if case.visible(missing):
            case.repair("coverage", f"the {word} border was put on the recording's, {case.s(missing)} away", missing)
        out[number] = replace(out[number], start=0.0) if word == "first" else replace(out[number], stop=end)
    return out


def _article(kind: Kind) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _frames(claims: Sequence[_Timed], case: _Case) -> tuple[Segment, ...]:
    length, out = case.shown.length, []
    for claim in claims:
        start, stop = (min(max(round(time * case.per_unit), 0), length) for time in (claim.start, claim.stop))
        if claim.stop - claim.start < case.shortest - 1e-9 or stop <= start:
            case.fault("too short", f"{case.span(claim)} lasts less than {case.s(max(case.shortest, 1 / case.per_unit))}")
        else:
            out.append(Segment(claim.name, start, stop))
    return tuple(out)
