"""Reads one entry of meta/episodes into an `EpisodeRecord`: its frames, its tasks, the files of its rows and images.

A fault stays with the episode (`EpisodeRecord.fault`, `lost`) and is said to the caller. Nothing is opened here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from milepost.core import DataError, expand, plausible, shown
from milepost.datasets.features import is_depth
from milepost.datasets.findings import Severity
from milepost.datasets.records import EpisodeRecord, VideoSpan

UNUSED = ("unused_before", "unused_after")
"""Columns `videos/CAMERA/...` of a copy that leaves rows out: how many images beside the episode's own belong to no row."""
Say = Callable[[str, str, int | None, Severity], None]
"""Takes a finding: its code, its words, the episode, the severity."""


def unsaid(code: str, message: str, episode: int | None, severity: Severity) -> None:
    """Says nothing: for entries that were checked before."""


@dataclass(frozen=True)
class EntryReader:
    """What of info.json an entry needs. version: the layout. data_path, video_path: templates. chunks_size: as it stands there."""

    version: str
    fps: float
    features: Mapping[str, Mapping[str, Any]]
    data_path: str
    video_path: str
    chunks_size: Any = 1000

    def record(self, entry: Mapping[str, Any], source: str, say: Say = unsaid) -> EpisodeRecord | None:
        """Returns the entry as a record, with what is wrong in it; None if it does not say which episode it is of."""
        try:
            episode_index = int(plausible("episode_index", entry.get("episode_index"), source=source))
        except DataError as error:
            say("episodes", f"{error}: an entry without a number is left out", None, "error")
            return None
        who = f"{source}: episode {episode_index}"
        length, fault = self._length(entry, who)
        videos, missing_videos, unplaced_videos = {}, {}, {}
        for camera in (key for key, feature in self.features.items() if feature.get("dtype") == "video"):
            try:
                path = self._video_path(entry, camera, episode_index, who)
                unplaced_videos[camera] = path
                videos[camera] = self._span(entry, camera, path, who)
                del unplaced_videos[camera]
            except DataError as error:
                missing_videos[camera] = str(error)
                if not is_depth(self.features[camera]):
                    say("episodes", str(error), episode_index, "error")
        if fault:
            say("no-frames" if fault.endswith("has no frames") else "episodes", fault, episode_index, "error")
        tasks = entry.get("tasks")
        words = (tasks,) if isinstance(tasks, str) else tuple(t for t in tasks if isinstance(t, str)) if isinstance(tasks, list) else ()
        row = whole("row", entry.get("dataset_from_index"))
        data = self._data(entry, episode_index, who, say)
        return EpisodeRecord(
            episode_index, -1 if row is None else row, length, words, data, videos, entry, self.fps, missing_videos, unplaced_videos, fault
        )

    def _length(self, entry: Mapping[str, Any], who: str) -> tuple[int, str]:
        """Returns the frames, and why the episode cannot be read."""
        length, first, stop = (whole("row", entry.get(name)) for name in ("length", "dataset_from_index", "dataset_to_index"))
        if length is None and entry.get("length") is None and first is not None and stop is not None and stop >= first:
            length = stop - first
        if length is None:
            missing = entry.get("length") is None
            return (
                0,
                f"{who} lacks the field 'length'"
                if missing
                else f"{who}: 'length' should be a number of frames, it is {shown(entry['length'])}",
            )
        try:
            plausible("length", length, source=who)
        except DataError as error:
            return 0, str(error)
        return length, "" if length else f"{who} has no frames"

    def _data(self, entry: Mapping[str, Any], episode_index: int, who: str, say: Say) -> str:
        """Returns the data file that the entry names, "" if it names none."""
        try:
            return expand(self.data_path, source=who, **self._place(entry, episode_index, "data", who))
        except DataError as error:
            say("data-place", f"{error}; its rows are looked for in the data", episode_index, "warning")
            return ""

    def _place(self, entry: Mapping[str, Any], episode_index: int, of: str, who: str) -> dict[str, int]:
        if self.version == "v2.1":
            size = whole("chunks_size", self.chunks_size) or 1000
            return {"episode_chunk": episode_index // size, "episode_index": episode_index}
        names = ("chunk_index", "file_index")
        return {name: int(plausible(name, entry.get(f"{of}/{name}"), source=who, name=f"{of}/{name}")) for name in names}

    def _video_path(self, entry: Mapping[str, Any], camera: str, episode_index: int, who: str) -> str:
        key = f"videos/{camera}"
        if self.version == "v3.0" and all(entry.get(f"{key}/{name}") is None for name in ("chunk_index", "file_index")):
            raise DataError(f"{who}: meta/ has no place for camera '{camera}'")
        return expand(self.video_path, source=who, video_key=camera, **self._place(entry, episode_index, key, who))

    def _span(self, entry: Mapping[str, Any], camera: str, path: str, who: str) -> VideoSpan:
        if self.version == "v2.1":
            return VideoSpan(path)
        start, stop = (entry.get(f"videos/{camera}/{name}") for name in ("from_timestamp", "to_timestamp"))
        if not is_time(start):
            raise DataError(f"{who}: 'videos/{camera}/from_timestamp' should be a number of seconds, it is {shown(start)}")
        from_s, to_s = float(start or 0.0), float(stop or 0.0) if is_time(stop) else 0.0
        unused = [entry.get(f"videos/{camera}/{name}") or 0 for name in UNUSED]
        before, after = (int(plausible("length", count, source=who, name=f"videos/{camera}/unused")) for count in unused)
        return VideoSpan(path, from_s, to_s if to_s > from_s else None, (before, after))


def is_time(value: Any) -> bool:
    """Returns whether this is a plausible number of seconds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def whole(kind: str, value: Any) -> int | None:
    """Returns a plausible whole number of this kind; None for anything else."""
    try:
        return int(plausible(kind, value, source=""))
    except DataError:
        return None
