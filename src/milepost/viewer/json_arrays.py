"""Arrays as JSON for the page: unknown numbers are null, never NaN; numbers are rounded, because a screen has few pixels."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Shaped

DIGITS = 4


def rounded(values: Shaped[np.ndarray, "N"], digits: int = DIGITS) -> list[float | None]:
    """Returns numbers with so many digits; null where not finite."""
    return [value if math.isfinite(value) else None for value in np.round(np.asarray(values, np.float64), digits).tolist()]


def integers(values: Shaped[np.ndarray, "N"]) -> list[int | None]:
    """Returns integers; null where negative, which means unknown."""
    return [value if value >= 0 else None for value in np.asarray(values, np.int64).tolist()]
