"""The content of meta/ as plain objects, made by `datasets/metadata.py`: an episode's record, its parts of videos, the metadata."""

from __future__ import annotations

import itertools
import re
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int

from milepost.core import HEADS, DataError, Segment, segments_fault, shown, success_in
from milepost.datasets.episode_arrays import EpisodeArrays, Numbers, VideoArrays, grouped
from milepost.datasets.features import image_size, is_depth
from milepost.datasets.findings import Finding
from milepost.datasets.placement import TENTH, Part

_OWN = {"episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"}
_OWN_PREFIXES = ("stats/", "data/", "videos/", "meta/", "subtask_", *(f"{head}_subtask_" for head in HEADS))
FIELDS = ("names", "start_frames", "end_frames", "start_times", "end_times")
Raw = Mapping[str, Any]
"""Field -> its list, or whatever stands there instead; None where nothing does."""


@dataclass(frozen=True)
class VideoSpan:
    """An episode's part of an mp4: seconds [start_s, stop_s) of `path`, relative to the dataset. stop_s is None if meta/ has none.

    unused: the images before and after it that belong to no row, as a copy that leaves rows out writes them into meta/.
    """

    path: str
    start_s: float = 0.0
    stop_s: float | None = None
    unused: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class EpisodeRecord:
    """One row of meta/episodes. row: dataset row of frame 0. data: its parquet file, relative, "" if meta/ names none.

    videos: camera -> its part of an mp4. lost: camera -> why meta/ has no part for it; adrift: camera -> its mp4, if only the part is
    missing. fault: why the episode cannot be read at all, "" if it can. language: reads the subtasks of its language column, None where the
    dataset has none. from_language: whether they are its sparse annotation, because meta/ has no columns of annotations.
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
    language: Callable[[EpisodeRecord], tuple[Segment, ...]] | None = field(default=None, compare=False, repr=False)
    from_language: bool = False

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Returns the fields of the recorder beyond LeRobot's own, without nulls."""
        keys = (key for key in self.entry if not is_own(key))
        return {key: self.entry[key] for key in keys if self.entry[key] is not None}

    @property
    def success(self) -> bool | None:
        """Returns the attempt's success in meta/; None if it has none."""
        return success_in(self.facts)

    @property
    def said_rows(self) -> tuple[Any, Any]:
        """Returns the first dataset row and the one after the last, as they stand in meta/; None where it does not say."""
        return self.entry.get("dataset_from_index"), self.entry.get("dataset_to_index")

    @property
    def segments(self) -> dict[str, tuple[Segment, ...]]:
        """Returns head -> its annotation, for the heads that have one. Raises DataError if lists differ in length or run backwards.

        A stage may end up to a second after the episode, because annotators round; it is then cut. DataError if it ends later.
        """
        for fault in (each for each in self._heads.values() if isinstance(each, str)):
            raise DataError(f"episode {self.index}: {fault}; annotate this episode again")
        return self.readable_segments

    @cached_property
    def readable_segments(self) -> dict[str, tuple[Segment, ...]]:
        """Returns `segments` without the heads that cannot be read."""
        return {head: segments for head, segments in self._heads.items() if not isinstance(segments, str)}

    @cached_property
    def annotation_faults(self) -> dict[str, str]:
        """Returns head -> why its annotation cannot be used: it cannot be read, or stages overlap."""
        faults = {head: content for head, content in self._heads.items() if isinstance(content, str)}
        for head, segments in self.readable_segments.items():
            if fault := segments_fault(segments, head, None, self.length):
                faults[head] = fault
        return faults

    @cached_property
    def sound_segments(self) -> dict[str, tuple[Segment, ...]]:
        """Returns `segments` of the heads without a fault."""
        return {head: segments for head, segments in self.readable_segments.items() if head not in self.annotation_faults}

    @cached_property
    def clashes(self) -> dict[str, str]:
        """Returns head -> how the seconds of its annotation contradict its frames, and which of them count."""
        return {head: clash for head in HEADS if (clash := frames_of(self._raw(head), self.length, self.fps)[1])}

    @cached_property
    def language_clash(self) -> str:
        """Returns how the subtasks of the language column differ from the annotation in meta/, which counts; "" if they do not."""
        own = [tuple(segments) for segments in self.readable_segments.values() if segments]
        if self.language is None or self.from_language or not own:
            return ""
        try:
            subtasks = self.language(self)
        except DataError:
            return ""  # `info` says what is wrong with it; nothing is read from it here
        words = "its subtasks in language_persistent differ from the annotation in meta/, which counts"
        return words if subtasks and subtasks not in own else ""

    @property
    def remarks(self) -> Iterator[tuple[str, str, str]]:
        """Yields what is to be said of the annotation: its kind, the head, and the words."""
        language = {"sparse": self.language_clash} if self.language_clash else {}
        for kind, by_head in (("annotation", self.annotation_faults), ("clash", self.clashes), ("language", language)):
            yield from ((kind, head, words) for head, words in by_head.items())

    def lists(self, head: str) -> list[Any]:
        """Returns names, start frames and end frames as they stand; of frames that contradict the seconds, those that count."""
        raw = frames_of(self._raw(head), self.length, self.fps)[0]
        return [raw[field] for field in FIELDS[:3]]

    @property
    def has_columns(self) -> bool:
        """Returns whether meta/ has a column of annotations, filled or not."""
        return any(f"{prefix}subtask_names" in self.entry for prefix in ("", *(f"{head}_" for head in HEADS)))

    def is_annotated(self, head: str) -> bool:
        """Returns whether the episode has an annotation of this head, readable or not."""
        return bool(self.lists(head)[0]) or (self.from_language and head in self._heads)

    def is_older(self, head: str) -> bool:
        """Returns whether the annotation stands in the older columns alone, beside newer ones that are empty here."""
        newer = raw_lists(self.entry, f"{head}_")["names"]
        return newer is None and f"{head}_subtask_names" in self.entry and any(self.lists(head))

    @cached_property
    def _heads(self) -> dict[str, tuple[Segment, ...] | str]:
        """Returns head -> its annotation, or its fault in words."""
        heads: dict[str, tuple[Segment, ...] | str] = {}
        for head in HEADS:
            raw = frames_of(self._raw(head), self.length, self.fps)[0]
            if raw["names"] is not None:
                try:
                    heads[head] = read_segments(raw, self.length, self.fps)
                except DataError as error:
                    heads[head] = f"its {head} annotation {error}"
        if self.language is not None and self.from_language and not heads:
            try:
                heads = {"sparse": segments} if (segments := self.language(self)) else {}
            except DataError as error:
                heads = {"sparse": f"its subtasks in language_persistent cannot be read: {error}"}
        return heads

    def _raw(self, head: str) -> dict[str, Any]:
        """Returns the head's lists as they are on disk. If two annotators wrote the table, the older one's columns have no prefix."""
        raw = raw_lists(self.entry, f"{head}_")
        return raw_lists(self.entry, "") if raw["names"] is None and head == "sparse" else raw


