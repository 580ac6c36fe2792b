"""Writes stages as LeRobot's language columns (LeRobot 0.6), into a copy of the dataset: `annotate --to-language`.

Each stage is a row of style `subtask` in `language_persistent`, at the time stamp of its first frame; where a stage ends and none begins, a
row without content says so. The rows of an episode stand in every one of its frames. Rows of other styles, and the rows of other episodes,
stay as they are; `language_events` is there too, since LeRobot has both columns or none. The source is never written to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from milepost.core import DataError, Segment, require_sound_segments, shown
from milepost.datasets.annotation_columns import Annotations
from milepost.datasets.copy import add_features, copy_files, require_sound
from milepost.datasets.hub import Files
from milepost.datasets.language_rows import DTYPE, EVENTS, LANGUAGE, STYLE, LanguageColumn, require_rows
from milepost.datasets.parquet import open_parquet
from milepost.datasets.reader import open_dataset
from milepost.datasets.records import EpisodeRecord, Metadata, no_episode
from milepost.datasets.subtask_index import read_columns

ROLE = "assistant"
_TEXT, _CALLS = pa.string(), pa.list_(pa.string())
_EVENT_FIELDS = {"role": _TEXT, "content": _TEXT, "style": _TEXT, "camera": _TEXT, "tool_calls": _CALLS}
_FIELDS = {**_EVENT_FIELDS, "timestamp": pa.float32()}
_ORDER = ("role", "content", "style", "timestamp", "camera", "tool_calls")
"""The fields of a row in LeRobot's order. Tool calls are JSON; no row that is written here has any."""


@dataclass(frozen=True)
class NewRow:
    """A subtask from a time on, in seconds; "" where one ends."""

    content: str
    timestamp: float


def copy_with_language(
    folder_or_repo: str | Path, folder: str | Path, annotations: Annotations, *, head: str = "sparse", revision: str | None = None
) -> list[str]:
    """Copies a LeRobot v3 dataset into the new `folder`, with one head of these annotations as subtasks in its language columns.

    They replace the subtasks that these episodes have in the source's column; an episode that is not named keeps its own. Returns the data
    files that were left out, because no episode needs them. DataError, before anything is written, if there is no such annotation, if
    segments do not fit their episode, if the source is no v3 dataset, is damaged, or has another column of that name, if the frames of an
    episode hold different rows, or if the folder is there already or lies in a dataset or the Hub's cache.
    """
    dataset = open_dataset(folder_or_repo, revision=revision)
    files, meta = dataset.files, dataset.meta
    segments = {number: tuple(heads[head]) for number, heads in annotations.items() if head in heads}
    _check(files, meta, segments)
    require_sound(folder_or_repo, revision, restamp=False)
    new_rows = _new_rows(files, meta, segments)

    def columns_of(name: str, _: Sequence[EpisodeRecord]) -> dict[str, tuple[pa.DataType, partial[pa.Array]]]:
        with open_parquet(files.path(name)) as file:
            schema = file.schema_arrow
        kind = _row_type(schema.field(LANGUAGE).type if LANGUAGE in schema.names else None)
        columns = {LANGUAGE: (pa.list_(kind), partial(_cells, kind, new_rows))}
        if EVENTS not in schema.names:
            empty = pa.list_(pa.struct([(field, _EVENT_FIELDS[field]) for field in _ORDER if field in _EVENT_FIELDS]))
            columns[EVENTS] = (empty, partial(_no_events, empty))
        return columns

    features = {name: {"dtype": DTYPE, "shape": [1], "names": None} for name in (LANGUAGE, EVENTS)}
    return copy_files(files, meta, Path(folder), columns_of, lambda part: add_features(part, features))


def _check(files: Files, meta: Metadata, segments: Mapping[int, Sequence[Segment]]) -> None:
    """Raises DataError for what cannot be written."""
    if meta.version != "v3.0":
        raise DataError(f"{files.name} is a dataset of version {meta.version}; language columns belong to v3.0, convert it first")
    if not any(segments.values()):
        raise DataError("there is no annotation of this head to write")
    for name in (LANGUAGE, EVENTS):
        if name in meta.features and meta.features[name].get("dtype") != DTYPE:
            what = shown(meta.features[name].get("dtype"))
            raise DataError(f"{files.name} has a feature '{name}' that holds {what}, and no language rows; rename it in a copy first")
    for number, parts in segments.items():
        if number not in meta.episodes:
            raise no_episode(number, meta.episodes)
        require_sound_segments(parts, None, meta.episodes[number].length)
    column = LanguageColumn(files)
    for number in segments if LANGUAGE in meta.features else ():
        if count := column.rows(meta.episodes[number]).differing:
            raise DataError(f"episode {number}: {count} frames hold other language rows than the first one; repair {LANGUAGE} first")


