"""LeRobot's other form of subtasks (0.4 to 0.5): a `subtask_index` for every frame in data/, and its words in meta/subtasks.parquet.

The indices are read into segments. They are written on request: data files, info.json and the words are replaced as one (`replacing`), and
every other column and row group stays. The form has one level and cannot repeat a name: two equal neighbours become one segment, and empty
segments are lost. A frame of no segment is -1. Rewriting data changes the dataset's fingerprint, so cached features are computed again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int, Shaped

from milepost.core import SUCCESS, DataError, Segment, ends_well, read_json_object, require_sound_segments, shown
from milepost.datasets.annotation_columns import Annotations
from milepost.datasets.choice import import_command
from milepost.datasets.hub import Files, find_files
from milepost.datasets.metadata import read_metadata
from milepost.datasets.parquet import numbered_words, open_parquet, put_columns, read_parquet, to_numpy
from milepost.datasets.records import EpisodeRecord, Metadata, no_episode
from milepost.datasets.transaction import replacing, require_editable

COLUMN = "subtask_index"
WORDS = "meta/subtasks.parquet"
SUBTASK_FILES = ("meta/info.json", WORDS, "data/**")
"""The files that `write_subtask_index` replaces, as patterns."""


def read_subtask_index(folder_or_repo: str | Path, head: str = "sparse") -> dict[int, dict[str, tuple[Segment, ...]]]:
    """Returns the per-frame subtasks as segments of `head`, without episodes that have none. Raises DataError if no episode has any."""
    files = find_files(folder_or_repo)
    meta = read_metadata(files.root)
    if COLUMN not in meta.features and not (files.root / WORDS).is_file():
        raise DataError(f"{files.name} has no column '{COLUMN}', so its frames have no subtasks of that form")
    words = read_words(files.path(WORDS))
    by_episode = {record.index: segments_of(whole(values[COLUMN]), words) for record, values in read_columns(files, meta, [COLUMN])}
    return {episode_index: {head: segments} for episode_index, segments in by_episode.items() if segments}


def write_subtask_index(folder: str | Path, annotations: Annotations, head: str = "sparse") -> tuple[str, ...]:
    """Writes one head of these annotations as per-frame subtasks. Returns the replaced files, relative to the dataset.

    Other episodes keep their subtasks, and words keep their index; new words are added at the end. Raises DataError, before anything is
    written, if the dataset is not the user's own local v3.0 one, or if a segment does not fit its episode.
    """
    root = require_editable(folder)
    with replacing(root) as new:
        meta = read_metadata(root)
        if meta.version != "v3.0":
            raise DataError(
                f"{root} is a dataset of version {meta.version}; subtask_index belongs to v3.0, and "
                f"this makes v3.0 of it: {import_command(str(root))}"
            )
        segments_of_episodes = {episode_index: heads[head] for episode_index, heads in annotations.items() if head in heads}
        _check(segments_of_episodes, meta)
        old_words = read_words(root / WORDS) if (root / WORDS).is_file() else ()
        words = tuple(dict.fromkeys([*old_words, *(segment.name for segments in segments_of_episodes.values() for segment in segments)]))
        frames = {
            episode_index: index_of(segments, words, meta.episodes[episode_index].length)
            for episode_index, segments in segments_of_episodes.items()
        }
        files = []
        for name in sorted({record.data for record in meta.episodes.values()}):
            put_columns(root / name, new(name), {COLUMN: (pa.int64(), partial(_column, frames=frames))})
            files.append(name)
        info = read_json_object(root / "meta/info.json", what="metadata")
        info["features"][COLUMN] = {"dtype": "int64", "shape": [1], "names": None}
        new("meta/info.json").write_text(json.dumps(info, indent=4, ensure_ascii=False), encoding="utf-8")
        pq.write_table(numbered_words("subtask", words), new(WORDS), compression="snappy")
    return (*files, "meta/info.json", WORDS)


def read_words(path: Path) -> tuple[str, ...]:
    """Returns the words by their index. Raises DataError if the file is missing or has no words."""
    table = read_parquet(path)
    columns = [field.name for field in table.schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    column = next((name for name in ("subtask", "__index_level_0__", *columns) if name in columns), None)
    if column is None:
        raise DataError(f"{path} has no column of words; it has {', '.join(table.column_names)}")
    words = [str(word) for word in table[column].to_pylist()]
    numbers = table[COLUMN].to_pylist() if COLUMN in table.column_names else list(range(len(words)))
    if sorted(numbers) != list(range(len(words))):
        raise DataError(f"{path}: its numbers should run from 0 to {len(words) - 1}, they are [{', '.join(map(shown, numbers[:9]))}]")
    return tuple(word for _, word in sorted(zip(numbers, words, strict=True)))


def read_columns(files: Files, meta: Metadata, columns: Sequence[str]) -> Iterator[tuple[EpisodeRecord, dict[str, np.ndarray]]]:
    """Yields each episode with its rows of these number columns, (T,) each; a data file is read once. DataError if one is missing."""
    by_file: dict[str, list[EpisodeRecord]] = {}
    for record in meta.episodes.values():
        by_file.setdefault(record.data, []).append(record)
    for name, records in by_file.items():
        path = files.path(name)
        with open_parquet(path) as file:
            missing = [column for column in columns if column not in file.schema_arrow.names]
            if missing:
                raise DataError(f"parquet file {path} has no column '{missing[0]}'; it has {', '.join(file.schema_arrow.names)}")
        table = read_parquet(path, [*columns, "episode_index"])
        episode = table["episode_index"].to_numpy()
        values = {column: to_numpy(column, table[column]) for column in columns}
        order = np.argsort(episode, kind="stable")
        places = np.searchsorted(episode[order], [(record.index, record.index + 1) for record in records])
        for record, (start, stop) in zip(records, places, strict=True):
            rows = order[start:stop] if len(records) > 1 else slice(None)
            cells = {column: np.asarray(value)[rows].reshape(-1) for column, value in values.items()}
            for column, value in cells.items():
                if len(value) != record.length:
                    raise DataError(f"parquet file {path}: episode {record.index} has {len(value)} of {record.length} rows in '{column}'")
            yield record, cells


def successes(files: Files, meta: Metadata, numbers: Sequence[int]) -> dict[int, bool | None]:
    """Returns which of these episodes succeeded, as `Episode.success` does, without reading them one by one."""
    by_episode = {episode_index: meta.episodes[episode_index].success for episode_index in numbers}
    if SUCCESS in meta.features and None in by_episode.values():
        for record, values in read_columns(files, meta, [SUCCESS]):
            if by_episode.get(record.index, True) is None:
                by_episode[record.index] = ends_well(values[SUCCESS])
    return by_episode


def whole(numbers: Shaped[np.ndarray, "T"]) -> Int[np.ndarray, "T"]:
    """Returns stage indices as int64; a missing one is -1."""
    return np.nan_to_num(numbers.astype(np.float64), nan=-1).astype(np.int64)


def segments_of(index: Int[np.ndarray, "T"], names: Sequence[str]) -> tuple[Segment, ...]:
    """Returns the runs of equal indices as segments; -1 is no stage. Raises DataError for an index without a word."""
    edges = np.flatnonzero(np.diff(index)) + 1
    starts, stops = [0, *edges.tolist()], [*edges.tolist(), len(index)]
    if len(index) and not -1 <= int(index.min()) <= int(index.max()) < len(names):
        raise DataError(f"stage numbers go from {index.min()} to {index.max()}, and there are {len(names)} names: {', '.join(names)}")
    runs = [(int(index[start]), start, stop) for start, stop in zip(starts, stops, strict=True) if start < stop]
    return tuple(Segment(names[word_index], start, stop) for word_index, start, stop in runs if word_index >= 0)


def index_of(segments: Sequence[Segment], names: Sequence[str], length: int) -> Int[np.ndarray, "T"]:
    """Returns the index of each frame's stage, -1 where there is none."""
    index = np.full(length, -1, np.int64)
    for segment in segments:
        index[segment.start : segment.stop] = names.index(segment.name)
    return index


def _check(segments_of_episodes: Mapping[int, Sequence[Segment]], meta: Metadata) -> None:
    if not any(segments_of_episodes.values()):
        raise DataError("there is no annotation of this head to write")
    for episode_index, segments in segments_of_episodes.items():
        if episode_index not in meta.episodes:
            raise no_episode(episode_index, meta.episodes)
        require_sound_segments(segments, None, meta.episodes[episode_index].length)


def _column(table: pa.Table, frames: Mapping[int, Int[np.ndarray, "T"]]) -> Int[np.ndarray, "N"]:
    has_column = COLUMN in table.column_names
    episode, frame = table["episode_index"].to_numpy(), table["frame_index"].to_numpy()
    old_values = table[COLUMN].fill_null(-1).cast(pa.int64()).to_numpy() if has_column else np.full(len(episode), -1, np.int64)
    out = old_values.copy()
    for episode_index in np.unique(episode):
        if int(episode_index) in frames:
            rows = episode == episode_index
            out[rows] = frames[int(episode_index)][frame[rows]]
    return out
