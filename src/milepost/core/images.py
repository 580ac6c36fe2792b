"""The rules for images and cameras that a user names or passes in."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt8

from milepost.core.errors import DataError

FrameIndex = Int[np.ndarray, "N"] | Bool[np.ndarray, "T"] | slice
"""What names frames of a camera: their numbers, a mask with an entry for each frame, or a slice."""


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
        extent = f" from {images.min()} to {images.max()}" if images.size and images.dtype.kind in "biuf" else ""
        raise DataError(f"{what} should be uint8, or float between 0 and 1, got {images.dtype}{extent if images.size else ', and empty'}")
    return np.round(images * 255).astype(np.uint8)


def rgb_image(image: Shaped[np.ndarray, "..."], what: str) -> UInt8[np.ndarray, "H W 3"]:
    """Returns one image as (H, W, 3), uint8. what: its name in the message.

    The image may be RGB, grey or RGBA, with its channels last or first, or grey (H, W), of uint8 or of floats between 0 and 1. Grey is
    repeated and the alpha channel left out, as of a PNG. DataError for any other array.
    """
    axis = _channel_axis(image.shape)
    if image.ndim == 2:
        image = image[..., None]
    if axis is None or 0 in image.shape:
        raise DataError(f"{what} should be (H, W, 3) or (3, H, W), grey (H, W) or RGBA (H, W, 4), got {image.shape}")
    colours = as_uint8(np.moveaxis(image, axis, -1)[..., :3], what)
    return colours if colours.shape[-1] == 3 else colours.repeat(3, -1)


def _channel_axis(shape: tuple[int, ...]) -> int | None:
    """Returns which axis of an image has its channels, last or first; None if it is no image. (H, W) is (H, W, 1)."""
    if len(shape) == 2:
        return -1
    axes = ((-1, (3,)), (0, (3,)), (-1, (1, 4)), (0, (1, 4)))
    return next((axis for axis, counts in axes if len(shape) == 3 and shape[axis] in counts), None)


def image_size(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Returns height and width of an image of this shape, as `rgb_image` takes it; None if it is none.

    >>> image_size((480, 640, 3)), image_size((3, 480, 640)), image_size((7,))
    ((480, 640), (480, 640), None)
    """
    axis = _channel_axis(shape)
    if axis is None:
        return None
    height, width = shape[1:] if axis == 0 else shape[:2]
    return height, width


def require_cameras(names: Iterable[str], cameras: Collection[str], *, whose: str = "this dataset has", hint: str = "") -> None:
    """Raises DataError for the first of `names` that is no camera; the message lists the `cameras`. hint: what the user can do."""
    for name in names:
        if name not in cameras:
            raise DataError(f"no camera '{name}'; {whose}: {', '.join(map(str, cameras)) or 'none'}{f'; {hint}' if hint else ''}")


def frame_numbers(frames: object, length: int) -> Int[np.ndarray, "N"]:
    """Returns the frames that an index of a camera names: whole numbers, a mask with an entry for each frame, or a slice.

    IndexError for anything else, and for a frame outside [0, length).

    >>> frame_numbers(np.array([True, False, True]), 3), frame_numbers(slice(1, 3), 3)
    (array([0, 2]), array([1, 2]))
    """
    if isinstance(frames, slice):
        return np.arange(length)[frames]
    numbers = np.asarray(frames)
    if numbers.dtype == np.bool_:
        if numbers.shape != (length,):
            raise IndexError(f"a mask of frames has one entry for each of the {length} frames, got shape {numbers.shape}")
        return np.flatnonzero(numbers)
    if numbers.size and numbers.dtype.kind not in "iu":
        raise IndexError(f"frames are whole numbers, a mask or a slice; got {numbers.dtype}")
    if numbers.size and (numbers.min() < 0 or numbers.max() >= length):
        raise IndexError(f"frames {numbers.min()}..{numbers.max()} asked of a camera with {length} frames")
    return numbers.astype(np.int64)