def _new_rows(files: Files, meta: Metadata, segments: Mapping[int, Sequence[Segment]]) -> dict[int, tuple[NewRow, ...]]:
    """Returns the rows of each episode, with the time stamps of its own frames."""
    return {
        record.index: tuple(_rows(segments[record.index], values["timestamp"].astype(np.float64)))
        for record, values in read_columns(files, meta, ["timestamp"])
        if record.index in segments
    }


def _rows(segments: Sequence[Segment], times: Float[np.ndarray, "T"]) -> Iterator[NewRow]:
    """Yields the rows of one episode; a stage without a frame has none."""
    parts = [segment for segment in segments if segment.start < segment.stop]
    for part, following in zip(parts, [*(each.start for each in parts[1:]), len(times)], strict=True):
        yield NewRow(part.name, float(times[part.start]))
        if part.stop < following:
            yield NewRow("", float(times[part.stop]))


def _row_type(old: pa.DataType | None) -> pa.StructType:
    """Returns the type of a row: that of the column if it has rows, with LeRobot's types for the fields without any content yet."""
    if old is None or not require_rows(Path(), old):
        return pa.struct([(name, _FIELDS[name]) for name in _ORDER])
    there = {each.name: _FIELDS.get(each.name, each.type) if pa.types.is_null(each.type) else each.type for each in old.value_type}
    return pa.struct(list((there | {name: _FIELDS[name] for name in _ORDER if name not in there}).items()))


def _cells(kind: pa.StructType, new_rows: Mapping[int, Sequence[NewRow]], table: pa.Table) -> pa.Array:
    """Returns the column of these frames."""
    owner = table["episode_index"].to_numpy()
    old = table[LANGUAGE].combine_chunks() if LANGUAGE in table.column_names else pa.nulls(len(owner), pa.list_(kind))
    old = old.chunk(0) if isinstance(old, pa.ChunkedArray) else old
    has_rows = require_rows(Path(), old.type)
    counts = pc.list_value_length(old).fill_null(0).to_numpy(zero_copy_only=False) if has_rows else np.zeros(len(owner), np.int64)
    flat = _as_type(old.flatten(), kind) if has_rows else _added(kind, ())
    starts = np.cumsum(counts) - counts
    parts, lengths, rows = [flat], counts.astype(np.int64), len(flat)
    places = [np.arange(start, start + count) for start, count in zip(starts, counts, strict=True)]
    for number in (each for each in np.unique(owner) if int(each) in new_rows):
        frames = np.flatnonzero(owner == number)
        parts.append(_added(kind, new_rows[int(number)]))
        own = np.concatenate([_others(flat, places[frames[0]]), rows + np.arange(len(parts[-1]))])
        rows += len(parts[-1])
        order = _in_order(pa.concat_arrays(parts).take(pa.array(own, pa.int64())))
        for frame in frames:
            places[frame], lengths[frame] = own[order], len(own)
    values = pa.concat_arrays(parts).take(pa.array(np.concatenate([*places, np.empty(0, np.int64)]), pa.int64()))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, values)


def _no_events(kind: pa.DataType, table: pa.Table) -> pa.Array:
    return pa.array([[]] * table.num_rows, kind)


def _others(flat: pa.StructArray, places: Int[np.ndarray, "R"]) -> Int[np.ndarray, "O"]:
    """Returns the places of the rows of other styles."""
    styles = pc.struct_field(flat, "style").take(pa.array(places, pa.int64())).to_pylist()
    return places[np.array([style != STYLE for style in styles], dtype=bool)]


def _in_order(rows: pa.StructArray) -> Int[np.ndarray, "R"]:
    """Returns the order in which LeRobot writes rows: by time, style and role."""
    keys = zip(*(pc.struct_field(rows, name).to_pylist() for name in ("timestamp", "style", "role")), strict=True)
    sortable = [(stamp, style or "", role or "", place) for place, (stamp, style, role) in enumerate(keys)]
    return np.array([place for *_, place in sorted(sortable)], dtype=np.int64)


def _as_type(flat: pa.StructArray, kind: pa.StructType) -> pa.StructArray:
    """Returns the rows with the fields of this type; one that they do not have, or that has no type yet, is null."""
    there = {each.name: each.type for each in flat.type}
    fields = [pc.struct_field(flat, each.name) if there.get(each.name) == each.type else pa.nulls(len(flat), each.type) for each in kind]
    return pa.StructArray.from_arrays(fields, fields=list(kind))


def _added(kind: pa.StructType, rows: Sequence[NewRow]) -> pa.StructArray:
    """Returns new rows of this type."""
    content = {
        "role": [ROLE] * len(rows), "content": [row.content for row in rows], "style": [STYLE] * len(rows),
        "timestamp": [row.timestamp for row in rows],
    }  # fmt: skip
    fields = [pa.array(content[each.name], each.type) if each.name in content else pa.nulls(len(rows), each.type) for each in kind]
    return pa.StructArray.from_arrays(fields, fields=list(kind))
