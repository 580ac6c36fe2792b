"""What the formats share: arrays of an episode become cameras, state and action; outcomes become columns; images get even sides.

Arrays are read through a function, a few rows at a time, so a file is open only while it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8

from milepost.core import SUCCESS, DataError
from milepost.importing.source import CHUNK, Choices

STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Whether each episode succeeded; None where that is not known. If it is known of all, the dataset gets a column `next.success`."""

    successes: Sequence[bool | None]

    def columns(self, number: int, length: int) -> dict[str, Bool[np.ndarray, "T"]]:
        """Returns next.success: true at the last frame of a success, false elsewhere. Nothing unless all outcomes are known."""
        if None in self.successes:
            return {}
        return {SUCCESS: (np.arange(length) == length - 1) & bool(self.successes[number])}

    def facts(self, number: int) -> dict[str, bool]:
        """Returns the episode's success, if it is known."""
        success = self.successes[number]
        return {} if success is None else {"success": success}


@dataclass(frozen=True, eq=False)
class Arrays:
    """The arrays of an episode, each with its frames first. shapes, dtypes: by key. read: (key, start, stop) -> these frames of it."""

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, np.dtype]
    read: Callable[[str, int, int], np.ndarray]

    def is_image(self, key: str) -> bool:
        """Returns whether an array looks like images (T, H, W, 3)."""
        return len(self.shapes[key]) == 4 and self.shapes[key][3] == 3 and min(self.shapes[key][1:3]) > 3

    def is_vector(self, key: str) -> bool:
        """Returns whether an array is one number or one vector of numbers a frame."""
        return len(self.shapes[key]) in (1, 2) and self.dtypes[key].kind in "fiub"


@dataclass(frozen=True, eq=False)
class Layout:
    """Which arrays become what. images: key of an array -> camera. state, action: keys whose vectors are put side by side."""

    images: Mapping[str, str]
    state: tuple[str, ...]
    action: tuple[str, ...]

    @classmethod
    def choose(cls, arrays: Arrays, choices: Choices, *, state: Sequence[str], action: Sequence[str], images: Sequence[str]) -> Layout:
        """Returns the user's choice of arrays, else the usual ones. DataError if there is no array of a name, or of another kind."""
        image_keys = tuple(images) if choices.image_keys is None else choices.image_keys
        state_keys = tuple(state) if choices.state_keys is None else choices.state_keys
        action_keys = tuple(action) if choices.action_keys is None else choices.action_keys
        for flag, keys in (("--image-keys", image_keys), ("--state-keys", state_keys), ("--action-keys", action_keys)):
            for key in keys:
                _require_kind(arrays, key, flag)
        if not (image_keys or state_keys or action_keys):
            raise DataError(f"{arrays.name} has no camera, no state and no action; choose arrays with --image-keys and --state-keys")
        return cls({key: IMAGES + key.rpartition("/")[2] for key in image_keys}, state_keys, action_keys)

    @property
    def keys(self) -> tuple[str, ...]:
        """Returns the keys of all arrays that are read, each once."""
        return tuple(dict.fromkeys((*self.images, *self.state, *self.action)))

    def notes(self, arrays: Arrays, elsewhere: Sequence[str] = ()) -> list[str]:
        """Returns a sentence on what becomes what, and one on what is left out. elsewhere: arrays that have columns of their own."""
        parts = [("cameras", tuple(self.images)), ("state", self.state), ("action", self.action)]
        lines = ["; ".join(f"{name}: {', '.join(keys) or 'none'}" for name, keys in parts)]
        left_out = [key for key in arrays.shapes if key not in (*self.keys, *elsewhere)]
        if left_out:
            lines.append(f"left out: {', '.join(left_out)} (--image-keys, --state-keys and --action-keys choose)")
        odd = [key for key in self.images if arrays.shapes[key][1] % 2 or arrays.shapes[key][2] % 2]
        if odd:
            lines.append(f"a video needs even sides, so the last row or column of {', '.join(odd)} is cut off")
        return lines

    def check(self, arrays: Arrays, first: Arrays) -> int:
        """Returns the number of frames of an episode. DataError if its arrays differ in length, or from the first episode in kind."""
        lengths = {key: arrays.shapes[key][0] for key in self.keys if key in arrays.shapes}
        for key in self.keys:
            if key not in lengths:
                raise DataError(f"{arrays.name} has no array '{key}', which {first.name} has; choose the arrays with --image-keys, "
                                "--state-keys and --action-keys")  # fmt: skip
            if arrays.shapes[key][1:] != first.shapes[key][1:]:
                raise DataError(
                    f"'{key}' has the shape {arrays.shapes[key][1:]} a frame in {arrays.name} and {first.shapes[key][1:]} in {first.name}; "
                    "a dataset needs one size: import them apart"
                )
            if lengths[key] != lengths[self.keys[0]]:
                raise DataError(
                    f"{arrays.name}: '{self.keys[0]}' has {lengths[self.keys[0]]} frames and '{key}' has {lengths[key]}; "
                    "the arrays of an episode must have equally many"
                )
        return lengths[self.keys[0]]

    def vectors(self, arrays: Arrays, keys: Sequence[str], length: int) -> Float32[np.ndarray, "T D"]:
        """Returns these arrays side by side."""
        parts = [np.asarray(arrays.read(key, 0, length)).reshape(length, -1).astype(np.float32) for key in keys]
        return np.concatenate(parts, axis=1) if parts else np.empty((length, 0), np.float32)

    def names(self, arrays: Arrays, channels: Mapping[str, Sequence[str]] | None = None) -> dict[str, list[str]]:
        """Returns the names of the channels of state and action. channels: key of an array -> its own names, where they are known."""
        out: dict[str, list[str]] = {}
        for name, keys in ((STATE, self.state), (ACTION, self.action)):
            each = [channel for key in keys for channel in (channels or {}).get(key) or _channels(key, arrays.shapes[key])]
            out |= {name: each} if each else {}
        return out

    def frames(self, arrays: Arrays, length: int, choices: Choices) -> dict[str, Iterable[np.ndarray]]:
        """Returns camera -> its images, which are read as they are asked for."""
        return {
            camera: even_images(_images(arrays, key, length), swap=choices.swap_red_blue) for key, camera in self.images.items()
        }  # fmt: skip


