"""LeRobot 0.6.1's own reward classifier and what milepost reads from its folder, on the same images: the same numbers.

    HF_HUB_OFFLINE=1 lerobot-python benchmarks/lerobot_classifier.py

The interpreter is one with `lerobot[training]` 0.6.1 and milepost. The checkpoints are random, with one and two cameras, and a ResNet or
a ViT of transformers as encoder; LeRobot writes them with its preprocessor. It exits 1 if a probability differs by more than 1e-5.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.rewards.classifier.configuration_classifier import RewardClassifierConfig
from lerobot.rewards.classifier.modeling_classifier import Classifier
from lerobot.rewards.classifier.processor_classifier import make_classifier_processor

import milepost

MOST, SIDE, FRAMES = 1e-5, 32, 12
NAMES = ("observation.images.top", "observation.images.wrist")


def encoder(folder: Path, kind: str) -> str:
    """Writes a small random encoder with its weights, as LeRobot loads one; returns where."""
    if kind == "cnn":
        small = transformers.ResNetModel(
            transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
        )
    else:
        small = transformers.ViTModel(
            transformers.ViTConfig(
                hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=SIDE, patch_size=8
            )
        )
    small.save_pretrained(folder)
    return str(folder)


def difference(kind: str, cameras: tuple[str, ...], folder: Path) -> float:
    """Returns the largest difference of a probability."""
    torch.manual_seed(0)
    config = RewardClassifierConfig(model_name=encoder(folder / "encoder", kind), model_type=kind, num_cameras=len(cameras), device="cpu")
    config.input_features = {camera: PolicyFeature(type=FeatureType.VISUAL, shape=(3, SIDE, SIDE)) for camera in cameras}
    theirs = Classifier(config).eval()
    statistics = {camera: {"mean": torch.rand(3, 1, 1), "std": torch.rand(3, 1, 1) + 0.1} for camera in cameras}
    before, _ = make_classifier_processor(config, dataset_stats=statistics)
    theirs.save_pretrained(folder / "model")
    before.save_pretrained(folder / "model")
    images = np.random.default_rng(0).integers(0, 256, (len(cameras), FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
    batch = {camera: torch.from_numpy(each).permute(0, 3, 1, 2).float() / 255 for camera, each in zip(cameras, images, strict=True)}
    ready = before(batch)
    with torch.no_grad():
        expected = theirs.predict([ready[camera] for camera in cameras]).probabilities.numpy()
    ours = milepost.load_model(folder / "model").probability(dict(zip(cameras, images, strict=True)))
    most = float(np.abs(ours - expected).max())
    print(f"{kind}, {len(cameras)} cameras: {expected.min():.3f} to {expected.max():.3f}, largest difference {most:.1e}")
    return most


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        pairs = [(kind, NAMES[:count]) for kind in ("cnn", "transformer") for count in (1, 2)]
        sys.exit(max(difference(kind, cameras, Path(scratch) / f"{kind}{len(cameras)}") for kind, cameras in pairs) > MOST)


if __name__ == "__main__":
    main()
