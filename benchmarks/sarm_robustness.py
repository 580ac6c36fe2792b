"""What light, a nudged camera and noise do to SARM, with and without augmentation in training; several seeds, held-out episodes.

    python -m benchmarks.sarm_robustness DATASET [--seeds 0 1 2] [--strengths 0 0.5 1] [--steps 400] [--folder WORK] [--out FILE]
    PYTHONPATH=FOLDER python -m benchmarks.sarm_robustness DATASET --encoder efficientnet [--task "pull the drawer open"] [--cameras 1]
    python -m benchmarks.sarm_robustness --table [--out robustness.jsonl]

DATASET is made by `milepost simulate` (or is the `dataset` folder of a demo). The recipe is the demo's; a seed decides the split, the
initial weights and the samples. The changed copies are those of `milepost audit`. Each finished (strength, seed) is a line of --out.
--encoder efficientnet is a frozen network (benchmarks/efficientnet.py says how to get it); --task and --cameras make it cheaper.
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
import torch

from benchmarks.efficientnet import EfficientNetLite
from milepost.datasets import open_dataset
from milepost.encoders import Encoder, FeatureCache, PixelImages
from milepost.metrics import copies, final, score_episode
from milepost.metrics.controls import FAULTS, WORDS
from milepost.metrics.scores import separation
from milepost.models.sarm.settings import PRESETS
from milepost.models.sarm.train import train_sarm

HOLDOUT = 0.34


def run(dataset: Any, episodes: Sequence[Any], seed: int, strength: float, args: argparse.Namespace) -> dict[str, Any]:
    """Returns error, AUC and final progress of successes on held-out episodes, as recorded and changed."""
    sarm, train = PRESETS["small"]
    first, *more = dataset.cameras[: args.cameras]
    sarm = dataclasses.replace(
        sarm, annotation_mode="sparse_only", image_key=first, more_image_keys=tuple(more), gap_s=0.1, augmentation=strength,
        encoder=args.encoder,
    )  # fmt: skip
    encoder: Encoder = PixelImages(sarm.text_dim) if args.encoder == "pixels" else EfficientNetLite()
    features, steps = FeatureCache(args.folder / "cache", dataset.fingerprint, encoder=encoder), args.steps
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trained = train_sarm(
            episodes, sarm, dataclasses.replace(train, steps=steps, seed=seed), folder=Path(folder), stages=dataset.stages, holdout=HOLDOUT,
            features=features,
        )  # fmt: skip
    seconds = time.monotonic() - start
    model = trained.model.use_features(features)
    rows: dict[str, dict[str, list[float]]] = {}
    for episode in (each for each in episodes if each.index in trained.held_out):
        for name, copy in {"none": episode, **copies(episode, seed=seed, only=FAULTS)}.items():
            curve = model.predict(copy).main
            score = score_episode(curve, episode, dataset.stages["sparse"])
            row = rows.setdefault(name, {"error": [], "success": [], "failure": []})
            if not np.isnan(score.error):
                row["error"].append(score.error)
            row["success" if episode.success else "failure"].append(final(curve.value))
    table = {
        name: {
            "error": float(np.mean(row["error"])),
            "auc": separation(np.array(row["success"]), np.array(row["failure"])),
            "final": float(np.mean(row["success"])),
            "final_failures": float(np.mean(row["failure"])),
        }
        for name, row in rows.items()
    }
    return {"seed": seed, "strength": strength, "steps": steps, "train_s": round(seconds, 1), "rows": table}


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Returns Markdown: the error under each change, by strength, means over seeds; then AUC and final progress of successes."""
    strengths = sorted({line["strength"] for line in lines})
    out = ["| change | " + " | ".join(f"strength {strength:g}" for strength in strengths) + " |", "|---|" + "---|" * len(strengths)]
    for name in ("none", *FAULTS):
        cells = []
        for strength in strengths:
            mine = [line["rows"][name] for line in lines if line["strength"] == strength]
            cells.append(" / ".join(f"{np.mean([row[key] for row in mine]):.3f}" for key in ("error", "auc", "final")))
        out.append(f"| {WORDS.get(name, 'none')} | " + " | ".join(cells) + " |")
    seconds = {strength: np.mean([line["train_s"] for line in lines if line["strength"] == strength]) for strength in strengths}
    return "\n".join([*out, "", "seconds of training: " + ", ".join(f"{strength:g}: {mean:.0f}" for strength, mean in seconds.items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--strengths", type=float, nargs="+", default=[0, 0.5, 1])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--encoder", choices=["pixels", "efficientnet"], default="pixels")
    parser.add_argument("--task", help="these episodes alone")
    parser.add_argument("--cameras", type=int, help="how many of them; default: all")
    parser.add_argument("--folder", type=Path, default=Path("robustness"))
    parser.add_argument("--out", type=Path, default=Path("robustness.jsonl"))
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    lines = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.is_file() else []
    if args.table and not lines:
        parser.error(f"{args.out} has no results")
    if not args.table:
        torch.set_num_threads(1)
        dataset = open_dataset(args.dataset)
        episodes = [episode for i in range(len(dataset)) if (episode := dataset[i]).task == (args.task or episode.task)]
        done = {(line["seed"], line["strength"], line["steps"]) for line in lines}
        for seed in args.seeds:
            for strength in (strength for strength in args.strengths if (seed, strength, args.steps) not in done):
                lines.append(run(dataset, episodes, seed, strength, args))
                with args.out.open("a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
                print(json.dumps(lines[-1]), flush=True)
    print(table(lines))


if __name__ == "__main__":
    main()
