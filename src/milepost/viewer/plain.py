"""Arrays of numbers as the page has them: unknown numbers are null, never NaN; rounded, since a page has few pixels."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Shaped

DIGITS = 4


def rounded(values: Shaped[np.ndarray, "N"], digits: int = DIGITS) -> list[float | None]:
    """Numbers to so many digits; null where not finite."""
    return [value if math.isfinite(value) else None for value in np.round(np.asarray(values, np.float64), digits).tolist()]


def counted(values: Shaped[np.ndarray, "N"]) -> list[int | None]:
    """Whole numbers; null where below 0, which says unknown."""
    return [value if value >= 0 else None for value in np.asarray(values, np.int64).tolist()]
