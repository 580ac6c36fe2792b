"""The demo's recipe task by task: tasks it was tuned on beside tasks nobody tuned on; held-out episodes, several seeds.

    milepost simulate tuned                                                                      # the demo's three tasks
    milepost simulate untuned --tasks door-open-v3 button-press-v3 bin-picking-v3
    python benchmarks/sarm_tasks.py tuned untuned [--seeds 0 1 2] [--steps 700] [--folder WORK] [--out FILE]
    python benchmarks/sarm_tasks.py --table [--out FILE]

One model learns all tasks of a dataset, as in the demo: preset `small`, 0.1 s between frames, a third of the start scenes held out. A seed
decides the split, the initial weights and the samples. Each finished (dataset, seed) is a line of --out, and its model stays in --folder.
--table prints the table of docs/sarm_recipe.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from milepost.datasets import LeRobotDataset, open_dataset
from milepost.encoders import FeatureCache, PixelImages
from milepost.metrics import score_episode
from milepost.models.elapsed import ElapsedModel
from milepost.models.sarm.settings import PRESETS
from milepost.models.sarm.train import train_sarm
from sarm_recipe import HOLDOUT, markdown, read, scene_of, weighted_auc, weighted_mean

ERROR, AUC, FINAL = 0.08, 0.95, 0.6
"""The bars, set before the first result: error at most, AUC at least, mean final progress of each kind of failure at most."""
DRAWS = 2000


def run(dataset: LeRobotDataset, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """Trains the demo's model and returns columns over the held-out episodes."""
    sarm, train = PRESETS["small"]
    first, *more = dataset.cameras
    sarm = dataclasses.replace(sarm, annotation_mode="sparse_only", image_key=first, more_image_keys=tuple(more), gap_s=0.1)
    features = FeatureCache(folder / "cache", dataset.fingerprint, encoder=PixelImages(sarm.text_dim))
    episodes = [dataset[i] for i in range(len(dataset))]
    start = time.monotonic()
    trained = train_sarm(
        episodes, sarm, dataclasses.replace(train, steps=steps, seed=seed), folder=folder / f"{dataset.fingerprint[:12]}-{seed}",
        stages=dataset.stages, holdout=HOLDOUT, features=features,
    )  # fmt: skip
    seconds = time.monotonic() - start
    model, rows = trained.model.use_features(features), []
    for episode in (each for each in episodes if each.index in trained.held_out):
        score, clock = (score_episode(m.predict(episode).main, episode, dataset.stages["sparse"]) for m in (model, ElapsedModel()))
        numbers = (score.error, score.stage_accuracy, score.final, score.true_final, clock.error, clock.final)
        rows.append(
            (episode.index, episode.task, scene_of(episode), score.kind, bool(episode.success), *(round(float(x), 4) for x in numbers))
        )
    names = ("episode", "task", "scene", "kind", "success", "error", "stage_accuracy", "final", "true_final", "clock_error", "clock_final")
    return {"train_s": round(seconds, 1), **dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))}


def compute(args: argparse.Namespace) -> None:
    """Runs whatever is not in the result file yet."""
    done = {(line["fingerprint"], line["seed"], line["steps"]) for line in read(args.out)}
    work = args.folder or Path(tempfile.mkdtemp())
    for seed in args.seeds:
        for path in args.datasets:
            dataset = open_dataset(path)
            if (dataset.fingerprint, seed, args.steps) in done:
                continue
            line = {"dataset": Path(path).name, "fingerprint": dataset.fingerprint, "seed": seed, "steps": args.steps}
            line |= run(dataset, seed, args.steps, work)
            with args.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{time.strftime('%H:%M:%S')} {path} seed {seed}: {line['train_s']:.0f} s", flush=True)


def of_task(lines: Sequence[Mapping[str, Any]], task: str, rng: np.random.Generator) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Returns (columns, weights) of each seed; weights (draws, episodes), resampled start scenes, the same draws for all seeds."""
    columns = [{name: np.array(line[name]) for name in line if isinstance(line[name], list)} for line in lines]
    mine = [{name: values[each["task"] == task] for name, values in each.items()} for each in columns]
    scenes = sorted({scene for each in mine for scene in each["scene"]})
    counts = rng.multinomial(len(scenes), np.full(len(scenes), 1 / len(scenes)), size=DRAWS)
    weight = np.concatenate([np.ones((1, len(scenes))), counts])
    return [(each, weight[:, np.searchsorted(scenes, each["scene"])]) for each in mine]


def cell(found: Sequence[np.ndarray], digits: int = 3) -> tuple[str, float]:
    """Returns the mean over seeds with its 95 % interval, and the mean. found: the draws of each seed, NaN where one has no episode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a draw without an episode in any seed stays out
        mean = np.nanmean(np.stack(found), axis=0)
    low, high = np.nanpercentile(mean[1:], [2.5, 97.5])
    return f"{mean[0]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]", float(mean[0])


def row_of(task: str, seeds: list[tuple[dict[str, np.ndarray], np.ndarray]]) -> tuple[str, ...]:
    """Returns a task's line of the table; what misses its bar is bold."""

    def over(column: str, kind: np.ndarray | bool) -> list[np.ndarray]:
        chosen = [(each, weight, each["success"] if kind is True else each["kind"] == kind) for each, weight in seeds]
        with np.errstate(invalid="ignore"):
            return [weighted_mean(each[column][mask], weight[:, mask]) for each, weight, mask in chosen if mask.any()]

    def judged(text: str, good: bool) -> str:
        return text if good else f"**{text}**"

    error, mean_error = cell(over("error", True))
    with np.errstate(invalid="ignore"):
        auc, mean_auc = cell([weighted_auc(each["final"], each["success"], weight) for each, weight in seeds])
    row = [
        judged(error, mean_error <= ERROR),
        cell(over("clock_error", True))[0],
        cell(over("stage_accuracy", True))[0],
        judged(auc, mean_auc >= AUC),
    ]
    for kind in ("failing_early", "giving_up", "dropping"):
        if not any((each["kind"] == kind).any() for each, _ in seeds):
            row.append("-")
            continue
        text, mean = cell(over("final", kind), 2)
        ends = np.concatenate([each["final"][each["kind"] == kind] for each, _ in seeds])
        row.append(
            judged(f"{text}, at most {ends.max():.2f}; truth {cell(over('true_final', kind), 2)[1]:.2f} ({len(ends)})", mean <= FINAL)
        )
    return (task, str(len(seeds)), *row)


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table: one line for each task, in the order of the datasets."""
    rng, rows = np.random.default_rng(0), []
    for fingerprint in dict.fromkeys(line["fingerprint"] for line in lines):
        mine = [line for line in lines if line["fingerprint"] == fingerprint]
        for task in sorted(set(mine[0]["task"])):
            rows.append((mine[0]["dataset"], *row_of(task, of_task(mine, task, rng))))
    columns = ("", "task", "seeds", "error", "a clock's", "stage accuracy", "AUC", "failing early ends at", "giving up", "dropping")
    return markdown(columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--folder", type=Path, help="for models and features; without, a temporary one")
    parser.add_argument("--out", type=Path, default=Path("sarm_tasks.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the table from --out, train nothing")
    args = parser.parse_args()
    if not args.table and not args.datasets:
        parser.error("DATASET or --table is needed")
    compute(args)
    if args.table:
        print(table(read(args.out)))


if __name__ == "__main__":
    main()
