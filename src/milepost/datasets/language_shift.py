"""Moves the rows of `language_persistent` to an episode that begins or ends at another frame, in a copy.

A row is in force until the next one of its style, so the last row of a style before the new first frame begins there; earlier ones, and
those from the new end on, are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from milepost.datasets.language_rows import LANGUAGE, OFF_GRID, require_rows

_KEYS = ("style", "role", "camera")


def shifted_language(column: pa.ChunkedArray, spans: Sequence[tuple[int, int] | None], fps: float) -> pa.Array:
    """Returns the column of these frames. spans: for each frame, the frames [start, stop) of its episode that stay; None: all of them."""
    cells = column.combine_chunks()
    cells = cells.chunk(0) if isinstance(cells, pa.ChunkedArray) else cells
    if not require_rows(Path(), cells.type, name=LANGUAGE):
        return cells
    flat = cells.flatten()
    counts = pc.list_value_length(cells).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    starts = np.cumsum(counts) - counts
    stamps = pc.cast(pc.struct_field(flat, "timestamp"), pa.float64()).to_numpy(zero_copy_only=False).copy()
    names = [field.name for field in flat.type]
    keys = list(zip(*(pc.struct_field(flat, name).to_pylist() for name in _KEYS if name in names), strict=True))
    stays = np.ones(len(flat), dtype=bool)
    for first, count, span in zip(starts.tolist(), counts.tolist(), spans, strict=True):
        if span is None or not count:
            continue
        places = np.arange(first, first + count)
        begin, end, slack = span[0] / fps, span[1] / fps, OFF_GRID / fps
        latest = {keys[at]: stamps[at] for at in sorted(places, key=lambda at: stamps[at]) if stamps[at] <= begin + slack}
        for at in places:
            stays[at] = stamps[at] < end - slack and (stamps[at] > begin + slack or stamps[at] == latest[keys[at]])
        stamps[places] = np.maximum(0.0, stamps[places] - begin)
    kind = flat.type
    fields = [
        pa.array(stamps).cast(field.type, safe=False) if field.name == "timestamp" else pc.struct_field(flat, field.name) for field in kind
    ]
    kept_rows = pa.StructArray.from_arrays(fields, fields=list(kind)).filter(pa.array(stays))
    new_counts = np.array([int(stays[first : first + count].sum()) for first, count in zip(starts, counts, strict=True)], dtype=np.int64)
    offsets = pa.array(np.concatenate([[0], np.cumsum(new_counts)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, kept_rows).cast(cells.type)
