"""What a job came to: items and frames a second, of each process, and the items that took longest."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field

from milepost.core import count_noun
from milepost.scale.work import Answer

SLOW = 3.0
"""An item is said to be slow if it took so many times the median."""
MOST_SLOW = 3


@dataclass
class Tally:
    """Counts answers as they come. frames: of all answers. seconds: of each item. actors: process -> how long it worked, in seconds."""

    begun: float = field(default_factory=time.monotonic)
    frames: int = 0
    seconds: dict[int, float] = field(default_factory=dict)
    actors: dict[str, float] = field(default_factory=dict)

    def add(self, answer: Answer, *, item: int, frames: int) -> None:
        """Counts an answer. item: what it is called in the summary, such as an episode's number."""
        self.frames += frames
        self.seconds[item] = answer.seconds
        self.actors[answer.actor] = self.actors.get(answer.actor, 0.0) + answer.seconds

    def lines(self, noun: str = "episode") -> list[str]:
        """Returns what a person is told at the end."""
        if not self.seconds:
            return []
        wall = max(time.monotonic() - self.begun, 1e-9)
        work = sum(self.actors.values())
        lines = [
            f"{count_noun(len(self.seconds), noun)} by {count_noun(len(self.actors), 'process')} in {wall:.1f} s: "
            f"{self.frames / wall:.0f} frames a second; the processes worked {work:.1f} s in all, {self.frames / max(work, 1e-9):.0f} "
            "frames a second each"
        ]
        median = statistics.median(self.seconds.values())
        slow = sorted(((took, item) for item, took in self.seconds.items() if took > SLOW * median and took > 1), reverse=True)[:MOST_SLOW]
        if slow:
            lines.append(f"slowest: {', '.join(f'{noun} {item} ({took:.1f} s)' for took, item in slow)}; the median is {median:.2f} s")
        return lines
