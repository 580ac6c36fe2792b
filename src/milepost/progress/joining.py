"""Joins the parts of an unfinished progress file, sorted by index, with a bounded number of rows in memory.

The parts are written as episodes come back, so their rows are in no order, but those of one part lie near each other. A row is written as
soon as no part that is still to be read can have one before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from milepost.core import DataError

GROUP = 1 << 20
"""Rows of a row group of the file, as many as pyarrow puts in one."""
_FIRST = ("index", "episode_index", "frame_index", "progress_sparse", "progress_dense")


@dataclass(frozen=True, order=True)
class _Piece:
    """One row group of a part. low: its smallest index."""

    low: int
    path: Path
    group: int


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Returns one table with the columns of all in the order of a progress file; a column that a table lacks is null there."""
    table = pa.concat_tables(tables, promote_options="default")
    return table.select(_in_order(table.column_names))


def write_joined(parts: Sequence[Path], path: Path, metadata: Mapping[str, str]) -> None:
    """Writes the rows of all parts, sorted by index, to `path`: byte for byte as if they were joined in memory.

    Memory is that of a few row groups, and of the rows of parts whose ranges of index overlap. DataError if a part cannot be read.
    """
    schema = pa.unify_schemas([pq.read_schema(part) for part in parts])
    schema = pa.schema([schema.field(name) for name in _in_order(schema.names)])
    with pq.ParquetWriter(path, schema.with_metadata(dict(metadata))) as writer:
        for rows in _in_groups(sorted(_pieces(parts)), schema):
            writer.write_table(rows, row_group_size=GROUP)


def _in_order(names: Sequence[str]) -> list[str]:
    order = {name: place for place, name in enumerate(_FIRST)}
    return sorted(names, key=lambda name: order.get(name, len(order)))


def _pieces(parts: Sequence[Path]) -> Iterator[_Piece]:
    for part in parts:
        meta = pq.read_metadata(part)
        for group in range(meta.num_row_groups):
            if meta.row_group(group).num_rows == 0:
                continue
            yield _Piece(meta.row_group(group).column(0).statistics.min, part, group)


def _in_groups(pieces: Sequence[_Piece], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yields the rows in the order of their index, whole row groups at a time, the last one as long as it is."""
    waiting, count, limit = list[pa.Table](), 0, 2 * GROUP
    for piece in pieces:
        if count >= limit:
            rows = joined(waiting).sort_by("index")
            final = int(np.searchsorted(rows["index"].to_numpy(), piece.low)) // GROUP * GROUP
            if final:
                yield rows.slice(0, final)
            waiting, count = [rows.slice(final)], len(rows) - final
            limit = max(2 * GROUP, 2 * count)  # where ranges overlap, so that rows are not sorted again for each part
        waiting.append(_read(piece, schema))
        count += len(waiting[-1])
    if waiting:
        yield joined(waiting).sort_by("index")


def _read(piece: _Piece, schema: pa.Schema) -> pa.Table:
    """Returns the rows of a piece with all columns of the file, null where its part lacks one."""
    try:
        with pq.ParquetFile(piece.path) as file:
            rows = file.read_row_group(piece.group)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"cannot read {piece.path} as parquet: {str(error).splitlines()[0]}") from error
    return pa.concat_tables([schema.empty_table(), rows], promote_options="default").select(schema.names)
