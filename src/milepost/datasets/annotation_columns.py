"""Segments as LeRobot's SARM annotation columns in meta/episodes: five lists an episode and head, null where not annotated.

`{sparse,dense}_subtask_{names,start_times,end_times,start_frames,end_frames}`: seconds as float64 (LeRobot's own tool rounds them to
whole seconds), frames as int64 within the episode, `end` exclusive. The unprefixed columns are the sparse ones once more: older
LeRobot versions read them, and 0.6.1 falls back on them. Segments are taken as they are; `export` checks them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from milepost.core import Brief, Segment

Annotations = Mapping[int, Mapping[str, tuple[Segment, ...]]]
"""Episode number -> head ("sparse", "dense") -> its segments in order of time."""


@dataclass(frozen=True, eq=False, repr=False)
class HeadAnnotations(Brief, Mapping[int, tuple[Segment, ...]]):
    """The annotations of one head: a mapping from the episode to its segments, as `annotate` returns and `write_annotations` takes it.

    names: all stages in their order. refused: episode -> why it has no annotation.
    """

    head: str
    names: tuple[str, ...]
    segments: Mapping[int, tuple[Segment, ...]]
    refused: Mapping[int, str] = field(default_factory=dict)

    def __getitem__(self, episode_index: int) -> tuple[Segment, ...]:
        return self.segments[episode_index]

    def __iter__(self) -> Iterator[int]:
        return iter(self.segments)

    def __len__(self) -> int:
        return len(self.segments)

    def by_episode(self) -> dict[int, dict[str, tuple[Segment, ...]]]:
        """Returns episode -> head -> segments."""
        return {episode_index: {self.head: segments} for episode_index, segments in self.segments.items()}


Row = Mapping[str, list[Any] | None]
"""One episode's cells of one head: field -> list, or None where the file has none."""

FIELDS = {
    "names": pa.list_(pa.string()),
    "start_times": pa.list_(pa.float64()),
    "end_times": pa.list_(pa.float64()),
    "start_frames": pa.list_(pa.int64()),
    "end_frames": pa.list_(pa.int64()),
}
EMPTY: Row = dict.fromkeys(FIELDS)


def prefixes(head: str) -> tuple[str, ...]:
    """Returns the prefixes of this head's columns; the sparse head has two, because older LeRobot versions read the unprefixed ones."""
    return ("sparse_subtask_", "subtask_") if head == "sparse" else (f"{head}_subtask_",)


def row_of(segments: Sequence[Segment], fps: float) -> Row:
    """Returns the five lists of one episode; they are null if there is no segment."""
    if not segments:
        return EMPTY
    return {
        "names": [s.name for s in segments],
        "start_times": [s.start / fps for s in segments],
        "end_times": [s.stop / fps for s in segments],
        "start_frames": [s.start for s in segments],
        "end_frames": [s.stop for s in segments],
    }


def arrays(head: str, rows: Sequence[Row]) -> dict[str, pa.Array]:
    """Returns column name -> column, for all columns of this head."""
    columns = {field: pa.array([row[field] for row in rows], kind) for field, kind in FIELDS.items()}
    return {f"{prefix}{field}": column for prefix in prefixes(head) for field, column in columns.items()}
