"""What happens in a curve: stalls, falls, jumps, retries, an end never reached, a tail after the end. numpy only.

An event is read off known frames alone; what is unknown is no event. Thresholds are seconds and progress; where a slow and steady curve
would meet one, the threshold grows with the episode's duration, so that a straight line from 0 to 1 has no event at any pace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

KINDS = ("stall", "regression", "retry", "jump", "never_finished", "idle_tail")
_SLACK = 1e-6
"""Curves are float32: 0.9 - 0.8 is a little less than 0.1."""


@dataclass(frozen=True)
class EventRules:
    """When is it one? Progress in [0, 1], durations in seconds."""

    still: float = 0.03
    """A curve that stays within this much stands still; one this near to where it was is back."""
    stall_s: float = 2.0
    """Standing still is a stall (at the end of a finished curve: an idle tail) from this long on, and from twice as long on as a steady
    pace takes for `still`."""
    drop: float = 0.10
    """A regression falls by at least this much."""
    jump: float = 0.25
    """A jump rises by at least this much within `jump_s`, and three times as fast as a steady pace."""
    jump_s: float = 0.5
    finished: float = 0.90
    """A curve has finished if one of its last three known frames is this high."""


@dataclass(frozen=True)
class Event:
    """Frames [start, stop) of an episode. size: how long a stall or an idle tail is, in seconds; how far a regression or a retry falls, a
    jump rises, or a curve that never finishes stays below 1, in progress."""

    kind: str
    start: int
    stop: int
    size: float


def find_events(curve: Float[np.ndarray, "T"], fps: float, rules: EventRules | None = None) -> list[Event]:
    """The events of one episode's curve (progress, NaN where unknown), by their start. [] for a curve of which nothing is known.

    regression: from the last frame of a peak to the first of the lowest point after it. retry: from that peak until the curve is back.
    never_finished: from the first frame of the highest point to the episode's end. Events overlap: a fall is part of its retry.
    """
    rules = rules or EventRules()
    frames = np.flatnonzero(~np.isnan(curve))
    if not len(frames):
        return []
    value = np.asarray(curve, np.float64)[frames]
    best = float(value[-3:].max())
    seconds = len(curve) / fps
    found = _jumps(value, frames, fps, seconds, rules)
    for start, stop in _still(np.asarray(curve, np.float64), fps, seconds, rules):
        tail = stop > frames[-1] and best >= rules.finished - _SLACK
        found.append(Event("idle_tail" if tail else "stall", start, stop, (stop - start) / fps))
    for peak, low in _falls(value, rules.drop):
        fall = float(value[peak] - value[low])
        found.append(Event("regression", int(frames[peak]), int(frames[low]) + 1, fall))
        back = np.flatnonzero(value[low:] >= value[peak] - rules.still - _SLACK)
        if len(back):
            found.append(Event("retry", int(frames[peak]), int(frames[low + back[0]]) + 1, fall))
    if best < rules.finished - _SLACK:
        found.append(Event("never_finished", int(frames[value.argmax()]), len(curve), 1 - best))
    return sorted(found, key=lambda event: (event.start, event.stop, event.kind))


def count_events(events: Iterable[Event]) -> dict[str, int]:
    """How many there are of each kind, all kinds named."""
    counts = Counter(event.kind for event in events)
    return {kind: counts[kind] for kind in KINDS}


def _still(curve: Float[np.ndarray, "T"], fps: float, seconds: float, rules: EventRules) -> list[tuple[int, int]]:
    """Stretches [start, stop) of known frames that stay within `still`, from the left, each as long as it gets."""
    least = max(2, int(np.ceil(max(rules.stall_s, 2 * rules.still * seconds) * fps - _SLACK)))
    if least > len(curve):
        return []
    windows = np.lib.stride_tricks.sliding_window_view(curve, least)
    within = rules.still + _SLACK
    begins = np.flatnonzero(windows.max(axis=1) - windows.min(axis=1) <= within)  # NaN is within nothing
    found, stop = [], 0
    for start in begins.tolist():
        if start < stop:
            continue
        rest = curve[start:]
        spread = np.maximum.accumulate(rest) - np.minimum.accumulate(rest)
        beyond = np.flatnonzero(~(spread <= within))
        stop = start + int(beyond[0]) if len(beyond) else len(curve)
        found.append((start, stop))
    return found


def _falls(value: Float[np.ndarray, "N"], drop: float) -> list[tuple[int, int]]:
    """(peak, lowest point) of every fall of at least `drop` that is not interrupted by as large a rise."""
    found: list[tuple[int, int]] = []
    peak = low = 0
    falling = False
    for i in _turns(value):
        if falling:
            if value[i] < value[low]:
                low = i
            elif value[i] - value[low] >= drop - _SLACK:
                found.append((peak, low))
                falling, peak = False, i
        elif value[i] >= value[peak]:
            peak = i
        elif value[peak] - value[i] >= drop - _SLACK:
            falling, low = True, i
    return [*found, (peak, low)] if falling else found


def _turns(value: Float[np.ndarray, "N"]) -> list[int]:
    """The places where a curve turns or begins or ends to stand still: the only ones that can be a peak or a lowest point."""
    way = np.sign(np.diff(value))
    return [0, *(np.flatnonzero(way[1:] != way[:-1]) + 1).tolist(), len(value) - 1]


def _jumps(value: Float[np.ndarray, "N"], frames: Int[np.ndarray, "N"], fps: float, seconds: float, rules: EventRules) -> list[Event]:
    """Rises within `jump_s`, steep ones side by side taken as one."""
    reach = max(1, int(rules.jump_s * fps + _SLACK))
    least = max(rules.jump, 3 * reach / fps / seconds) - _SLACK
    lowest = value.copy()
    for step in range(1, min(reach, len(value) - 1) + 1):
        near = frames[step:] - frames[:-step] <= reach
        lowest[step:] = np.where(near, np.minimum(lowest[step:], value[:-step]), lowest[step:])
    steep = np.flatnonzero(value - lowest >= least)
    found = []
    for run in np.split(steep, np.flatnonzero(np.diff(steep) > 1) + 1) if len(steep) else []:
        top = int(run[value[run].argmax()])
        before = np.flatnonzero((frames >= frames[run[0]] - reach) & (frames < frames[top]))
        low = int(before[::-1][value[before][::-1].argmin()])
        found.append(Event("jump", int(frames[low]), int(frames[top]) + 1, float(value[top] - value[low])))
    return found
