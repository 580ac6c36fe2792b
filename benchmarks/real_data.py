"""Real robots' recordings, and roll-outs of others' simulators: what our recipe learns of them, on held-out episodes, and its audit.

    python benchmarks/real_data.py FOLDER [--only cr5_banana ...] [--steps 300] [--augmentation 0.5] [--seed 0] [--out real.jsonl]
                                   [--pictures DIR]
    python benchmarks/real_data.py --table [--out real.jsonl]

FOLDER has the datasets cr5_banana, g1_bottle, bimanual_table, libero_rollouts and gr1_sim_pick.
Nothing is written into them. Episodes are divided into folds; each fold's curves come from a model that learnt from the others. A variant
is a line of --out: single stage, and staged where there are stages (bimanual_table's own; of cr5_banana those in real_cr5_banana.csv,
which were set by the gripper's command and looked at).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from milepost import figures
from milepost.annotation import read_file
from milepost.core import Curve, Episode, Stages, annotated_stages
from milepost.datasets import LeRobotDataset, open_dataset, validate
from milepost.encoders import FeatureCache, PixelImages
from milepost.metrics import EpisodeCurves, audit_curves, clock, score_episode, summarise, voc
from milepost.metrics.scores import interval, separation
from milepost.models.sarm.prepare import attempts_of
from milepost.models.sarm.settings import PRESETS
from milepost.models.sarm.train import train_sarm
from milepost.progress import AuditConfig, audit
from milepost.testing import ListDataset

STAGES_BY_HAND = Path(__file__).parent / "real_cr5_banana.csv"


@dataclass(frozen=True)
class Variant:
    """What is learnt of a set. folds: in how many parts its episodes are divided. keep: which episodes count."""

    folds: int
    mode: str = "single_stage"
    by_hand: bool = False
    keep: Callable[[Episode], bool] = lambda episode: True


def is_spatial(episode: Episode) -> bool:
    """Returns whether a roll-out is of LIBERO-Spatial and of the larger source: sources and suites are never pooled."""
    words = ("black bowl", "place it on the plate")
    return episode.facts.get("source") == "jaswu51" and all(each in episode.task for each in words)


VARIANTS: dict[str, dict[str, Variant]] = {
    "cr5_banana": {"single stage": Variant(7), "stages by hand": Variant(7, "sparse_only", by_hand=True)},
    "g1_bottle": {"single stage": Variant(9)},
    "bimanual_table": {"single stage": Variant(2), "its own stages": Variant(2, "sparse_only")},
    "libero_rollouts": {"single stage, Spatial": Variant(10, keep=is_spatial)},
    "gr1_sim_pick": {"single stage": Variant(5)},
}


def episodes_of(dataset: LeRobotDataset, variant: Variant) -> list[Episode]:
    """Returns the episodes that count, with the stages that were set by hand if they are asked for."""
    episodes = [episode for episode in (dataset[i] for i in range(len(dataset))) if variant.keep(episode)]
    if not variant.by_hand:
        return episodes
    table = read_file(STAGES_BY_HAND, fps=dataset.fps, lengths={episode.index: episode.length for episode in episodes})
    return [dataclasses.replace(episode, segments=table[episode.index]) for episode in episodes]


def run(dataset: LeRobotDataset, variant: Variant, args: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """Returns the numbers of one variant over all folds, and writes pictures of the first two episodes if they are asked for."""
    episodes = episodes_of(dataset, variant)
    order = np.random.default_rng(args.seed).permutation(len(episodes))
    curves: dict[int, Curve] = {}
    audited: list[EpisodeCurves] = []
    start = time.monotonic()
    for fold in range(variant.folds):
        held_out = [episodes[i] for i in sorted(order[fold :: variant.folds])]
        learnt = [episode for episode in episodes if all(episode.index != other.index for other in held_out)]
        model = trained(dataset, learnt, variant, args, cache)
        for episode in held_out:
            curves[episode.index] = model.predict(episode).main
        audited += audit(model, ListDataset(held_out), config=AuditConfig(seed=args.seed)).curves
    numbers = {
        "episodes": len(episodes), "folds": variant.folds, "seconds": round(time.monotonic() - start),
        "voc": mean(voc(curve.value) for curve in curves.values()), "audit": audit_of(audited, args.seed),
    }  # fmt: skip
    numbers |= against_stages(episodes, curves, args.seed) | against_outcomes(episodes, curves, args.seed)
    if args.pictures:
        draw(dataset, episodes[:2], curves, args.pictures)
    return numbers


def trained(dataset: LeRobotDataset, episodes: Sequence[Episode], variant: Variant, args: argparse.Namespace, cache: Path) -> Any:
    """Returns a SARM that learnt from these episodes by the small preset."""
    sarm, train = PRESETS["small"]
    first, *more = dataset.cameras
    sarm = dataclasses.replace(
        sarm, annotation_mode=variant.mode, image_key=first, more_image_keys=tuple(more), augmentation=args.augmentation
    )
    features = FeatureCache(cache, dataset.fingerprint, encoder=PixelImages(sarm.text_dim))
    train = dataclasses.replace(train, steps=args.steps, seed=args.seed)
    with tempfile.TemporaryDirectory() as folder:
        result = train_sarm(episodes, sarm, train, folder=Path(folder), stages={}, holdout=0.0, features=features)
    return result.model.use_features(features)


def audit_of(audited: Sequence[EpisodeCurves], seed: int) -> dict[str, Any]:
    """Returns verdict and evidence, over the episodes of all folds."""
    result = audit_curves(audited, seed=seed)
    return {
        "verdict": result.verdict,
        **{name: str(result.rows[name]) for name in ("rise", "frozen", "shuffled", "follow", "images_share")},
    }


def against_stages(episodes: Sequence[Episode], curves: Mapping[int, Curve], seed: int) -> dict[str, Any]:
    """Returns error and stage accuracy against the annotated stages, and a clock's, where there are stages."""
    if not all(episode.segments.get("sparse") for episode in episodes):
        return {}
    stages: Stages = annotated_stages(attempts_of(episodes, "sparse"))
    out = {}
    for name, curve_of in {"model": lambda e: curves[e.index], "clock": lambda e: Curve(clock(e.length))}.items():
        summary = summarise([score_episode(curve_of(each), each, stages, "sparse") for each in episodes], np.random.default_rng(seed))
        out |= {f"error_{name}": str(summary.error), f"stages_{name}": str(summary.stage_accuracy)}
    return out


