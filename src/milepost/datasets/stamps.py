"""Reads when each image of a video is shown, from its index: an mp4's table if it is complete, else its packets. Decodes nothing."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import Float

from milepost.core import UnreadableError


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """The images of a video, from its index. stamps: (N,) seconds, ascending. fps: the video's own frames per second.

    size: (height, width) before any turn; zeros if unknown.
    """

    stamps: Float[np.ndarray, "N"]
    fps: float
    size: tuple[int, int] = (0, 0)

    @property
    def spacing_s(self) -> float:
        """Returns the least time between two images, in seconds."""
        return float(np.diff(self.stamps).min()) if len(self.stamps) > 1 else math.inf


class NoTimesError(UnreadableError):
    """The images are there and in order, but their times are missing or wrong. Writing the video again mends it."""


def rewriting(path: Path, fps: float | int) -> str:
    """Returns the command that writes a video anew with its images in order, one every 1 / fps s.

    `-r` before the input makes FFmpeg count the decoded images and ignore whatever times there are. They are encoded again, because a
    stream with B frames and no times cannot be put into an mp4 as it is. The settings are LeRobot's: a key frame every two.
    """
    rate = Fraction(fps).limit_denominator(1001)
    return f"ffmpeg -r {rate} -i {shlex.quote(str(path))} -map 0:v:0 -c:v libx264 -crf 18 -g 2 -pix_fmt yuv420p NEW.mp4"


def index_of(container: Any, stream: Any, path: Path) -> VideoIndex:
    """Returns the index of an open video. UnreadableError if its images have no times, or two of them one."""
    if container.format.name == "avi" and stream.codec_context.has_b_frames:
        raise NoTimesError(f"video {path} is an AVI with B frames, which has no times of its pictures")
    stamps = _even_stamps(stream)
    if stamps is None:
        stamps = _packet_stamps(container, stream, path)
    if len(stamps) > 1 and not np.all(np.diff(stamps) > 0):
        raise NoTimesError(f"video {path} has two pictures at one time, as files have that were joined byte by byte")
    mean_rate = (len(stamps) - 1) / (stamps[-1] - stamps[0]) if len(stamps) > 1 else 0.0
    context = stream.codec_context
    return VideoIndex(stamps, float(stream.average_rate or mean_rate), (context.height, context.width))


def _even_stamps(stream: Any) -> Float[np.ndarray, "N"] | None:
    """Returns the stamps of a video with one image every so often, from the mp4's own table; None where packets must be read for them.

    The table has decoding times. Where those are even and nothing is cut away, the images are as many and as far apart.
    """
    entries = getattr(stream, "index_entries", None)  # PyAV 15 and 16 do not show it
    if not stream.frames or stream.start_time is None or entries is None or len(entries) != stream.frames:
        return None
    decoding = np.array([-1 if entry.is_discard else entry.timestamp for entry in entries], np.int64)
    steps = np.diff(decoding)
    if len(steps) and (steps[0] <= 0 or np.any(steps != steps[0])):
        return None
    step = int(steps[0]) if len(steps) else 0
    return (stream.start_time + step * np.arange(len(decoding))) * float(stream.time_base)


def _packet_stamps(container: Any, stream: Any, path: Path) -> Float[np.ndarray, "N"]:
    try:
        stamps = [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
    except av.error.FFmpegError as error:
        raise UnreadableError(f"video {path} is damaged ({error.strerror}); record or download it again") from error
    if not stamps or any(stamp is None for stamp in stamps):
        if not stamps:
            raise UnreadableError(f"video {path} has no pictures; record or download it again")
        raise NoTimesError(f"video {path} has pictures without times (a raw stream)")
    return np.sort(np.array(stamps, np.int64)) * float(stream.time_base)
