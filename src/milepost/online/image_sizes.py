"""The sizes of the images of one attempt: large enough to show something, and the same from its first frame to its last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from milepost.core import image_size

SMALLEST = 8
"""Pixels of the shorter side of an image."""


class ImageSizes:
    """Follows one attempt: `fault` looks at a frame, `keep` remembers the sizes of one that the model took."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[int, int]] = {}

    def fault(self, images: Any) -> str:
        """Returns why the images cannot belong to this attempt; "" if they can. What is no image the model refuses."""
        for camera, (height, width) in _sizes_of(images).items():
            if min(height, width) < SMALLEST:
                return f"the image of camera '{camera}' is {width} x {height}: a side has at least {SMALLEST} pixels"
            first = self._first.get(camera, (height, width))
            if first != (height, width):
                return (
                    f"the image of camera '{camera}' is {width} x {height}, and the attempt began with {first[1]} x {first[0]}: images "
                    "keep their size in an attempt; begin anew for another"
                )
        return ""

    def keep(self, images: Any) -> None:
        """Remembers the sizes of these images."""
        self._first = self._first or _sizes_of(images)


def _sizes_of(images: Any) -> dict[str, tuple[int, int]]:
    """Returns camera name -> (height, width) of what is an image."""
    if not isinstance(images, Mapping):
        return {}
    sizes = {str(camera): image_size(tuple(getattr(image, "shape", ()))) for camera, image in images.items()}
    return {camera: size for camera, size in sizes.items() if size is not None}
