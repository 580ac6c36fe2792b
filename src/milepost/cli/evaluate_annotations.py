"""`milepost evaluate --annotations A --against B`: how far two annotations agree; B is the reference, or the simulator's truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from milepost import annotation, datasets, metrics
from milepost.cli.console import say, table
from milepost.core import DataError, count_noun, to_json

WORST = 5
"""Episodes named at the end."""


def dataset_in(annotations: str, against: str) -> str:
    """Returns the one of the two that is a dataset, because it has the lengths of episodes. DataError if neither is one."""
    for source in (against, annotations):
        path = Path(source).expanduser()
        if source != "truth" and not annotation.is_store(path) and path.suffix not in annotation.SUFFIXES:
            return source
    raise DataError("neither --annotations nor --against is a dataset; give DATASET as well: it says how long its episodes are")


def evaluate_annotations(dataset: datasets.LeRobotDataset, annotations: str, against: str, *, head: str, seed: int, as_json: bool) -> int:
    """Prints the agreement over the dataset's selected episodes; returns the exit code, 1 if A lacks episodes that B has."""
    if against == "truth" and head != "sparse":
        raise DataError("the simulator's stages are the sparse ones: use --head-mode sparse, or another reference")
    lengths = {number: dataset.length(number) for number in dataset.episode_indices}
    a, b = (_read(source, dataset, lengths, head) for source in (annotations, against))
    agreement = metrics.compare(a, b, lengths=lengths, fps=dataset.fps, rng=np.random.default_rng(seed))
    if as_json:
        say(to_json(agreement.to_dict()))
        return 1 if agreement.only_b else 0
    table(
        f"{head} annotations of {count_noun(len(agreement.episodes), 'episode')} against {against} (95 % intervals)",
        *metrics.measure_table(agreement),
    )
    if agreement.boundaries:
        table("borders", *metrics.boundary_table(agreement))
    say(f"borders that only the reference has: {agreement.missed}; that only the annotation has: {agreement.extra}")
    worst = [f"{each.episode} ({each.frame_accuracy:.2f})" for each in agreement.worst()[:WORST]]
    say(f"least agreement (frame accuracy): episodes {', '.join(worst)}")
    for numbers, who in ((agreement.only_b, against), (agreement.only_a, annotations)):
        if numbers:
            say(f"only {who} annotates episodes {', '.join(map(str, numbers))}; they are in no number")
    return 1 if agreement.only_b else 0


def _read(source: str, dataset: datasets.LeRobotDataset, lengths: Mapping[int, int], head: str) -> dict[int, metrics.Annotation]:
    """Reads the annotations of the selected episodes. DataError if there is none of this head."""
    whole = {
        number: record.length for number, record in datasets.read_metadata(dataset.root).episodes.items()
    }  # a file may have all of them
    by_episode = (
        annotation.read_truth(dataset.root) if source == "truth" else annotation.read_annotations(source, fps=dataset.fps, lengths=whole)
    )
    by_number = {number: heads[head] for number, heads in by_episode.items() if head in heads and number in lengths}
    if not by_number:
        raise DataError(f"{source} has no {head} annotation of these episodes")
    return by_number
