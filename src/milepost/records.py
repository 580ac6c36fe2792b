"""What meta/ says, as plain objects: an episode's record, its parts of films, a dataset's metadata. `metadata.py` reads them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from milepost.checks import Finding
from milepost.features import image_size, is_depth
from milepost.files import shown
from milepost.placement import TENTH, Part
from milepost.types import DataError, Segment

HEADS = ("sparse", "dense")
_OWN = {"episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"}
_OWN_PREFIXES = ("stats/", "data/", "videos/", "meta/", "subtask_", "sparse_subtask_", "dense_subtask_")


@dataclass(frozen=True)
class VideoSpan:
    """An episode's part of an mp4: seconds [start_s, stop_s) of `path` (relative to the dataset); stop_s None: meta/ does not say."""

    path: str
    start_s: float = 0.0
    stop_s: float | None = None


@dataclass(frozen=True)
class EpisodeRecord:
    """One row of meta/episodes. row: dataset row of frame 0. data: its parquet file, relative, "" if meta/ does not say.

    videos: camera -> where. lost: camera -> why meta/ has no place for it; adrift: its mp4, where that at least is known.
    fault: why the episode cannot be read at all, "" if it can.
    """

    index: int
    row: int
    length: int
    tasks: tuple[str, ...]
    data: str
    videos: Mapping[str, VideoSpan]
    entry: Mapping[str, Any]
    fps: float
    lost: Mapping[str, str] = field(default_factory=dict)
    adrift: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the recorder says beyond LeRobot's own fields; nulls left out."""
        kept = (key for key in self.entry if key not in _OWN and not key.startswith(_OWN_PREFIXES))
        return {key: self.entry[key] for key in kept if self.entry[key] is not None}

    @cached_property
    def segments(self) -> dict[str, tuple[Segment, ...]]:
        """head -> its annotation, for the heads this episode has one of. DataError if lists differ in length or run backwards.

        A stage may end up to a second after the episode, because annotators round; it is cut. DataError if it ends later.
        """
        found = {}
        for head in HEADS:
            columns = head_lists(self.entry, head)
            if columns[0] is None and head == "sparse":  # a table of episodes from two annotators, the older one's columns unprefixed
                columns = [self.entry.get(f"subtask_{name}") for name in ("names", "start_frames", "end_frames")]
            if columns[0] is not None:
                found[head] = self._head(head, *columns)
        return found

    def _head(self, head: str, names: Any, starts: Any, ends: Any) -> tuple[Segment, ...]:
        starts, ends = starts or [], ends or []
        who = f"episode {self.index}: its {head} annotation"
        if not all(isinstance(values, list) for values in (names, starts, ends)):
            raise DataError(f"{who} should be lists of names and frames; annotate this episode again")
        if not len(names) == len(starts) == len(ends):
            raise DataError(
                f"{who} has {len(names)} names, {len(starts)} start frames and {len(ends)} end frames; annotate this episode again"
            )
        segments = []
        for name, start, end in zip(names, starts, ends, strict=True):
            numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (start, end))
            if not name or not numbers or not 0 <= start <= end:
                raise DataError(f"{who} has a segment {shown(name)} from frame {shown(start)} to {shown(end)}; annotate this episode again")
            if end > self.length + self.fps:
                raise DataError(
                    f"{who} has a segment '{name}' up to frame {end}, and the episode has {self.length}; annotate this episode again"
                )
            segments.append(Segment(str(name), min(int(start), self.length), min(int(end), self.length)))
        return tuple(segments)


def head_lists(entry: Mapping[str, Any], head: str) -> list[Any]:
    """Returns names, start frames and end frames as they stand in an entry; older annotators wrote the sparse head alone, unprefixed."""
    prefix = "" if head == "sparse" and "sparse_subtask_names" not in entry else f"{head}_"
    return [entry.get(f"{prefix}subtask_{name}") for name in ("names", "start_frames", "end_frames")]


@dataclass(frozen=True)
class Metadata:
    """meta/ of one dataset. features: info.json's entries. tasks: task index -> words. episodes: number -> record, ascending.

    version: "v3.0" or "v2.1", by which of the two it is laid out. rows_fit: are the episodes' places among the rows said, and do they
    follow one another? findings: what is wrong with meta/. info: info.json as it stands.
    """

    version: str
    fps: float
    features: Mapping[str, Mapping[str, Any]]
    tasks: Mapping[int, str]
    episodes: Mapping[int, EpisodeRecord]
    rows_fit: bool = True
    findings: tuple[Finding, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def cameras(self) -> tuple[str, ...]:
        """Keys of the features that are pictures; depth maps are not."""
        return tuple(key for key in self.pictured if not is_depth(self.features[key]))

    @cached_property
    def pictured(self) -> tuple[str, ...]:
        """Keys of all features that are pictures, depth maps among them."""
        return tuple(key for key, feature in self.features.items() if feature.get("dtype") in ("video", "image"))

    @cached_property
    def films(self) -> Mapping[str, tuple[Part, ...]]:
        """mp4 -> the parts that episodes have of it, in order of the episodes' numbers."""
        parts: dict[str, list[Part]] = {}
        for record in self.episodes.values():
            before = self.episodes.get(record.index - 1)
            for camera, span in record.videos.items():
                follows = before is not None and not before.fault and camera in before.videos
                parts.setdefault(span.path, []).append(Part(record.index, span.start_s, span.stop_s, record.length, follows))
            for path in record.adrift.values():
                parts.setdefault(path, []).append(Part(record.index, None, None, record.length))
        return {path: tuple(found) for path, found in parts.items()}

    @cached_property
    def odd_parts(self) -> list[tuple[str, int, float | None, float | None]]:
        """The parts of films that do not simply follow one another from the film's start, as meta/ says; [] for nearly every dataset."""
        odd = []
        for path, parts in self.films.items():
            ends = [0, *itertools.accumulate(part.length for part in parts)]
            starts = [None if part.start_s is None else part.start_s * self.fps for part in parts]
            if any(start is None or abs(start - end) > TENTH for start, end in zip(starts, ends, strict=False)):
                odd += [(path, part.episode, part.start_s, part.stop_s) for part in parts]
        return odd

    def rows_without_film(self, camera: str, after: int) -> int:
        """Rows of the episodes behind episode `after` that this camera has no mp4 for: what a film's last pictures may be of."""
        return sum(r.length for r in self.episodes.values() if r.index > after and camera in r.lost and camera not in r.adrift)

    def image_size(self, camera: str) -> tuple[int, int]:
        """(height, width) as info.json has it, whichever way round its shape is written."""
        size = image_size(self.features[camera])
        if size is None:
            raise DataError(
                f"meta/info.json: the shape of camera '{camera}' must have three numbers, got {shown(self.features[camera].get('shape'))}"
            )
        return size
