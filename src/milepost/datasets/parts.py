"""Copies some of a LeRobot v3 dataset: some of its episodes, and of each some of its frames, numbered anew from 0.

Rows are left out of the data files; no video is encoded again. An episode's part of a video begins and ends later or earlier, and meta/ of
the copy counts the images beside it that belong to no row (`videos/CAMERA/unused_before`, `unused_after`), so they can still be counted;
LeRobot needs only the times. Videos and data files of which nothing is left are not copied. The source is never written to, and the copy
appears complete or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int, Shaped

from milepost.core import DataError, atomic_folder, count_noun
from milepost.datasets.choice import import_command
from milepost.datasets.copy import Placing, changed_stamps, copied_names, link_or_copy, require_sound
from milepost.datasets.frames import VideoPlaces
from milepost.datasets.language_rows import LANGUAGE
from milepost.datasets.language_shift import shifted_language
from milepost.datasets.origin import record_origin
from milepost.datasets.owned import require_elsewhere
from milepost.datasets.parquet import guarded, open_parquet
from milepost.datasets.part_meta import OUTCOMES, Range, write_part_meta
from milepost.datasets.reader import LeRobotDataset, open_dataset
from milepost.datasets.records import EpisodeRecord
from milepost.datasets.subtask_index import read_columns
from milepost.datasets.transaction import is_interrupted
from milepost.datasets.video import video_index


def copy_parts(
    folder_or_repo: str | Path, folder: str | Path, ranges: Mapping[int, Range], *, even_damaged: bool = False, revision: str | None = None
) -> list[str]:
    """Copies these frames of these episodes into the new `folder`. ranges: episode_index -> frames [start, stop).

    Annotations, language rows, time stamps and statistics are those of the frames that stay. Returns warnings in words. DataError, before
    anything is written, if the dataset is not v3.0 or damaged, if a range is not one of its episode, if time stamps of an episode that is
    cut are not frame / fps, if the images of its videos cannot be counted, or if the folder is there already or lies in a dataset.
    """
    dataset = open_dataset(folder_or_repo, revision=revision)
    where = Path(folder).expanduser().absolute()
    require_elsewhere(where, dataset.root)
    if not even_damaged:
        require_sound(folder_or_repo, revision, restamp=False, episodes=ranges)
    parts = Parts.of(dataset, ranges)
    unused = _unused(parts)
    where.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(where) as part:
        for name in _names(parts):
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            if name in parts.tables:
                _write_rows(parts, name, part / name)
            else:
                link_or_copy(dataset.files.path(name), part / name, hard_link=dataset.is_local and not name.startswith("meta/"))
        warnings = write_part_meta(part, dataset, parts.ranges, unused)
        record_origin(part, dataset, is_part=bool(parts.shortened) or len(parts.ranges) < len(dataset.meta.episodes))
    return warnings


def require_parts(dataset: LeRobotDataset, numbers: Sequence[int]) -> None:
    """Raises DataError if the dataset is not v3.0, the only version of which a part can be copied. It names the command that imports it.

    numbers: the episodes that stay.
    """
    if dataset.version != "v3.0":
        left_out = [number for number in dataset.meta.episodes if number not in numbers]
        raise DataError(
            f"{dataset.files.name} is a dataset of version {dataset.version}, and copy leaves episodes or frames out of v3.0 alone; "
            f"this makes v3.0 of it: {import_command(dataset.files, left_out)}"
        )


@dataclass(frozen=True, eq=False)
class Parts:
    """What is copied. ranges: episode_index of the source, ascending -> its frames that stay; the n-th becomes episode n."""

    dataset: LeRobotDataset
    ranges: Mapping[int, Range]

    @classmethod
    def of(cls, dataset: LeRobotDataset, ranges: Mapping[int, Range]) -> Parts:
        """Checks the ranges."""
        files, records = dataset.files, dataset.meta.episodes
        if is_interrupted(files.root):
            raise DataError(f"{files.root}: annotating it was killed while it renamed files; run milepost annotate again first")
        require_parts(dataset, list(ranges))
        dataset.hints.choose(list(ranges), files.name)
        parts = cls(dataset, dict(sorted(ranges.items())))
        for number, (start, stop) in parts.ranges.items():
            if not 0 <= start < stop <= records[number].length or not records[number].data or records[number].fault:
                raise DataError(f"episode {number} has {count_noun(records[number].length, 'frame')}, and [{start}, {stop}) are to stay")
        if parts.shortened and changed_stamps(dataset)[0]:
            raise DataError("time stamps of this dataset are not frame / fps, so frames cannot be cut off by time: add --restamp")
        if faulty := [number for number in parts.shortened if records[number].annotation_faults]:
            raise DataError(f"the annotation of episode {faulty[0]} has a fault, so it cannot be shifted: annotate this episode again")
        return parts

    @cached_property
    def shortened(self) -> tuple[int, ...]:
        """Returns the episodes that lose frames."""
        records = self.dataset.meta.episodes
        return tuple(number for number, span in self.ranges.items() if span != (0, records[number].length))

    @cached_property
    def tables(self) -> dict[str, list[EpisodeRecord]]:
        """Returns data file -> its episodes, those that are left out too; only files of which something stays."""
        used = {self.dataset.meta.episodes[number].data for number in self.ranges}
        tables: dict[str, list[EpisodeRecord]] = {}
        for record in self.dataset.meta.episodes.values():
            if record.data in used:
                tables.setdefault(record.data, []).append(record)
        return tables

    @cached_property
    def new_rows(self) -> Int[np.ndarray, "R 3"]:
        """Returns by dataset row: the new episode_index, frame_index and index; -1 where the row is left out."""
        records = self.dataset.meta.episodes
        out = np.full((max(record.row + record.length for record in records.values()), 3), -1, np.int64)
        row = 0
        for new, (number, (start, stop)) in enumerate(self.ranges.items()):
            first, frames = records[number].row, np.arange(stop - start)
            out[first + start : first + stop] = np.stack([np.full(len(frames), new), frames, row + frames], axis=1)
            row += len(frames)
        return out


def _names(parts: Parts) -> Iterator[str]:
    """Yields the files of the copy that are not made anew in meta/."""
    meta = parts.dataset.meta
    videos = {span.path for number in parts.ranges for span in meta.episodes[number].videos.values()}
    for name in copied_names(parts.dataset.files, meta):
        if name.startswith("meta/episodes/"):
            continue
        if name.startswith(("data/", "videos/")) and name not in parts.tables and name not in videos:
            continue
        yield name


def _unused(parts: Parts) -> dict[str, dict[int, tuple[int, int]]]:
    """Returns camera -> episode -> the images of its video before and after its own that belong to no row of the copy.

    DataError if the images of a video cannot be counted.
    """
    dataset = parts.dataset
    unused: dict[str, dict[int, tuple[int, int]]] = {}
    for camera in (name for name in dataset.meta.all_cameras if dataset.meta.features[name].get("dtype") == "video"):
        by_video: dict[str, list[int]] = {}
        for number in parts.ranges:
            if camera in dataset.meta.episodes[number].lost:
                raise DataError(dataset.meta.episodes[number].lost[camera])
            by_video.setdefault(dataset.meta.episodes[number].videos[camera].path, []).append(number)
        for name, numbers in by_video.items():
            unused.setdefault(camera, {}).update(_beside(parts, camera, name, numbers))
    return unused


def _beside(parts: Parts, camera: str, name: str, numbers: Sequence[int]) -> dict[int, tuple[int, int]]:
    dataset = parts.dataset
    video = video_index(dataset.files.path(name), dataset.fps)
    placed = VideoPlaces(dataset.files, dataset.meta).placed(camera, name, video, strays=0)
    for number in numbers:
        if placed[number].fault:
            raise DataError(f"episode {number}, camera '{camera}': its video {placed[number].fault}")
        if number in parts.shortened and placed[number].count != dataset.length(number):
            raise DataError(
                f"episode {number}, camera '{camera}': {placed[number].count} images for {dataset.length(number)} rows, so no frame can be "
                "cut off"
            )
    out, end = {}, 0
    order = sorted(numbers, key=lambda number: placed[number].first)
    for number in order:
        start, stop = parts.ranges[number]
        first = placed[number].first + start
        out[number] = (first - end, 0)
        end = first + (stop - start if number in parts.shortened else placed[number].count)
    step = placed[order[-1]].step
    out[order[-1]] = (out[order[-1]][0], -(-len(video.stamps) // step) - end)
    if any(min(each) < 0 for each in out.values()):
        raise DataError(f"camera '{camera}': episodes share images of {name}, so what is left of it cannot be counted")
    return out


# Rows ------------------------------------------------------------------------------------------------------------------


def _write_rows(parts: Parts, name: str, new: Path) -> None:
    """Writes the rows of one data file that stay, one row group at a time."""
    path, placing, ends = parts.dataset.files.path(name), Placing(parts.tables[name]), _outcomes(parts, name)
    with open_parquet(path) as file:
        groups = file.metadata.num_row_groups
        codec = file.metadata.row_group(0).column(0).compression if groups else "SNAPPY"
        with pq.ParquetWriter(new, file.schema_arrow, compression="NONE" if codec == "UNCOMPRESSED" else codec) as writer:
            for group in range(groups):
                table = guarded(path, partial(file.read_row_group, group))
                rows = placing.rows(table)
                places = np.where(rows[:, None] >= 0, parts.new_rows[rows], -1)
                stays = places[:, 0] >= 0
                if not stays.any():
                    continue
                table = table.filter(pa.array(stays))
                columns_made = _renumbered(parts, table, places[stays], ends)
                arrays = [columns_made.get(field.name, table[field.name]) for field in file.schema_arrow]
                writer.write_table(pa.table(arrays, schema=file.schema_arrow), row_group_size=max(1, table.num_rows))


def _renumbered(
    parts: Parts, table: pa.Table, places: Int[np.ndarray, "N 3"], ends: Mapping[str, Mapping[int, Any]]
) -> dict[str, pa.Array]:
    """Returns the columns that are other ones in the copy. places: the new episode_index, frame_index and index of each row."""
    numbers = list(parts.ranges)
    owner, frame, index = places.T
    new: dict[str, Shaped[np.ndarray, "N"]] = {"episode_index": owner, "frame_index": frame, "index": index}
    shortened = np.isin(owner, [numbers.index(number) for number in parts.shortened])
    if shortened.any() and "timestamp" in table.column_names:
        stamps = _flat(table["timestamp"]).to_numpy(zero_copy_only=False).astype(np.float64)
        new["timestamp"] = np.where(shortened, frame / parts.dataset.fps, stamps)
    columns_made = {key: _typed(pa.array(values), table.schema.field(key).type) for key, values in new.items() if key in table.column_names}
    lengths = np.array([stop - start for start, stop in parts.ranges.values()])
    for name, by_episode in ends.items():
        values = _flat(table[name]).to_pylist()
        for at in np.flatnonzero(frame == lengths[owner] - 1):
            values[at] = by_episode.get(numbers[owner[at]], values[at])
        kind = table.schema.field(name).type
        columns_made[name] = _typed(pa.array(values, kind if not pa.types.is_nested(kind) else kind.value_type), kind)
    if LANGUAGE in table.column_names and shortened.any():
        spans = [parts.ranges[numbers[each]] if moved else None for each, moved in zip(owner, shortened, strict=True)]
        columns_made[LANGUAGE] = shifted_language(table[LANGUAGE], spans, parts.dataset.fps)
    return columns_made


def _flat(column: pa.ChunkedArray) -> pa.Array:
    """Returns a column of single values, which some files have as lists of one, as plain values."""
    array = column.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    return array.flatten() if pa.types.is_nested(array.type) else array


def _typed(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Returns plain values as a column of this type, which may be a list of one."""
    if not pa.types.is_nested(kind):
        return values.cast(kind, safe=False)
    flat = values.cast(kind.value_type, safe=False)
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(flat, 1).cast(kind)
    return pa.ListArray.from_arrays(pa.array(np.arange(len(flat) + 1), pa.int32()), flat).cast(kind)


def _outcomes(parts: Parts, name: str) -> dict[str, dict[int, Any]]:
    """Returns `next.*` column -> episode of this file whose end is cut off -> the highest value from its last frame on."""
    dataset = parts.dataset
    ended = {number for number in parts.shortened if parts.ranges[number][1] < dataset.length(number)}
    ended &= {record.index for record in parts.tables[name]}
    columns = [
        key
        for key, feature in dataset.meta.features.items()
        if key.startswith(OUTCOMES) and list(feature.get("shape") or [1]) == [1] and feature.get("dtype") != "string"
    ]
    if not ended or not columns:
        return {}
    out: dict[str, dict[int, Any]] = {column: {} for column in columns}
    for record, values in read_columns(dataset.files, dataset.meta, columns):
        if record.index in ended:
            for column in columns:
                out[column][record.index] = values[column][parts.ranges[record.index][1] - 1 :].max().item()
    return out
