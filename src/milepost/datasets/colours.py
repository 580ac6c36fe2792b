"""Converts a decoded image to RGB with the colour matrix and range of its video, with every PyAV, and turns it as its track says.

An untagged video is converted as PyAV's `to_ndarray(format="rgb24")` does, bit for bit. LeRobot's own videos are untagged.
"""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import ColorRange, VideoReformatter
from jaxtyping import UInt8

_MATRICES = (1, 4, 7, 9)
"""FFmpeg's numbers of colour matrices that are not BT.601: BT.709, FCC, SMPTE 240M, BT.2020."""


def to_rgb(frame: av.VideoFrame, converter: VideoReformatter) -> UInt8[np.ndarray, "H W 3"]:
    """Returns a decoded image's pixels as stored. By its own matrix and range, which PyAV below 17 does not look at by itself."""
    matrix, whole = int(frame.colorspace), int(frame.color_range) == ColorRange.JPEG
    if matrix not in _MATRICES and not whole:
        return converter.reformat(frame, format="rgb24").to_ndarray()
    # Between two equal matrices PyAV 15 converts nothing, and RGB has none: any other stands for it.
    other, source = (1 if matrix == 5 else 5), (matrix if matrix in (*_MATRICES, 5, 6) else 5)
    ranges = {"src_color_range": 2 if whole else 1, "dst_color_range": 2}
    return converter.reformat(frame, format="rgb24", src_colorspace=source, dst_colorspace=other, **ranges).to_ndarray()


def upright(image: UInt8[np.ndarray, "H W 3"], frame: av.VideoFrame) -> UInt8[np.ndarray, "H2 W2 3"]:
    """Returns the image turned as the video's track says, by quarters."""
    quarters = quarter_turns(frame)
    return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image


def quarter_turns(frame: av.VideoFrame) -> int:
    """Returns how many quarters, against the clock, a decoded image must be turned to stand upright."""
    return round(frame.rotation / 90) % 4
