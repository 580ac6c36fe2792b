"""A LeRobot dataset (v3.0 or v2.1; mp4 or images in parquet; a folder or a Hub repository) as a `types.Dataset`.

Opening reads meta/ only, an episode reads its own rows, and images are decoded when they are indexed. Nothing here writes.
If meta/ names the wrong file for rows, they are found in the data, with a DataWarning. Rows that contradict each other (counters, time
stamps, row counts) are refused and never repaired: UnreadableError, for that episode alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from milepost.core import (
    DataError,
    Episode,
    Frames,
    Segment,
    Stages,
    UnreadableError,
    brief_text,
    names_of,
    require_cameras,
)
from milepost.datasets.cells import ImageFrames
from milepost.datasets.choice import episode_numbers, one_number
from milepost.datasets.episode_arrays import Numbers
from milepost.datasets.features import may_be_depth
from milepost.datasets.fingerprints import fingerprint, footage_fingerprint
from milepost.datasets.frames import DatasetWarner, VideoPlaces, default_cameras
from milepost.datasets.hub import Files, find_files
from milepost.datasets.metadata import read_metadata, read_proportions
from milepost.datasets.owned import protect
from milepost.datasets.parquet import RaggedError, RowReader, to_numpy
from milepost.datasets.per_frame import one_a_row, require_rising, state_of
from milepost.datasets.records import EpisodeRecord, Metadata, no_episode
from milepost.datasets.rows import Settled, settle

STATE = "observation.state"
_BOOKKEEPING = ("frame_index", "episode_index", "index", "task_index")


class LeRobotDataset:
    """The episodes of a LeRobot dataset by position: `dataset[0]`, `len(dataset)`, `for episode in dataset`. See `open_dataset`.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> dataset = milepost.open_dataset("dots")
    >>> len(dataset), dataset.cameras, dataset[1].index
    (6, ('observation.images.top',), 1)
    """

    def __init__(self, files: Files, meta: Metadata, *, episodes: Sequence[int], cameras: Sequence[str]) -> None:
        self._files = files
        self._hints = meta
        self._chosen = episodes if isinstance(episodes, Numbers) else tuple(episodes)
        self._cameras = tuple(cameras)
        self._rows = RowReader((*meta.all_cameras, *meta.language_columns))
        self._image_readers = {camera: RowReader() for camera in cameras}
        self._settled: Settled | None = None
        self._searched = False
        self._say = DatasetWarner(files.name)
        self._video_places = VideoPlaces(files, meta)

    def __repr__(self) -> str:
        facts = {"name": self.name, "episodes": len(self), "frames": self.total_frames, "fps": self.fps}
        return brief_text("LeRobotDataset", {**facts, "tasks": self.tasks, "cameras": self.cameras})

    @property
    def name(self) -> str:
        """Returns the Hub id, or the name of the folder."""
        return self._files.name

    def showing(self, cameras: Sequence[str]) -> LeRobotDataset:
        """Returns the dataset with these cameras in use too, if they measure distances: such cameras are in use only by name."""
        depth = [camera for camera in cameras if camera not in self._cameras and camera in self._hints.all_cameras]
        both = (*self._cameras, *depth)
        return LeRobotDataset(self._files, self._hints, episodes=self._chosen, cameras=both) if depth else self

    def only(self, episodes: Sequence[int]) -> LeRobotDataset:
        """Returns the dataset with these episodes alone, by index. DataError if there is no such episode here."""
        for index in episodes:
            if index not in self._chosen:
                raise no_episode(index, self._chosen)
        return LeRobotDataset(self._files, self._hints, episodes=list(episodes), cameras=self._cameras)

    def choose_cameras(self, names: Sequence[str] = (), *, flag: str, most: int | None = None) -> tuple[str, ...]:
        """Returns the named cameras, else those in use, or the first `most` of them. flag: the option that names one, for the message.

        Raises DataError if there is no camera, or none of that name.
        """
        require_cameras(names, self._cameras, hint=f"choose with {flag}")
        if not self._cameras:
            depth = ", ".join(self._hints.all_cameras)
            hint = f"; distances are looked at, as grey, if they are named with {flag}: {depth}" if depth else ""
            raise DataError(f"{self.name} has no camera, so there is nothing to show{hint}")
        return tuple(names) or self._cameras[:most]

    @property
    def root(self) -> Path:
        """Returns the folder with meta/. That of a Hub dataset is inside the Hub's cache: do not write there."""
        return self._files.root

    @property
    def is_local(self) -> bool:
        """Returns whether `root` is the user's own folder and not in the Hub's cache."""
        return self._files.repo is None

    @property
    def files(self) -> Files:
        """Returns the object that finds and downloads the files."""
        return self._files

    @property
    def meta(self) -> Metadata:
        """Returns meta/ as it was when the dataset was opened, with all episodes and the checked places of their rows."""
        episodes = self._places().episodes
        return self._hints if episodes is self._hints.episodes else replace(self._hints, episodes=episodes)

    @property
    def hints(self) -> Metadata:
        """Returns meta/ as it is on disk; the places of rows are unchecked."""
        return self._hints

    @property
    def say(self) -> DatasetWarner:
        """Returns the object that warns once of each kind of fault."""
        return self._say

    @property
    def version(self) -> str:
        """Returns LeRobot's codebase version of the layout, "v3.0" or "v2.1"."""
        return self._hints.version

    @property
    def fps(self) -> float:
        return self._hints.fps

    @property
    def tasks(self) -> tuple[str, ...]:
        """Returns the instructions in the order of task_index."""
        return tuple(self._hints.tasks.values())

    @property
    def cameras(self) -> tuple[str, ...]:
        """Returns the full keys of the cameras in use, in the order of info.json."""
        return self._cameras

    @property
    def episode_indices(self) -> Sequence[int]:
        """Returns the episode_index of each episode in use, by position: a tuple, or `Numbers`, which is read like one."""
        return self._chosen

    @property
    def total_frames(self) -> int:
        """Returns the number of frames of the episodes in use."""
        return int(self._hints.arrays.length[self._hints.arrays.places(self._chosen)].sum())

    @property
    def row_ranges(self) -> tuple[Int[np.ndarray, "E"], Int[np.ndarray, "E"]]:
        """Returns the first row of each episode in use, by position, and the one after its last."""
        arrays = self.meta.arrays
        places = arrays.places(self._chosen)
        return arrays.row[places], arrays.row[places] + arrays.length[places]

    @cached_property
    def fingerprint(self) -> str:
        """Returns 16 hex digits that change with the frames of the whole dataset; the choice of episodes and cameras has no influence.

        They are computed from fps, features, each episode's index, length and tasks, and the names, sizes and sampled bytes of the data and
        video files (of a Hub dataset, its commit). Annotations, proportions, progress and weights have no influence.
        """
        return fingerprint(self._files, self._hints)

    @cached_property
    def footage_fingerprint(self) -> str:
        """Returns a fingerprint as `fingerprint` does, but without the data files, to which an annotation may add a column.

        Images inside data files have no influence either.
        """
        return footage_fingerprint(self._files, self._hints)

    def __len__(self) -> int:
        return len(self._chosen)

    def __iter__(self) -> Iterator[Episode]:
        return (self.episode(index) for index in self._chosen)

    @overload
    def __getitem__(self, index: int) -> Episode: ...
    @overload
    def __getitem__(self, index: slice) -> LeRobotDataset: ...
    def __getitem__(self, index: int | slice) -> Episode | LeRobotDataset:
        """Returns the episode at a position, or a slice as a dataset. IndexError if there is none, UnreadableError for damaged rows."""
        if isinstance(index, slice):
            return self.only(self._chosen[index])
        position, count = one_number(index), len(self)
        if not -count <= position < count:
            raise IndexError(f"no episode at position {position}; {self.name} has {count}, at positions 0 to {count - 1}")
        return self.episode(self._chosen[position])

    def refresh(self) -> None:
        """Reads meta/ again: annotations that were written since the dataset was opened are in its episodes from now on."""
        self._hints, self._settled, self._searched = read_metadata(self.root), None, False
        self._video_places = VideoPlaces(self._files, self._hints)

    def episode(self, episode_index: int) -> Episode:
        """Returns the episode of this episode_index. Raises UnreadableError as `[position]` does, DataError for an unknown index."""
        self._record(episode_index)
        try:
            return self._episode(self._places().episodes[episode_index])
        except DataError as error:
            raise UnreadableError(str(error)) from error

    def _episode(self, record: EpisodeRecord) -> Episode:
        self._say_of_annotation(record)
        record, rows = self._read_rows(record)
        columns = self._columns(record, rows)
        times = np.asarray(columns.get("timestamp", np.arange(record.length) / self.fps), np.float64).reshape(-1)
        require_rising(times, who=f"episode {record.index}")
        instructions = self._instructions(record, columns.get("task_index"))
        return Episode(
            index=record.index,
            row=record.row,
            task=instructions[0].name if instructions else self._task(record, columns.get("task_index")),
            fps=self.fps,
            length=record.length,
            state=state_of(columns.get(STATE), record.length),
            cameras={camera: frames for camera in self._cameras if (frames := self._frames(camera, record, times)) is not None},
            segments=record.readable_segments,
            annotation_faults=record.annotation_faults,
            columns={name: column for name, column in columns.items() if name not in (STATE, *_BOOKKEEPING)},
            facts=record.facts,
            instructions=instructions,
        )

    def _say_of_annotation(self, record: EpisodeRecord) -> None:
        for kind, head, reason in record.remarks:
            self._say(f"{kind} {head}", f"episode {record.index}, {head}: {reason} (milepost info lists all such episodes)")

    def row_range(self, episode_index: int) -> tuple[int, int]:
        """Returns the dataset rows [start, stop) of an episode."""
        self._record(episode_index)
        record = self._places().episodes[episode_index]
        return record.row, record.row + record.length

    def length(self, episode_index: int) -> int:
        """Returns the number of frames of an episode without reading its rows."""
        return self._record(episode_index).length

    def task_of(self, episode_index: int) -> str:
        """Returns the (first) task of an episode in meta/, without reading its rows; "" if meta/ has none."""
        return next(iter(self._record(episode_index).tasks), "")

    def facts_of(self, episode_index: int) -> Mapping[str, Any]:
        """Returns the `Episode.facts` of an episode without reading its rows."""
        return self._record(episode_index).facts

    def image_size(self, camera: str) -> tuple[int, int]:
        """Returns (height, width) of a camera's images in info.json, without reading one."""
        require_cameras([camera], self._hints.all_cameras)
        return self._hints.image_size(camera)

    def proportions(self, head: str) -> dict[str, float] | None:
        """Returns stage name -> proportion, from meta/temporal_proportions_{head}.json; None if there is no such file."""
        return read_proportions(self.root, head)

    @property
    def stages(self) -> dict[str, Stages]:
        """Returns head ("sparse", "dense") -> its stages and proportions, for the heads with a proportions file."""
        by_head = {head: self.proportions(head) for head in ("sparse", "dense")}
        return {head: Stages.from_proportions(proportions) for head, proportions in by_head.items() if proportions}

    def _record(self, episode_index: int) -> EpisodeRecord:
        if one_number(episode_index) not in self._hints.episodes:
            raise no_episode(episode_index, self._hints.episodes)
        return self._hints.episodes[episode_index]

    def _places(self, *, everywhere: bool = False) -> Settled:
        """Returns where the rows are; it is computed on first use. everywhere: also search files that must be downloaded for it."""
        if self._settled is None or (everywhere and not self._searched):
            self._settled = settle(self._files, self._hints, everywhere=everywhere)
            self._searched = everywhere or self.is_local
            for number, message in enumerate(self._settled.warnings):
                self._say(f"places {number} {everywhere}", message)
        return self._settled

    def _read_rows(self, record: EpisodeRecord) -> tuple[EpisodeRecord, pa.Table]:
        """Returns the episode's record and rows, also from another file than meta/ names."""
        if record.fault:
            raise UnreadableError(record.fault)
        if not record.data and self._searched:
            raise UnreadableError(
                f"episode {record.index}: meta/ does not say where its rows are, and no data file has {record.length} rows of it"
            )
        try:
            if not record.data:
                raise UnreadableError("meta/ does not say where its rows are")
            return record, self._checked_rows(record)
        except DataError:
            if self._searched:
                raise
        actual = self._places(everywhere=True).episodes[record.index]
        return actual, self._checked_rows(actual)

    def _checked_rows(self, record: EpisodeRecord) -> pa.Table:
        path = self._files.path(record.data)
        rows = self._rows.episode(path, record.index)
        who = f"parquet file {path}: episode {record.index}"
        if rows.num_rows != record.length and "episode_index" not in rows.column_names:
            raise DataError(f"parquet file {path} has no column 'episode_index'; it is not a LeRobot data file")
        if rows.num_rows != record.length:
            raise DataError(f"{who} has {rows.num_rows} rows, meta/ says {record.length}; copy or download the dataset again")
        by_position = self._places().by_position
        for name, first in (("frame_index", 0), ("index", record.row)):
            if name not in rows.column_names:
                self._say(name, f"the data has no column '{name}' (first seen in episode {record.index}): rows are counted by their order")
                continue
            counter = one_a_row(rows[name], f"{who}, '{name}'")
            if name == "index" and by_position and len(counter) and np.isfinite(counter[0]):
                first = int(counter[0])
            if not np.array_equal(counter, np.arange(first, first + record.length)):
                raise DataError(
                    f"{who}: '{name}' should run from {first} to {first + record.length - 1} one by one, it runs from {counter[0]:.10g} "
                    f"to {counter[-1]:.10g}; the rows are shuffled, repeated or missing"
                )
        return rows

    def _columns(self, record: EpisodeRecord, rows: pa.Table) -> dict[str, np.ndarray]:
        """Returns every column of numbers. A ragged column is left out if no code needs it."""
        columns = {}
        for name in rows.column_names:
            try:
                column = to_numpy(f"episode {record.index}, {name}", rows[name])
            except RaggedError as error:
                if name in (STATE, "action", "timestamp", *_BOOKKEEPING):
                    raise
                self._say(f"column {name}", f"{error}: the column is left out of such episodes")
                continue
            if column is not None:
                columns[name] = column
            elif name in (STATE, "timestamp"):
                raise DataError(f"episode {record.index}: '{name}' should hold numbers, it holds {rows[name].type}")
        return columns

    def _instructions(self, record: EpisodeRecord, task_index: np.ndarray | None) -> tuple[Segment, ...]:
        """Returns the task of each range of frames if there are several tasks; empty for one."""
        if task_index is None or task_index.size != record.length or (task_index == task_index.reshape(-1)[0]).all():
            return ()
        numbers = task_index.reshape(-1)
        edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), record.length]
        words = [self._hints.tasks.get(int(numbers[start]) if np.isfinite(numbers[start]) else -1, "") for start in edges[:-1]]
        if not all(words):
            return ()
        self._say("tasks", f"episode {record.index} has several tasks; `instructions` has which frames have which, `task` is the first")
        return tuple(Segment(word, start, stop) for word, start, stop in zip(words, edges, edges[1:], strict=False))

    def _task(self, record: EpisodeRecord, task_index: np.ndarray | None) -> str:
        first = -1 if task_index is None or not task_index.size else task_index.reshape(-1)[0]
        number = int(first) if np.isfinite(first) else -1
        if number in self._hints.tasks:
            return self._hints.tasks[number]
        if not record.tasks:
            task_indices = ", ".join(map(str, list(self._hints.tasks)[:9])) or "none"
            raise DataError(f"episode {record.index}: its task number {number} is not in meta/tasks, which has {task_indices}")
        return record.tasks[0]

    def _frames(self, camera: str, record: EpisodeRecord, times: Float[np.ndarray, "T"]) -> Frames:
        feature = self._hints.features[camera]
        if feature.get("dtype") == "image":
            path, depth = partial(self._files.path, record.data), camera not in self._hints.cameras or may_be_depth(feature)
            return ImageFrames(self._image_readers[camera], path, self._files.path, record.index, camera, record.length, depth)
        return self._video_places.frames(camera, record, times, strays=self._places().strays, say=self._say)

    def video_start(self, episode_index: int, camera: str) -> float | None:
        """Returns the seconds into its mp4 at which an episode's images begin and from which they follow one another evenly, at the
        dataset's rate.

        None where they do not, or are not known: then a player that is told times would show other images than are read here.
        """
        record = self._places().episodes[episode_index]
        return self._video_places.even_start(camera, record, strays=self._places().strays)


