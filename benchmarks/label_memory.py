"""How much memory labelling takes above the models, for a short episode and a long one. CLIP ViT-B/32 and SARM of the published sizes.

    python benchmarks/label_memory.py make FOLDER [FRAMES]
    python benchmarks/label_memory.py label FOLDER [STRIDE] [tiny]

`make` writes one AV1 episode of FRAMES (10,000) pictures of 480 x 640 and random networks. `label` labels it in a fresh process and prints
the resident memory after the models are loaded, its peak, and the time. Every frame is decoded and encoded (STRIDE 1), or as many as the
windows of every STRIDE-th frame need: the arrays are of the same size, the wait is shorter. `tiny` takes networks so small that all frames
are done in minutes on two cores: what grows with the episode is the same.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

TOP, FPS, SIZE = "observation.images.top", 30, (480, 640)


def pictures(count: int) -> Iterator[np.ndarray]:
    ground = np.random.default_rng(0).integers(0, 200, (SIZE[0] // 16, SIZE[1] // 16, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    for i in range(count):
        yield np.roll(ground, i, axis=1)


def make(folder: Path, frames: int) -> None:
    from lerobot_speed import CLIP, make_clip
    from milepost.datasets.recording import Recording
    from milepost.datasets.writer import assemble, encode_episode
    from milepost.models.sarm.config import SARMConfig
    from milepost.models.sarm.model import SARMModel

    make_clip(folder / "clip_repo")
    snapshot = next((folder / "clip_repo" / "snapshots").iterdir())
    torch.manual_seed(0)
    config = SARMConfig(image_key=TOP, encoder=str(snapshot), state_mean=(0.0,) * 7, state_std=(1.0,) * 7)
    SARMModel(config).save_pretrained(folder / "model")
    state = np.random.default_rng(0).standard_normal((frames, 7)).astype(np.float32)
    recording = Recording("slide the block", state, state[:, :2], {TOP: pictures(frames)})
    encode_episode(folder / "part", recording, fps=FPS)
    assemble(folder / "dataset", [folder / "part"], fps=FPS, proportions={})
    print(f"{frames} frames, {CLIP} by size, SARM {config.hidden_dim} x {config.num_layers} in {folder}")


def resident() -> float:
    """Megabytes now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def tiny_model() -> Any:
    from milepost.models.sarm.config import SARMConfig
    from milepost.models.sarm.model import SARMModel

    clip = str(Path(__file__).parents[1] / "tests" / "data" / "clip_tiny")
    sizes = {"hidden_dim": 48, "num_layers": 2, "num_heads": 4}
    return SARMModel(SARMConfig(image_key=TOP, encoder=clip, state_mean=(0.0,) * 7, state_std=(1.0,) * 7, **sizes))


def label_one(folder: Path, stride: int, *, tiny: bool) -> None:
    from milepost.datasets.reader import open_dataset
    from milepost.encoders.features import FeatureCache
    from milepost.models.sarm.model import SARMModel
    from milepost.progress.labelling import label

    dataset = open_dataset(folder / "dataset")
    model = tiny_model() if tiny else SARMModel.from_pretrained(folder / "model")
    model.cache = FeatureCache(folder / "cache", dataset.fingerprint, encoder=model.frozen)
    model.text_features("slide the block")
    before, start = resident(), time.perf_counter()
    table = label(model, dataset, folder / "progress.parquet", options={"stride": stride, "heads": ["sparse"]})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = time.perf_counter() - start
    numbers = " | ".join(f"{x:.0f}" for x in (before, peak, peak - before, seconds))
    print(f"| {len(table.index)} | {'tiny' if tiny else 'published'} | {stride} | {numbers} |")


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("make", "label"):
        sys.exit(__doc__)
    where, number = Path(sys.argv[2]).resolve(), [int(word) for word in sys.argv[3:4] if word.isdigit()]
    if sys.argv[1] == "make":
        make(where, *(number or [10_000]))
    else:
        print("| frames | networks | stride | MB with the models | MB at the peak | MB above | s |\n|---|---|---|---|---|---|---|")
        label_one(where, *(number or [1]), tiny="tiny" in sys.argv[3:])
