"""`milepost evaluate --annotations A --against B`: how far two annotations agree; B is the reference, or the simulator's truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from milepost import annotation, datasets, metrics
from milepost.cli.console import say, table
from milepost.core import DataError, to_json

WORST = 5
"""Episodes named at the end."""


def dataset_in(annotations: str, against: str) -> str:
    """Which of the two is a dataset, that says how long episodes are. DataError if neither is: it has to be given."""
    for source in (against, annotations):
        path = Path(source).expanduser()
        if source != "truth" and not annotation.is_store(path) and path.suffix not in annotation.SUFFIXES:
            return source
    raise DataError("neither --annotations nor --against is a dataset; give DATASET as well: it says how long its episodes are")


def evaluate_annotations(dataset: datasets.LeRobotDataset, annotations: str, against: str, *, head: str, seed: int, as_json: bool) -> int:
    """Print the agreement over the dataset's chosen episodes; returns the exit code, 1 if A lacks episodes that B has."""
    if against == "truth" and head != "sparse":
        raise DataError("the simulator's stages are the sparse ones: use --head-mode sparse, or another reference")
    lengths = {number: dataset.length(number) for number in dataset.episode_indices}
    a, b = (_read(source, dataset, lengths, head) for source in (annotations, against))
    found = metrics.compare(a, b, lengths=lengths, fps=dataset.fps, rng=np.random.default_rng(seed))
    if as_json:
        say(to_json(found.to_dict()))
        return 1 if found.only_b else 0
    table(f"{head} annotations of {len(found.episodes)} episodes against {against} (95 % intervals)", *metrics.measure_table(found))
    if found.boundaries:
        table("boundaries", *metrics.boundary_table(found))
    say(f"boundaries that only the reference has: {found.missed}; that only the annotation has: {found.extra}")
    worst = [f"{each.episode} ({each.frame_accuracy:.2f})" for each in found.worst()[:WORST]]
    say(f"least agreement (frame accuracy): episodes {', '.join(worst)}")
    for numbers, who in ((found.only_b, against), (found.only_a, annotations)):
        if numbers:
            say(f"only {who} annotates episodes {', '.join(map(str, numbers))}; they are in no number")
    return 1 if found.only_b else 0


def _read(source: str, dataset: datasets.LeRobotDataset, lengths: Mapping[int, int], head: str) -> dict[int, metrics.Annotation]:
    """Of the chosen episodes. DataError if it has none of this head."""
    whole = {
        number: record.length for number, record in datasets.read_metadata(dataset.root).episodes.items()
    }  # a file may have all of them
    read = annotation.read_truth(dataset.root) if source == "truth" else annotation.read_annotations(source, fps=dataset.fps, lengths=whole)
    found = {number: heads[head] for number, heads in read.items() if head in heads and number in lengths}
    if not found:
        raise DataError(f"{source} has no {head} annotation of these episodes")
    return found
