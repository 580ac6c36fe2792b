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
from milepost.annotation.reply import Claim, Reading, read
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
    """The same checks on segments that a person wrote. Nothing is moved farther than a frame unless `rules` allow it."""
    claims = tuple(Claim(segment.name, segment.start / fps, segment.stop / fps) for segment in segments)
    exact = rules or Rules(tolerance_s=0.0)
    return check(Reading(claims), subtasks, every_frame(length, fps), success=success, rules=exact)


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
    rules = rules or Rules()
    case = _Case(subtasks, shown, rules.tolerance(shown), rules.shortest_s, list(reading.faults), [])
    if case.faults:
        return case.outcome(None)
    claims = _sorted(_lasting(_named(reading.claims, case), case), case)
    if not case.faults:
        claims = _merged(claims, case)
        _check_sequence(claims, case, unfinished=success is False)
    if case.faults:
        return case.outcome(None)
    segments = _frames(_bordered(claims, case), case)
    if not case.faults and reading.whole_seconds and len(segments) > 1 and shown.step_s < 1:
        message = "every time is a whole number of seconds; read them off the frames, with decimals, as in 3.5"
        case.faults.append(Fault("whole seconds", message, fatal=False))
    return case.outcome(segments)


@dataclass(frozen=True)
class _Case:
    """One answer: by what it is judged, and what was found so far."""

    subtasks: SubtaskList
    shown: Shown
    tolerance: float
    shortest_s: float
    faults: list[Fault]
    repairs: list[Repair]

    def fault(self, kind: Kind, message: str) -> None:
        self.faults.append(Fault(kind, message))

    def repair(self, kind: Kind, message: str, moved_s: float = 0.0) -> None:
        self.repairs.append(Repair(kind, message, moved_s))

    def visible(self, time_s: float) -> bool:
        """Is it more than rounding: half a frame?"""
        return abs(time_s) > 0.5 / self.shown.fps + 1e-9

    def outcome(self, segments: tuple[Segment, ...] | None) -> Checked:
        fatal = any(fault.fatal for fault in self.faults)
        return Checked(None if fatal else segments, tuple(self.repairs), tuple(self.faults))


def _span(claim: Claim) -> str:
    return f"{quoted(claim.name)} ({claim.start_s:.2f} s to {claim.stop_s:.2f} s)"


def _named(claims: Sequence[Claim], case: _Case) -> list[Claim]:
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


def _lasting(claims: Sequence[Claim], case: _Case) -> list[Claim]:
    """Clipped to the episode; those that last no time are left out if they may, and faults if not."""
    end, out = case.shown.duration_s, []
    for claim in claims:
        if claim.stop_s < claim.start_s:
            case.fault("reversed", f"{_span(claim)} ends before it starts")
            continue
        past = max(-claim.start_s, claim.stop_s - end, claim.start_s - end, 0.0)
        if past > case.tolerance + 1e-9:
            case.fault("past the end", f"{_span(claim)} leaves the recording, which lasts from 0.00 s to {end:.2f} s")
            continue
        inside = replace(claim, start_s=min(max(claim.start_s, 0.0), end), stop_s=min(max(claim.stop_s, 0.0), end))
        if case.visible(past):
            case.repair("past the end", f"{_span(claim)} was cut to the recording", past)
        if inside.stop_s > inside.start_s:
            out.append(inside)
        elif case.subtasks[claim.name].optional:
            case.repair("too short", f"{_span(claim)} lasts no time: it did not happen")
        else:
            case.fault("too short", f"{_span(claim)} lasts no time")
    return out


def _sorted(claims: Sequence[Claim], case: _Case) -> list[Claim]:
    ordered = sorted(claims, key=lambda claim: (claim.start_s, claim.stop_s))
    if ordered != list(claims):
        case.repair("order", "the entries were not in order of time, and were sorted")
    return ordered


