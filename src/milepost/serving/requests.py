"""Reads the bodies of the reward server's routes. Whatever does not fit is a DataError that says what was expected."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from milepost.core import DataError, rgb_image, shown
from milepost.online import Observation, PackedArrays
from milepost.serving.later import WholeEpisode

MOST_PIXELS = 64_000_000
"""Of all JPEG and PNG images of a request."""
MOST_FRAMES = 2**31
"""Above any number of a frame."""
MOST_LETTERS = 400
"""Of a session's name, of a request's key, and of what a client says itself is wrong with a frame."""


def observations_of(request: Mapping[str, Any], arrays: PackedArrays, received_s: float) -> list[Observation]:
    """Returns the observations of POST /step. One that does not fit has its `fault`, and the others are as they would be without it.

    DataError if the request has no list of observations.
    """
    rows = request.get("observations")
    if not isinstance(rows, list):
        raise DataError("a request has 'observations', a list with an object for each robot")
    budget = PixelBudget()
    return [_observation(place, row, arrays, received_s, budget) for place, row in enumerate(rows)]


def episode_of(request: Mapping[str, Any], arrays: PackedArrays) -> WholeEpisode:
    """Returns the episode of POST /relabel. DataError if the request is not made as `pack_episode` makes it."""
    task, fps = task_and_rate(request)
    cameras = request.get("cameras")
    if not isinstance(cameras, list) or not cameras or not all(isinstance(camera, str) for camera in cameras):
        raise DataError("an episode has 'cameras', a list of names")
    frames = {camera: _frames(camera, arrays) for camera in cameras}
    state = arrays.get("state")
    lengths = {camera: len(each) for camera, each in frames.items()}
    if state is not None:
        lengths["the state"] = len(state) if state.ndim else 0
    if len(set(lengths.values())) != 1 or not next(iter(lengths.values())):
        raise DataError(f"all cameras and the state have a row for each frame, and at least one: {lengths}")
    if state is not None and (state.ndim != 2 or state.dtype.kind not in "fiu"):
        raise DataError(f"the state has the shape {state.shape} and the type {state.dtype}; a row of numbers for each frame is expected")

    def images(frame: int) -> dict[str, Shaped[np.ndarray, "..."]]:
        budget = PixelBudget()
        return {camera: image_of(each[frame], camera, budget) for camera, each in frames.items()}

    return WholeEpisode(
        task, fps, next(iter(lengths.values())), images, None if state is None else state.astype(np.float32),
        request.get("is_terminal") is True, arrays.nbytes,
    )  # fmt: skip


def _frames(camera: str, arrays: PackedArrays) -> Sequence[Shaped[np.ndarray, "..."]]:
    """Returns the frames of one camera: arrays as they are, or the bytes of an image each."""
    frames, sizes = arrays.require(f"frames/{camera}"), arrays.get(f"sizes/{camera}")
    if sizes is None:
        if frames.ndim != 4 or 0 in frames.shape[1:] or not frames.itemsize:
            raise DataError(f"the frames of camera '{camera}' have the shape {frames.shape}; (T, H, W, 3) is expected")
        return list(frames)
    if sizes.ndim != 1 or sizes.dtype != np.int64 or (sizes < 0).any() or int(sizes.sum()) != frames.size or frames.ndim != 1:
        raise DataError(f"the sizes of the images of camera '{camera}' do not add up to its bytes")
    return np.split(frames, np.cumsum(sizes)[:-1]) if sizes.size else []


def task_and_rate(fields: Mapping[str, Any]) -> tuple[str, float]:
    """Returns 'task' and 'fps' of a request. DataError if one is missing, or of another type."""
    task, fps = fields.get("task"), fields.get("fps")
    if not isinstance(task, str):
        raise DataError("'task' is missing: the instruction, in words" if task is None else f"'task' should be a text, got {shown(task)}")
    if fps is None:
        raise DataError("'fps' is missing: how many frames come in a second")
    if not isinstance(fps, int | float) or isinstance(fps, bool):
        raise DataError(f"'fps' should be a number, got {shown(fps)}")
    return task, float(fps)


class PixelBudget:
    """How many pixels the images of one request may still be decoded to: a small JPEG can ask for much memory."""

    def __init__(self) -> None:
        self.left = MOST_PIXELS

    def take(self, width: int, height: int, camera: str) -> None:
        """Takes an image's pixels from what is left. DataError if there are not enough."""
        if width * height > self.left:
            raise DataError(f"with the image of camera '{camera}', {width} x {height}, the request has more than {MOST_PIXELS} pixels")
        self.left -= width * height


