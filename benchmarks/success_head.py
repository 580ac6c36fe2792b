"""The numbers of docs/success.md: does the success head tell successes from failures, when does it say so, and how long does it train?

    milepost simulate DATASET
    python benchmarks/success_head.py DATASET [--seeds 0 1 2] [--models "next.success" ...]
    python benchmarks/success_head.py --report

Every trained head is a line of benchmarks/success_head.jsonl; what is there is not run again. A third of the start scenes is held out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from milepost.core import Episode, quiet_stage, read_episodes
from milepost.datasets import open_dataset
from milepost.encoders import FeatureCache, PixelImages
from milepost.metrics import detect_success, final, interval, separation
from milepost.models.success.settings import PRESETS
from milepost.models.success.targets import marked
from milepost.models.success.train import SuccessRecipe
from milepost.models.training.recipe import learn

OUT = Path(__file__).parent / "success_head.jsonl"
HOLDOUT = 1 / 3
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "next.success": {}, "outcome": {"success_labels": "outcome"}, "without state": {"without_state": True},
    "outcome, without state": {"success_labels": "outcome", "without_state": True}, "hold 1": {"hold": 1}, "hold 2": {"hold": 2},
}  # fmt: skip


def measure(args: argparse.Namespace) -> None:
    """Trains every head on every split that is not in the results yet."""
    dataset = open_dataset(args.dataset)
    episodes, _ = read_episodes(dataset)
    scratch = tempfile.TemporaryDirectory()
    features = FeatureCache(Path(scratch.name), dataset.fingerprint, encoder=PixelImages(32))  # encoded once: training reads them back
    start = time.monotonic()
    images = dict(zip((each.index for each in episodes), features.stream(episodes, dataset.cameras), strict=True))
    print(f"frames read and encoded: {time.monotonic() - start:.1f} s", flush=True)
    lines = args.out.read_text().splitlines() if args.out.exists() else []
    done = {(line["model"], line["seed"]) for line in map(json.loads, lines)}
    for seed in args.seeds:
        for name in args.models:
            if (name, seed) not in done:
                line = {"model": name, "seed": seed, **_of_one(name, seed, episodes, dataset.cameras, features, images)}
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(f"{name}, seed {seed}: {line['train_s']:.1f} s", flush=True)


def _of_one(
    name: str, seed: int, episodes: Sequence[Episode], cameras: Sequence[str], features: FeatureCache, images: Mapping[int, np.ndarray]
) -> dict[str, Any]:
    config, train = PRESETS["small"]
    config = dataclasses.replace(config, image_key=cameras[0], more_image_keys=tuple(cameras[1:]), **VARIANTS[name])
    recipe, train = SuccessRecipe(config), dataclasses.replace(train, seed=seed, validation=0.1, checkpoint_s=1e9)
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        result = learn(recipe, episodes, train, folder=Path(folder), holdout=HOLDOUT, features=features)
        seconds = time.monotonic() - start
        result = recipe.concluded(result, episodes, Path(folder), quiet_stage(""))
    model, unseen = result.model, [each for each in episodes if each.index in result.held_out]
    curves = [model.probability(each, model.project(images[each.index])) for each in unseen]
    rows = []
    for episode, curve in zip(unseen, curves, strict=True):
        truth, said = marked(episode), np.flatnonzero(detect_success(curve, model.config.rule))
        rows.append({
            "success": bool(episode.success), "final": float(final(curve)), "first": int(said[0]) if len(said) else None,
            "true": int(np.flatnonzero(truth)[0]) if truth.any() else None, "frame_auc": separation(curve[truth], curve[~truth]),
            "length": episode.length,
        })  # fmt: skip
    fitted = dataclasses.asdict(result.threshold)
    return {"train_s": round(seconds, 2), "kept": result.fit_result.kept, "threshold": fitted, "episodes": rows}


def report(args: argparse.Namespace) -> None:
    """Prints the table: means over seeds, and intervals over episodes of all seeds, resampled."""
    lines = [json.loads(line) for line in args.out.read_text().splitlines()]
    print("| labels | seeds | AUC, end | AUC, lowest seed | balanced accuracy | threshold | successes detected | false alarms | too early |"
          " delay, frames | training, s |")  # fmt: skip
    print("|" + " --- |" * 11)
    for name in VARIANTS:
        own = [line for line in lines if line["model"] == name and line["seed"] in args.seeds]
        if not own:
            continue
        rows, rng = [row for line in own for row in line["episodes"]], np.random.default_rng(0)
        good, bad = ([row for row in rows if row["success"] is side] for side in (True, False))
        auc = interval(separation, *(np.array([row["final"] for row in side]) for side in (good, bad)), rng=rng)
        by_seed = [separation(*(np.array([r["final"] for r in line["episodes"] if r["success"] is side]) for side in (True, False)))
                   for line in own]  # fmt: skip
        found = [row for row in good if row["first"] is not None]
        early = [row for row in found if row["first"] < row["true"]]
        alarms = [row for row in bad if row["first"] is not None]
        delays = [row["first"] - row["true"] for row in found]
        accuracy, cuts = np.mean([line["threshold"]["accuracy"] for line in own]), [line["threshold"]["value"] for line in own]
        cells = (
            name, len(own), f"{np.mean(by_seed):.3f} [{auc[0]:.2f}, {auc[1]:.2f}]", f"{min(by_seed):.3f}", f"{accuracy:.3f}",
            f"{min(cuts):.2f} to {max(cuts):.2f}", f"{len(found)} of {len(good)}", f"{len(alarms)} of {len(bad)}",
            f"{len(early)}", f"{np.median(delays):.0f}", f"{np.mean([line['train_s'] for line in own]):.1f}",
        )  # fmt: skip
        print("| " + " | ".join(map(str, cells)) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", default=list(VARIANTS)[:4])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    if args.report:
        report(args)
    else:
        measure(args)


if __name__ == "__main__":
    main()
