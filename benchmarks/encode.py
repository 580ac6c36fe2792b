"""What does encoding an episode cost beside one bare forward of the encoder for each frame? And what does overlapping bring?

    PYTHONPATH=src python benchmarks/encode.py

A 480 x 640 AV1 film with LeRobot's settings, CLIP ViT-B/32 of the real size with random weights (times do not depend on them),
features as `FeatureCache` makes them: decode, resize, encode, round. The bare forward gets a ready tensor, at its best batch.
Every time is the shortest of at least two rounds, taken in turns, as many as fit into 30 s.
Prints two markdown tables; about a minute on two idle cores.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers

from milepost.core.types import Episode
from milepost.datasets.video import VideoFrames, encode_video
from milepost.encoders.clip import ClipEncoder
from milepost.encoders.features import FeatureCache
from milepost.encoders.pixels import PixelImages
from milepost.encoders.resize import Preprocessing

os.environ.setdefault("SVT_LOG", "1")  # errors only
FPS, SIZE, FRAMES, BUDGET_S = 30, (480, 640), 48, 30.0
CAMERA = "observation.images.top"
OPENAI = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
BATCHES = {1: 4, 8: 16, 16: 32, 32: 32}  # batch: frames to time it with; one at a time is far too slow for more


def film(path: Path) -> Episode:
    """An episode of a textured ground that slides under a moving square."""
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 200, (SIZE[0] // 8, SIZE[1] // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    images = [np.roll(ground, 2 * i, axis=1) for i in range(FRAMES)]
    for i, image in enumerate(images):
        image[100:160, 3 * i : 3 * i + 60] = (255, 40, 40)
    encode_video(path, images, FPS)
    frames = VideoFrames(path, np.arange(FRAMES) / FPS, FPS)
    return Episode(0, 0, "slide", FPS, FRAMES, np.zeros((FRAMES, 0), np.float32), {CAMERA: frames})


def clip(model: torch.nn.Module, precision: str = "float32") -> ClipEncoder:
    return ClipEncoder(model, None, preprocessing=Preprocessing(224, crop=(224, 224), **OPENAI), precision=precision, batch=16)


def once(work: Callable[[], object], frames: int = FRAMES) -> tuple[float, float]:
    """Milliseconds a frame, by the clock and of processor time. On a busy machine only the second says much."""
    began, worked = time.perf_counter(), time.process_time()
    work()
    return 1000 * (time.perf_counter() - began) / frames, 1000 * (time.process_time() - worked) / frames


def in_turns(works: dict[str, Callable[[], object]]) -> dict[str, tuple[float, float]]:
    """The shortest times of each: what others on the machine take away is not part of it."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    began = time.perf_counter()
    rounds = 0
    while rounds < 2 or (time.perf_counter() - began) * (rounds + 1) / rounds < BUDGET_S:
        for name, work in works.items():
            times[name].append(once(work))
        rounds += 1
    print(f"Shortest of {rounds} rounds.\n")
    return {name: (min(t[0] for t in each), min(t[1] for t in each)) for name, each in times.items()}


def bare(encoder: ClipEncoder, batch: int, frames: int = FRAMES) -> None:
    with torch.inference_mode():
        pixels = torch.zeros(batch, 3, 224, 224)
        for start in range(0, frames, batch):
            encoder._model.get_image_features(pixel_values=pixels[: frames - start])


def best_batch(encoder: ClipEncoder) -> int:
    bare(encoder, 16, 16)
    times = {batch: once(partial(bare, encoder, batch, frames), frames)[0] for batch, frames in BATCHES.items()}
    print("Bare forward, ms a frame: " + ", ".join(f"batch {batch} {ms:.1f}" for batch, ms in times.items()) + "\n", flush=True)
    return min(times, key=lambda batch: times[batch])


def drift(encoder: ClipEncoder, exact: np.ndarray, images: np.ndarray) -> str:
    began = time.perf_counter()
    features = encoder.images(images)
    ms = 1000 * (time.perf_counter() - began) / len(images)
    cosine = (features * exact).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(exact, axis=1)
    worst = np.abs(features - exact).max() / exact.std()
    return f"| {encoder.precision} | {ms:.1f} | {worst:.4f} | {cosine.min():.6f} |"


def works(folder: Path, encoder: ClipEncoder, batch: int) -> dict[str, Callable[[], object]]:
    """What is timed; the floor first."""
    episode, pixels = film(folder / "film.mp4"), PixelImages()
    images = np.concatenate([*episode.camera(CAMERA).chunks()])
    fresh = itertools.count()

    def features(cache: FeatureCache) -> np.ndarray:
        return cache.features(episode, [CAMERA])

    return {
        f"bare forward, batch {batch}": lambda: bare(encoder, batch),
        "ours, overlap, written to disk": lambda: features(FeatureCache(folder, f"film-{next(fresh)}", encoder=encoder)),
        "ours, one after the other": lambda: features(FeatureCache(None, "", encoder=encoder, overlap=False)),
        "ours, already on disk": lambda: features(FeatureCache(folder, "film-0", encoder=encoder)),
        "decode alone": lambda: [len(chunk) for chunk in episode.camera(CAMERA).chunks(16)],
        "resize alone": lambda: [encoder.prepare(images[i : i + 16]) for i in range(0, FRAMES, 16)],
        "built-in, overlap": lambda: features(FeatureCache(None, "", encoder=pixels)),
        "built-in, one after the other": lambda: features(FeatureCache(None, "", encoder=pixels, overlap=False)),
    }


def main() -> None:
    torch.manual_seed(0)
    model = transformers.CLIPModel(transformers.CLIPConfig())
    encoder = clip(model)
    with tempfile.TemporaryDirectory() as folder:
        times = in_turns(works(Path(folder), encoder, best_batch(encoder)))
    clock, processor = next(iter(times.values()))
    print(f"| {FRAMES} frames of {SIZE[0]} x {SIZE[1]}, AV1, CLIP ViT-B/32 | ms a frame | ratio | processor ms a frame | ratio |")
    print("|---|---|---|---|---|")
    print("\n".join(f"| {n} | {t:.2f} | {t / clock:.3f} | {c:.2f} | {c / processor:.3f} |" for n, (t, c) in times.items()), flush=True)
    # Two are enough: a processor without the instructions for it takes ten times as long in half precision.
    few = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)
    exact = encoder.images(few)
    half = np.abs(exact.astype(np.float16).astype(np.float32) - exact).max() / exact.std()
    print("\n| computed in | ms a frame | largest difference / standard deviation | smallest cosine |\n|---|---|---|---|")
    print(f"| float32, kept as float16 | | {half:.4f} | |")
    print("\n".join(drift(clip(model, precision), exact, few) for precision in ("bfloat16", "float16")))


if __name__ == "__main__":
    main()
