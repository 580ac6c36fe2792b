"""One camera of one episode in the videos, as `types.Frames`: which video, and which of its images; or why they cannot be known.

Something odd but certain is a DataWarning. What is not certain is refused when an image is read, and not before.
"""

from __future__ import annotations

import collections
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from jaxtyping import Float, UInt8

from milepost.core import DataError, FrameIndex, Frames, UnreadableError, count_noun, sampled_digest, warn_user
from milepost.datasets.cells import is_deep
from milepost.datasets.features import image_size, may_be_depth
from milepost.datasets.hub import Files
from milepost.datasets.parquet import RowReader
from milepost.datasets.placement import Part, Placed, offsets, pause, place, unsteady
from milepost.datasets.records import EpisodeRecord, Metadata
from milepost.datasets.stamps import VideoIndex
from milepost.datasets.video import VideoFrames, video_index

SMALL = 1024
"""Bytes of a file that may be the same as another by chance, or is no video."""


class DatasetWarner:
    """Warns of each kind of fault in a dataset once. The warning names the first episode; `milepost info` lists all of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._kinds: set[str] = set()

    def __call__(self, kind: str, message: str) -> None:
        if kind not in self._kinds:
            self._kinds.add(kind)
            warn_user(f"{self.name}: {message}")


@dataclass(frozen=True)
class LostFrames:
    """The images of a camera that meta/ has no place for in this episode, as `types.Frames`. Reading one raises UnreadableError."""

    length: int
    reason: str

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, frames: FrameIndex) -> UInt8[np.ndarray, "N H W 3"]:
        raise UnreadableError(self.reason)

    def chunks(self, size: int = 64) -> Iterator[UInt8[np.ndarray, "N H W 3"]]:
        raise UnreadableError(self.reason)


@dataclass(frozen=True)
class Doubts:
    """Evidence against the videos that meta/ names for a camera. refused: video -> why its episode is uncertain. odd: code -> warning."""

    refused: Mapping[str, str] = field(default_factory=dict)
    odd: Mapping[str, str] = field(default_factory=dict)


@dataclass
class VideoPlaces:
    """The episodes of each video, from meta/ and from the files.

    The images of a video are counted when the first of them is needed; this decodes nothing.
    """

    files: Files
    meta: Metadata
    _doubts: dict[str, Doubts] = field(default_factory=dict)
    _names: list[str] | None = None
    _twins: list[list[str]] | None = None

    def frames(self, camera: str, record: EpisodeRecord, times: Float[np.ndarray, "T"], *, strays: int, say: DatasetWarner) -> Frames:
        """Returns an episode's images. times: its rows' own stamps. UnreadableError if those contradict its part of its video."""
        if camera in record.lost:
            return LostFrames(record.length, record.lost[camera])
        span, fps = record.videos[camera], self.meta.fps
        if len(self.meta.video_parts[span.path]) > 1 and (
            span.stop_s is None or round((span.stop_s - span.start_s) * fps) == record.length
        ):
            try:
                offsets(times, Placed(0, record.length), fps)
            except UnreadableError as error:
                raise UnreadableError(f"episode {record.index}, camera '{camera}': the video {error}") from error
        doubts, parts = self.doubts(camera), self.meta.video_parts[span.path]
        odd = tuple((f"{code} {camera}", words) for code, words in doubts.odd.items())
        who, fault = f"video {self.files.root / span.path}", doubts.refused.get(span.path, "")
        placing = _Placing(parts, record.index, fps, self._elsewhere(camera, parts, strays), (who, fault, odd), self._sizes(camera), say)
        return VideoFrames(partial(self.files.path, span.path), times, fps, placing)

    def even_start(self, camera: str, record: EpisodeRecord, *, strays: int) -> float | None:
        """Returns the second at which an episode's images begin in its video, if they follow one another evenly at the dataset's rate."""
        span = record.videos.get(camera)
        if span is None or not record.length:
            return None
        try:
            video = video_index(self.files.path(span.path), self.meta.fps)
        except DataError:
            return None
        placement = self.placed(camera, span.path, video, strays)[record.index]
        if placement.fault or placement.note or placement.step != 1 or placement.count != record.length:
            return None
        stamps = video.stamps[placement.first : placement.first + record.length]
        even = np.abs(stamps - stamps[0] - np.arange(len(stamps)) / self.meta.fps).max() < 0.25 / self.meta.fps
        return float(stamps[0]) if even else None

    def placed(self, camera: str, name: str, video: VideoIndex, strays: int) -> Mapping[int, Placed]:
        """Returns the parts of a video, or why there is no telling. strays: rows that meta/ places nowhere."""
        parts = self.meta.video_parts[name]
        if fault := self.doubts(camera).refused.get(name) or _of_another(video.size, *self._sizes(camera)):
            return {part.episode: Placed(-1, 0, fault=fault) for part in parts}
        elsewhere = self._elsewhere(camera, parts, strays)
        return place(parts, len(video.stamps), self.meta.fps, video.fps, float(video.stamps[0]), elsewhere)

    def _sizes(self, camera: str) -> tuple[tuple[int, int] | None, tuple[tuple[int, int], ...]]:
        """Returns (height, width) of this camera and of the others, as info.json has them."""
        sizes = {name: image_size(self.meta.features[name]) for name in self.meta.all_cameras}
        return sizes[camera], tuple(size for name, size in sizes.items() if size is not None and name != camera)

    def _elsewhere(self, camera: str, parts: tuple[Part, ...], strays: int) -> tuple[int, ...]:
        """Returns how many rows may follow in a video that meta/ places nowhere."""
        return strays, self.meta.rows_without_video(camera, max(part.episode for part in parts))

    def doubts(self, camera: str) -> Doubts:
        """Returns what speaks against meta/'s choice of this camera's videos. In v2.1 the name of a video says its episode."""
        if camera not in self._doubts:
            doubts = self._compared(camera) if self.meta.version == "v3.0" else Doubts()
            copies = self._copies(camera)
            self._doubts[camera] = Doubts(doubts.refused, {**doubts.odd, "video-copy": copies}) if copies else doubts
        return self._doubts[camera]

    def same_files(self) -> list[list[str]]:
        """Returns the videos that are one file under several names, byte by byte as far as samples tell; [] if they are not all here."""
        if self._twins is None:
            sizes: dict[int, list[str]] = {}
            for name in self.meta.video_parts if self.files.repo is None else ():
                path = self.files.root / name
                if self.files.holds(name) and path.is_file() and (size := path.stat().st_size) > SMALL:
                    sizes.setdefault(size, []).append(name)
            alike: dict[tuple[int, str], list[str]] = {}
            for name in (name for names in sizes.values() if len(names) > 1 for name in names):
                alike.setdefault(sampled_digest(self.files.root / name), []).append(name)
            self._twins = [names for names in alike.values() if len(names) > 1]
        return self._twins

    def _copies(self, camera: str) -> str:
        """Returns which videos of one camera are the same file; "" if none are."""
        own_paths = self.meta.video_names(camera)
        twins = [pair for names in self.same_files() if len(pair := [name for name in names if name in own_paths]) > 1]
        if not twins:
            return ""
        more = f" ({count_noun(len(twins), 'such group')})" if len(twins) > 1 else ""
        return f"the films {twins[0][0]} and {twins[0][1]} are the same file{more}: one is a copy, and its episodes have another's pictures"

    def _compared(self, camera: str) -> Doubts:
        """Compares the videos in meta/ with the files: videos of no episode, videos whose number of images does not fit, their order."""
        places = {r.index: span.path if (span := r.videos.get(camera)) else r.adrift.get(camera, "") for r in self.meta.episodes.values()}
        listed_videos = sorted(set(places.values()) - {""}, key=_natural)
        spare = self._unclaimed(camera, listed_videos)
        order = _out_of_order(places)
        if not listed_videos or not (spare or order):
            return Doubts()
        counts = {name: count for name in (*listed_videos, *spare) if (count := self._count(name)) is not None}
        alike = Counter(counts.values())
        certain = self._in_order(sorted([*listed_videos, *spare], key=_natural), counts)
        unsure = [name for name in listed_videos if name in counts and alike[counts[name]] > 1 and name not in certain]
        odd = {"video-order": order} if order and unsure else {}
        if not spare:
            return Doubts(odd=odd)
        wrong = self._contradiction(places, listed_videos, counts)
        message = f"{count_noun(len(spare), 'film')} of '{camera}' belong{'s' if len(spare) == 1 else ''} to no episode, first {spare[0]}"
        if not wrong:
            return Doubts(odd=odd | {"stray-film": message})
        fault = (
            f"may be another episode's: {message}, while {wrong}, so meta/'s numbers of the films (file_index, chunk_index) cannot all be "
            "right; correct them, or copy or download meta/ again"
        )
        refusal = f"; {count_noun(len(unsure), 'film')} that may be another episode's {'is' if len(unsure) == 1 else 'are'} not read"
        odd |= {"video-choice": f"{message}, while {wrong}{refusal if unsure else ''}"}
        return Doubts(dict.fromkeys(unsure, fault), odd)

    def _unclaimed(self, camera: str, listed_videos: list[str]) -> list[str]:
        """Returns the camera's videos that are here and that no episode has, by the pattern of the names of those that one has."""
        if not listed_videos:
            return []
        if self._names is None:
            self._names = self.files.listed(listed_videos[0].split("/")[0])
        digits = [re.sub(r"\d+", r"\\d+", re.escape(piece)) for piece in listed_videos[0].split(camera)]
        pattern = re.compile(re.escape(camera).join(digits))
        return sorted((name for name in self._names if pattern.fullmatch(name) and name not in self.meta.video_parts), key=_natural)

    def _in_order(self, names: list[str], counts: Mapping[str, int]) -> set[str]:
        """Returns the videos that have the episodes that meta/ says in the only way in which all videos have all episodes in order."""
        queue, fitting = collections.deque(self.meta.episodes.values()), set[str]()
        for name in (name for name in names if name in counts):
            episode_indices, rows = [], 0
            while queue and rows < counts[name]:
                episode_indices.append(queue[0].index)
                rows += queue.popleft().length
            if rows != counts[name]:
                return set()
            if episode_indices == [part.episode for part in self.meta.video_parts.get(name, ())]:
                fitting.add(name)
        return set() if queue else fitting

    def _count(self, name: str) -> int | None:
        """Returns the images of a video that is here and can be read."""
        path = self.files.root / name
        try:
            return len(video_index(self.files.path(name), self.meta.fps).stamps) if path.is_file() else None
        except DataError:
            return None

    def _contradiction(self, places: Mapping[int, str], listed_videos: list[str], counts: Mapping[str, int]) -> str:
        """Returns the first thing that cannot be if every episode's video is the one that meta/ says; "" if there is none."""
        for name in listed_videos:
            rows = sum(part.length for part in self.meta.video_parts[name])
            if name in counts and counts[name] % max(1, rows):
                return f"{name} has {counts[name]} pictures for {rows} rows"
            if self.files.repo is None and not (self.files.root / name).exists():
                return f"{name} is missing"
        episode_index = next((i for i, name in places.items() if not name), None)
        return "" if episode_index is None else f"meta/ has no film for episode {episode_index}"


