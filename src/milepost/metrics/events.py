"""Finds events in a curve: stalls, falls, jumps, retries, an end that is never reached, idling after the end. numpy only.

Only known frames count; an unknown frame is never an event. Thresholds are in seconds and in progress. Where a slow and steady curve would
reach a threshold, the threshold grows with the duration of the episode: a straight line from 0 to 1 has no event at any speed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from milepost.metrics.inputs import Values, numbers

KINDS = ("stall", "regression", "retry", "jump", "never_finished", "idle_tail")
_SLACK = 1e-6
"""Curves are float32: 0.9 - 0.8 is a little less than 0.1."""


@dataclass(frozen=True)
class EventRules:
    """The thresholds of the events: progress in [0, 1], durations in seconds."""

    still: float = 0.03
    """A curve stands still while its range is at most this. A retry is over when the curve is this near to its old value."""
    stall_s: float = 2.0
    """A curve that stands still for this long has a stall; at the end of a finished curve this is an idle tail. It must also last twice as
    long as a steady curve takes to rise by `still`."""
    drop: float = 0.10
    """A regression falls by at least this much."""
    jump: float = 0.25
    """A jump rises by at least this much within `jump_s` seconds, and at least three times as fast as a steady curve."""
    jump_s: float = 0.5
    finished: float = 0.90
    """A curve has finished if one of its last three known frames is this high."""


@dataclass(frozen=True)
class Event:
    """Frames [start, stop) of an episode in which something happens.

    size: of a stall or an idle tail, its duration in seconds; of a regression or a retry, how far it falls; of a jump, how far it rises;
    of a curve that never finishes, how far it stays below 1 (all in progress).
    """

    kind: str
    start: int
    stop: int
    size: float


def find_events(curve: Values, fps: float, rules: EventRules | None = None) -> list[Event]:
    """Returns the events of one episode's curve (progress, NaN where unknown), sorted by their start; [] if every frame is unknown.

    A regression goes from the last frame of a peak to the first frame of the lowest point after it. A retry goes from that peak until the
    curve is back at its value. never_finished goes from the first frame of the highest point to the episode's end. Events may overlap:
    a regression is part of its retry.

    >>> import numpy as np
    >>> curve = np.array([0.0, 0.2, 0.4, 0.6, 0.3, 0.1, 0.4, 0.7, 1.0], dtype=np.float32)
    >>> [(event.kind, event.start, event.stop) for event in milepost.find_events(curve, fps=5.0)]
    [('regression', 3, 6), ('retry', 3, 8)]
    """
    rules, curve = rules or EventRules(), numbers(curve)
    frames = np.flatnonzero(~np.isnan(curve))
    if not len(frames):
        return []
    value = np.asarray(curve, np.float64)[frames]
    end_value = float(value[-3:].max())
    seconds = len(curve) / fps
    events = _jumps(value, frames, fps, seconds, rules)
    for start, stop in _still(np.asarray(curve, np.float64), fps, seconds, rules):
        tail = stop > frames[-1] and end_value >= rules.finished - _SLACK
        events.append(Event("idle_tail" if tail else "stall", start, stop, (stop - start) / fps))
    for peak, low in _falls(value, rules.drop):
        fall = float(value[peak] - value[low])
        events.append(Event("regression", int(frames[peak]), int(frames[low]) + 1, fall))
        back = np.flatnonzero(value[low:] >= value[peak] - rules.still - _SLACK)
        if len(back):
            events.append(Event("retry", int(frames[peak]), int(frames[low + back[0]]) + 1, fall))
    if end_value < rules.finished - _SLACK:
        events.append(Event("never_finished", int(frames[value.argmax()]), len(curve), 1 - end_value))
    return sorted(events, key=lambda event: (event.start, event.stop, event.kind))


def count_events(events: Iterable[Event]) -> dict[str, int]:
    """Returns the number of events of each kind, 0 included."""
    counts = Counter(event.kind for event in events)
    return {kind: counts[kind] for kind in KINDS}


def _still(curve: Float[np.ndarray, "T"], fps: float, seconds: float, rules: EventRules) -> list[tuple[int, int]]:
    """Returns stretches [start, stop) of known frames whose range is at most `still`, from the left, each as long as possible."""
    least = max(2, int(np.ceil(max(rules.stall_s, 2 * rules.still * seconds) * fps - _SLACK)))
    if least > len(curve):
        return []
    windows = np.lib.stride_tricks.sliding_window_view(curve, least)
    within = rules.still + _SLACK
    begins = np.flatnonzero(windows.max(axis=1) - windows.min(axis=1) <= within)  # NaN is within nothing
    stretches, stop = [], 0
    for start in begins.tolist():
        if start < stop:
            continue
        rest = curve[start:]
        spread = np.maximum.accumulate(rest) - np.minimum.accumulate(rest)
        beyond = np.flatnonzero(~(spread <= within))
        stop = start + int(beyond[0]) if len(beyond) else len(curve)
        stretches.append((start, stop))
    return stretches


def _falls(value: Float[np.ndarray, "N"], drop: float) -> list[tuple[int, int]]:
    """Returns (peak, lowest point) of every fall of at least `drop` that no rise of at least `drop` interrupts."""
    falls: list[tuple[int, int]] = []
    peak = low = 0
    is_falling = False
    for i in _turns(value):
        if is_falling:
            if value[i] < value[low]:
                low = i
            elif value[i] - value[low] >= drop - _SLACK:
                falls.append((peak, low))
                is_falling, peak = False, i
        elif value[i] >= value[peak]:
            peak = i
        elif value[peak] - value[i] >= drop - _SLACK:
            is_falling, low = True, i
    return [*falls, (peak, low)] if is_falling else falls


def _turns(value: Float[np.ndarray, "N"]) -> list[int]:
    """Returns the positions where the direction of a curve changes, and both ends: only these can be a peak or a lowest point."""
    way = np.sign(np.diff(value))
    return [0, *(np.flatnonzero(way[1:] != way[:-1]) + 1).tolist(), len(value) - 1]


def _jumps(value: Float[np.ndarray, "N"], frames: Int[np.ndarray, "N"], fps: float, seconds: float, rules: EventRules) -> list[Event]:
    """Returns the rises within `jump_s`; steep frames that follow each other are one jump."""
    reach = max(1, int(rules.jump_s * fps + _SLACK))
    least = max(rules.jump, 3 * reach / fps / seconds) - _SLACK
    lowest = value.copy()
    for step in range(1, min(reach, len(value) - 1) + 1):
        is_near = frames[step:] - frames[:-step] <= reach
        lowest[step:] = np.where(is_near, np.minimum(lowest[step:], value[:-step]), lowest[step:])
    steep = np.flatnonzero(value - lowest >= least)
    jumps = []
    for run in np.split(steep, np.flatnonzero(np.diff(steep) > 1) + 1) if len(steep) else []:
        top = int(run[value[run].argmax()])
        before = np.flatnonzero((frames >= frames[run[0]] - reach) & (frames < frames[top]))
        low = int(before[::-1][value[before][::-1].argmin()])
        jumps.append(Event("jump", int(frames[low]), int(frames[top]) + 1, float(value[top] - value[low])))
    return jumps