def _require_kind(arrays: Arrays, key: str, flag: str) -> None:
    wants_images = flag == "--image-keys"
    if key not in arrays.shapes:
        there = [each for each in arrays.shapes if (arrays.is_image(each) if wants_images else arrays.is_vector(each))]
        raise DataError(f"{arrays.name} has no array '{key}'; for {flag} there are {', '.join(there) or 'none'}")
    shape, dtype = arrays.shapes[key], arrays.dtypes[key]
    if wants_images and not arrays.is_image(key):
        raise DataError(f"{arrays.name}: '{key}' is {dtype} {shape}, and a camera's images are (frames, height, width, 3)")
    if not wants_images and not arrays.is_vector(key):
        raise DataError(f"{arrays.name}: '{key}' is {dtype} {shape}, and {flag} needs one number or one vector of numbers a frame")


def _channels(key: str, shape: Sequence[int]) -> list[str]:
    """Returns the key for one number a frame, `key.0`, `key.1` and so on for a vector."""
    name = key.rpartition("/")[2]
    return [name] if len(shape) == 1 or shape[1] == 1 else [f"{name}.{i}" for i in range(shape[1])]


def _images(arrays: Arrays, key: str, length: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    for start in range(0, length, CHUNK):
        yield from as_levels(arrays.read(key, start, min(length, start + CHUNK)), who=f"'{key}'", start=start)


def as_levels(images: Shaped[np.ndarray, "N H W 3"], *, who: str, start: int = 0) -> UInt8[np.ndarray, "N H W 3"]:
    """Returns images as uint8. Floats are taken if each is a whole number from 0 to 255, as PushT's replay buffer has them.

    who, start: the array and its first frame here, for the message. Raises DataError for other numbers.
    """
    if images.dtype == np.uint8:
        return images
    with np.errstate(invalid="ignore"):
        levels = images.astype(np.uint8)
    if images.dtype.kind not in "fiu" or not np.array_equal(levels, images):
        frame = next((start + i for i, image in enumerate(images) if not np.array_equal(levels[i], image)), start)
        raise DataError(
            f"{who} is {images.dtype}, and at frame {frame} not whole numbers from 0 to 255; images must be uint8, so write them as such "
            "(images on a scale from 0 to 1: times 255, rounded)"
        )
    return levels


def even_images(images: Iterable[UInt8[np.ndarray, "H W 3"]], *, swap: bool = False) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Yields the images with even sides, which a video needs: the last row or column of an odd one is cut off. swap: blue comes first."""
    for image in images:
        even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
        yield even[..., ::-1] if swap else even