def is_own(name: str) -> bool:
    """Returns whether a field of meta/episodes is LeRobot's own, and no fact of the recorder."""
    return name in _OWN or name.startswith(_OWN_PREFIXES)


def raw_lists(entry: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Returns the cells of one head of an episode's entry. prefix: "sparse_", "dense_" or "", as older annotators wrote."""
    return {field: entry.get(f"{prefix}subtask_{field}") for field in FIELDS}


def read_segments(raw: Raw, length: int, fps: float) -> tuple[Segment, ...]:
    """Returns the segments. DataError, which says what the lists are or have, if they are no segments of an episode of this length.

    The last may end up to a second after the episode, because annotators round; it is cut.
    """
    names, starts, ends = raw["names"], raw["start_frames"] or [], raw["end_frames"] or []
    if not all(isinstance(values, list) for values in (names, starts, ends)):
        raise DataError("should be lists of names and frames")
    if not len(names) == len(starts) == len(ends):
        raise DataError(f"has {len(names)} names, {len(starts)} start frames and {len(ends)} end frames")
    segments = []
    for name, start, end in zip(names, starts, ends, strict=True):
        if not isinstance(name, str) or not name.strip() or not _are_numbers((start, end)) or not 0 <= start <= end:
            raise DataError(f"has a segment {shown(name)} from frame {shown(start)} to {shown(end)}")
        if end > length + fps:
            raise DataError(f"has a segment {shown(name)} up to frame {shown(end)}, and the episode has {length}")
        segments.append(Segment(name, min(int(start), length), min(int(end), length)))
    return tuple(segments)


def frames_of(raw: Raw, length: int, fps: float) -> tuple[Raw, str]:
    """Returns the lists with the frames that count, and the contradiction between frames and seconds in words, "" if there is none.

    Two that differ by a frame agree, and by a second where all seconds are whole: LeRobot's own tool rounds them. The frames count, unless
    they are the same seconds at another rate and only the seconds end where the episode ends.
    """
    cells = [raw[field] for field in FIELDS[1:]]
    if not fps > 0 or not all(isinstance(each, list) and each and _are_numbers(each) and len(each) == len(cells[0]) for each in cells):
        return raw, ""
    frames, seconds = np.array(cells[:2], dtype=float), np.array(cells[2:], dtype=float)
    by_time = np.round(seconds * fps)
    slack = max(1.0, fps) if (seconds == np.round(seconds)).all() else 1.0
    wrong = np.argwhere(np.abs(np.minimum(frames, length) - np.minimum(by_time, length)) > slack)
    if not len(wrong):
        return raw, ""
    side, place = wrong[0]
    boundary = f"a border at frame {frames[side, place]:g} is said to be at {seconds[side, place]:g} s"
    clash = f"its frames and seconds contradict each other: {boundary}"
    rate = frames.max() / seconds.max() if seconds.max() > 0 else 0.0
    if np.abs(frames - rate * seconds).max() <= 1 and abs(by_time.max() - length) <= 1 < abs(frames.max() - length):
        reason = f"the seconds count, which end where the episode ends: the frames are those of {rate:.4g} fps, and the dataset has {fps:g}"
        starts, stops = by_time.astype(int).tolist()
        return {**raw, "start_frames": starts, "end_frames": stops}, f"{clash}; {reason}"
    return raw, f"{clash}; the frames count"


def _are_numbers(values: Sequence[Any]) -> bool:
    """Returns whether all values are finite numbers."""
    return all(isinstance(each, int | float) and not isinstance(each, bool) and abs(each) < 2**53 for each in values)  # NaN is not


def parse_episodes(text: str | None, flag: str = "--episodes") -> list[int] | None:
    """Returns the episode numbers that "0-9,12" or "0 1 2" names, in that order, None for all. ValueError shows the right form."""
    if text is None:
        return None
    numbers: list[int] = []
    for part in re.split(r"\s*,\s*|\s+", text.strip().rstrip(",")):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or int(last or first) < int(first):
            raise ValueError(f"{flag} takes numbers and rising ranges such as 0-9,12 or 0 1 2; got {shown(text)}")
        numbers += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(numbers))