def _observation(place: int, row: Any, arrays: PackedArrays, received_s: float, budget: PixelBudget) -> Observation:
    """Returns one observation; what does not fit is its fault. Its number is None where it has none that can be one."""
    fields = row if isinstance(row, dict) else {}
    session, frame = fields.get("session"), fields.get("frame")
    is_number = isinstance(frame, int) and not isinstance(frame, bool) and 0 <= frame < MOST_FRAMES
    state, images, fault = None, dict[str, Shaped[np.ndarray, "..."]](), ""
    try:
        if not isinstance(session, str) or not 0 < len(session) <= MOST_LETTERS:
            raise DataError(f"observations[{place}] has no 'session', the name that POST /sessions answered with")
        if frame is not None and not is_number:
            raise DataError(f"the frame has the number {shown(frame)}; a whole number from 0 on is expected, or null for the next one")
        if isinstance(fields.get("fault"), str) and fields["fault"]:
            raise DataError(fields["fault"][:MOST_LETTERS])
        state = _state(place, arrays) if fields.get("has_state") is True else None
        images = _images(place, fields.get("cameras", []), arrays, budget)
    except DataError as error:
        fault, images, state = str(error), {}, None
    name = session if isinstance(session, str) and len(session) <= MOST_LETTERS else ""
    return Observation(name, images, state, frame if is_number else None, fields.get("is_terminal") is True, received_s, fault)


def _images(place: int, cameras: Any, arrays: PackedArrays, budget: PixelBudget) -> dict[str, Shaped[np.ndarray, "..."]]:
    if not isinstance(cameras, list) or not all(isinstance(camera, str) for camera in cameras):
        raise DataError("the frame has no 'cameras', a list of names")
    return {camera: image_of(arrays.require(f"{place}/{camera}"), camera, budget) for camera in cameras}


def _state(place: int, arrays: PackedArrays) -> Float[np.ndarray, "S"]:
    state = arrays.require(f"{place}/")
    if state.ndim != 1 or state.dtype.kind not in "fiu":
        raise DataError(f"the state has the shape {state.shape} and the type {state.dtype}; one row of numbers is expected")
    with np.errstate(over="ignore"):
        return state.astype(np.float32)


def image_of(array: Shaped[np.ndarray, "..."], camera: str, budget: PixelBudget) -> UInt8[np.ndarray, "H W 3"]:
    """Returns an image as RGB, from an array as `core.rgb_image`, or from the bytes of a JPEG or PNG. DataError if it is neither."""
    what = f"the image of camera '{camera}'"
    if array.ndim != 1:
        return rgb_image(array, what)
    if array.dtype != np.uint8:
        raise DataError(f"{what} is a flat array of {array.dtype}; bytes of a JPEG or PNG are uint8")
    try:
        with Image.open(io.BytesIO(array.tobytes()), formats=("JPEG", "PNG")) as image:
            budget.take(image.width, image.height, camera)
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{what} has more than 8 bits a channel (mode {image.mode}): distances, not colours")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError as error:
        raise DataError(f"{what} cannot be decoded: its {array.size} bytes are no JPEG or PNG") from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError) as error:
        raise DataError(f"{what} cannot be decoded as JPEG or PNG: {error}") from error