def _merged(claims: Sequence[Claim], case: _Case) -> list[Claim]:
    """Neighbours of one name that touch are one segment, unless the stage is repeatable."""
    out: list[Claim] = []
    for claim in claims:
        last = out[-1] if out else None
        if last and last.name == claim.name and not case.subtasks[claim.name].repeatable and claim.start_s - last.stop_s <= case.tolerance:
            case.repair("repeated", f"{_span(last)} and {_span(claim)} were joined")
            out[-1] = replace(last, stop_s=max(last.stop_s, claim.stop_s))
        else:
            out.append(claim)
    return out


def _check_sequence(claims: Sequence[Claim], case: _Case, *, unfinished: bool) -> None:
    place = {name: number for number, name in enumerate(case.subtasks.names)}
    counts = Counter(claim.name for claim in claims)
    once = [name for name in counts if not case.subtasks[name].repeatable]
    for name in once:
        if counts[name] > 1:
            case.fault("repeated", f"'{name}' is given {counts[name]} times, and it happens once")
    for before, after in pairwise(claims):
        if place[after.name] < place[before.name] and after.name in once and counts[after.name] == 1:
            case.fault("order", f"{_span(after)} comes after {_span(before)}, but the list has it before")
    reached = max((place[claim.name] for claim in claims), default=-1)
    for number, subtask in enumerate(case.subtasks):
        seen = any(claim.name == subtask.name for claim in claims)
        if not seen and not subtask.optional and (number < reached or reached < 0 or not unfinished):
            case.fault("missing", f"'{subtask.name}' is missing, and it happens in every recording")


def _bordered(claims: Sequence[Claim], case: _Case) -> list[Claim]:
    """Small gaps and overlaps closed at their midpoints, the ends put on the episode's."""
    out, end, covers = list(claims), case.shown.duration_s, case.subtasks.covers
    for number, (before, after) in enumerate(pairwise(claims)):
        gap = after.start_s - before.stop_s
        kind: Kind = "gap" if gap > 0 else "overlap"
        middle = (before.stop_s + after.start_s) / 2
        if abs(gap) > case.tolerance + 1e-9:
            if kind == "overlap" or covers:
                case.fault(kind, f"there is {_article(kind)} of {abs(gap):.2f} s between {_span(before)} and {_span(after)}")
            continue
        if case.visible(gap):
            closed = f"{kind} of {abs(gap):.2f} s between {_span(before)} and {_span(after)} closed at {middle:.2f} s"
            case.repair(kind, closed, abs(gap) / 2)
        out[number] = replace(out[number], stop_s=middle)
        out[number + 1] = replace(out[number + 1], start_s=middle)
    for number, missing, word in ((0, out[0].start_s, "first"), (-1, end - out[-1].stop_s, "last")) if out else ():
        if missing > case.tolerance + 1e-9:
            if covers:
                which = "before the first stage begins" if word == "first" else "after the last stage ends"
                case.fault("coverage", f"{missing:.2f} s of the recording have no stage, {which}: {_span(claims[number])}")
            continue
        if case.visible(missing):
            case.repair("coverage", f"the {word} border was put on the recording's, {missing:.2f} s away", missing)
        out[number] = replace(out[number], start_s=0.0) if word == "first" else replace(out[number], stop_s=end)
    return out


def _article(kind: Kind) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _frames(claims: Sequence[Claim], case: _Case) -> tuple[Segment, ...]:
    fps, length = case.shown.fps, case.shown.length
    out = []
    for claim in claims:
        start, stop = (min(max(round(time * fps), 0), length) for time in (claim.start_s, claim.stop_s))
        if claim.stop_s - claim.start_s < case.shortest_s - 1e-9 or stop <= start:
            case.fault("too short", f"{_span(claim)} lasts less than {max(case.shortest_s, 1 / fps):.2f} s")
        else:
            out.append(Segment(claim.name, start, stop))
    return tuple(out)
