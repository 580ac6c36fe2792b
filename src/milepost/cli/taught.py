"""Says which episodes a model learnt from, where its numbers flatter it; the model folder's evaluation.json names them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from milepost import datasets
from milepost.cli.console import say
from milepost.core import read_json_object


def say_what_taught(model: Path, dataset: datasets.LeRobotDataset, episodes: Collection[int]) -> None:
    """Says how many of these episodes taught the model, and which it never saw. Says nothing if it learnt from another dataset."""
    record = model / "evaluation.json"
    if not record.is_file():
        return
    about = read_json_object(record)
    groups = ("train_episodes", "validation_episodes", "held_out")
    learning, choosing, unseen = ({n for n in about.get(key) or () if isinstance(n, int)} for key in groups)
    taught = set(episodes) & (learning | choosing)
    same = about["dataset_fingerprint"] == dataset.fingerprint if "dataset_fingerprint" in about else about.get("dataset") == dataset.name
    if taught and same:
        rest = f"those it never saw: --episodes {','.join(map(str, sorted(unseen)))}" if unseen else "none was held out from it"
        say(f"{len(taught)} of these {len(episodes)} episodes taught this model; {rest}")
