"""Finds the idle frames at the start and the end of episodes: those before the first motion and after the last one.

The robot rests as long as no channel of `observation.state` and `action` has left its value at the first frame (at the end: the last
frame) by more than `threshold` times the range of that channel in the dataset, from its 1st to its 99th percentile. `margin_s` seconds of
rest stay. A stage of the annotation that lies in the idle frames as a whole stays as a whole. A noisy channel is taken for motion: then
less is cut off, never more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from milepost.core import DataError, Segment, require_one_of
from milepost.datasets.part_meta import Range
from milepost.datasets.reader import LeRobotDataset

Side = Literal["start", "end", "both"]
THRESHOLD, MARGIN_S = 0.02, 0.5


@dataclass(frozen=True)
class TrimPlan:
    """Which frames stay. ranges: episode -> frames [start, stop). still: episodes that never move, which stay whole.

    faulty: episodes whose annotation has a fault, so it could not be shifted; they stay whole. lengths: frames of the source.
    """

    ranges: Mapping[int, Range]
    lengths: Mapping[int, int]
    still: tuple[int, ...] = ()
    faulty: tuple[int, ...] = ()

    @property
    def shortened(self) -> dict[int, tuple[int, int]]:
        """Returns episode -> how many frames are cut off at its start and at its end, of those that lose any."""
        both = {number: (start, self.lengths[number] - stop) for number, (start, stop) in self.ranges.items()}
        return {number: each for number, each in both.items() if any(each)}


def plan_trim(
    dataset: LeRobotDataset,
    side: Side = "both",
    *,
    threshold: float = THRESHOLD,
    margin_s: float = MARGIN_S,
    episodes: Sequence[int] | None = None,
) -> TrimPlan:
    """Returns which frames stay if idle ones are cut off on this side. DataError if the dataset has neither states nor actions."""
    require_one_of(side, get_args(Side), "a side")
    if not 0 < threshold < 1 or not margin_s >= 0:
        raise DataError(f"the threshold must be above 0 and below 1, and the margin at least 0 s; got {threshold:g} and {margin_s:g}")
    numbers = dataset.episode_indices if episodes is None else tuple(episodes)
    channels = {number: _channels(dataset, number) for number in numbers}
    if not any(values.shape[1] for values in channels.values()):
        raise DataError(f"{dataset.name} has neither observation.state nor action, so nothing tells where the robot is idle")
    together = np.concatenate(list(channels.values()))
    ranges_of = np.subtract(*np.nanpercentile(together, [99, 1], axis=0))
    ranges: dict[int, Range] = {}
    still, faulty = [], []
    for number, values in channels.items():
        record, length = dataset.meta.episodes[number], len(values)
        ranges[number] = (0, length)
        active = active_frames(values, threshold * ranges_of)
        if active is None:
            still.append(number)
        elif record.annotation_faults:
            faulty.append(number)
        else:
            margin = round(margin_s * dataset.fps)
            start = max(0, active[0] - margin) if side != "end" else 0
            stop = min(length, active[1] + margin) if side != "start" else length
            ranges[number] = _around(record.readable_segments, start, stop)
    return TrimPlan(ranges, {number: len(values) for number, values in channels.items()}, tuple(still), tuple(faulty))


def active_frames(values: Float[np.ndarray, "T C"], tolerance: Float[np.ndarray, "C"]) -> Range | None:
    """Returns frames [start, stop) from the last one at rest to the first one at rest again; None if no channel ever leaves
    its first value by more than the tolerance.

    An unknown value counts as motion.
    """
    left = (~(np.abs(values - values[:1]) <= tolerance)).any(axis=1)
    right = (~(np.abs(values - values[-1:]) <= tolerance)).any(axis=1)
    if not left.any() and not right.any():
        return None
    first = int(np.argmax(left)) - 1 if left.any() else 0
    last = len(right) - int(np.argmax(right[::-1])) + 1 if right.any() else len(right)
    return max(0, first), min(len(right), last)


def _around(by_head: Mapping[str, Sequence[Segment]], start: int, stop: int) -> Range:
    """Returns the frames that stay, so that no stage is lost as a whole."""
    segments = [each for segments in by_head.values() for each in segments if each.start < each.stop]
    start = min([start, *(each.start for each in segments if each.stop <= start)])
    stop = max([stop, *(each.stop for each in segments if each.start >= stop)])
    return start, stop


def _channels(dataset: LeRobotDataset, number: int) -> Float[np.ndarray, "T C"]:
    """Returns state and action of an episode side by side."""
    episode = dataset.episode(number)
    parts = [episode.state, episode.columns.get("action")]
    flat = [np.asarray(part, np.float64).reshape(episode.length, -1) for part in parts if part is not None]
    return np.concatenate([*flat, np.zeros((episode.length, 0))], axis=1)
