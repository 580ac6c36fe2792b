"""Advantage labels by the truth: which of a model's positive frames would the true progress have made positive?

    milepost demo                                     # simulates, trains and labels into milepost-demo/
    python benchmarks/advantage.py milepost-demo

Only the episodes count that the models did not learn from, each with the thresholds of these episodes alone. Precision: the proportion of
positive frames that the true progress makes positive by the same rule. Recall: the proportion of those that are found. Intervals are
95 % bootstraps over episodes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from milepost.datasets import LeRobotDataset, open_dataset
from milepost.metrics.scores import clock
from milepost.progress.table import read_progress
from milepost.weights.advantage import CONVENTIONS, AdvantageConfig, EpisodeLabels, EpisodeProgress, label_advantages
from milepost.weights.positives import between_episodes, explained_by_time

HORIZONS = (10, 50, None)
DRAWS = 500


def held_out(folder: Path) -> list[int]:
    """Returns the episodes that no model in the folder learnt from."""
    cards = [json.loads(path.read_text()) for path in sorted((folder / "models").glob("*/evaluation.json"))]
    return sorted(set.intersection(*(set(card["held_out"]) for card in cards)))


def curves_of(dataset: LeRobotDataset, folder: Path) -> dict[str, list[np.ndarray]]:
    """Returns model -> the progress of each episode: the progress files of the demo, a clock, and noise."""
    tables = {name: read_progress(folder / "dataset" / f"{name}_progress.parquet") for name in ("sarm", "sarm_single_stage")}
    rng = np.random.default_rng(0)
    curves: dict[str, list[np.ndarray]] = {"truth": [each.columns["truth.progress"].reshape(-1) for each in dataset]}
    curves |= {name: [table.episode(each.index, each.length) for each in dataset] for name, table in tables.items()}
    curves["a clock"] = [clock(each.length) for each in dataset]
    curves["random"] = [rng.random(each.length) for each in dataset]
    return curves


def scored(labels: Sequence[EpisodeLabels], truth: Sequence[EpisodeLabels]) -> dict[str, str]:
    """Returns precision and recall with their intervals, as text."""
    hits, calls, true = (
        np.array([sum_of(a, b) for a, b in zip(labels, truth, strict=True)])
        for sum_of in (
            lambda a, b: (a.is_positive & b.is_positive).sum(),
            lambda a, _: a.is_positive.sum(),
            lambda _, b: b.is_positive.sum(),
        )
    )
    rng = np.random.default_rng(0)
    draws = rng.integers(len(hits), size=(DRAWS, len(hits)))
    texts = {}
    for name, of in (("precision", calls), ("recall", true)):
        low, high = np.nanpercentile(hits[draws].sum(axis=1) / of[draws].sum(axis=1), [2.5, 97.5])
        texts[name] = f"{hits.sum() / of.sum():.2f} [{low:.2f}, {high:.2f}]"
    return texts


def rows_of(dataset: LeRobotDataset, curves: Mapping[str, Sequence[np.ndarray]]) -> list[list[str]]:
    """Returns a row for each horizon, convention and model."""
    rows = []
    for horizon in HORIZONS:
        for convention, positive in CONVENTIONS.items():
            config, labels = AdvantageConfig(horizon, positive), {}
            for name, of_model in curves.items():
                of = [EpisodeProgress(e.index, e.task, np.asarray(c, float), e.success) for e, c in zip(dataset, of_model, strict=True)]
                made = label_advantages(of, config).episodes
                labels[name] = made
                score = scored(made, labels["truth"])
                successes = [each for each, episode in zip(made, dataset, strict=True) if episode.success]
                numbers = [f"{explained_by_time(of):.2f}", f"{between_episodes(successes):.2f}"]
                share = np.concatenate([each.is_positive for each in made]).mean()
                rows.append([str(horizon or "end"), convention, name, f"{share:.0%}", score["precision"], score["recall"], *numbers])
    return rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    dataset = open_dataset(folder / "dataset", episodes=held_out(folder))
    print(f"{len(dataset)} held-out episodes, {dataset.total_frames} frames, median {np.median([each.length for each in dataset]):.0f}\n")
    head = ["horizon", "convention", "progress of", "positive", "precision", "recall", "by time (R^2)", "between episodes"]
    for row in [head, ["---"] * len(head), *rows_of(dataset, curves_of(dataset, folder))]:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
