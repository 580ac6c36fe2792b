"""Frames and words -> feature vectors, each frame once. The built-in encoder needs no download.

`PixelEncoder`: every image is averaged down to 16 x 16, then projected on the main directions of the training images (PCA, one per
camera, unit variance). Words get fixed random vectors from their spelling; a sentence is their mean. docs/LOG.md has what else was tried.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from milepost.store import atomic_path
from milepost.types import Episode

SIDE = 16
PIXELS = SIDE * SIDE * 3


def reduce_images(images: UInt8[np.ndarray, "N H W 3"]) -> UInt8[np.ndarray, "N 768"]:
    """Each image averaged down to 16 x 16 RGB and flattened."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    small = F.interpolate(tensor, size=(SIDE, SIDE), mode="area")
    return small.round().to(torch.uint8).flatten(1).numpy()


def reduce_episode(episode: Episode, cameras: Sequence[str]) -> UInt8[np.ndarray, "T C 768"]:
    """Every frame of an episode, decoded once, in order, at constant memory but for the 768 bytes kept of each."""
    views = []
    for name in cameras:
        chunks = [reduce_images(images) for images in episode.camera(name).chunks()]
        views.append(np.concatenate(chunks))
    return np.stack(views, axis=1)


def reduce_cached(episode: Episode, cameras: Sequence[str], cache: Path | None) -> UInt8[np.ndarray, "T C 768"]:
    """`reduce_episode`, kept as one small file an episode in `cache` if given, so that no frame is decoded twice."""
    if cache is None:
        return reduce_episode(episode, cameras)
    path = cache / f"{'+'.join(camera.rsplit('.', 1)[-1] for camera in cameras)}-{episode.index:06d}.npy"
    if path.is_file():
        reduced = np.load(path, allow_pickle=False)
        if reduced.shape[:2] == (episode.length, len(cameras)):
            return reduced
    reduced = reduce_episode(episode, cameras)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, reduced)
    return reduced


@lru_cache(maxsize=100_000)
def word_vector(word: str, width: int) -> Float[np.ndarray, "E"]:
    """A fixed random unit-variance vector that depends on nothing but the spelling."""
    return np.random.default_rng(zlib.crc32(word.encode())).standard_normal(width).astype(np.float32)


def embed_text(sentence: str, width: int) -> Float[np.ndarray, "E"]:
    """Mean of the word vectors, scaled back to unit variance; zeros for an empty sentence."""
    words = "".join(c if c.isalnum() else " " for c in sentence.lower()).split()
    if not words:
        return np.zeros(width, dtype=np.float32)
    total = np.sum([word_vector(word, width) for word in words], axis=0)
    return (total / np.sqrt(len(words))).astype(np.float32)


class PixelEncoder(nn.Module):
    """The built-in encoder: 16 x 16 pixels -> `width` principal components per camera. Fit once, then fixed; saved with its model."""

    mean: Tensor
    basis: Tensor

    def __init__(self, cameras: int, width: int = 64) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("mean", torch.zeros(cameras, PIXELS))
        self.register_buffer("basis", torch.zeros(cameras, PIXELS, width))

    def fit(self, reduced: UInt8[np.ndarray, "N C 768"]) -> None:
        """Principal components of these images, each scaled to unit variance over them; directions without variance stay zero."""
        for camera in range(reduced.shape[1]):
            pixels = torch.from_numpy(reduced[:, camera]).double() / 255
            mean = pixels.mean(0)
            _, spread, directions = torch.linalg.svd(pixels - mean, full_matrices=False)
            keep = min(self.width, len(spread))
            std = spread[:keep] / max(1, len(pixels) - 1) ** 0.5
            scale = torch.where(std > 1e-6, 1 / std.clamp(min=1e-6), torch.zeros_like(std))
            self.mean[camera] = mean.float()
            self.basis[camera, :, :keep] = (directions[:keep].T * scale).float()

    @torch.no_grad()
    def project(self, reduced: UInt8[np.ndarray, "T C 768"]) -> Float[np.ndarray, "T C E"]:
        """Features of reduced images, float32."""
        pixels = torch.from_numpy(reduced).to(self.mean.device).float() / 255 - self.mean
        return torch.einsum("tcp,cpe->tce", pixels, self.basis).cpu().numpy()
