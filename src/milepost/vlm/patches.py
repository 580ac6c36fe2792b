"""Frames as the rows of patches that Qwen3-VL's vision tower takes: resized in whole levels, normalised, cut into patches. No torchvision.

The rule that decides a clip's size has a name. "milepost": one size for every prefix, so that all prefixes share the same patches.
"lerobot": transformers' rule, which bounds the pixels of the whole prefix, so that the size may change as the clip grows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from milepost.core import DataError
from milepost.encoders import Preprocessing

Size = tuple[int, int]
PAIR = 2
"""Frames in one temporal group."""
TALLEST = 200
"""The largest allowed ratio of the longer side to the shorter; the published processors refuse more."""


@dataclass(frozen=True)
class Resolution:
    """How large frames are made. rule: "milepost" or "lerobot". size: (height, width), taken as it is, "milepost" alone.

    min_pixels, max_pixels: of one frame under "milepost" (default: 4 to 768 patches of 32 x 32, as Qwen's own tools cap a frame);
    of the whole prefix under "lerobot" (default: what the model's video_preprocessor_config.json says).
    """

    rule: Literal["milepost", "lerobot"] = "milepost"
    size: Size | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        if self.rule not in ("milepost", "lerobot"):
            raise DataError(f"the resolution rules are 'milepost' and 'lerobot', not '{self.rule}'")
        if self.size is not None and self.rule != "milepost":
            raise DataError("a fixed size is the 'milepost' rule; under 'lerobot' the size follows from the pixels of the prefix")
        if self.size is not None and min(self.size) < 1:
            raise DataError(f"frames cannot be resized to {self.size}")


@dataclass(frozen=True)
class FrameProcessor:
    """What one model's processor does. patch: pixels a patch is wide; merge: patches a token is wide. min_pixels, max_pixels: of a whole
    clip.
    """

    patch: int = 16
    merge: int = 2
    min_pixels: int = 4_096
    max_pixels: int = 25_165_824
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> FrameProcessor:
        """Returns the settings in video_preprocessor_config.json. DataError names what is missing or belongs to another kind of
        processor.
        """
        size, mean, std = config.get("size") or {}, config.get("image_mean"), config.get("image_std")
        if not {"shortest_edge", "longest_edge"} <= set(size) or not mean or not std or len(mean) != 3 or len(std) != 3:
            raise DataError(f"the video preprocessor should have size (shortest_edge, longest_edge), image_mean, image_std; has {config}")
        if config.get("temporal_patch_size", PAIR) != PAIR:
            raise DataError(f"frames are read in pairs here; this model takes {config['temporal_patch_size']} at once")
        a, b = (tuple(float(each) for each in values) for values in (mean, std))
        numbers = int(config.get("patch_size", 16)), int(config.get("merge_size", 2))
        return cls(*numbers, int(size["shortest_edge"]), int(size["longest_edge"]), (a[0], a[1], a[2]), (b[0], b[1], b[2]))

    @property
    def factor(self) -> int:
        """Returns the width and height of a language token in pixels."""
        return self.patch * self.merge

    def size(self, resolution: Resolution, *, frames: int, height: int, width: int) -> Size:
        """Returns the (height, width) that a prefix of `frames` frames is resized to. DataError if a frame has no area or is a sliver."""
        if min(height, width) < 1:
            raise DataError(f"frames of {height} x {width} have no area; check the camera and the crop")
        if max(height, width) > TALLEST * min(height, width):
            raise DataError(f"frames of {height} x {width} are too narrow: one side at most {TALLEST} times the other")
        if resolution.rule == "lerobot":
            low, high = resolution.min_pixels or self.min_pixels, resolution.max_pixels or self.max_pixels
            return smart_resize(height, width, frames=frames, low=low, high=high, factor=self.factor)
        if resolution.size is not None:
            if any(side % self.factor for side in resolution.size):
                raise DataError(f"the size {resolution.size} should be multiples of {self.factor}, the pixels a token is wide")
            return resolution.size
        low, high = resolution.min_pixels or 4 * self.factor**2, resolution.max_pixels or 768 * self.factor**2
        return smart_resize(height, width, frames=PAIR, low=PAIR * low, high=PAIR * high, factor=self.factor)

    def grid(self, size: Size) -> Size:
        """Returns the height and width in patches of a frame of this size."""
        return size[0] // self.patch, size[1] // self.patch

    def tokens(self, size: Size) -> int:
        """Returns the number of language tokens of one group."""
        return (size[0] // self.factor) * (size[1] // self.factor)

    def rows(self, frames: UInt8[np.ndarray, "T H W 3"], size: Size, *, device: torch.device | None = None) -> Float[Tensor, "N D"]:
        """Returns the patches of groups of two frames, an odd last frame repeated: N = groups x grid, D = 3 x 2 x patch x patch, float32.

        Bytes go to the device and are cut up there, a quarter of the traffic of floats.
        """
        if len(frames) % PAIR:
            frames = np.concatenate([frames, frames[-1:]])
        resized = Preprocessing(resize=size, mode="bicubic").images(frames).to(device)
        high, wide = (side // self.factor for side in size)
        patches = resized.view(-1, PAIR, 3, high, self.merge, self.patch, wide, self.merge, self.patch)
        rows = patches.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, 3, PAIR * self.patch**2)
        mean, std = (torch.tensor(each, device=device).view(3, 1) * 255 for each in (self.mean, self.std))
        # subtracted and divided in the processor's order, equal to its last bit
        return rows.float().sub_(mean).div_(std).flatten(1)


def smart_resize(height: int, width: int, *, frames: int, low: int, high: int, factor: int) -> Size:
    """Returns the multiples of `factor` nearest to a frame's size, unless the pixels of all frames together leave [low, high].

    This is transformers' `smart_resize` of video; where its versions disagree (a frame count that is odd), that of 5.5, LeRobot's.
    """
    if min(height, width) < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    tall, wide = round(height / factor) * factor, round(width / factor) * factor
    total = -(-frames // PAIR) * PAIR * tall * wide
    if total > high:
        shrink = math.sqrt(frames * height * width / high)
        tall, wide = (max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width))
    elif total < low:
        grow = math.sqrt(low / (frames * height * width))
        tall, wide = (math.ceil(side * grow / factor) * factor for side in (height, width))
    return tall, wide
