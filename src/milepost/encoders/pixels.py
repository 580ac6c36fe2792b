"""The built-in encoder, which needs no download: `PixelImages` reduces every image, `PixelEncoder` learns which directions of it matter.

Every image is averaged down to 16 x 16, then projected on the main directions of the training images (PCA, one per camera, unit variance).
Words get fixed random vectors from their spelling; a sentence is their mean. docs/LOG.md has what else was tried.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from milepost.core import require_uint8

SIDE = 16
PIXELS = SIDE * SIDE * 3
EXACT = 2**24
"""Whole numbers below it are exact as float32."""
TALLEST = (2**16 - 1) // 255
"""How many bytes can be summed in 16 bits without overflow."""


def reduce_images(images: UInt8[np.ndarray, "N H W 3"]) -> UInt8[np.ndarray, "N 768"]:
    """Returns each image averaged down to 16 x 16 RGB and flattened.

    Whole numbers are added up, many times faster than torch's averages of floats and equal to them in every bit: below 2^24 a float32
    sum of whole numbers is exact in any order, and both divide by the height of a cell and then by its width.
    """
    require_uint8(images, "pictures")
    rows, columns = (_cells(side) for side in images.shape[1:3])
    tall, wide = (np.array([stop - start for start, stop in cells]) for cells in (rows, columns))
    if not images.size or 255 * int(tall.max()) * int(wide.max()) >= EXACT or tall.max() > TALLEST:
        return reduce_by_torch(images)
    bands = np.stack([images[:, start:stop].sum(axis=1, dtype=np.uint16) for start, stop in rows], axis=1)
    sums = np.stack([bands[:, :, start:stop].sum(axis=2, dtype=np.uint32) for start, stop in columns], axis=-1).swapaxes(1, 2)
    means = sums.astype(np.float32) / tall.astype(np.float32)[:, None] / wide.astype(np.float32)
    return np.rint(means).astype(np.uint8).reshape(len(images), -1)


def _cells(side: int) -> list[tuple[int, int]]:
    """Returns pixels [start, stop) of each cell along a side. Cells share pixels where the side cannot be divided."""
    return [(i * side // SIDE, -(-(i + 1) * side // SIDE)) for i in range(SIDE)]


def reduce_by_torch(images: UInt8[np.ndarray, "N H W 3"]) -> UInt8[np.ndarray, "N 768"]:
    """Returns the same by torch, for images of any size."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    small = F.interpolate(tensor, size=(SIDE, SIDE), mode="area")
    return small.round().to(torch.uint8).flatten(1).numpy()


@lru_cache(maxsize=100_000)
def word_vector(word: str, width: int) -> Float[np.ndarray, "E"]:
    """Returns a fixed random unit-variance vector that depends on nothing but the spelling."""
    return np.random.default_rng(zlib.crc32(word.encode())).standard_normal(width).astype(np.float32)


def embed_text(sentence: str, width: int) -> Float[np.ndarray, "E"]:
    """Returns the mean of the word vectors, scaled back to unit variance; zeros for an empty sentence."""
    words = "".join(c if c.isalnum() else " " for c in sentence.lower()).split()
    if not words:
        return np.zeros(width, dtype=np.float32)
    total = np.sum([word_vector(word, width) for word in words], axis=0)
    return (total / np.sqrt(len(words))).astype(np.float32)


class PixelImages:
    """The fixed half of the built-in encoder, as an `encoders.Encoder`: features are the 768 reduced pixels, uint8."""

    name: ClassVar[str] = "pixels"
    fingerprint: ClassVar[str] = "pixels"
    preprocessing: ClassVar[str] = f"area-averaged to {SIDE} x {SIDE}, rounded"
    width: ClassVar[int] = PIXELS

    def __init__(self, text_width: int = 32, batch: int = 64) -> None:
        self.text_width = text_width
        self.batch = batch

    def prepare(self, images: UInt8[np.ndarray, "N H W 3"]) -> UInt8[Tensor, "N 768"]:
        """Returns the reduced images: all of the work."""
        return torch.from_numpy(reduce_images(images))

    def encode(self, prepared: UInt8[Tensor, "N 768"]) -> UInt8[np.ndarray, "N 768"]:
        """Returns the prepared images unchanged: the work was done in `prepare`."""
        return prepared.numpy()

    def images(self, images: UInt8[np.ndarray, "N H W 3"]) -> UInt8[np.ndarray, "N 768"]:
        """Returns `reduce_images` of the images."""
        return reduce_images(images)

    def text(self, sentences: Sequence[str]) -> Float[np.ndarray, "N M"]:
        """Returns `embed_text` of each sentence."""
        return np.stack([embed_text(sentence, self.text_width) for sentence in sentences])


class PixelEncoder(nn.Module):
    """The built-in encoder: 16 x 16 pixels -> `width` principal components per camera. Fit once, then fixed; saved with its model."""

    mean: Tensor
    basis: Tensor

    def __init__(self, cameras: int, width: int = 64) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("mean", torch.zeros(cameras, PIXELS))
        self.register_buffer("basis", torch.zeros(cameras, PIXELS, width))

    def fit(self, reduced: UInt8[np.ndarray, "N C 768"] | Float[np.ndarray, "N C 768"]) -> None:
        """Computes the principal components of these images, each scaled to unit variance over them. Directions without variance stay
        zero.
        """
        for camera in range(reduced.shape[1]):
            # float64: in float32 the smallest directions would be rounding errors, and each is scaled to unit variance.
            pixels = torch.from_numpy(reduced[:, camera]).double() / 255
            mean = pixels.mean(0)
            _, spread, directions = torch.linalg.svd(pixels - mean, full_matrices=False)
            keep = min(self.width, len(spread))
            std = spread[:keep] / max(1, len(pixels) - 1) ** 0.5
            scale = torch.where(std > 1e-6, 1 / std.clamp(min=1e-6), torch.zeros_like(std))
            self.mean[camera] = mean.float()
            self.basis[camera, :, :keep] = (directions[:keep].T * scale).float()

    @torch.no_grad()
    def project(self, reduced: UInt8[np.ndarray, "T C 768"] | Float[np.ndarray, "T C 768"]) -> Float[np.ndarray, "T C E"]:
        """Returns the features of reduced images, float32."""
        pixels = torch.from_numpy(reduced).to(self.mean.device).float() / 255 - self.mean
        return torch.einsum("tcp,cpe->tce", pixels, self.basis).cpu().numpy()
