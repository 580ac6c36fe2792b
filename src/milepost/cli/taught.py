"""Says which episodes a model learnt from, where its numbers flatter it; the model folder's evaluation.json names them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from milepost import datasets
from milepost.cli.console import say
from milepost.core import count_noun, read_json_object


def taught_by(model: Path, dataset: datasets.LeRobotDataset, episodes: Collection[int]) -> tuple[set[int], str]:
    """Returns which of these episodes taught the model, and a sentence about it; empty if none did, or it learnt from another dataset."""
    record = model / "evaluation.json"
    if not record.is_file():
        return set(), ""
    about = read_json_object(record)
    groups = ("train_episodes", "validation_episodes", "held_out")
    learning, choosing, unseen = ({n for n in about.get(key) or () if isinstance(n, int)} for key in groups)
    taught = set(episodes) & (learning | choosing)
    fingerprint = about.get("dataset_fingerprint")
    same = datasets.has_rows_of(dataset, str(fingerprint)) if fingerprint is not None else about.get("dataset") == dataset.name
    if not (taught and same):
        return set(), ""
    rest = f"those it never saw: --episodes {','.join(map(str, sorted(unseen)))}" if unseen else "none was held out from it"
    return taught, f"{len(taught)} of these {count_noun(len(episodes), 'episode')} taught this model; {rest}"


def say_what_taught(model: Path, dataset: datasets.LeRobotDataset, episodes: Collection[int]) -> None:
    """Says how many of these episodes taught the model, and which it never saw. Says nothing if it learnt from another dataset."""
    if words := taught_by(model, dataset, episodes)[1]:
        say(words)
