"""The numbers of docs/success.md: does the success head tell successes from failures, when does it say so, and how long does it train?

    milepost simulate DATASET
    python benchmarks/success_head.py DATASET [--name demo] [--seeds 0 1] [--models "next.success" ...] [--elsewhere OTHER ...]
    python benchmarks/success_head.py --report

Every trained head is a line of benchmarks/success_head.jsonl; what is there is not run again. A third of the start scenes is held out.
--elsewhere: the head judges all episodes of these datasets as well, none of which it learnt from or fitted its threshold on.
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
from milepost.datasets import LeRobotDataset, open_dataset
from milepost.encoders import FeatureCache, PixelImages
from milepost.metrics import detect_success, final, interval, separation
from milepost.metrics.success import proportion_interval
from milepost.models.success.model import SuccessModel
from milepost.models.success.settings import PRESETS
from milepost.models.success.targets import EARLY_S, marked
from milepost.models.success.train import SuccessRecipe
from milepost.models.training.recipe import learn

OUT = Path(__file__).parent / "success_head.jsonl"
HOLDOUT = 1 / 3
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "next.success": {}, "outcome": {"success_labels": "outcome"}, "without state": {"without_state": True},
    "outcome, without state": {"success_labels": "outcome", "without_state": True}, "hold 1": {"hold": 1}, "hold 2": {"hold": 2},
}  # fmt: skip
Images = Mapping[int, np.ndarray]


def encoded(dataset: LeRobotDataset, folder: Path) -> tuple[list[Episode], FeatureCache, Images]:
    """Returns the episodes and their encoded images, which training reads back from `folder`."""
    episodes, _ = read_episodes(dataset)
    features = FeatureCache(folder, dataset.fingerprint, encoder=PixelImages(32))
    start = time.monotonic()
    images = dict(zip((each.index for each in episodes), features.stream(episodes, dataset.cameras), strict=True))
    print(f"{dataset.name}: frames read and encoded: {time.monotonic() - start:.1f} s", flush=True)
    return episodes, features, images


def measure(args: argparse.Namespace) -> None:
    """Trains every head on every split that is not in the results yet."""
    lines = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    done = {(line["dataset"], line["model"], line["seed"]) for line in lines}
    with tempfile.TemporaryDirectory() as scratch:
        dataset, folder = open_dataset(args.dataset), Path(scratch)
        name = args.name or dataset.name
        episodes, features, images = encoded(dataset, folder)
        others = {Path(path).name: encoded(open_dataset(path), folder)[::2] for path in args.elsewhere}
        for seed in args.seeds:
            for variant in args.models:
                if (name, variant, seed) in done:
                    continue
                config, train = PRESETS["small"]
                config = dataclasses.replace(
                    config, image_key=dataset.cameras[0], more_image_keys=tuple(dataset.cameras[1:]), **VARIANTS[variant]
                )
                recipe, train = SuccessRecipe(config), dataclasses.replace(train, seed=seed, validation=0.1, checkpoint_s=1e9)
                run = folder / f"{variant}-{seed}"
                start = time.monotonic()
                result = learn(recipe, episodes, train, folder=run, holdout=HOLDOUT, features=features)
                seconds = time.monotonic() - start
                result = recipe.concluded(result, episodes, run, quiet_stage)
                line = {
                    "dataset": name, "model": variant, "seed": seed, "train_s": round(seconds, 2), "kept": result.fit_result.kept,
                    "threshold": dataclasses.asdict(result.threshold),
                    "episodes": judged(result.model, [each for each in episodes if each.index in result.held_out], images),
                    "elsewhere": {other: judged(result.model, *its) for other, its in others.items()},
                }  # fmt: skip
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(f"{name}, {variant}, seed {seed}: {line['train_s']:.1f} s", flush=True)


def judged(model: SuccessModel, episodes: Sequence[Episode], images: Images) -> list[dict[str, Any]]:
    """Returns what the model says of each episode: where the curve ends, when the rule first says done, and when it truly is."""
    rows = []
    for episode in episodes:
        curve, truth = model.probability(episode, model.project(images[episode.index])), marked(episode)
        said = np.flatnonzero(detect_success(curve, model.config.rule))
        rows.append({
            "task": episode.task, "success": bool(episode.success), "final": round(float(final(curve)), 5),
            "first": int(said[0]) if len(said) else None, "true": int(np.flatnonzero(truth)[0]) if truth.any() else None,
            "slack": round(EARLY_S * episode.fps),
        })  # fmt: skip
    return rows


HEADER = ("dataset", "labels", "episodes", "AUC, end", "threshold", "false alarms", "missed", "too early", "delay, frames")


def cells(name: str, variant: str, lines: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], *, fitted: bool) -> list[str]:
    """Returns one line of the table. fitted: whether the threshold was fitted on these episodes; then those left out of the fit count."""
    good, bad = ([row for row in rows if row["success"] is side] for side in (True, False))
    ends = [np.array([row["final"] for row in side]) for side in (good, bad)]
    low, high = interval(separation, *ends, rng=np.random.default_rng(0))
    says = [row for row in good if row["first"] is not None]
    is_early = [row["first"] < row["true"] - row["slack"] for row in says]
    alarms, missed = sum(row["first"] is not None for row in bad), len(good) - len(says)
    early: int | None = sum(is_early)
    if fitted:
        alarms, missed = (sum(line["threshold"][each] for line in lines) for each in ("false_alarms", "missed"))
        early = None if variant.startswith("outcome") else sum(line["threshold"]["early"] for line in lines)
    cuts = [line["threshold"]["value"] for line in lines]

    def share(count: int | None, of: int) -> str:
        return "-" if count is None else "{} of {} [{:.2f}, {:.2f}]".format(count, of, *proportion_interval(count, of))

    return [
        name, variant, str(len(rows)), f"{separation(*ends):.3f} [{low:.3f}, {high:.3f}]", ", ".join(f"{cut:.2f}" for cut in cuts),
        share(alarms, len(bad)), share(missed, len(good)), share(early, len(good)),
        f"{int(np.median([row['first'] - row['true'] for row in says]))}",
    ]  # fmt: skip


def report(args: argparse.Namespace) -> None:
    """Prints the table: episodes of all seeds, resampled for the intervals; one line for each dataset, labels and other dataset."""
    lines = [json.loads(line) for line in args.out.read_text().splitlines()]
    table = []
    for name, variant in dict.fromkeys((line["dataset"], line["model"]) for line in lines):
        own = [line for line in lines if (line["dataset"], line["model"]) == (name, variant)]
        rows = [row for line in own for row in line["episodes"]]
        table.append(cells(f"{name}, held out, seeds {' '.join(str(line['seed']) for line in own)}", variant, own, rows, fitted=True))
        tasks = list(dict.fromkeys(row["task"] for row in rows))
        for task in tasks if args.tasks else []:
            some = [row for row in rows if row["task"] == task]
            whole = cells(f"{name}: {task}", variant, own, some, fitted=False)
            table.append([*whole[:4], *["" for _ in whole[4:]]])  # the threshold was fitted on these very episodes, for all tasks
        for other in dict.fromkeys(other for line in own for other in line["elsewhere"]):
            judging = [line for line in own if other in line["elsewhere"]]
            rows = [row for line in judging for row in line["elsewhere"][other]]
            table.append(cells(f"learnt from {name}, all of {other}", variant, judging, rows, fitted=False))
    for row in (HEADER, ["---"] * len(HEADER), *table):
        print("| " + " | ".join(row) + " |")
    print("training, s: " + ", ".join(f"{line['dataset']} {line['model']} {line['train_s']:.0f}" for line in lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?")
    parser.add_argument("--name", help="what the dataset is called in the table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--models", nargs="+", default=["next.success"])
    parser.add_argument("--elsewhere", nargs="+", default=[], help="datasets that the head judges as well")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--tasks", action="store_true", help="with --report: a line for each task, with its AUC")
    args = parser.parse_args()
    if args.report:
        report(args)
    else:
        measure(args)


if __name__ == "__main__":
    main()
