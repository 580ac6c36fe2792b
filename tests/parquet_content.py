"""What a parquet file says, down to the bits of its floats: to compare a file before and after an edit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def content(path: Path, *, without: str = "\0") -> dict[str, Any]:
    """Columns (bits), types, notes, rows of each row group, compression; columns whose name has `without` in it are left out."""
    file = pq.ParquetFile(path)
    names = [name for name in file.schema_arrow.names if without not in name]
    table = file.read(names)
    return {
        "fields": [(f.name, str(f.type), f.nullable, f.metadata) for f in table.schema],
        "notes": file.schema_arrow.metadata,
        "groups": [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)],
        "codec": file.metadata.row_group(0).column(0).compression,
        "rows": {name: bits(table[name]) for name in names},
    }


def bits(column: pa.ChunkedArray) -> list[Any]:
    """Floats as hexadecimal, so that one NaN equals the next and -0.0 differs from 0.0."""

    def spelt(value: Any) -> Any:
        if isinstance(value, float):
            return value.hex()
        if isinstance(value, list):
            return [spelt(each) for each in value]
        return {key: spelt(each) for key, each in value.items()} if isinstance(value, dict) else value

    return [spelt(value) for value in column.to_pylist()]


def tree(root: Path) -> dict[str, bytes]:
    """Every file of a folder, byte for byte."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