def no_episode(episode_index: int, episode_indices: Collection[int], where: str = "this dataset has") -> DataError:
    """Returns the error for an episode that is not among those known."""
    span = f", numbered {min(episode_indices)} to {max(episode_indices)}" if episode_indices else ""
    return DataError(f"no episode {episode_index}; {where} {len(episode_indices)}{span}")


class HasColumns(Mapping[int, EpisodeRecord]):
    """Episodes that are columns of a table, and records only when they are asked for (`EpisodeTable`).

    arrays: the numbers of all. facts: the columns beyond LeRobot's own. has_annotations: whether there are columns of annotations, filled
    or not. from_language: whether the subtasks of the language column are the annotation.
    """

    arrays: EpisodeArrays
    facts: tuple[str, ...]
    has_annotations: bool
    from_language: bool

    @abstractmethod
    def distinct(self, name: str) -> tuple[Int[np.ndarray, "E"], tuple[Any, ...]]:
        """Returns the values of a column, each once, and which one each episode has; None where there is none."""


@dataclass(frozen=True)
class Metadata:
    """The content of meta/ of one dataset. features: info.json's entries. tasks: task_index -> words. episodes: episode_index -> record.

    version: the layout, "v3.0" or "v2.1". rows_fit: whether meta/ has the rows of all episodes and they follow one another. findings: the
    faults of meta/. info: info.json as it is on disk.
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
    def arrays(self) -> EpisodeArrays:
        """Returns the numbers of all episodes; `videos` is None where only the records say where they are."""
        return self.episodes.arrays if isinstance(self.episodes, HasColumns) else arrays_of(self.episodes.values())

    def fact(self, name: str) -> tuple[Int[np.ndarray, "E"], tuple[Any, ...]]:
        """Returns the values of a fact of all episodes, each once, and which one each episode has; None where it has none."""
        if isinstance(self.episodes, HasColumns):
            none = np.zeros(len(self.episodes), np.int64), (None,)
            return self.episodes.distinct(name) if name in self.episodes.facts else none
        values: dict[Any, int] = {}
        codes = [values.setdefault(record.facts.get(name), len(values)) for record in self.episodes.values()]
        return np.array(codes, np.int64), tuple(values)

    def choose(self, episodes: Sequence[int] | None, who: str) -> Sequence[int]:
        """Returns the numbers of the episodes wanted, each once, in the order wanted; all if None.

        who: the dataset, for the message. DataError for an episode that is not there, or for none at all.
        """
        if episodes is None and self.episodes and isinstance(self.episodes, HasColumns):
            return Numbers(self.arrays.number)
        episode_indices = tuple(self.episodes) if episodes is None else tuple(dict.fromkeys(int(index) for index in episodes))
        for index in episode_indices:
            if index not in self.episodes:
                raise no_episode(index, self.episodes)
        if not episode_indices:
            raise DataError(f"no episode of {who} is chosen; it has {len(self.episodes)}")
        return episode_indices

    @property
    def language_columns(self) -> tuple[str, ...]:
        """Returns the features that hold lists of language rows in every frame; they are read only for their subtasks."""
        return tuple(key for key, feature in self.features.items() if feature.get("dtype") == "language")

    @property
    def from_language(self) -> bool:
        """Returns whether the sparse annotation is the subtasks of the language column."""
        if isinstance(self.episodes, HasColumns):
            return self.episodes.from_language
        return any(record.from_language for record in self.episodes.values())

    @property
    def can_have_annotations(self) -> bool:
        """Returns whether a column can hold an annotation; it may be empty all the same."""
        return not isinstance(self.episodes, HasColumns) or self.episodes.has_annotations or self.episodes.from_language

    @cached_property
    def cameras(self) -> tuple[str, ...]:
        """Returns the keys of the features that are images and no depth maps."""
        return tuple(key for key in self.all_cameras if not is_depth(self.features[key]))

    @cached_property
    def all_cameras(self) -> tuple[str, ...]:
        """Returns the keys of all features that are images, with the depth maps."""
        return tuple(key for key, feature in self.features.items() if feature.get("dtype") in ("video", "image"))

    @cached_property
    def video_parts(self) -> Mapping[str, tuple[Part, ...]]:
        """Returns mp4 -> the parts that episodes have of it, in order of episode_index."""
        if self.arrays.videos is not None:
            return VideoParts(self.arrays, self.arrays.videos)
        parts: dict[str, list[Part]] = {}
        for record in self.episodes.values():
            before = self.episodes.get(record.index - 1)
            for camera, span in record.videos.items():
                follows = before is not None and not before.fault and camera in before.videos
                parts.setdefault(span.path, []).append(Part(record.index, span.start_s, span.stop_s, record.length, follows, *span.unused))
            for path in record.adrift.values():
                parts.setdefault(path, []).append(Part(record.index, None, None, record.length))
        return {path: tuple(spans) for path, spans in parts.items()}

    @cached_property
    def odd_parts(self) -> list[tuple[str, int, float | None, float | None]]:
        """Returns the parts of videos that do not follow one another from the start of the video; [] for nearly every dataset."""
        odd = []
        for path, parts in self.video_parts.items() if not isinstance(self.video_parts, VideoParts) else self.video_parts.odd(self.fps):
            ends = [0, *itertools.accumulate(part.length for part in parts)]
            starts = [None if part.start_s is None else part.start_s * self.fps for part in parts]
            if any(start is None or abs(start - end) > TENTH for start, end in zip(starts, ends, strict=False)):
                odd += [(path, part.episode, part.start_s, part.stop_s) for part in parts]
        return odd

    def video_names(self, camera: str) -> set[str]:
        """Returns the mp4s of a camera in which episodes have a place."""
        if self.arrays.videos is not None:
            return set(self.arrays.videos[camera].names) if camera in self.arrays.videos else set()
        return {span.path for record in self.episodes.values() if (span := record.videos.get(camera))}

    def rows_without_video(self, camera: str, after: int) -> int:
        """Returns the rows of episodes after `after` without an mp4 of this camera: a video's last images may be theirs."""
        if self.arrays.videos is not None:
            return 0  # every episode has its place in every camera's videos
        return sum(r.length for r in self.episodes.values() if r.index > after and camera in r.lost and camera not in r.adrift)

    def image_size(self, camera: str) -> tuple[int, int]:
        """Returns (height, width) from info.json, in whichever order it has the shape."""
        size = image_size(self.features[camera])
        if size is None:
            raise DataError(
                f"meta/info.json: the shape of camera '{camera}' must have three numbers, got {shown(self.features[camera].get('shape'))}"
            )
        return size


