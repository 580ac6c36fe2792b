"""The columns of an episode that every reader needs: its state, its times, its counters."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from milepost.core import DataError
from milepost.datasets.parquet import to_numpy


def state_of(column: np.ndarray | None, length: int) -> Float[np.ndarray, "T S"]:
    """Returns the robot state (T, S); S is 0 without such a column."""
    if column is None:
        return np.zeros((length, 0), np.float32)
    return column.reshape(length, -1).astype(np.float32)


def require_rising(times: Float[np.ndarray, "T"], *, who: str) -> None:
    """Raises DataError if the time stamps do not ascend."""
    if not np.all(np.isfinite(times)) or np.any(np.diff(times) <= 0):
        frame = int(np.argmax(~(np.diff(times, prepend=-np.inf) > 0)))
        raise DataError(f"{who}: the time stamps must ascend, at frame {frame} they do not ({times[frame]:.10g} s)")


def one_a_row(column: pa.ChunkedArray, who: str) -> np.ndarray:
    """Returns a column with one number a row. DataError if it has another shape."""
    values = to_numpy(who, column)
    if values is None or values.size != len(values):
        raise DataError(f"{who}: should hold one whole number a row")
    return values.reshape(-1)
