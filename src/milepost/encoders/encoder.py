"""What every encoder of images and words offers, and how one is found by name.

An encoder takes one image at a time and knows no episode, no camera and no disk; `features.py` calls it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from milepost.encoders.clip import ClipEncoder, Precision
from milepost.encoders.device import require_device
from milepost.encoders.pixels import PixelImages


@runtime_checkable
class Encoder(Protocol):
    """Images (N, H, W, 3) -> (N, width), sentences -> (N, text_width). It is frozen; it owns its device and precision."""

    @property
    def name(self) -> str:
        """Returns the model, its weights' hash and the precision: the same name gives the same features."""
        ...

    @property
    def fingerprint(self) -> str:
        """Returns a hash of weights and preprocessing, without name and precision: what a model trained on its features depends on."""
        ...

    @property
    def batch(self) -> int:
        """Returns how many images are encoded at once."""
        ...

    @property
    def preprocessing(self) -> str:
        """Returns all that is done to an image before the network: part of the key of every cached feature."""
        ...

    @property
    def width(self) -> int: ...
    @property
    def text_width(self) -> int: ...

    def prepare(self, images: UInt8[np.ndarray, "N H W 3"]) -> UInt8[Tensor, "N ..."]:
        """Returns images resized for the network, still uint8. This part runs on the CPU beside decoding."""
        ...

    def encode(self, prepared: UInt8[Tensor, "N ..."]) -> Shaped[np.ndarray, "N E"]:
        """Returns the features of prepared images: float32, or uint8 where that is what they are."""
        ...

    def images(self, images: UInt8[np.ndarray, "N H W 3"]) -> Shaped[np.ndarray, "N E"]:
        """Returns `encode(prepare(images))`, `batch` at a time, not rounded."""
        ...

    def text(self, sentences: Sequence[str]) -> Float[np.ndarray, "N M"]:
        """Returns the features of sentences, float32. A sentence gives the same numbers whatever stands beside it."""
        ...


def load_encoder(
    name: str, *, revision: str | None = None, device: str = "cpu", precision: Precision = "float32", text_width: int = 32
) -> Encoder:
    """Returns the encoder of that name: "pixels", or any CLIP- or SigLIP-type model (a folder or a Hub id, `revision` there).

    device and precision are for CLIP and SigLIP, text_width for "pixels" alone. DataError if there is no such model or it cannot be loaded.
    """
    require_device(device)
    if name == PixelImages.name:
        return PixelImages(text_width)
    return ClipEncoder.load(name, revision=revision, device=device, precision=precision)