def open_dataset(
    folder_or_repo: str | Path,
    *,
    revision: str | None = None,
    episodes: Sequence[int] | int | str | None = None,
    cameras: Sequence[str] | str | None = None,
) -> LeRobotDataset:
    """Opens a LeRobot dataset (v3.0 or v2.1) for reading: a local folder or, if there is none of that name, the Hub's "owner/name".

    revision: branch, tag or commit on the Hub. episodes: episode indices in the wanted order, or text such as "0-9,12"; all if None.
    cameras: full keys. Of a Hub dataset only meta/ is downloaded here; data and video files are downloaded when an episode needs them.
    Raises DataError if there is no such dataset, if it is of an unknown version, damaged or empty, or if an episode or camera is unknown.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> dataset = milepost.open_dataset("dots", episodes="0-2,5")
    >>> [episode.index for episode in dataset]
    [0, 1, 2, 5]
    """
    protect()
    numbers, cameras = episode_numbers(episodes), None if cameras is None else names_of(cameras)
    files = find_files(folder_or_repo, revision)
    meta = read_metadata(files.root)
    episode_indices = meta.choose(numbers, files.name)
    require_cameras((camera for camera in cameras or () if camera not in meta.all_cameras), meta.cameras)
    in_use = [camera for camera in meta.all_cameras if camera in (cameras or ())]
    dataset = LeRobotDataset(files, meta, episodes=episode_indices, cameras=in_use)
    _warn_of_meta(dataset)
    return dataset if cameras is not None else LeRobotDataset(files, meta, episodes=episode_indices, cameras=default_cameras(files, meta))


def as_dataset(dataset: LeRobotDataset | Path | str) -> LeRobotDataset:
    """Returns the dataset; a folder or a Hub id is opened. DataError for anything else."""
    if isinstance(dataset, str | Path):
        return open_dataset(dataset)
    if not isinstance(dataset, LeRobotDataset):
        raise DataError(f"expected a dataset of milepost.open_dataset, a folder or a Hub id, got {type(dataset).__name__}")
    return dataset


def _warn_of_meta(dataset: LeRobotDataset) -> None:
    """Warns of entries in meta/ that are left out."""
    left_out = [finding.message for finding in dataset.hints.findings if finding.code in ("episodes", "tasks") and finding.episode is None]
    if errors := [message for message in left_out if "left out" in message or ", line " in message]:
        dataset.say("meta", f"{errors[0]} ({len(errors)} in all)")
    total, listed_count = dataset.hints.info.get("total_episodes"), len(dataset.hints.episodes)
    if isinstance(total, int) and total > listed_count:
        dataset.say("total", f"info.json counts {total} episodes, meta/ lists {listed_count}, which are read")
