"""Changes of light, contrast, colour, place and noise in training: so that a lamp or a nudged camera is no new world.

All images of a window are changed alike, because a lamp stays as it is for some seconds; each camera is moved by itself. The built-in
encoder is quick enough for new changes in each window (`draw`, `changed`). A frozen network is not: it encodes each training episode
VARIANTS more times, each time under other changes (`variants`), and a window takes one of these. Every number is drawn from a seed or from
the generator that is passed in, so a resumed run is the same run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from milepost.core import EditedFrames, Episode

BRIGHTNESS, CONTRAST, TURN, PLACE, ZOOM, NOISE = 0.25, 0.3, 4.0, 0.14, 0.04, 2.0
"""The largest changes at strength 1: factors 1 +- 0.25 and 1 +- 0.3, degrees about the grey axis, proportions of the image, and the
standard deviation of noise (of 255, after the images were made small)."""
OFTEN = 0.8
"""The proportion of windows that are changed: the others stay as they were recorded."""
VARIANTS = 4
"""Changed copies of each training episode for a frozen encoder. Encoding then costs five times as much, and is kept on disk."""
FULL_NOISE = 5
"""How much stronger the noise is on images of full size: what a camera adds to each pixel is averaged out when an image is made small."""


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


def draw(size: int, cameras: int, strength: float, rng: np.random.Generator, *, often: float = OFTEN) -> Changes:
    """Returns changes for `size` windows, evenly between none and the largest. often: which proportion of the windows is changed."""
    on = (rng.random(size) < often) * strength

    def around(largest: float, *shape: int) -> np.ndarray:
        return rng.uniform(-largest, largest, (size, *shape)) * on.reshape(size, *[1] * len(shape))

    return Changes(
        1 + around(BRIGHTNESS), 1 + around(CONTRAST), np.deg2rad(around(TURN)), around(PLACE, cameras, 2), 1 + around(ZOOM, cameras),
        np.abs(around(NOISE)),
    )  # fmt: skip


def changed(
    images: UInt8[np.ndarray, "B L C H W 3"], changes: Changes, rng: np.random.Generator, *, mode: str = "bicubic"
) -> Float[np.ndarray, "B L C H W 3"]:
    """Returns the images changed: float32 in [0, 255], not rounded. What comes in at an edge repeats the edge.

    mode: how pixels are interpolated. Of 16 x 16 pixels, "bilinear" would leave a blur that no moved camera makes.
    """
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
    moved = F.grid_sample(flat, grid, mode=mode, padding_mode="border", align_corners=False)
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


def variants(episode: Episode, cameras: tuple[str, ...], strength: float, seed: int) -> Iterator[Episode]:
    """Yields VARIANTS copies of an episode, each under one lamp and with each camera in another place; images are changed when read."""
    order = np.arange(episode.length)
    for number in range(VARIANTS):
        changes = draw(1, len(cameras), strength, np.random.default_rng([seed, episode.index, number]), often=1.0)
        streams = {}
        for view, name in enumerate(cameras):
            mine = dataclasses.replace(
                changes, place=changes.place[:, [view]], zoom=changes.zoom[:, [view]], noise=changes.noise * FULL_NOISE
            )
            change = partial(_change, mine, (seed, episode.index, number, view))
            key = f"augmentation-{strength:g}-{seed}-{number}-{view}_of_{len(cameras)}-{_RANGES}"
            streams[name] = EditedFrames(episode.camera(name), name, order, change, key)
        yield dataclasses.replace(episode, cameras=streams)


_RANGES = "_".join(f"{largest:g}" for largest in (BRIGHTNESS, CONTRAST, TURN, PLACE, ZOOM, NOISE * FULL_NOISE))
"""What the kept features of changed images depend on beside the seed: with other ranges they are computed anew."""


def _change(
    changes: Changes, seed: tuple[int, ...], images: UInt8[np.ndarray, "N H W 3"], frames: Int[np.ndarray, "N"]
) -> UInt8[np.ndarray, "N H W 3"]:
    """Returns the images of one camera, changed and rounded. The noise of a frame depends on nothing but the seed and the frame."""
    out = np.empty_like(images)
    for image, frame, place in zip(images, frames, out, strict=True):
        rng = np.random.default_rng([*seed, int(frame)])
        place[:] = np.rint(changed(image[None, None, None], changes, rng, mode="bilinear")[0, 0, 0])
    return out
