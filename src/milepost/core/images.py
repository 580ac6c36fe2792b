"""The one rule for pictures that a user hands over: uint8, or float between 0 and 1; channels first or last."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped, UInt8

from milepost.core.types import DataError


def require_uint8(images: Shaped[np.ndarray, "..."], what: str) -> None:
    """Raises DataError unless pictures, which it calls `what`, are uint8: a reader's own, of which none is converted."""
    if images.dtype != np.uint8:
        raise DataError(f"{what} should be uint8, from 0 to 255, got {images.dtype}; a reader of pictures gives them so")


def as_uint8(images: Shaped[np.ndarray, "..."], what: str) -> UInt8[np.ndarray, "..."]:
    """Returns pictures of any shape as uint8; floats between 0 and 1 are multiplied by 255 and rounded.

    DataError, which calls them `what`, if they are neither uint8 nor float between 0 and 1: floats up to 255 are refused, not guessed.
    """
    if images.dtype == np.uint8:
        return images
    known = np.issubdtype(images.dtype, np.floating) and images.size > 0
    if not known or not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
        found = f"{images.dtype}" + (f" from {images.min()} to {images.max()}" if images.size else ", and empty")
        raise DataError(f"{what} should be uint8, or float between 0 and 1, got {found}")
    return np.round(images * 255).astype(np.uint8)
