"""A clip to be scored: frames, the time of each, the size they are resized to; and the KV caches computed for it so far.

A `PrefixCache` holds the language model's keys and values over complete groups of two frames at one size. Tokens after it may attend to any
whole number of its groups.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from milepost.core import DataError
from milepost.vlm.patches import PAIR, Resolution, Size


class PrefixCache:
    """A KV cache: keys and values of every layer, (1, heads, tokens, D) each. `ends` and `next_positions` are by number of groups."""

    def __init__(self, layers: int, size: Size) -> None:
        self.size = size
        self.ends = [0]
        """Tokens up to the end of so many groups."""
        self.next_positions = [0]
        """The position of whatever follows so many groups."""
        self._layers: list[tuple[Tensor, Tensor] | None] = [None] * layers

    @property
    def groups(self) -> int:
        return len(self.ends) - 1

    def commit(self, ends: list[int], next_positions: list[int]) -> None:
        """Makes the tokens up to these ends part of the cache. If they are fewer than before, the others are dropped."""
        self.ends, self.next_positions = ends, next_positions

    def read(self, layer: int, tokens: int) -> tuple[Tensor, Tensor] | None:
        """Returns the first `tokens` keys and values of a layer; None if it has none yet."""
        buffers = self._layers[layer]
        return None if buffers is None else (buffers[0][:, :, :tokens], buffers[1][:, :, :tokens])

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Writes new keys and values after those of `ends`, and returns all. They count only after `commit`, so a pass that failed can be
        repeated.
        """
        start = self.ends[-1]
        stop = start + keys.shape[2]
        buffers = self._layers[layer]
        if buffers is None or buffers[0].shape[2] < stop:
            # Doubling: a buffer that grew group by group would copy the whole cache for every group.
            room = stop if buffers is None else max(stop, 2 * buffers[0].shape[2])
            larger = tuple(new.new_empty(1, new.shape[1], room, new.shape[3]) for new in (keys, values))
            if buffers is not None:
                for new, old in zip(larger, buffers, strict=True):
                    new[:, :, :start] = old[:, :, :start]
            buffers = self._layers[layer] = (larger[0], larger[1])
        buffers[0][:, :, start:stop], buffers[1][:, :, start:stop] = keys, values
        return buffers[0][:, :, :stop], buffers[1][:, :, :stop]


class AppendView:
    """A `layers.CacheView` that makes new tokens part of the prefix cache."""

    def __init__(self, cache: PrefixCache) -> None:
        self.cache = cache

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the cached keys and values with the new ones after them."""
        return self.cache.write(layer, keys, values)


class ReadView:
    """A read-only `layers.CacheView`: new tokens attend to the first `tokens` of the prefix cache and to each other, and are not stored."""

    def __init__(self, cache: PrefixCache, tokens: int) -> None:
        self.cache, self.tokens = cache, tokens

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the prefix's keys and values with the new ones after them."""
        prefix = self.cache.read(layer, self.tokens)
        if prefix is None or not self.tokens:
            return keys, values
        return torch.cat([prefix[0], keys], dim=2), torch.cat([prefix[1], values], dim=2)


@dataclass(frozen=True)
class StoredView:
    """A read-only `layers.CacheView` that has the keys and values of all tokens already."""

    keys: Tensor
    values: Tensor

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the stored keys and values."""
        return self.keys, self.values


@dataclass(frozen=True)
class Clip:
    """A clip: frames (T, H, W, 3) uint8 and times_s (T,) seconds, in order. DataError if they are not."""

    frames: UInt8[np.ndarray, "T H W 3"]
    times_s: Float[np.ndarray, "T"]
    resolution: Resolution
    caches: dict[Hashable, PrefixCache] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[-1] != 3 or self.frames.dtype != np.uint8:
            raise DataError(f"frames should be (T, H, W, 3) uint8, they are {self.frames.shape} {self.frames.dtype}")
        if not len(self.frames):
            raise DataError("the clip is empty; give it at least one frame")
        if not self.frames.size:
            raise DataError(f"frames of {self.frames.shape[1]} x {self.frames.shape[2]} have no area; check the camera and the crop")
        if self.times_s.shape != (len(self.frames),) or not np.isfinite(self.times_s).all() or (np.diff(self.times_s) < 0).any():
            raise DataError(f"times_s should be {len(self.frames)} seconds in order, one a frame; they are {self.times_s}")

    def __len__(self) -> int:
        return len(self.frames)

    def pair(self, group: int) -> tuple[UInt8[np.ndarray, "2 H W 3"], float]:
        """Returns a complete group: its two frames, and the middle of their times."""
        a = PAIR * group
        return self.frames[a : a + PAIR], middle(self.times_s[a], self.times_s[a + 1])

    def odd(self, prefix: int) -> tuple[UInt8[np.ndarray, "2 H W 3"], float] | None:
        """Returns the last group of a prefix of odd length: its last frame twice, and that frame's time. None if the length is even."""
        last = prefix - 1
        return (self.frames[[last, last]], middle(self.times_s[last], self.times_s[last])) if prefix % PAIR else None

    def prefixes(self, requested: Sequence[int] | None) -> list[int]:
        """Returns the requested lengths, or all. DataError if one is not in 1..T."""
        lengths = list(range(1, len(self) + 1)) if requested is None else [int(each) for each in requested]
        if wrong := [each for each in lengths if not 1 <= each <= len(self)]:
            raise DataError(f"prefixes are lengths from 1 to the clip's {len(self)} frames; {wrong[0]} is not")
        return lengths


def middle(first_s: float, second_s: float) -> float:
    """Returns the time that a group is stamped with. The printed tenth of a second can depend on this order of operations."""
    return float((first_s + second_s) / 2)


def make_clip(frames: UInt8[np.ndarray, "T H W 3"], *, times_s: Sequence[float] | None, fps: float | None, resolution: Resolution) -> Clip:
    """Returns a clip with these times, or with a rate: frame i at i / fps."""
    if (times_s is None) == (fps is None):
        raise DataError("when was each frame taken? give either times_s (one a frame) or fps")
    if fps is not None and not fps > 0:
        raise DataError(f"fps should be above zero, it is {fps}")
    times = np.arange(len(frames)) / fps if fps is not None else np.asarray(times_s, np.float64)
    return Clip(np.asarray(frames), times, resolution)
