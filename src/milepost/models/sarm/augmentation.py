"""Changes of light, contrast, colour, place and noise, drawn for each training window: so that a lamp or a nudged camera is no new world.

All images of a window are changed alike, because a lamp stays as it is for some seconds; each camera is moved by itself. Every number is
drawn from the generator that is passed in, so a resumed run is the same run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

BRIGHTNESS, CONTRAST, TURN, PLACE, ZOOM, NOISE = 0.25, 0.3, 4.0, 0.14, 0.04, 2.0
"""The largest changes at strength 1: factors 1 +- 0.25 and 1 +- 0.3, degrees about the grey axis, proportions of the image, and the
standard deviation of noise (of 255, after the images were made small)."""
OFTEN = 0.8
"""The proportion of windows that are changed: the others stay as they were recorded."""


@dataclass(frozen=True, eq=False)
class Changes:
    """What is done to the images of B windows.

    brightness, contrast: factors (B,). turn: radians about the grey axis (B,). place: (B, C, 2), how far each camera's image is moved down
    and to the right, as proportions. zoom: (B, C), a factor. noise: (B,), a standard deviation.
    """

    brightness: Float[np.ndarray, "B"]
    contrast: Float[np.ndarray, "B"]
    turn: Float[np.ndarray, "B"]
    place: Float[np.ndarray, "B C 2"]
    zoom: Float[np.ndarray, "B C"]
    noise: Float[np.ndarray, "B"]


def draw(size: int, cameras: int, strength: float, rng: np.random.Generator) -> Changes:
    """Returns changes for `size` windows, evenly between none and the largest; one in five windows is left as it is."""
    on = (rng.random(size) < OFTEN) * strength

    def around(largest: float, *shape: int) -> np.ndarray:
        return rng.uniform(-largest, largest, (size, *shape)) * on.reshape(size, *[1] * len(shape))

    return Changes(
        1 + around(BRIGHTNESS), 1 + around(CONTRAST), np.deg2rad(around(TURN)), around(PLACE, cameras, 2), 1 + around(ZOOM, cameras),
        np.abs(around(NOISE)),
    )  # fmt: skip


def changed(images: UInt8[np.ndarray, "B L C H W 3"], changes: Changes, rng: np.random.Generator) -> Float[np.ndarray, "B L C H W 3"]:
    """Returns the images changed: float32 in [0, 255], not rounded. What comes in at an edge repeats the edge."""
    size, length, cameras, height, width, _ = images.shape
    out = torch.from_numpy(np.ascontiguousarray(images)).float()
    out = _coloured(out.view(size, -1, 3), changes).view(images.shape)
    flat = out.permute(0, 2, 1, 5, 3, 4).reshape(size * cameras, length * 3, height, width)
    scale = torch.from_numpy(1 / changes.zoom.reshape(-1)).float()
    down, right = torch.from_numpy(changes.place.reshape(-1, 2)).float().unbind(-1)
    theta = torch.zeros(size * cameras, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, 0, 2], theta[:, 1, 2] = -2 * right, -2 * down
    grid = F.affine_grid(theta, list(flat.shape), align_corners=False)
    moved = F.grid_sample(flat, grid, mode="bilinear", padding_mode="border", align_corners=False)
    moved = moved.view(size, cameras, length, 3, height, width).permute(0, 2, 1, 4, 5, 3)
    noise = rng.standard_normal(moved.shape, dtype=np.float32) * changes.noise.reshape(size, 1, 1, 1, 1, 1).astype(np.float32)
    return np.clip(moved.numpy() + noise, 0, 255)


def _coloured(pixels: Float[Tensor, "B N 3"], changes: Changes) -> Float[Tensor, "B N 3"]:
    """Returns pixels with another brightness, contrast (about mid-grey) and hue."""
    cosine, sine = (torch.from_numpy(wave(changes.turn)).float() for wave in (np.cos, np.sin))
    grey, aside = (1 - cosine) / 3, sine / 3**0.5
    rows = [
        [grey + cosine, grey - aside, grey + aside],
        [grey + aside, grey + cosine, grey - aside],
        [grey - aside, grey + aside, grey + cosine],
    ]
    turned = pixels @ torch.stack([torch.stack(row, -1) for row in rows], -2).transpose(1, 2)
    factor, contrast = (torch.from_numpy(each).float()[:, None, None] for each in (changes.brightness, changes.contrast))
    return ((turned * factor - 128) * contrast + 128).clamp(0, 255)
