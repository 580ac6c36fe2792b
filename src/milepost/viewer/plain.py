"""Numbers and facts as JSON has them: unknown numbers are null, never NaN; arrays are rounded, since a page has few pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

DIGITS = 4


def rounded(values: Shaped[np.ndarray, "N"], digits: int = DIGITS) -> list[float | None]:
    """Numbers to so many digits; null where not finite."""
    return [value if math.isfinite(value) else None for value in np.round(np.asarray(values, np.float64), digits).tolist()]


def counted(values: Shaped[np.ndarray, "N"]) -> list[int | None]:
    """Whole numbers; null where below 0, which says unknown."""
    return [value if value >= 0 else None for value in np.asarray(values, np.int64).tolist()]


def plain(value: Any) -> Any:
    """Any fact in JSON's own types: numpy as numbers and lists, what is not finite as null, what JSON has no word for as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(each) for each in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
