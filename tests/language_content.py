"""Datasets with LeRobot's language columns, built by the facts in docs/language_columns.md: no LeRobot is needed.

`write_language` writes the columns as LeRobot 0.6's own writer does: the same list in every frame of an episode, with the types that Arrow
infers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from milepost.testing import dot_episodes, write_dots

LANGUAGE, EVENTS = "language_persistent", "language_events"
FPS = 10.0
Row = dict[str, Any]
FEATURE = {"dtype": "language", "shape": [1], "names": None}


def row(content: str | None, frame: float, style: str = "subtask", role: str = "assistant") -> Row:
    """Returns a row at this frame; its time is the float32 of the frame's own time stamp, which LeRobot's writer copies."""
    stamp = float(np.float32(frame / FPS))
    return {"role": role, "content": content, "style": style, "timestamp": stamp, "camera": None, "tool_calls": None}


def event(content: str | None, style: str | None = "interjection", **fields: Any) -> Row:
    return {"role": "user", "content": content, "style": style, "camera": None, "tool_calls": None, **fields}


def kind(**types: pa.DataType) -> pa.DataType:
    """Returns the type of the column that LeRobot's documentation gives; with other types of some fields."""
    fields = {
        "role": pa.string(), "content": pa.string(), "style": pa.string(), "timestamp": pa.float32(), "camera": pa.string(),
        "tool_calls": pa.list_(pa.string()),
    }  # fmt: skip
    return pa.list_(pa.struct([pa.field(name, each) for name, each in (fields | types).items()]))


def write_language(
    root: Path,
    rows_of: Callable[[int], list[Row]],
    *,
    count: int = 4,
    annotated: bool = False,
    events_of: Callable[[int, int], list[Row]] = lambda episode, frame: [],
    column: pa.DataType | None = None,
) -> Path:
    """Writes dots, and the rows of each episode into every frame. annotated: keep the sparse annotation in meta/. column: its Arrow type,
    by default the one that Arrow infers, as LeRobot's own writer has it."""
    write_dots(root, [each if annotated else replace(each, segments={}) for each in dot_episodes(count)])
    if not annotated:
        (root / "meta/temporal_proportions_sparse.json").unlink()
    for path in sorted((root / "data").rglob("*.parquet")):
        table = pq.read_table(path)
        numbers = list(zip(table["episode_index"].to_pylist(), table["frame_index"].to_pylist(), strict=True))
        cells = pa.array([rows_of(episode) for episode, _ in numbers], column)
        table = table.append_column(LANGUAGE, cells).append_column(EVENTS, pa.array([events_of(*each) for each in numbers]))
        pq.write_table(table, path)
    edit_info(root, lambda info: info["features"].update({LANGUAGE: FEATURE, EVENTS: FEATURE}))
    return root


def edit_info(root: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    change(info)
    (root / "meta/info.json").write_text(json.dumps(info))


def replace_cells(root: Path, change: Callable[[list[list[Row]]], Any], column: pa.DataType | None = None) -> None:
    """Changes the lists of all frames of the first data file."""
    path = sorted((root / "data").rglob("*.parquet"))[0]
    table = pq.read_table(path)
    cells = table[LANGUAGE].to_pylist()
    cells = change(cells) or cells
    place = table.column_names.index(LANGUAGE)
    pq.write_table(table.set_column(place, LANGUAGE, pa.array(cells, column)), path)


def files_of(root: Path) -> dict[str, bytes]:
    """Returns every file of a folder, to show that nothing changed."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