class VideoParts(Mapping[str, tuple[Part, ...]]):
    """`Metadata.video_parts` of episodes that all have their place: the parts of a video are made when they are asked for."""

    def __init__(self, arrays: EpisodeArrays, videos: Mapping[str, VideoArrays]) -> None:
        self._arrays, self._videos = arrays, videos
        places = [(name, camera, own) for camera, video in videos.items() for name, own in grouped(video.file, video.names)]
        places.sort(key=lambda each: each[2][0])  # stable: by the first episode, then by camera, as fingerprints have always had them
        self._places = {name: (camera, own) for name, camera, own in places}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getitem__(self, name: str) -> tuple[Part, ...]:
        camera, places = self._places[name]
        arrays, video = self._arrays, self._videos[camera]
        number = arrays.number[places]
        follows = (places > 0) & (arrays.number[np.maximum(places - 1, 0)] == number - 1)
        columns = (number, video.start_s[places], video.stop_s[places], arrays.length[places], follows)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return tuple(Part(episode, start, None if stop != stop else stop, length, after) for episode, start, stop, length, after in rows)

    def odd(self, fps: float) -> Iterator[tuple[str, tuple[Part, ...]]]:
        """Yields the videos of which a part does not begin where those before it end."""
        for name, (camera, places) in self._places.items():
            length = self._arrays.length[places]
            if (np.abs(self._videos[camera].start_s[places] * fps - (np.cumsum(length) - length)) > TENTH).any():
                yield name, self[name]


def arrays_of(records: Collection[EpisodeRecord]) -> EpisodeArrays:
    """Returns the numbers of these records, which are in order of their numbers, without their videos."""
    number, row, length = (np.array([getattr(each, name) for each in records], np.int64) for name in ("index", "row", "length"))
    files: dict[str, int] = {}
    tasks: dict[tuple[str, ...], int] = {}
    file = np.array([files.setdefault(record.data, len(files)) for record in records], np.int64)
    task = np.array([tasks.setdefault(record.tasks, len(tasks)) for record in records], np.int64)
    return EpisodeArrays(number, row, length, file, tuple(files), task, tuple(tasks))