@dataclass(frozen=True)
class _Placing:
    """Where an episode's images are in its video, in the video's own seconds. Raises UnreadableError if this cannot be known.

    about: the video's name, why the whole video is refused, and (kind, message) pairs to warn of. sizes: (height, width) of this camera and
    of the others in info.json. It holds little, because it is pickled with every episode.
    """

    parts: tuple[Part, ...]
    episode: int
    fps: float
    elsewhere: tuple[int, ...]
    about: tuple[str, str, tuple[tuple[str, str], ...]]
    sizes: tuple[tuple[int, int] | None, tuple[tuple[int, int], ...]]
    say: DatasetWarner

    def __call__(self, video: VideoIndex, times: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T"]:
        who, fault, odd = self.about
        if fault := fault or _of_another(video.size, *self.sizes):
            raise UnreadableError(f"{who} {fault}")
        placement = place(self.parts, len(video.stamps), self.fps, video.fps, float(video.stamps[0]), self.elsewhere)[self.episode]
        if fault := placement.fault or unsteady(video.stamps, self.fps * placement.step):
            raise UnreadableError(f"{who} {fault}")
        try:
            inside, oddness = offsets(times, placement, self.fps)
        except UnreadableError as error:
            raise UnreadableError(f"{who} {error}") from error
        stamps = video.stamps[(placement.first + inside) * placement.step]
        pause_note = pause(stamps, times, self.fps)
        for kind, note in (
            ("late start", placement.note),
            ("clock", oddness),
            ("pause", pause_note),
            ("spare", placement.spared),
            ("order", placement.order),
        ):
            if note:
                self.say(kind, f"{who} (episode {self.episode}): {note}")
        for kind, note in odd:
            self.say(kind, note)
        return stamps


def _of_another(size: tuple[int, int], own: tuple[int, int] | None, others: tuple[tuple[int, int], ...]) -> str:
    """Returns why a video of this size is another camera's: it has that one's size by info.json, and not its own; "" if it is not."""
    if own is None or size in (own, own[::-1], (0, 0)) or size not in others:
        return ""
    return (
        f"may be another camera's: it is {size[0]} x {size[1]} (H x W), as another camera is by info.json, and this one is {own[0]} x "
        f"{own[1]}; correct the shapes in info.json, or put the films in the right folders"
    )


def _natural(name: str) -> list[int]:
    """Returns the numbers in a name, by which videos are in order."""
    return [int(digits) for digits in re.findall(r"\d+", name)]


def _out_of_order(places: Mapping[int, str]) -> str:
    """Returns which episode has an earlier video than the one before it; LeRobot writes videos in the order of the episodes."""
    numbered_places = [(episode_index, name) for episode_index, name in places.items() if name]
    for (before, one), (after, other) in itertools.pairwise(numbered_places):
        if _natural(one) > _natural(other):
            return f"meta/ gives episode {after} an earlier film ({other}) than episode {before} ({one}); look whether the pictures fit"
    return ""


def default_cameras(files: Files, meta: Metadata) -> list[str]:
    """Returns the cameras of colour or grey images: those that are looked at without being named.

    One channel may be grey or distances: only an image tells, so the first that can be read is looked at.
    """
    return [camera for camera in meta.cameras if not may_be_depth(meta.features[camera]) or _is_grey(camera, files, meta)]


def _is_grey(camera: str, files: Files, meta: Metadata) -> bool:
    for record in (each for each in meta.episodes.values() if each.data):
        try:
            deep = is_deep(RowReader().episode(files.path(record.data), record.index, [camera])[camera], files.path)
        except DataError:
            continue
        return deep is False
    return False
