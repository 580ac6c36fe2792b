"""Reads the bodies of the reward server's routes. Whatever does not fit is a DataError that says what was expected."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped
from PIL import Image, UnidentifiedImageError

from milepost.core import DataError
from milepost.online import Observation
from milepost.serving.later import WholeEpisode

MOST_PIXELS = 64_000_000
"""Of all JPEG and PNG images of a request."""


def observations_of(request: Mapping[str, Any], arrays: Mapping[str, Shaped[np.ndarray, "..."]], received_s: float) -> list[Observation]:
    """Returns the observations of POST /step. DataError if the request is not made as `pack_observations` makes it."""
    rows = request.get("observations")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError("a request has 'observations', a list of objects, one for each robot")
    budget = PixelBudget()
    return [_observation(place, row, arrays, received_s, budget) for place, row in enumerate(rows)]


def episode_of(request: Mapping[str, Any], arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> WholeEpisode:
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
        request.get("is_terminal") is True, sum(array.nbytes for array in arrays.values()),
    )  # fmt: skip


def _frames(camera: str, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> Sequence[Shaped[np.ndarray, "..."]]:
    """Returns the frames of one camera: arrays as they are, or the bytes of an image each."""
    frames, sizes = _array(arrays, f"frames/{camera}"), arrays.get(f"sizes/{camera}")
    if sizes is None:
        if frames.ndim != 4:
            raise DataError(f"the frames of camera '{camera}' have the shape {frames.shape}; (T, H, W, 3) is expected")
        return list(frames)
    if sizes.ndim != 1 or sizes.dtype != np.int64 or (sizes < 0).any() or int(sizes.sum()) != frames.size or frames.ndim != 1:
        raise DataError(f"the sizes of the images of camera '{camera}' do not add up to its bytes")
    return np.split(frames, np.cumsum(sizes)[:-1]) if sizes.size else []


def task_and_rate(fields: Mapping[str, Any]) -> tuple[str, float]:
    """Returns 'task' and 'fps' of a request. DataError if one is missing."""
    task, fps = fields.get("task"), fields.get("fps")
    if not isinstance(task, str):
        raise DataError("'task' is missing: the instruction, in words")
    if not isinstance(fps, int | float) or isinstance(fps, bool):
        raise DataError("'fps' is missing: how many frames come in a second")
    return task, float(fps)


class PixelBudget:
    """How many pixels the images of one request may still be decoded to: a small JPEG can ask for much memory."""

    def __init__(self) -> None:
        self.left = MOST_PIXELS

    def take(self, width: int, height: int, camera: str) -> None:
        """Takes an image's pixels from what is left. DataError if there are not enough."""
        self.left -= width * height
        if self.left < 0:
            raise DataError(f"with the image of camera '{camera}', {width} x {height}, the request has more than {MOST_PIXELS} pixels")


def _observation(
    place: int, row: Mapping[str, Any], arrays: Mapping[str, Shaped[np.ndarray, "..."]], received_s: float, budget: PixelBudget
) -> Observation:
    where = f"observations[{place}]"
    session, frame, cameras = row.get("session"), row.get("frame"), row.get("cameras", [])
    if not isinstance(session, str):
        raise DataError(f"{where} has no 'session', the name that POST /sessions answered with")
    if frame is not None and (not isinstance(frame, int) or isinstance(frame, bool) or frame < 0):
        raise DataError(f"{where} has the frame {frame!r}; a whole number from 0 on is expected, or null for the next one")
    if not isinstance(cameras, list) or not all(isinstance(camera, str) for camera in cameras):
        raise DataError(f"{where} has no 'cameras', a list of names")
    images = {camera: image_of(_array(arrays, f"{place}/{camera}"), camera, budget) for camera in cameras}
    state = _array(arrays, f"{place}/") if row.get("has_state") is True else None
    if state is not None:
        if state.ndim != 1 or state.dtype.kind not in "fiu":
            raise DataError(f"{where} has a state of shape {state.shape} and type {state.dtype}; one row of numbers is expected")
        state = state.astype(np.float32)
    return Observation(session, images, state, frame, row.get("is_terminal") is True, received_s)


def _array(arrays: Mapping[str, Shaped[np.ndarray, "..."]], name: str) -> Shaped[np.ndarray, "..."]:
    if name not in arrays:
        raise DataError(f"the .npz has no array '{name}', which its request names")
    return arrays[name]


def image_of(array: Shaped[np.ndarray, "..."], camera: str, budget: PixelBudget) -> Shaped[np.ndarray, "..."]:
    """Returns an image: an array as it is, or the decoded JPEG or PNG of a flat array of bytes. DataError if it is neither."""
    if array.ndim != 1:
        return array
    if array.dtype != np.uint8:
        raise DataError(f"the image of camera '{camera}' is a flat array of {array.dtype}; bytes of a JPEG or PNG are uint8")
    try:
        with Image.open(io.BytesIO(array.tobytes()), formats=("JPEG", "PNG")) as image:
            budget.take(image.width, image.height, camera)
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"the image of camera '{camera}' cannot be decoded as JPEG or PNG: {error}") from error
