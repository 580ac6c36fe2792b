"""Sample weights on disk: a parquet file with the columns index and weight, and how they were made in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from milepost.core import FORM_METADATA, DataError, atomic_path, require_parquet_format
from milepost.datasets import numbers_of, read_table
from milepost.progress import METADATA_PREFIX


def write_weights_file(path: Path, index: Int[np.ndarray, "N"], weight: Float[np.ndarray, "N"], metadata: Mapping[str, str]) -> None:
    """Writes `index` int64 and `weight` float32, and the settings that made them as metadata."""
    table = pa.table({"index": pa.array(index, pa.int64()), "weight": pa.array(weight, pa.float32())})
    about = {f"{METADATA_PREFIX}{key}": value for key, value in metadata.items()}
    labelled = table.replace_schema_metadata(about | FORM_METADATA)
    with atomic_path(path) as temporary:
        pq.write_table(labelled, temporary)


def read_weights_file(path: Path) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "N"], dict[str, str]]:
    """Reads (index, weight, metadata without our prefix) of a weights file. DataError if the file is of another kind, or a weight is not a
    finite number of at least 0."""
    table = read_table(path)
    require_parquet_format(table.schema.metadata, path)
    if missing := [name for name in ("index", "weight") if name not in table.column_names]:
        raise DataError(f"{path} is no weights file: missing {', '.join(missing)}; it has {', '.join(table.column_names)}")
    index, weight = numbers_of(path, table, "index", np.int64), numbers_of(path, table, "weight", np.float32)
    fine = np.isfinite(weight) & (weight >= 0)
    if not fine.all():
        raise DataError(f"{path}: {int((~fine).sum())} weights are missing, NaN, infinite or below 0; make it again with milepost weigh")
    metadata = {key.decode().removeprefix(METADATA_PREFIX): value.decode() for key, value in (table.schema.metadata or {}).items()}
    return index, weight, metadata


def is_weights_file(path: Path) -> bool:
    """Returns whether `write_weights_file` wrote this file. False for a file of another kind, including our progress files."""
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError):
        return False
    return schema.names == ["index", "weight"] and any(key.startswith(METADATA_PREFIX.encode()) for key in schema.metadata or {})
