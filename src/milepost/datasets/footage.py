"""Checks a dataset's cameras: the number of images in each video against the rows, and the images themselves, some or all decoded.

Bad content never raises; it becomes a finding. The functions that refuse a video when it is read find its faults here too
(`datasets/placement.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from milepost.core import DataError, Frames, count_noun, shown
from milepost.datasets.cells import ImageFrames, is_deep
from milepost.datasets.features import codec, image_size, is_depth, may_be_depth
from milepost.datasets.findings import Finding, Severity, joined_findings
from milepost.datasets.frames import VideoPlaces
from milepost.datasets.hub import Files
from milepost.datasets.parquet import RowReader, null_images
from milepost.datasets.placement import TENTH, Part, Placed, miscounted, pause, unsteady
from milepost.datasets.records import EpisodeRecord, Metadata
from milepost.datasets.stamps import VideoIndex
from milepost.datasets.video import VideoFrames, VideoInfo, probe, video_index

Look = Literal["none", "some", "all"]
"""Which images are decoded: none; the first, a middle and the last of each episode; all."""
BLACK = 24
"""Brightness, of 255, that nothing in a black image exceeds: video black is 16, and coding adds a little."""
ALIKE, FEW = 24, 0.005
"""A repeated image differs from the first by more than so many grey levels in so few of its values at most: coding changes it a little."""
REPEATED = 10
"""Frames of the shortest episode in which a camera that shows one image is worth a word."""


@dataclass
class Footage:
    """One check of all cameras. anchors: episode -> how many images its rows' time stamps span, if they lie on the image grid.

    strays: rows that meta/ assigns to no episode. unread: data files that are missing or damaged. findings: the result.
    """

    files: Files
    meta: Metadata
    look: Look
    anchors: Mapping[int, int] = field(default_factory=dict)
    strays: int = 0
    unread: Collection[str] = ()
    findings: list[Finding] = field(default_factory=list)
    _places: VideoPlaces = field(init=False)
    _miscounted: dict[tuple[str, str], list[tuple[int, str]]] = field(default_factory=dict)
    _many: dict[tuple[str, Severity, str, str], None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._places = VideoPlaces(self.files, self.meta)

    def examine(self) -> list[Finding]:
        """Returns the faults of the videos and images of every camera."""
        for camera in self.meta.all_cameras:
            feature = self.meta.features[camera]
            if feature.get("dtype") == "image":
                self._examine_cells(camera, feature)
            elif not is_depth(feature):
                self._examine_videos(camera, feature)
        self._check_cameras_apart()
        for (camera, code), videos in self._miscounted.items():
            episode, first = videos[0]
            more = f"; also the films of {count_noun(len(videos) - 1, 'more episode')}, next {videos[1][0]}" if len(videos) > 1 else ""
            self.findings.append(Finding(code, "error", f"{camera}: {first}{more}", episode))
        return [*self.findings, *joined_findings(self._many)]

    def _check_cameras_apart(self) -> None:
        """Adds a finding if two cameras have the same video."""
        owner = {name: camera for camera in self.meta.all_cameras for name in self.meta.video_names(camera)}
        for names in self._places.same_files():
            one, other = names[0], next((name for name in names if owner.get(name) != owner.get(names[0])), "")
            if other:
                self._many[("video-copy", "warning", "is the same file as another camera's film", f"{one}, {other}:")] = None

    def _say(self, code: str, severity: Severity, message: str, episode: int | None = None) -> None:
        self.findings.append(Finding(code, severity, message, episode))

    def _gather(self, code: str, severity: Severity, what: str, name: str) -> None:
        """Adds a finding for a fault that many files may have: it names the first file and the number of others."""
        self._many.setdefault((code, severity, what, name))

    # videos ------------------------------------------------------------------------------------------------------------

    def _examine_videos(self, camera: str, feature: Mapping[str, Any]) -> None:
        names = sorted(self.meta.video_names(camera))
        absent = [name for name in names if self.files.repo is not None and not (self.files.root / name).exists()]
        if absent:
            where = "on the Hub" if self.files.remote is None else "at the address"
            self._say("not-downloaded", "note", f"{camera}: {len(absent)} of {len(names)} videos are {where} only and were not examined")
        doubts = self._places.doubts(camera)
        for code, words in doubts.odd.items():
            self._say(code, "error" if code == "video-choice" else "warning", words)
        for name in sorted(set(names) - set(absent)):
            parts = self.meta.video_parts[name]
            try:
                path = self.files.path(name)
                self._compare(name, probe(path), feature)
                video = video_index(path, self.meta.fps)
            except DataError as error:
                self._say("video-file", "error", str(error), parts[0].episode if len(parts) == 1 else None)
                continue
            placements = self._places.placed(camera, name, video, self.strays)
            if name not in doubts.refused:
                self._check_parts(camera, name, parts, placements)
            step = max((one.step for one in placements.values()), default=1)
            if fault := unsteady(video.stamps, self.meta.fps * step):
                self._say("video-times", "error", f"video {path} {fault}", parts[0].episode if len(parts) == 1 else None)
                continue
            for part in parts:
                if part.length and not placements[part.episode].fault:
                    self._examine_part(camera, part, placements[part.episode], video, path)

    def _examine_part(self, camera: str, part: Part, placement: Placed, video: VideoIndex, path: Path) -> None:
        name = self.meta.episodes[part.episode].videos[camera].path
        stamps = video.stamps[((placement.first + np.arange(min(part.length, placement.count))) * placement.step)[: len(video.stamps)]]
        if placement.count == part.length == self.anchors.get(part.episode) == len(stamps):
            self._check_pause(camera, name, part.episode, stamps)
        if len(stamps) and self.look != "none":
            self._decode(camera, part.episode, VideoFrames(path, stamps, self.meta.fps, _own_stamps), name)

    def _check_pause(self, camera: str, name: str, episode: int, stamps: np.ndarray) -> None:
        """Adds a finding if the rows' time stamps are even and those of the images are not."""
        if words := pause(stamps, np.arange(len(stamps)) / self.meta.fps, self.meta.fps):
            self._say("video-pause", "warning", f"{camera}: {name}: {words}", episode)

    def _compare(self, name: str, info: VideoInfo, feature: Mapping[str, Any]) -> None:
        size = image_size(feature)
        if size is not None and size != (info.height, info.width):
            self._gather("video-size", "error", f"is {info.height} x {info.width} (H x W), info.json says {size[0]} x {size[1]}", name)
        if abs(info.fps - self.meta.fps) > 5e-4 * self.meta.fps:
            self._gather("video-fps", "error", f"has {info.fps:g} frames per second, info.json says {self.meta.fps:g}", name)
        info_codec = codec(feature)
        if info_codec is not None and info_codec != info.codec:
            self._gather("video-codec", "warning", f"is {info.codec}, info.json says {shown(info_codec)[1:-1]}", name)

    def _check_parts(self, camera: str, name: str, parts: Sequence[Part], placements: Mapping[int, Placed]) -> None:
        if late := next((each.note for each in placements.values() if each.note), ""):
            self._gather("video-start", "warning", f"starts late: {late}", name)
        if surplus := next((each.spared for each in placements.values() if each.spared), ""):
            self._gather("video-spare", "warning", surplus, name)
        if order := next((each.order for each in placements.values() if each.order), ""):
            self._gather("video-order", "warning", f"is in another order: {order}", name)
        rows = sum(part.length for part in parts)
        if len(parts) == 1:
            self._check_alone(camera, name, parts[0], placements[parts[0].episode])
            return
        faults = {each.fault for each in placements.values() if each.fault}
        if len(faults) == 1 and all(each.fault for each in placements.values()):
            fault = faults.pop()
            code = "video-short" if "shorter" in fault else "video-more" if "holds " in fault else "video-span"
            self._say(code, "error", f"{camera}: {name} {fault} ({rows} rows in all)")
            return
        stop = -1.0
        for part in sorted(parts, key=lambda part: part.start_s or 0.0):
            fault, start = placements[part.episode].fault, part.start_s
            if fault and start is not None:
                overlaps = start < stop - TENTH / self.meta.fps
                self._say("video-overlap" if overlaps else "video-span", "error", f"{camera}: {name}: {fault}", part.episode)
            elif (
                start is not None
                and part.stop_s is not None
                and abs(part.stop_s - start - part.length / self.meta.fps) > 0.5 / self.meta.fps
            ):
                message = f"[{start:.3f}, {part.stop_s:.3f}) s is not {count_noun(part.length, 'frame')} long at {self.meta.fps:g} fps"
                self._say("video-span", "error", f"{camera}: {message}", part.episode)
            stop = max(stop, (start or 0.0) + part.length / self.meta.fps)

    def _check_alone(self, camera: str, name: str, part: Part, placement: Placed) -> None:
        """Checks a video of one episode: only the number of images decides, whatever times meta/ has."""
        if placement.count != part.length and self.anchors.get(part.episode) != placement.count:
            kind = "video-short" if placement.count < part.length else "video-more"
            self._miscounted.setdefault((camera, kind), []).append((part.episode, f"{name} {miscounted(placement.count, part.length)}"))
        elif part.start_s is not None and (abs(part.start_s * self.meta.fps - part.before) > TENTH or _is_off(part, self.meta.fps)):
            self._gather("video-span", "warning", "is one episode's alone; meta/ says other times than its own, which are not needed", name)

    # images ---------------------------------------------------------------------------------------------------------

    def _examine_cells(self, camera: str, feature: Mapping[str, Any]) -> None:
        reader = RowReader()
        episodes = self.meta.episodes.values()
        records = [r for r in episodes if r.data and r.data not in self.unread and r.length and not r.fault]
        deep = self._is_deep(camera, records, reader) if may_be_depth(feature) or is_depth(feature) else False
        if deep:
            self._say("depth", "note", f"{camera} measures distances, or may: it is no camera unless it is asked for by name")
        for name in sorted({record.data for record in records}) if self.look != "all" else ():
            self._check_nulls(camera, name)
        for record in records if self.look == "all" or (self.look == "some" and not deep) else ():
            frames = ImageFrames(
                reader, partial(self.files.path, record.data), self.files.path, record.index, camera, record.length, bool(deep)
            )
            self._decode(camera, record.index, frames, record.data)

    def _check_nulls(self, camera: str, name: str) -> None:
        try:
            count, episode = null_images(self.files.path(name), camera)
        except DataError:
            return  # the file is reported where its rows are looked at
        if count:
            self._say(
                "picture-missing", "error", f"{name}: {count_noun(count, 'row')} without a picture of {camera} (an empty cell)", episode
            )

    def _is_deep(self, camera: str, records: Sequence[EpisodeRecord], reader: RowReader) -> bool:
        for record in records:
            try:
                return is_deep(reader.episode(self.files.path(record.data), record.index, [camera])[camera], self.files.path) is not False
            except DataError:
                continue
        return True

    def _decode(self, camera: str, episode: int, frames: Frames, name: str) -> None:
        """Decodes the first, a middle and the last image, or all. It stops at the first error of an episode."""
        try:
            brightest, first, is_same = 0, None, True
            for images in self._images(frames):
                brightest = max(brightest, int(images.max()))
                first = images[0].astype(np.int16) if first is None else first
                is_same = is_same and _is_same(images, first)
                size = image_size(self.meta.features[camera])
                if size is not None and images.shape[1:3] != size:
                    self._size(camera, images.shape[1:3], size, name)
        except DataError as error:
            if isinstance(frames, VideoFrames):
                self._say("video-damaged", "error", f"{error}; frame {self._broken(frames)} of the episode cannot be read", episode)
            else:
                self._say("picture-damaged", "error", str(error), episode)
            return
        subject = "all pictures are" if self.look == "all" else "the first, middle and last pictures are"
        if brightest <= BLACK and len(frames) > 1:
            self._say("black", "warning", f"{camera}: {subject} black", episode)
        elif is_same and len(frames) >= REPEATED:
            self._say("frozen", "warning", f"{camera}: {subject} the same: the camera stood still, or nothing moved", episode)

    def _broken(self, frames: VideoFrames) -> int:
        """Returns the first frame that cannot be read, of those that are looked at."""
        frame = 0
        try:
            for frame in self._looked_at(len(frames)) if self.look != "all" else ():
                frames[np.array([frame])]
            for _ in frames.chunks(1) if self.look == "all" else ():
                frame += 1
        except DataError:
            return frame
        return frame

    def _looked_at(self, count: int) -> list[int]:
        return sorted({0, (count - 1) // 2, count - 1})

    def _images(self, frames: Frames) -> Iterator[np.ndarray]:
        if self.look == "all":
            yield from frames.chunks(32)
        else:
            yield frames[np.array(self._looked_at(len(frames)))]

    def _size(self, camera: str, actual: tuple[int, ...], size: tuple[int, int], name: str) -> None:
        if self.meta.features[camera].get("dtype") == "image":
            self._gather(
                "picture-size", "error", f"has pictures of {actual[0]} x {actual[1]} (H x W), info.json says {size[0]} x {size[1]}", name
            )
        elif actual == size[::-1]:
            words = f"is turned by its track: pictures come as {actual[0]} x {actual[1]} (H x W), as LeRobot turns them; info.json says "
            self._gather("video-turned", "warning", f"{words}{size[0]} x {size[1]}", name)


def _own_stamps(video: VideoIndex, times: np.ndarray) -> np.ndarray:
    """Returns the time stamps of a video's own images unchanged."""
    return times


def _is_same(images: np.ndarray, first: np.ndarray) -> bool:
    """Returns whether these images (N, H, W, 3) are the first one again. first: int16."""
    return images.shape[1:] == first.shape and bool(((np.abs(images - first) > ALIKE).mean((1, 2, 3)) <= FEW).all())


def _is_off(part: Part, fps: float) -> bool:
    return part.stop_s is not None and part.start_s is not None and abs(part.stop_s - part.start_s - part.length / fps) > 0.5 / fps
