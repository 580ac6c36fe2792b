"""A LeRobot dataset (v3.0 or v2.1; mp4 or pictures in parquet; a folder or a Hub repository) as a `types.Dataset`.

Opening reads meta/ only; an episode reads its own rows; pictures are read when their frame numbers are asked for. Writes nothing.
Rows that do not fit together (frame numbers, time stamps, counts) are refused, never repaired.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from milepost.hub import Files, find_files
from milepost.metadata import EpisodeRecord, Metadata, VideoSpan, read_metadata, read_proportions
from milepost.parquet import ImageFrames, RowReader, to_numpy
from milepost.stages import Stages
from milepost.types import DataError, Episode, Frames
from milepost.video import VideoFrames

STATE = "observation.state"
_BOOKKEEPING = ("frame_index", "episode_index", "index", "task_index")


class LeRobotDataset:
    """Episodes of a LeRobot dataset, by position: `dataset[0]`, `len(dataset)`, `for episode in dataset`. See `open_dataset`."""

    def __init__(self, files: Files, meta: Metadata, *, episodes: Sequence[int], cameras: Sequence[str]) -> None:
        self._files = files
        self._meta = meta
        self._chosen = tuple(episodes)
        self._cameras = tuple(cameras)
        self._rows = RowReader()
        self._pictures = {camera: RowReader() for camera in cameras}

    @property
    def name(self) -> str:
        """The Hub id, or the folder's name."""
        return self._files.name

    @property
    def root(self) -> Path:
        """The folder with meta/ in it. For a Hub dataset it is inside the Hub's cache: do not write there."""
        return self._files.root

    @property
    def is_local(self) -> bool:
        """Is `root` the user's own folder, and not the Hub's cache?"""
        return self._files.repo is None

    @property
    def files(self) -> Files:
        """Where its files are, and how they are downloaded."""
        return self._files

    @property
    def meta(self) -> Metadata:
        """What meta/ said when it was opened, of all episodes, in use or not."""
        return self._meta

    @property
    def version(self) -> str:
        """LeRobot's codebase version, "v3.0" or "v2.1"."""
        return self._meta.version

    @property
    def fps(self) -> float:
        return self._meta.fps

    @property
    def tasks(self) -> tuple[str, ...]:
        """The instructions, in the order of their task index."""
        return tuple(self._meta.tasks.values())

    @property
    def cameras(self) -> tuple[str, ...]:
        """Full keys of the cameras in use, in the order of info.json."""
        return self._cameras

    @property
    def episode_indices(self) -> tuple[int, ...]:
        """The dataset's numbers of the episodes in use, by position."""
        return self._chosen

    @property
    def total_frames(self) -> int:
        """Frames of the episodes in use."""
        return sum(self._meta.episodes[number].length for number in self._chosen)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over everything that defines the frames of the whole dataset, whichever episodes and cameras are in use.

        fps, features, each episode's number, length and tasks, and the data and video files' names, sizes and samples of their bytes (of a
        Hub dataset the commit instead). Annotations, proportions, progress and weights are not in it.
        """
        meta = self._meta
        records = [(record.index, record.length, list(record.tasks)) for record in meta.episodes.values()]
        about = {"fps": meta.fps, "features": meta.features, "episodes": records, "files": self._files.commit or self._contents()}
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def footage_fingerprint(self) -> str:
        """As `fingerprint`, but not over the tables of frames, which annotating may add a column to. Pictures kept in them do not count."""
        records = [(record.index, record.length, list(record.tasks)) for record in self._meta.episodes.values()]
        about = {
            "fps": self.fps,
            "cameras": list(self._meta.cameras),
            "episodes": records,
            "files": self._files.commit or self._contents(False),
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]

    def _contents(self, tables: bool = True) -> list[tuple[str, int, str]]:
        records = self._meta.episodes.values()
        names = {span.path for record in records for span in record.videos.values()}
        names |= {record.data for record in records} if tables else set()
        paths = {name: self._files.path(name) for name in sorted(names)}
        return [(name, *_sampled(path)) if path.is_file() else (name, -1, "") for name, path in paths.items()]

    def __len__(self) -> int:
        return len(self._chosen)

    def __iter__(self) -> Iterator[Episode]:
        return (self.episode(number) for number in self._chosen)

    def __getitem__(self, index: int) -> Episode:
        """The episode at this position (negative from the end). DataError if its rows are damaged or do not fit meta/."""
        return self.episode(self._chosen[index])

    def episode(self, episode_index: int) -> Episode:
        """The episode with this number in the dataset. DataError as for `[position]`, and for an unknown number."""
        record = self._record(episode_index)
        rows = self._read_rows(record)
        read = {name: to_numpy(f"episode {record.index}, {name}", rows[name]) for name in rows.column_names}
        columns = {name: column for name, column in read.items() if column is not None}
        times = np.asarray(columns.get("timestamp", np.arange(record.length) / self.fps), np.float64).reshape(-1)
        return Episode(
            index=record.index,
            row=record.row,
            task=self._task(record, columns.get("task_index")),
            fps=self.fps,
            length=record.length,
            state=_state(columns.get(STATE), record.length),
            cameras={camera: self._frames(camera, record, times) for camera in self._cameras},
            segments=record.segments,
            columns={name: column for name, column in columns.items() if name not in (STATE, *_BOOKKEEPING)},
            facts=record.facts,
        )

    def row_range(self, episode_index: int) -> tuple[int, int]:
        """The dataset rows [start, stop) of the episode with this number."""
        record = self._record(episode_index)
        return record.row, record.row + record.length

    def length(self, episode_index: int) -> int:
        """Frames of the episode with this number, without reading its rows."""
        return self._record(episode_index).length

    def task_of(self, episode_index: int) -> str:
        """What meta/ says the (first) task of the episode with this number is, without reading its rows; "" if it says nothing."""
        return next(iter(self._record(episode_index).tasks), "")

    def facts_of(self, episode_index: int) -> Mapping[str, Any]:
        """`Episode.facts` of the episode with this number, without reading its rows."""
        return self._record(episode_index).facts

    def image_size(self, camera: str) -> tuple[int, int]:
        """(height, width) of a camera's pictures as info.json tells it, without reading one."""
        _require_cameras([camera], self._cameras)
        return self._meta.image_size(camera)

    def proportions(self, head: str) -> dict[str, float] | None:
        """Stage name -> mean share of an episode, from meta/temporal_proportions_{head}.json; None if there is none."""
        return read_proportions(self.root, head)

    @property
    def stages(self) -> dict[str, Stages]:
        """Head ("sparse", "dense") -> its stages and their usual shares, for the heads that have a proportions file."""
        found = {head: self.proportions(head) for head in ("sparse", "dense")}
        return {head: Stages.from_proportions(shares) for head, shares in found.items() if shares}

    def _record(self, episode_index: int) -> EpisodeRecord:
        if episode_index not in self._meta.episodes:
            raise _unknown_episode(episode_index, self._meta)
        return self._meta.episodes[episode_index]

    def _read_rows(self, record: EpisodeRecord) -> pa.Table:
        path = self._files.path(record.data)
        rows = self._rows.episode(path, record.index)
        who = f"parquet file {path}: episode {record.index}"
        if rows.num_rows != record.length:
            raise DataError(f"{who} has {rows.num_rows} rows, meta/ says {record.length}; copy or download the dataset again")
        for name, first in (("frame_index", 0), ("index", record.row)):
            if name not in rows.column_names:
                raise DataError(f"{who} has no column '{name}'; it is not a LeRobot data file")
            found = rows[name].to_numpy()
            if not np.array_equal(found, np.arange(first, first + record.length)):
                raise DataError(
                    f"{who}: '{name}' should run from {first} to {first + record.length - 1} one by one, it runs from {found[0]} "
                    f"to {found[-1]}; the rows are shuffled, repeated or missing"
                )
        return rows

    def _task(self, record: EpisodeRecord, task_index: np.ndarray | None) -> str:
        number = -1 if task_index is None else int(task_index.reshape(-1)[0])
        if number in self._meta.tasks:
            return self._meta.tasks[number]
        if not record.tasks:
            raise DataError(f"episode {record.index}: its task number {number} is not in meta/tasks, which has {list(self._meta.tasks)}")
        return record.tasks[0]

    def _frames(self, camera: str, record: EpisodeRecord, times: Float[np.ndarray, "T"]) -> Frames:
        if camera not in record.videos:
            path = partial(self._files.path, record.data)
            return ImageFrames(self._pictures[camera], path, self._files.path, record.index, camera, record.length)
        span = record.videos[camera]
        _require_times(times, span, who=f"episode {record.index}, camera '{camera}'", fps=self.fps)
        return VideoFrames(partial(self._files.path, span.path), span.start_s + times, self.fps)


