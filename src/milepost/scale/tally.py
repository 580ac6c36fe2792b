"""What a job came to: frames a second, in all and of each process; hours, for its cost; and the items that took longest."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field

from milepost.core import count_noun
from milepost.scale.cluster import Cluster
from milepost.scale.work import Answer

SLOW = 3.0
"""An item is said to be slow if it took so many times the median."""
MOST_SLOW = 3


@dataclass
class Tally:
    """Counts answers as they come. cpus, gpus: what each process keeps for itself. seconds: of each item. actors: process -> how long it
    worked, in seconds, and on how many frames."""

    cpus: float = 1.0
    gpus: float = 0.0
    begun: float = field(default_factory=time.monotonic)
    seconds: dict[int, float] = field(default_factory=dict)
    actors: dict[str, tuple[float, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, cluster: Cluster) -> Tally:
        """Returns an empty one for the processes of a cluster."""
        return cls(cluster.cpus, cluster.gpus)

    def add(self, answer: Answer, *, item: int, frames: int) -> None:
        """Counts an answer. item: what it is called in the summary, such as an episode's number."""
        self.seconds[item] = answer.seconds
        worked, before = self.actors.get(answer.actor, (0.0, 0))
        self.actors[answer.actor] = worked + answer.seconds, before + frames

    def lines(self, noun: str = "episode") -> list[str]:
        """Returns what a person is told at the end."""
        if not self.seconds:
            return []
        wall = max(time.monotonic() - self.begun, 1e-9)
        frames = sum(count for _, count in self.actors.values())
        rates = sorted(count / max(worked, 1e-9) for worked, count in self.actors.values())
        each = f"{rates[0]:.0f} to {rates[-1]:.0f}" if len(rates) > 1 else f"{rates[0]:.0f}"
        whole = f"{count_noun(len(self.seconds), noun)} by {count_noun(len(self.actors), 'process')} in {wall:.1f} s"
        lines = [
            f"{whole}: {frames / wall:.0f} frames a second; while a process works it does {each} a second",
            self._cost(wall, frames),
        ]
        median = statistics.median(self.seconds.values())
        slow = sorted(((took, item) for item, took in self.seconds.items() if took > SLOW * median and took > 1), reverse=True)[:MOST_SLOW]
        if slow:
            lines.append(f"slowest: {', '.join(f'{noun} {item} ({took:.1f} s)' for took, item in slow)}; the median is {median:.2f} s")
        return lines

    def _cost(self, wall: float, frames: int) -> str:
        """Returns what the processes kept, in hours, and what a million frames take while a process works: times a price, it is a cost."""
        worked = sum(seconds for seconds, _ in self.actors.values())
        in_all = self._hours(len(self.actors) * wall)
        return f"they kept {in_all}, with the start; a million more frames take {self._hours(worked * 1e6 / max(frames, 1))}"

    def _hours(self, seconds: float) -> str:
        """Returns what a process keeps for itself in so many seconds."""
        return " and ".join(f"{each * seconds / 3600:.2g} {name} hours" for name, each in (("core", self.cpus), ("GPU", self.gpus)) if each)
