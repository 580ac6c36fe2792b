"""Adds rows to LeRobot's column `language_persistent` while a data file is copied: the same list for every frame of an episode.

Rows that are there stay, before the new ones. Rows of a style that a dataset has already are refused. Source of the layout: LeRobot's
`datasets/language.py`, August 2026: a list of structs {role, content, style, timestamp float32, camera, tool_calls}, where `tool_calls`
is a list of JSON, or of text where pyarrow has no JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from milepost.core import DataError
from milepost.datasets.hub import Files
from milepost.datasets.language import LANGUAGE, LanguageRow, read_language_rows
from milepost.datasets.parquet import open_parquet, read_parquet
from milepost.datasets.records import Metadata

FEATURE: Mapping[str, Any] = {"dtype": "language", "shape": [1], "names": None}
"""What info.json says of the column."""


@dataclass(frozen=True)
class LanguageRows:
    """Rows of one style, for a copy of a dataset. episodes: episode -> its rows by time; one without rows has none added."""

    style: str
    role: str
    episodes: Mapping[int, Sequence[LanguageRow]]


def require_new_style(files: Files, meta: Metadata, style: str) -> None:
    """Raises DataError if the dataset has rows of this style already, or frames of one episode whose rows differ."""
    if LANGUAGE not in meta.features:
        return
    for record, _, differing in read_language_rows(files, meta):
        if differing:
            raise DataError(f"episode {record.index}: {differing} frames have other rows in {LANGUAGE} than its first; see milepost info")
    for name in sorted({record.data for record in meta.episodes.values() if record.data}):
        cells = read_parquet(files.path(name), [LANGUAGE])[LANGUAGE].combine_chunks()
        if pc.any(pc.equal(cells.flatten().field("style"), style)).as_py():
            raise DataError(f"{files.name} has rows of style '{style}' in {LANGUAGE} already; copy a dataset without them")


def language_type(path: Path) -> pa.DataType:
    """Returns the type of the column in this data file, else the one that LeRobot gives it."""
    with open_parquet(path) as file:
        schema = file.schema_arrow
        if LANGUAGE in schema.names:
            return schema.field(LANGUAGE).type
    call = pa.json_() if hasattr(pa, "json_") else pa.string()
    fields = [
        pa.field("role", pa.string(), nullable=False),
        pa.field("content", pa.string()),
        pa.field("style", pa.string()),
        pa.field("timestamp", pa.float32(), nullable=False),
        pa.field("camera", pa.string()),
        pa.field("tool_calls", pa.list_(call)),
    ]
    return pa.list_(pa.struct(fields))


def with_rows(table: pa.Table, kind: pa.DataType, rows: LanguageRows) -> pa.Array:
    """Returns the column for the frames of a table: in every frame the episode's old rows, then its new ones."""
    cells = table[LANGUAGE].combine_chunks() if LANGUAGE in table.column_names else None
    only = next(iter(rows.episodes), -1)
    owner = table["episode_index"].to_numpy() if "episode_index" in table.column_names else np.full(len(table), only)
    edges = np.flatnonzero(np.diff(owner, prepend=owner[:1] - 1, append=owner[-1:] + 1))
    parts, counts = [], []
    for start, stop in pairwise(edges.tolist()):
        new = _structs(kind.value_type, rows, rows.episodes.get(int(owner[start]), ()))
        whole = new if cells is None else pa.concat_arrays([cells.slice(start, 1).flatten(), new])
        parts += [whole] * (stop - start)
        counts += [len(whole)] * (stop - start)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64 if pa.types.is_large_list(kind) else np.int32)
    flat = pa.concat_arrays(parts) if parts else _structs(kind.value_type, rows, ())
    array = pa.LargeListArray if pa.types.is_large_list(kind) else pa.ListArray
    return array.from_arrays(pa.array(offsets), flat, type=kind)


def _structs(kind: pa.StructType, rows: LanguageRows, new: Sequence[LanguageRow]) -> pa.StructArray:
    """Returns new rows as structs of the file's own type; a field that is not of a row here is null."""
    values: dict[str, list[Any]] = {
        "role": [rows.role] * len(new),
        "content": [row.content for row in new],
        "style": [rows.style] * len(new),
        "timestamp": [row.timestamp for row in new],
    }
    fields = [kind.field(place) for place in range(kind.num_fields)]
    arrays = [pa.array(values[each.name], each.type) if each.name in values else pa.nulls(len(new), each.type) for each in fields]
    return pa.StructArray.from_arrays(arrays, fields=fields)