def open_dataset(
    folder_or_repo: str | Path,
    *,
    revision: str | None = None,
    episodes: Sequence[int] | None = None,
    cameras: Sequence[str] | None = None,
) -> LeRobotDataset:
    """Open a LeRobot dataset (v3.0 or v2.1) to read: a local folder or, if there is none of that name, the Hub's "owner/name".

    revision: branch, tag or commit on the Hub. episodes: their numbers, in the order wanted; all if None. cameras: full keys.
    Of a Hub dataset only meta/ is downloaded here; data and video files follow one by one when an episode needs them.
    DataError if there is no such dataset, it is of another version, damaged or empty, or an episode or camera is unknown.

        dataset = open_dataset("lerobot/pusht", episodes=[0, 1])
        images = dataset[0].cameras[dataset.cameras[0]][np.array([0, 10, 20])]  # (3, H, W, 3) uint8
    """
    files = find_files(folder_or_repo, revision)
    meta = read_metadata(files.root)
    chosen = list(meta.episodes) if episodes is None else list(dict.fromkeys(int(number) for number in episodes))
    if not chosen:
        raise DataError(f"no episode of {files.name} is chosen; it has {len(meta.episodes)}")
    for number in chosen:
        if number not in meta.episodes:
            raise _unknown_episode(number, meta)
    _require_cameras(cameras or (), meta.cameras)
    used = meta.cameras if cameras is None else [camera for camera in meta.cameras if camera in cameras]
    return LeRobotDataset(files, meta, episodes=chosen, cameras=used)


