"""Frames as the content parts of a chat message: each is a data URL, with its number or time in words before it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from milepost.core import DataError

ContentPart = dict[str, Any]


def text_part(text: str) -> ContentPart:
    """Returns words as a content part."""
    return {"type": "text", "text": text}


def frame_parts(
    frames: Sequence[UInt8[np.ndarray, "H W 3"]] | UInt8[np.ndarray, "N H W 3"],
    *,
    times_s: Float[np.ndarray, "N"] | Sequence[float] | None = None,
    caption: str = "",
    encoding: Literal["jpeg", "png"] = "jpeg",
    quality: int = 90,
    extra: ContentPart | None = None,
) -> list[ContentPart]:
    """Returns, for images (H, W, 3) uint8, a caption and an `image_url` part each, in order.

    caption: a format with `{number}` (from 1), `{time_s}`; by default "Frame {number}:", or with times "Frame {number}, {time_s:.2f} s:".
    quality: of JPEG; PNG keeps every pixel at several times the bytes. extra: what else goes into `image_url`, such as
    {"detail": "low"}. DataError for no frames, anything that is not an RGB uint8 image, or a time missing or too many.

    >>> [part["type"] for part in frame_parts(np.zeros((2, 8, 8, 3), np.uint8))]
    ['text', 'image_url', 'text', 'image_url']
    """
    if not len(frames):
        raise DataError("there are no frames to show")
    if times_s is not None and len(times_s) != len(frames):
        raise DataError(f"each frame needs one time: {len(frames)} frames, {len(times_s)} times")
    words = caption or ("Frame {number}:" if times_s is None else "Frame {number}, {time_s:.2f} s:")
    if times_s is None and "{time_s" in words:
        raise DataError(f"the caption '{words}' needs times_s")
    parts = []
    for position, frame in enumerate(frames):
        values = {"number": position + 1, "time_s": 0.0 if times_s is None else float(times_s[position])}
        url = data_url(frame, encoding=encoding, quality=quality)
        parts += [text_part(words.format(**values)), {"type": "image_url", "image_url": {"url": url, **(extra or {})}}]
    return parts


def data_url(frame: UInt8[np.ndarray, "H W 3"], *, encoding: Literal["jpeg", "png"] = "jpeg", quality: int = 90) -> str:
    """Returns one image as `data:image/...;base64,...`. DataError if it is not an RGB uint8 image."""
    if frame.ndim != 3 or frame.shape[2] != 3 or not frame.size or frame.dtype != np.uint8:
        raise DataError(f"a frame is a uint8 image (H, W, 3) with at least one pixel, got {frame.dtype} {frame.shape}")
    import PIL.Image

    buffer = io.BytesIO()
    settings = {"quality": quality, "subsampling": 0} if encoding == "jpeg" else {"compress_level": 3}
    PIL.Image.fromarray(np.ascontiguousarray(frame)).save(buffer, format=encoding, **settings)
    return f"data:image/{encoding};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
