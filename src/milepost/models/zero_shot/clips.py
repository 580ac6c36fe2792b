"""Frames as people have them, tensors or arrays, channels first or last, float or bytes -> clips of (T, H, W, 3) bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8
from torch import Tensor

from milepost.core import DataError, as_uint8


def clips_of(frames: Any, *, alone: bool) -> list[UInt8[np.ndarray, "T H W 3"]]:
    """Returns each sample's frames, (T, H, W, 3) uint8. alone: four dimensions are one clip and not B images. DataError if they are
    neither.
    """
    if isinstance(frames, Sequence):
        return [clip_of(each) for each in frames]
    array = _numpy(frames)
    if array.ndim == 5:
        return [clip_of(each) for each in array]
    if array.ndim == 4:
        return [clip_of(array)] if alone else [clip_of(each[None]) for each in array]
    if array.ndim == 3:
        return [clip_of(array[None])]
    raise DataError(f"frames should be (B, T, C, H, W), (B, T, H, W, C) or a list of clips, they are {array.shape}")


def clip_of(frames: Any) -> UInt8[np.ndarray, "T H W 3"]:
    """Returns one clip, channels first or last, uint8 or float in [0, 1]. DataError if it is neither, empty or without area."""
    array = _numpy(frames)
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or 3 not in (array.shape[1], array.shape[-1]):
        raise DataError(f"a clip should be (T, H, W, 3) or (T, 3, H, W), it is {array.shape}")
    if not array.size:
        raise DataError(f"the clip is empty, {array.shape}; give it at least one frame with an area")
    if array.shape[-1] != 3:
        array = np.moveaxis(array, 1, -1)
    return np.ascontiguousarray(as_uint8(array, "frames"))


def _numpy(frames: Any) -> Shaped[np.ndarray, "..."]:
    if isinstance(frames, Tensor):
        frames = frames.detach().cpu()
        return (frames.float() if frames.is_floating_point() else frames).numpy()
    try:
        return np.asarray(frames)
    except ValueError as error:  # a list whose members differ in size
        raise DataError("the frames of a clip should have one size; these differ") from error