def against_outcomes(episodes: Sequence[Episode], curves: Mapping[int, Curve], seed: int) -> dict[str, Any]:
    """Returns how often a success is above a failure, at the frame where the shortest episode ends, so that length says nothing."""
    sides = [[each for each in episodes if each.success is side] for side in (True, False)]
    if not all(sides):
        return {}
    at = min(episode.length for episode in episodes) - 1
    values = [np.array([curves[each.index].value[at] for each in side]) for side in sides]
    low, high = interval(separation, *values, rng=np.random.default_rng(seed))
    return {"auc_at_frame": at, "auc": f"{separation(*values):.3f} [{low:.2f}, {high:.2f}]", "outcomes": [len(side) for side in sides]}


def draw(dataset: LeRobotDataset, episodes: Sequence[Episode], curves: Mapping[int, Curve], folder: Path) -> None:
    """Writes the curve beside frames and a clock, as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for episode in episodes:
        by_name = {"SARM, held out": curves[episode.index], "a clock": Curve(clock(episode.length))}
        view = figures.episode_view(episode, {"sparse": by_name}, {})
        (folder / f"{dataset.name}_{episode.index}.png").write_bytes(figures.figure_bytes(figures.episode_figure(view), "png"))


def mean(values: Any) -> float:
    """Returns the mean of the numbers that are known."""
    return float(np.nanmean(list(values)))


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Returns Markdown, a row for each variant."""
    names = ("episodes", "voc", "error_model", "error_clock", "stages_model", "stages_clock", "auc")
    rows = ["| set, variant | " + " | ".join(names) + " | audit |", "|---|" + "---|" * (len(names) + 1)]
    for line in lines:
        cells = [f"{value:.3f}" if isinstance(value := line.get(name, ""), float) else str(value) for name in names]
        evidence = "; ".join(f"{name} {line['audit'][name]}" for name in ("rise", "frozen", "shuffled", "follow", "images_share"))
        rows.append(f"| {line['set']}, {line['variant']} | {' | '.join(cells)} | {line['audit']['verdict']} ({evidence}) |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--only", nargs="+", default=list(VARIANTS))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--augmentation", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("real.jsonl"))
    parser.add_argument("--cache", type=Path, default=Path("real_cache"))
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    lines = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.is_file() else []
    if not args.table:
        torch.set_num_threads(1)
        done = {(line["set"], line["variant"]) for line in lines}
        for name in args.only:
            report = validate(args.folder / name)
            print(name, "healthy" if report.healthy else [finding.message for finding in report.findings], flush=True)
            dataset = open_dataset(args.folder / name)
            for words, variant in VARIANTS[name].items():
                if (name, words) in done:
                    continue
                lines.append({"set": name, "variant": words, **run(dataset, variant, args, args.cache)})
                with args.out.open("a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
                print(json.dumps(lines[-1]), flush=True)
    print(table(lines))


if __name__ == "__main__":
    main()
