"""Finds out, frame by frame, whether an attempt stands still or falls back: `metrics.find_events` for a curve that has no end yet."""

from __future__ import annotations

import math
from collections import deque

from milepost.metrics import EventRules

_SLACK = 1e-6


class Trend:
    """Follows one attempt, progress by progress.

    `stalled`: the curve has been within `rules.still` for `rules.stall_s` seconds. `plateau`: its best value has not risen by more than
    `rules.still` for so long, although it may move. `regressed`: it is at least `rules.drop` below its best value. Unknown progress (NaN)
    is in no window. Memory is that of the known frames of `rules.stall_s` seconds.

    >>> from milepost.metrics import EventRules
    >>> trend = Trend(fps=2.0, rules=EventRules(stall_s=1.0))
    >>> [sorted(trend.update(value)) for value in (0.1, 0.5, 0.5, 0.5, 0.2)]
    [[], [], [], ['plateau', 'stalled'], ['plateau', 'regressed']]
    """

    def __init__(self, fps: float, rules: EventRules | None = None) -> None:
        self.rules = rules or EventRules()
        self._span = max(1, math.ceil(self.rules.stall_s * fps - _SLACK))
        self._recent: deque[tuple[int, float]] = deque()
        self._frame, self._best, self._rose_at, self._rose_to = -1, -math.inf, 0, -math.inf

    def update(self, progress: float, frames: int = 1) -> set[str]:
        """Returns what is so at this frame. frames: how far it is behind the last one, more than 1 if some never came."""
        self._frame += frames
        if not math.isnan(progress):
            self._recent.append((self._frame, progress))
            if progress > self._rose_to + self.rules.still:
                self._rose_at, self._rose_to = self._frame, progress
            self._best = max(self._best, progress)
        while len(self._recent) > 1 and self._recent[1][0] <= self._frame - self._span:
            self._recent.popleft()
        if not self._recent:
            return set()
        values = [value for _, value in self._recent]
        is_whole = self._recent[0][0] <= self._frame - self._span
        within = self.rules.still + _SLACK
        return {
            name
            for name, holds in (
                ("stalled", is_whole and max(values) - min(values) <= within),
                ("plateau", math.isfinite(self._rose_to) and self._frame - self._rose_at >= self._span),
                ("regressed", self._best - values[-1] >= self.rules.drop - _SLACK),
            )
            if holds
        }
