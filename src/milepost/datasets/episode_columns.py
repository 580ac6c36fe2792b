"""Adds columns with one value an episode to meta/episodes of a copy: LeRobot's `episode_filter` and milepost's facts read them.

LeRobot calls the filter with one row of meta/episodes as a dict. An unknown number is NaN, so a comparison with it is False; an unknown
count, word or outcome is null. The files of a dataset itself are never written here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from milepost.core import DataError, parse_json, read_text
from milepost.datasets.parquet import read_parquet

Kind: TypeAlias = Literal["number", "count", "outcome", "word"]
_TYPES = {"number": pa.float64(), "count": pa.int64(), "outcome": pa.bool_(), "word": pa.string()}
_OWN = ("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index")
_OWN_PREFIXES = ("stats/", "data/", "videos/", "meta/")


@dataclass(frozen=True)
class EpisodeColumn:
    """One value for each episode. values: episode_index -> value; an episode that is not named has an unknown one."""

    kind: Kind
    values: Mapping[int, Any]


EpisodeColumns: TypeAlias = Mapping[str, EpisodeColumn]
"""Name of the column in meta/episodes -> its values."""


def require_episode_columns(columns: EpisodeColumns) -> None:
    """Raises DataError for a name that is LeRobot's own."""
    for name in columns:
        if name in _OWN or name.startswith(_OWN_PREFIXES):
            raise DataError(f"'{name}' is a column of LeRobot's own in meta/episodes; choose another name")


def add_episode_columns(part: Path, columns: EpisodeColumns) -> None:
    """Writes these columns into meta/episodes (v2.1: meta/episodes.jsonl) of a copy in `part`. A column of the same name is replaced."""
    for path in sorted((part / "meta" / "episodes").glob("*/*.parquet")) if columns else ():
        table = read_parquet(path)
        numbers = table["episode_index"].to_pylist()
        for name, column in columns.items():
            values = pa.array([_cell(column, number) for number in numbers], _TYPES[column.kind])
            place = table.schema.get_field_index(name)
            table = table.append_column(name, values) if place < 0 else table.set_column(place, name, values)
        path.unlink()  # it may be a link
        pq.write_table(table, path, compression="snappy")
    lines = part / "meta" / "episodes.jsonl"
    if columns and lines.is_file():
        lines.write_text(_lines(read_text(lines), columns), encoding="utf-8")


def _cell(column: EpisodeColumn, number: int) -> Any:
    value = column.values.get(number)
    return float("nan") if value is None and column.kind == "number" else value


def _lines(text: str, columns: EpisodeColumns) -> str:
    """Returns the entries of v2.1 with the columns; JSON has no NaN, so an unknown number is null there."""
    lines = []
    for line in text.split("\n"):
        if line.strip():
            entry = parse_json(line, source="meta/episodes.jsonl")
            cells = {name: _cell(column, entry.get("episode_index")) for name, column in columns.items()}
            entry |= {name: None if isinstance(cell, float) and cell != cell else cell for name, cell in cells.items()}
            lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
    return "".join(lines)
