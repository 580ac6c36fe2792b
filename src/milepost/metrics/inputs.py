"""What every measure accepts as a curve or a group of values: one row of numbers, NaN where unknown. Anything else is a DataError.

Whole numbers and booleans count as numbers. An infinite value is refused: no mean, difference or order of it could be told.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped

from milepost.core import DataError, shown

Values = Shaped[np.ndarray, "..."] | Sequence[float | int]
"""(N,) numbers; a list of them will do."""


def numbers(value: Values, what: str = "a curve") -> Float[np.ndarray, "N"]:
    """Returns the values as floating-point numbers; those that are such already keep their precision. what: their name in the error.

    Raises DataError if they are not one row of numbers, or one is infinite.

    >>> numbers([0, 0.5, 1]), numbers(np.array([False, True]))
    (array([0. , 0.5, 1. ]), array([0., 1.]))
    """
    try:
        array = np.asarray(value)
    except ValueError:  # a list of lists of different lengths
        raise DataError(f"{what} is one row of numbers, got {shown(value)}") from None
    if array.ndim != 1:
        raise DataError(f"{what} is one row of numbers, got an array of the shape {array.shape}")
    if array.dtype.kind not in "fiub" and array.size:
        raise DataError(f"{what} is one row of numbers, got values of the type {array.dtype}")
    array = array if array.dtype.kind == "f" else array.astype(float)
    if np.isinf(array).any():
        raise DataError(f"{what} has finite numbers or NaN, got {array[np.isinf(array)][0]} at place {int(np.isinf(array).argmax())}")
    return array


def same_frames(value: Values, other: Values, what: str = "the reference") -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """Returns both as `numbers` does. DataError if they differ in length. what: the name of the other in the error."""
    first, second = numbers(value), numbers(other, what)
    if len(first) != len(second):
        raise DataError(f"a curve and {what} have a value for each frame, got {len(first)} and {len(second)} values")
    return first, second


def without_nan(value: Values, what: str = "a curve") -> Float[np.ndarray, "N"]:
    """Returns the values, as `numbers` does, that are not NaN."""
    array = numbers(value, what)
    return array[~np.isnan(array)]
