"""What the reward server counts, as Prometheus reads it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from milepost.online import FrameProgress

BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Upper ends of the latency histogram in seconds."""


class Statistics:
    """Counters of one server. Only its event loop changes them."""

    def __init__(self) -> None:
        self.passes = self.results = self.unknown = self.refused = self.waiting = 0
        self._latency, self._sum_s = [0] * (len(BOUNDS_S) + 1), 0.0

    def refuse(self) -> None:
        """Counts a request that found no room."""
        self.refused += 1

    def wait(self, count: int) -> None:
        """Says how many frames wait now."""
        self.waiting = count

    def count(self, results: Sequence[FrameProgress]) -> None:
        """Counts the results of a pass."""
        self.passes += 1
        for result in results:
            self.results += 1
            self.unknown += math.isnan(result.progress)
            place = next((place for place, bound in enumerate(BOUNDS_S) if result.age_s <= bound), len(BOUNDS_S))
            self._latency[place] += 1
            self._sum_s += result.age_s

    def text(self, sessions: int) -> str:
        """Returns all of it in Prometheus's text format."""
        rows = [
            *_rows("milepost_sessions", "gauge", "attempts that are followed now", sessions),
            *_rows("milepost_waiting_frames", "gauge", "frames that wait for the model", self.waiting),
            *_rows("milepost_passes_total", "counter", "passes through the model", self.passes),
            *_rows("milepost_results_total", "counter", "frames that were answered", self.results),
            *_rows("milepost_unknown_results_total", "counter", "answers without progress", self.unknown),
            *_rows("milepost_refused_requests_total", "counter", "requests that found the queue full", self.refused),
            "# HELP milepost_latency_seconds from a frame's arrival to its answer",
            "# TYPE milepost_latency_seconds histogram",
        ]
        total = 0
        for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), self._latency, strict=True):
            total += count
            rows.append(f'milepost_latency_seconds_bucket{{le="{bound}"}} {total}')
        return "\n".join([*rows, f"milepost_latency_seconds_sum {self._sum_s:.6f}", f"milepost_latency_seconds_count {total}", ""])


def _rows(name: str, kind: str, about: str, value: int) -> list[str]:
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}", f"{name} {value}"]
