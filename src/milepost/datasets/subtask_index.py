"""LeRobot's other form of subtasks (0.4 to 0.5): a `subtask_index` for every frame in data/, and its words in meta/subtasks.parquet.

Read into segments, and written when asked: the data files, info.json and the words are replaced as one (`replacing`), every other
column and row group kept. One level only, and no name twice in a row: two equal neighbours become one, empty segments are lost. A frame
of no segment is -1. Rewriting data changes the dataset's fingerprint: features cached before are made again.
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
    """The dataset's per-frame subtasks as segments of `head`; episodes without any are left out. DataError if it has none at all."""
    files = find_files(folder_or_repo)
    meta = read_metadata(files.root)
    words = read_words(files.path(WORDS))
    found = {record.index: segments_of(whole(values[COLUMN]), words) for record, values in read_columns(files, meta, [COLUMN])}
    return {number: {head: segments} for number, segments in found.items() if segments}


def write_subtask_index(folder: str | Path, annotations: Annotations, head: str = "sparse") -> tuple[str, ...]:
    """Write one head of these annotations as per-frame subtasks; returns the files replaced, relative to the dataset.

    Episodes that are not given keep their subtasks, and words keep their numbers; new ones are added. DataError if the dataset is
    not a local v3.0 one of one's own, or a segment does not fit its episode: nothing is written then.
    """
    root = require_editable(folder)
    with replacing(root) as new:
        meta = read_metadata(root)
        if meta.version != "v3.0":
            raise DataError(f"{root} is a dataset of version {meta.version}; subtask_index belongs to v3.0, convert it first")
        given = {number: heads[head] for number, heads in annotations.items() if head in heads}
        _check(given, meta)
        held = read_words(root / WORDS) if (root / WORDS).is_file() else ()
        words = tuple(dict.fromkeys([*held, *(segment.name for segments in given.values() for segment in segments)]))
        frames = {number: index_of(segments, words, meta.episodes[number].length) for number, segments in given.items()}
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
    """The names by their number. DataError if the file is missing or has no names."""
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
    """Each episode with its rows of these number columns, (T,) each; a data file is read once. DataError if one is missing."""
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
            held = {column: np.asarray(value)[rows].reshape(-1) for column, value in values.items()}
            for column, value in held.items():
                if len(value) != record.length:
                    raise DataError(f"parquet file {path}: episode {record.index} has {len(value)} of {record.length} rows in '{column}'")
            yield record, held


def successes(files: Files, meta: Metadata, numbers: Sequence[int]) -> dict[int, bool | None]:
    """Which of these episodes succeeded, as `Episode.success` has it, without reading them one by one."""
    found = {number: meta.episodes[number].success for number in numbers}
    if SUCCESS in meta.features and None in found.values():
        for record, values in read_columns(files, meta, [SUCCESS]):
            if found.get(record.index, True) is None:
                found[record.index] = ends_well(values[SUCCESS])
    return found


def whole(numbers: Shaped[np.ndarray, "T"]) -> Int[np.ndarray, "T"]:
    """Stage numbers as int64; a missing one is -1."""
    return np.nan_to_num(numbers.astype(np.float64), nan=-1).astype(np.int64)


def segments_of(index: Int[np.ndarray, "T"], names: Sequence[str]) -> tuple[Segment, ...]:
    """The runs of one number; -1 is no stage. DataError for a number without a name."""
    edges = np.flatnonzero(np.diff(index)) + 1
    starts, stops = [0, *edges.tolist()], [*edges.tolist(), len(index)]
    if len(index) and not -1 <= int(index.min()) <= int(index.max()) < len(names):
        raise DataError(f"stage numbers go from {index.min()} to {index.max()}, and there are {len(names)} names: {', '.join(names)}")
    runs = [(int(index[start]), start, stop) for start, stop in zip(starts, stops, strict=True) if start < stop]
    return tuple(Segment(names[number], start, stop) for number, start, stop in runs if number >= 0)


def index_of(segments: Sequence[Segment], names: Sequence[str], length: int) -> Int[np.ndarray, "T"]:
    """The number of each frame's stage, -1 where there is none."""
    index = np.full(length, -1, np.int64)
    for segment in segments:
        index[segment.start : segment.stop] = names.index(segment.name)
    return index


def _check(given: Mapping[int, Sequence[Segment]], meta: Metadata) -> None:
    if not any(given.values()):
        raise DataError("there is no annotation of this head to write")
    for number, segments in given.items():
        if number not in meta.episodes:
            raise no_episode(number, meta.episodes)
        require_sound_segments(segments, None, meta.episodes[number].length)


def _column(table: pa.Table, frames: Mapping[int, Int[np.ndarray, "T"]]) -> Int[np.ndarray, "N"]:
    known = COLUMN in table.column_names
    episode, frame = table["episode_index"].to_numpy(), table["frame_index"].to_numpy()
    held = table[COLUMN].fill_null(-1).cast(pa.int64()).to_numpy() if known else np.full(len(episode), -1, np.int64)
    out = held.copy()
    for number in np.unique(episode):
        if int(number) in frames:
            rows = episode == number
            out[rows] = frames[int(number)][frame[rows]]
    return out
