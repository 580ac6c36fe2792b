"""Makes LeRobot's language columns (LeRobot 0.6) for a copy: rows of one style, the same in every frame of an episode.

Rows of other styles, and the rows of other episodes, stay as they are. `language_events` is there too, since LeRobot has both columns or
none. docs/language_columns.md has the format and its sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from milepost.core import DataError, count_noun, shown
from milepost.datasets.choice import import_command
from milepost.datasets.hub import Files
from milepost.datasets.language_rows import DTYPE, EVENTS, LANGUAGE, LanguageColumn, LanguageRow, count_styles, require_rows
from milepost.datasets.parquet import MadeColumns, open_parquet
from milepost.datasets.records import Metadata

LANGUAGE_FEATURES: Mapping[str, Mapping[str, Any]] = {name: {"dtype": DTYPE, "shape": [1], "names": None} for name in (LANGUAGE, EVENTS)}
"""What info.json says of both columns."""
_TEXT, _CALLS = pa.string(), pa.list_(pa.string())
_EVENT_FIELDS = {"role": _TEXT, "content": _TEXT, "style": _TEXT, "camera": _TEXT, "tool_calls": _CALLS}
_FIELDS = {**_EVENT_FIELDS, "timestamp": pa.float32()}
_ORDER = ("role", "content", "style", "timestamp", "camera", "tool_calls")
"""The fields of a row in LeRobot's order. Tool calls are JSON; no row that is written here has any."""


@dataclass(frozen=True)
class LanguageRows:
    """Rows of one style, for a copy of a dataset. episodes: episode -> its rows by time; one that is not named keeps its own."""

    style: str
    role: str
    episodes: Mapping[int, Sequence[LanguageRow]]


def require_language(files: Files, meta: Metadata, episodes: Sequence[int]) -> None:
    """Raises DataError if these episodes cannot have language rows: of another version, of another column, or of frames that differ."""
    if meta.version != "v3.0":
        raise DataError(
            f"{files.name} is a dataset of version {meta.version}; language columns belong to v3.0, and "
            f"this makes v3.0 of it: {import_command(files)}"
        )
    for name in (LANGUAGE, EVENTS):
        if name in meta.features and meta.features[name].get("dtype") != DTYPE:
            what = shown(meta.features[name].get("dtype"))
            raise DataError(f"{files.name} has a feature '{name}' that holds {what}, and no language rows; rename it in a copy first")
    column = LanguageColumn(files)
    for number in episodes if LANGUAGE in meta.features else ():
        if count := column.rows(meta.episodes[number]).differing:
            frames = f"{count_noun(count, 'frame')} {'holds' if count == 1 else 'hold'}"
            raise DataError(f"episode {number}: {frames} other language rows than the first one; repair {LANGUAGE} first")


def require_new_style(files: Files, meta: Metadata, style: str) -> None:
    """Raises DataError if the dataset has rows of this style already."""
    for name in sorted({record.data for record in meta.episodes.values() if record.data}):
        if count_styles(files.path(name), LANGUAGE)[style]:
            raise DataError(f"{files.name} has rows of style '{style}' in {LANGUAGE} already; copy a dataset without them")


def language_columns(path: Path, rows: LanguageRows) -> MadeColumns:
    """Returns what `put_columns` puts into this data file: the new rows in place of those of their style, and `language_events`."""
    with open_parquet(path) as file:
        schema = file.schema_arrow
    kind = _row_type(schema.field(LANGUAGE).type if LANGUAGE in schema.names else None)
    columns: MadeColumns = {LANGUAGE: (pa.list_(kind), partial(_cells, kind, rows))}
    if EVENTS in schema.names:
        return columns
    empty = pa.list_(pa.struct([(field, _EVENT_FIELDS[field]) for field in _ORDER if field in _EVENT_FIELDS]))
    return {**columns, EVENTS: (empty, partial(_no_events, empty))}


def _row_type(old: pa.DataType | None) -> pa.StructType:
    """Returns the type of a row: that of the column if it has rows, with LeRobot's types for the fields without any content yet."""
    if old is None or not require_rows(Path(), old):
        return pa.struct([(name, _FIELDS[name]) for name in _ORDER])
    there = {each.name: _FIELDS.get(each.name, each.type) if pa.types.is_null(each.type) else each.type for each in old.value_type}
    return pa.struct(list((there | {name: _FIELDS[name] for name in _ORDER if name not in there}).items()))


def _cells(kind: pa.StructType, new: LanguageRows, table: pa.Table) -> pa.Array:
    """Returns the column of these frames."""
    owner = table["episode_index"].to_numpy()
    old = table[LANGUAGE].combine_chunks() if LANGUAGE in table.column_names else pa.nulls(len(owner), pa.list_(kind))
    old = old.chunk(0) if isinstance(old, pa.ChunkedArray) else old
    has_rows = require_rows(Path(), old.type)
    counts = pc.list_value_length(old).fill_null(0).to_numpy(zero_copy_only=False) if has_rows else np.zeros(len(owner), np.int64)
    flat = _as_type(old.flatten(), kind) if has_rows else _added(kind, new, ())
    starts = np.cumsum(counts) - counts
    parts, lengths, rows = [flat], counts.astype(np.int64), len(flat)
    places = [np.arange(start, start + count) for start, count in zip(starts, counts, strict=True)]
    for number in (each for each in np.unique(owner) if int(each) in new.episodes):
        frames = np.flatnonzero(owner == number)
        parts.append(_added(kind, new, new.episodes[int(number)]))
        own = np.concatenate([_others(flat, places[frames[0]], new.style), rows + np.arange(len(parts[-1]))])
        rows += len(parts[-1])
        order = _in_order(pa.concat_arrays(parts).take(pa.array(own, pa.int64())))
        for frame in frames:
            places[frame], lengths[frame] = own[order], len(own)
    values = pa.concat_arrays(parts).take(pa.array(np.concatenate([*places, np.empty(0, np.int64)]), pa.int64()))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, values)


def _no_events(kind: pa.DataType, table: pa.Table) -> pa.Array:
    return pa.array([[]] * table.num_rows, kind)


def _others(flat: pa.StructArray, places: Int[np.ndarray, "R"], style: str) -> Int[np.ndarray, "O"]:
    """Returns the places of the rows of other styles."""
    styles = pc.struct_field(flat, "style").take(pa.array(places, pa.int64())).to_pylist()
    return places[np.array([each != style for each in styles], dtype=bool)]


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


def _added(kind: pa.StructType, new: LanguageRows, rows: Sequence[LanguageRow]) -> pa.StructArray:
    """Returns new rows of this type."""
    content = {
        "role": [new.role] * len(rows), "content": [row.content for row in rows], "style": [new.style] * len(rows),
        "timestamp": [row.timestamp for row in rows],
    }  # fmt: skip
    fields = [pa.array(content[each.name], each.type) if each.name in content else pa.nulls(len(rows), each.type) for each in kind]
    return pa.StructArray.from_arrays(fields, fields=list(kind))
