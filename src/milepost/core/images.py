"""The rules for images and cameras that a user names or passes in."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from jaxtyping import Shaped, UInt8

from milepost.core.errors import DataError


def require_uint8(images: Shaped[np.ndarray, "..."], what: str) -> None:
    """Raises DataError unless images from a dataset reader are uint8; nothing is converted. what: their name in the message."""
    if images.dtype != np.uint8:
        raise DataError(f"{what} should be uint8, from 0 to 255, got {images.dtype}; a dataset reader must return uint8")


def as_uint8(images: Shaped[np.ndarray, "..."], what: str) -> UInt8[np.ndarray, "..."]:
    """Returns images of any shape as uint8; floats between 0 and 1 are multiplied by 255 and rounded. what: their name in the message.

    Raises DataError for any other image. Floats up to 255 are refused: a dark image in [0, 255] looks like one in [0, 1], so the range
    cannot be guessed.
    """
    if images.dtype == np.uint8:
        return images
    is_float = np.issubdtype(images.dtype, np.floating) and images.size > 0
    if not is_float or not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
        actual = f"{images.dtype}" + (f" from {images.min()} to {images.max()}" if images.size else ", and empty")
        raise DataError(f"{what} should be uint8, or float between 0 and 1, got {actual}")
    return np.round(images * 255).astype(np.uint8)


def require_cameras(names: Iterable[str], cameras: Collection[str], *, whose: str = "this dataset has", hint: str = "") -> None:
    """Raises DataError for the first of `names` that is no camera; the message lists the `cameras`. hint: what the user can do."""
    for name in names:
        if name not in cameras:
            raise DataError(f"no camera '{name}'; {whose}: {', '.join(map(str, cameras)) or 'none'}{f'; {hint}' if hint else ''}")
