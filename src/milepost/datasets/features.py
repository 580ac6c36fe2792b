"""Reads one feature's entry in info.json, in every form that LeRobot writes: sizes, codecs, depth. Plain values in, plain values out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_DEEP = ("gray10", "gray12", "gray14", "gray16", "grayf32", "ya16", "p010")
"""Pixel formats with more than 8 bits of brightness alone, as FFmpeg calls them: distances, not colours."""


def notes(feature: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields the places where recorders write what they know of a camera: the feature itself, `info`, `video_info`."""
    yield feature
    yield from (feature[key] for key in ("info", "video_info") if isinstance(feature.get(key), dict))


def sides(feature: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """Returns (height, width, channels) of a camera, None if its shape is not three numbers.

    Names that hold a height and a width say where they are; without them a first number of 1, 3 or 4 is the channels.
    """
    shape, names = feature.get("shape"), feature.get("names")
    if not isinstance(shape, list | tuple) or len(shape) != 3 or not all(isinstance(n, int) and not isinstance(n, bool) for n in shape):
        return None
    axes = [str(name).lower() for name in names] if isinstance(names, list | tuple) and len(names) == 3 else []
    if "height" in axes and "width" in axes:
        high, wide = axes.index("height"), axes.index("width")
        return shape[high], shape[wide], shape[3 - high - wide]
    first = axes[0].startswith(("c", "rgb", "bgr")) if axes else shape[0] in (1, 3, 4) and shape[2] > 4
    return (shape[1], shape[2], shape[0]) if first else (shape[0], shape[1], shape[2])


def image_size(feature: Mapping[str, Any]) -> tuple[int, int] | None:
    """Returns (height, width) of a camera, None if its shape does not say."""
    shape = sides(feature)
    return None if shape is None else shape[:2]


def codec(feature: Mapping[str, Any]) -> str | None:
    """Returns the codec of a camera's videos, as FFmpeg calls it."""
    name = next((note["video.codec"] for note in notes(feature) if isinstance(note.get("video.codec"), str)), None)
    return (
        None
        if name is None
        else {"mp4v": "mpeg4", "avc1": "h264", "av01": "av1", "hvc1": "hevc", "hev1": "hevc", "h265": "hevc"}.get(name, name)
    )


def is_depth(feature: Mapping[str, Any]) -> bool:
    """Returns whether a camera measures distances: it says so, or its one channel has more than 8 bits by its pixel format."""
    if any(note.get(key) for note in notes(feature) for key in ("is_depth_map", "video.is_depth_map")):
        return True
    formats = [str(note.get("video.pix_fmt", note.get("pix_fmt", ""))) for note in notes(feature)]
    return any(form.startswith(_DEEP) for form in formats)


def may_be_depth(feature: Mapping[str, Any]) -> bool:
    """Returns whether a camera of single images has one channel: grey or distances, which only an image tells."""
    shape = sides(feature)
    return feature.get("dtype") == "image" and shape is not None and shape[2] == 1


def width(feature: Mapping[str, Any]) -> int | None:
    """Returns how many numbers a frame has of this feature, None if its shape does not say."""
    shape, count = feature.get("shape"), 1
    if not isinstance(shape, list | tuple) or not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= 10**6 for n in shape):
        return None
    for side in shape:
        count *= side
    return count