def _sampled(path: Path, blocks: int = 16, block: int = 4096) -> tuple[int, str]:
    """Size, and a hash of blocks spread evenly over the file, first and last included: a few milliseconds, however large the file."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for start in np.unique(np.linspace(0, max(0, size - block), blocks).astype(np.int64)):
            file.seek(int(start))
            digest.update(file.read(block))
    return size, digest.hexdigest()[:16]


def _state(column: np.ndarray | None, length: int) -> Float[np.ndarray, "T S"]:
    if column is None:
        return np.zeros((length, 0), np.float32)
    return column.reshape(length, -1).astype(np.float32)


def _require_cameras(cameras: Sequence[str], known: Sequence[str]) -> None:
    for camera in cameras:
        if camera not in known:
            raise DataError(f"no camera '{camera}'; this dataset has: {', '.join(known) or 'none'}")


def _require_times(times: Float[np.ndarray, "T"], span: VideoSpan, *, who: str, fps: float) -> None:
    """Time stamps that ascend and stay inside the episode's part of the mp4: beyond it lie another episode's pictures."""
    if not np.all(np.isfinite(times)) or np.any(np.diff(times) <= 0):
        frame = int(np.argmax(~(np.diff(times, prepend=-np.inf) > 0)))
        raise DataError(f"{who}: the time stamps must ascend, at frame {frame} they do not ({times[frame]} s)")
    half = 0.5 / fps
    if times[0] < -half or (span.stop_s is not None and span.start_s + times[-1] > span.stop_s + half):
        raise DataError(
            f"{who}: the video is shorter than its rows: rows are stamped {times[0]:.4f} to {times[-1]:.4f} s, the episode's part "
            f"of {span.path} is {span.start_s:.4f} to {span.stop_s} s; meta/episodes and data do not belong together"
        )


def _unknown_episode(number: int, meta: Metadata) -> DataError:
    known: Mapping[int, EpisodeRecord] = meta.episodes
    return DataError(f"no episode {number}; this dataset has {len(known)}, numbered {min(known)} to {max(known)}")
