"""What an audit costs beyond the predictions it needs: its time over that of decoding, encoding and predicting what differs, once each.

    python -m benchmarks.audit_cost DATASET MODEL [--episodes 20] [--no-untrained] [--encoder efficientnet]

DATASET is a folder, MODEL a SARM's. Timed are the whole audit and, inside it, the decoder, the encoder and the networks. Needed are: one
decoding of each frame, one encoding of each image that differs (as recorded, and under each fault of the camera), and the networks over
every copy, for the model and the untrained one beside it. Where something is decoded or encoded more often, the surplus counts as overhead.
--encoder: the time with a pretrained encoder, behind which a model of that shape has random weights (how to install it: efficientnet.py).
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.efficientnet import EfficientNetLite
from milepost.core import Episode, Frames
from milepost.datasets import open_dataset
from milepost.metrics.controls import FAULTS
from milepost.models.sarm.model import SARMModel
from milepost.progress import audit, choose_episodes
from milepost.testing import ListDataset

SECONDS: Counter[str] = Counter()
COUNTS: Counter[str] = Counter()


class TimedFrames:
    """A camera that counts and times what is decoded."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, frames: Any) -> np.ndarray:
        start = time.perf_counter()
        images = self.frames[frames]
        SECONDS["decode"] += time.perf_counter() - start
        COUNTS["decode"] += len(images)
        return images

    def chunks(self, size: int = 64) -> Iterator[np.ndarray]:
        chunks = self.frames.chunks(size)
        while True:
            start = time.perf_counter()
            images = next(chunks, None)
            SECONDS["decode"] += time.perf_counter() - start
            if images is None:
                return
            COUNTS["decode"] += len(images)
            yield images


class TimedEncoder:
    """An encoder that counts and times what is encoded, images made small included."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)

    def prepare(self, images: np.ndarray) -> torch.Tensor:
        start = time.perf_counter()
        out = self.encoder.prepare(images)
        SECONDS["encode"] += time.perf_counter() - start
        return out

    def encode(self, prepared: torch.Tensor) -> np.ndarray:
        start = time.perf_counter()
        out = self.encoder.encode(prepared)
        SECONDS["encode"] += time.perf_counter() - start
        COUNTS["encode"] += len(out)
        return out


class TimedModel:
    """A model whose networks are timed: what follows its features."""

    def __init__(self, model: SARMModel) -> None:
        self.model = model

    def predict(self, episode: Episode, **options: Any) -> Any:
        features = self.model.features(episode)
        start = time.perf_counter()
        out = self.model.predict_features(episode, features)
        SECONDS["networks"] += time.perf_counter() - start
        return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("model")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--encoder", choices=["the model's", "efficientnet"], default="the model's")
    parser.add_argument("--no-untrained", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    dataset = open_dataset(args.dataset)
    model = SARMModel.from_pretrained(args.model)
    encoder = model.frozen
    if args.encoder == "efficientnet":
        encoder = EfficientNetLite(model.config.text_dim)
        widths = {"image_dim": encoder.width, "text_dim": encoder.text_width}
        model = SARMModel(dataclasses.replace(model.config, encoder="efficientnet", encoder_fingerprint="", **widths)).eval()
    outcomes = {index: dataset.meta.episodes[index].facts.get("success") for index in dataset.episode_indices}
    chosen = [dataset.episode(index) for index in choose_episodes(outcomes, args.episodes)]
    cameras = {name: [each.camera(name) for each in chosen] for name in model.config.cameras}
    episodes = []
    for place, episode in enumerate(chosen):
        views = {name: TimedFrames(frames[place]) for name, frames in cameras.items()}
        episodes.append(Episode(**{**vars(episode), "cameras": views}))
    model.use_encoder(TimedEncoder(encoder))
    beside = {} if args.no_untrained else {"untrained": TimedModel(model.untrained(0))}
    start = time.perf_counter()
    run = audit(TimedModel(model), ListDataset(episodes), beside=beside)
    total = time.perf_counter() - start
    images = sum(each.length for each in episodes) * len(cameras)
    distinct = {"decode": images, "encode": images * (1 + len(FAULTS))}
    needed = {name: SECONDS[name] * min(1.0, distinct[name] / COUNTS[name]) for name in distinct} | {"networks": SECONDS["networks"]}
    curves = sum(1 + len(each.controls) for each in run.curves) * (1 + len(beside))
    print(f"{len(episodes)} episodes, {images} images, {curves} curves")
    for name, seconds in needed.items():
        often = f", {COUNTS[name]} of {distinct[name]} images" if name in distinct else ""
        print(f"{name}: {SECONDS[name]:.1f} s, needed {seconds:.1f} s{often}")
    print(f"audit: {total:.1f} s; needed: {sum(needed.values()):.1f} s; ratio {total / sum(needed.values()):.2f}")


if __name__ == "__main__":
    main()
