"""A vision model's preprocessing (resize, centre crop, scale, normalise) in torch, equal to torchvision's to the grey level.

Resizing stays in uint8: torch then rounds and clamps after the horizontal pass and after the vertical one, which is what the published
image processors do. In float the overshoot of the first pass would survive, and pixels would differ by up to 13 levels. No PIL, no
torchvision.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from milepost.core import DataError, require_uint8, shown

MODES = {2: "bilinear", 3: "bicubic"}
"""Filters by the numbers that preprocessor_config.json has for them."""


@dataclass(frozen=True)
class Preprocessing:
    """The steps of a preprocessor_config.json. resize: the shorter side, or (height, width); crop: (height, width) of the centre."""

    resize: int | tuple[int, int]
    crop: tuple[int, int] | None = None
    mode: str = "bicubic"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        smallest = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        if self.crop and (self.crop[0] > smallest[0] or self.crop[1] > smallest[1]):
            raise DataError(f"the centre crop {self.crop} is larger than the image resized to {self.resize}")
        if self.crop is None and isinstance(self.resize, int):
            raise DataError(f"shorter side {self.resize} without a centre crop leaves images of many shapes, and the network takes one")

    @property
    def key(self) -> str:
        """Returns all settings as text."""
        return json.dumps({"resized": "uint8, antialiased", **asdict(self)}, sort_keys=True)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocessing:
        """Returns the steps of preprocessor_config.json, in old or new spelling. DataError names what is missing or not supported."""
        if not config.get("do_resize", True) or "size" not in config:
            raise DataError("this preprocessor_config.json does not say to which size images are resized")
        if config.get("resample", 3) not in MODES:
            raise DataError(f"preprocessor_config.json asks for filter {shown(config['resample'])}; supported are {MODES}")
        has_crop = config.get("do_center_crop", "crop_size" in config)
        has_scale = config.get("do_rescale", True)
        mean, std = _statistics(config) if config.get("do_normalize", True) else ((0.0,) * 3, (1.0,) * 3)
        return cls(
            resize=_resize(config["size"], has_crop=has_crop),
            crop=_height_width(config.get("crop_size", config["size"])) if has_crop else None,
            mode=MODES[config.get("resample", 3)],
            scale=float(config.get("rescale_factor", 1 / 255)) if has_scale else 1.0,
            mean=mean,
            std=std,
        )

    def images(self, images: UInt8[np.ndarray, "N H W 3"]) -> UInt8[Tensor, "N 3 h w"]:
        """Returns the images resized and cropped, in whole levels."""
        require_uint8(images, "pictures")
        # A permuted view, not a copy: torch resizes channels-last bytes twice as fast.
        pixels = torch.from_numpy(np.require(images, requirements=("C", "W"))).permute(0, 3, 1, 2)
        size = self._size(*images.shape[1:3])
        if size != images.shape[1:3]:
            pixels = F.interpolate(pixels, size=size, mode=self.mode, antialias=True, align_corners=False)
        if self.crop is not None:
            top, left = (size[0] - self.crop[0]) // 2, (size[1] - self.crop[1]) // 2
            pixels = pixels[:, :, top : top + self.crop[0], left : left + self.crop[1]]
        return pixels.contiguous()

    def normalise(self, pixels: UInt8[Tensor, "N 3 h w"]) -> Float[Tensor, "N 3 h w"]:
        """Returns (level * scale - mean) / std, on the pixels' device."""
        mean, std = (torch.tensor(each, device=pixels.device).view(3, 1, 1) / self.scale for each in (self.mean, self.std))
        return (pixels.float() - mean) / std

    def _size(self, height: int, width: int) -> tuple[int, int]:
        if not isinstance(self.resize, int):
            return self.resize
        short = min(height, width)  # the longer side is cut off, not rounded, as torchvision does
        return int(self.resize * height / short), int(self.resize * width / short)


def _statistics(config: Mapping[str, Any]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    values = [config.get(name) for name in ("image_mean", "image_std")]
    if not all(isinstance(each, list | tuple) and len(each) == 3 for each in values):
        raise DataError(
            f"preprocessor_config.json should have three numbers in image_mean and image_std, it has {shown(values[0])}, {shown(values[1])}"
        )
    (a, b, c), (d, e, f) = ((float(x) for x in each or ()) for each in values)
    return (a, b, c), (d, e, f)


def _resize(size: Any, *, has_crop: bool) -> int | tuple[int, int]:
    """Returns the size. The old spelling, one number, meant the shorter side where a crop follows and a square elsewhere."""
    if isinstance(size, int):
        return size if has_crop else (size, size)
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        return int(size["shortest_edge"])
    return _height_width(size)


def _height_width(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping) and set(size) == {"height", "width"}:
        return int(size["height"]), int(size["width"])
    keys = ", ".join(map(str, size)) if isinstance(size, Mapping) else shown(size)
    raise DataError(f"preprocessor_config.json has the size {keys}; supported are a number, shortest_edge, and height with width")
