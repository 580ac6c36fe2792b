"""What matters in the demo's SARM: encoder, history, unfinished runs, rewind. One model each on the same simulated dataset and split.

    python benchmarks/sarm_recipe.py DATASET [--only NAME ...] [--steps 700]

DATASET is made by `milepost simulate` (or is the `dataset` folder of a demo). Prints a markdown table of held-out numbers, with the
features' and the training's seconds. Each variant changes one thing against `base`.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from milepost.embed import PIXELS, PixelEncoder, reduce_episode
from milepost.evaluate import mean_estimate, score_episode, summarise
from milepost.fit import fit
from milepost.lerobot import open_dataset
from milepost.metrics import final
from milepost.models.sarm import SARMModel, TrainingSet, label_episode
from milepost.models.sarm.prepare import choose, with_statistics
from milepost.train import PRESETS, split
from milepost.types import Episode

Features = Callable[[Episode], np.ndarray]


def principal(raw: dict[int, np.ndarray], train: Sequence[int], width: int) -> dict[int, np.ndarray]:
    """Unit-variance principal components per camera, fitted on the training episodes; raw arrays are (T, C, P)."""
    sample = np.concatenate([raw[i] for i in train])[::3].astype(np.float32)
    out = {i: [] for i in raw}
    for camera in range(sample.shape[1]):
        x = torch.from_numpy(sample[:, camera])
        mean = x.mean(0)
        _, spread, directions = torch.linalg.svd(x - mean, full_matrices=False)
        basis = directions[:width].T / (spread[:width] / len(x) ** 0.5).clamp(min=1e-6)
        for i, array in raw.items():
            out[i].append(((torch.from_numpy(array[:, camera].astype(np.float32)) - mean) @ basis).numpy())
    return {i: np.stack(views, axis=1) for i, views in out.items()}


def random_conv(episode: Episode, cameras: Sequence[str]) -> np.ndarray:
    """One fixed random 7 x 7 convolution, ReLU, 4 x 4 average pooling: (T, C, 1024)."""
    weight = torch.randn(64, 3, 7, 7, generator=torch.Generator().manual_seed(0)) / 12
    views = []
    for camera in cameras:
        parts = []
        for images in episode.camera(camera).chunks():
            x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5
            parts.append(F.adaptive_avg_pool2d(F.relu(F.conv2d(x, weight, stride=4)), 4).flatten(1).numpy())
        views.append(np.concatenate(parts))
    return np.stack(views, axis=1)


def run(name: str, changes: dict, features: dict[int, np.ndarray], episodes: Sequence[Episode], steps: int) -> str:
    """Train one variant and describe it as a table row."""
    rng = np.random.default_rng(0)
    learn, held = split(episodes, 0.34, rng)
    if changes.pop("without_failures", False):
        learn = [episode for episode in learn if episode.success]
    sarm, train = PRESETS["small"]
    cameras = tuple(episodes[0].cameras)
    fields = {"annotation_mode": "sparse_only", "image_key": cameras[0], "more_image_keys": cameras[1:], "gap_s": 0.1, **changes}
    config = dataclasses.replace(sarm, image_dim=features[episodes[0].index].shape[2], **fields)
    usable, _ = choose(learn, config)
    config = with_statistics(config, usable, {})
    torch.manual_seed(0)
    model = SARMModel(config)
    data = TrainingSet([label_episode(e, features[e.index], config) for e in usable], config)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        fit(model, data.sample, config=dataclasses.replace(train, steps=steps), folder=Path(folder), key="", on_progress=lambda a, b: None)
    seconds = time.monotonic() - start
    stages, tasks, wrong = config.heads["sparse"], sorted({e.task for e in episodes}), []
    scores = []
    for episode in held:
        scores.append(score_episode(model.predict_features(episode, features[episode.index]), episode, stages))
        if episode.success:
            others = [dataclasses.replace(episode, task=task) for task in tasks if task != episode.task]
            wrong += [final(model.predict_features(other, features[episode.index]).value) for other in others]
    summary = summarise(scores, rng)
    over = mean_estimate([max(0.0, s.final - s.true_final) for s in scores if s.success is False], rng)
    worst = max(value.value for value, _ in summary.failures.values())
    accuracy = summary.stage_accuracy
    numbers = (summary.error, accuracy, summary.auc, over, f"{worst:.2f}", f"{np.mean(wrong) if wrong else np.nan:.3f}", f"{seconds:.0f}")
    return f"| {name} | " + " | ".join(map(str, numbers)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--steps", type=int, default=700)
    args = parser.parse_args()
    dataset = open_dataset(args.dataset)
    episodes = [dataset[i] for i in range(len(dataset))]
    cameras = dataset.cameras
    train = [e.index for e in split(episodes, 0.34, np.random.default_rng(0))[0]]
    start = time.monotonic()
    reduced = {e.index: reduce_episode(e, cameras) for e in episodes}
    print(f"16 x 16 pixels of {dataset.total_frames} frames x {len(cameras)} cameras: {time.monotonic() - start:.1f} s", flush=True)
    encoder = PixelEncoder(len(cameras), 64)
    encoder.fit(np.concatenate([reduced[i] for i in train])[::3])
    pixels = {i: encoder.project(array) for i, array in reduced.items()}
    wide = principal(reduced, train, 128)
    blind = {i: np.zeros((len(a), 1, 8), np.float32) for i, a in reduced.items()}
    variants: dict[str, tuple[dict, Callable[[], dict[int, np.ndarray]]]] = {
        "base: 16 x 16 pixels, 64 components": ({}, lambda: pixels),
        "128 components": ({}, lambda: wide),
        "random 7 x 7 convolution, 64 components": (
            {}, lambda: principal({e.index: random_conv(e, cameras) for e in episodes}, train, 64)
        ),
        "state only": ({"more_image_keys": ()}, lambda: blind),
        "first camera only": ({"more_image_keys": ()}, lambda: {i: a[:, :1] for i, a in pixels.items()}),
        "4 frames of history": ({"n_obs_steps": 4}, lambda: pixels),
        "1 frame of history": ({"n_obs_steps": 1}, lambda: pixels),
        "unfinished runs masked": ({"unfinished": "mask"}, lambda: pixels),
        "rewind p 0.8": ({"rewind_probability": 0.8, "max_rewind_steps": 4}, lambda: pixels),
        "no wrong instructions": ({"language_perturbation_probability": 0.0}, lambda: pixels),
        "no failed training episodes": ({"without_failures": True}, lambda: pixels),
        "no feature noise": ({"feature_noise": 0.0}, lambda: pixels),
        "argmax decoding": ({"decode": "argmax"}, lambda: pixels),
    }  # fmt: skip
    print("| variant | error | stage accuracy | AUC | overclaim on failures | worst kind | wrong instruction | train s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    assert reduced[episodes[0].index].shape[2] == PIXELS
    for name, (changes, features) in variants.items():
        if not args.only or any(word in name for word in args.only):
            print(run(name, dict(changes), features(), episodes, args.steps), flush=True)


if __name__ == "__main__":
    main()
