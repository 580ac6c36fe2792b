"""Which episodes and which files a verb was given, and whether they belong to its dataset. No torch: the quick verbs import this alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from milepost import datasets, progress
from milepost.cli.console import warn
from milepost.core import DataError

LEROBOTS = "sarm_progress.parquet"
"""The progress file that LeRobot's own weighting looks for beside a dataset."""


def parse_episodes(text: str | None) -> list[int] | None:
    """ "0-9,12" (or "0 1 2") -> episode numbers in that order, None for all. ValueError shows the right form."""
    if text is None:
        return None
    numbers: list[int] = []
    for part in re.split(r"\s*,\s*|\s+", text.strip().rstrip(",")):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or (last and not last.isdigit()) or int(last or first) < int(first):
            raise ValueError(f"--episodes takes numbers and rising ranges such as 0-9,12 or 0 1 2; got '{text}'")
        numbers += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(numbers))


def progress_file(dataset: datasets.LeRobotDataset, given: Path | None) -> Path:
    """The progress file asked for, or the only one beside the dataset, or of several SARM's; DataError says how to make one."""
    if given is not None:
        return datasets.find_file(given)
    found = sorted(dataset.files.beside("*_progress.parquet"))
    if len(found) > 1 and (usual := dataset.root / LEROBOTS) in found:
        warn(f"of {len(found)} progress files {usual.name} is taken, as LeRobot does; --progress chooses another")
        return usual
    if len(found) != 1:
        what = f"several: {', '.join(f.name for f in found)}; choose with --progress" if found else "none; make one with milepost label"
        raise DataError(f"progress files beside {dataset.root}: {what}")
    return found[0]


def require_dataset(path: Path, table: progress.ProgressTable, dataset: datasets.LeRobotDataset) -> None:
    """DataError if the progress file was made for another dataset."""
    require_made_for(path, table.made_by, dataset)


def require_made_for(path: Path, made: Mapping[str, str], dataset: datasets.LeRobotDataset) -> None:
    """DataError if what a file says of its making (`dataset`, `dataset_fingerprint`) is of another dataset.

    By fingerprint between two folders; a Hub dataset's is its commit, which changes with its annotations.
    """
    made_for, print_ = made.get("dataset", ""), made.get("dataset_fingerprint", "")
    if not print_ or print_ == dataset.fingerprint:
        return
    on_hub = "/" in made_for
    if on_hub == dataset.is_local:
        warn(f"{path} was made for '{made_for}', this is '{dataset.name}': taken for the same dataset, since one of them is a folder")
    elif not on_hub or made_for != dataset.name:
        raise DataError(f"{path} was made for another dataset ('{made_for}', fingerprint {print_}; this one has {dataset.fingerprint})")


def require_rows(path: Path, table: progress.ProgressTable, dataset: datasets.LeRobotDataset) -> int:
    """How many of the dataset's frames have no row in the progress file. DataError if a row is of no such frame: another dataset's file."""
    numbers = np.array(dataset.episode_indices)
    ranges = np.array([dataset.row_range(int(number)) for number in numbers])
    place = np.minimum(np.searchsorted(numbers, table.episode_index), len(numbers) - 1)
    strange = np.flatnonzero(numbers[place] != table.episode_index)
    if len(strange):
        raise DataError(
            f"{path} has episode {table.episode_index[strange[0]]}, which {dataset.name} has not ({numbers[0]} to {numbers[-1]}): it was "
            "made for another dataset; label this one with milepost label"
        )
    start, stop = ranges[place].T
    wrong = np.flatnonzero((table.index != start + table.frame_index) | (table.index < start) | (table.index >= stop))
    if len(wrong):
        row = wrong[0]
        raise DataError(
            f"{path}: {len(wrong)} rows do not fit {dataset.name}, first index {table.index[row]} (episode {table.episode_index[row]}, "
            f"frame {table.frame_index[row]}), where that episode has rows {start[row]} to {stop[row] - 1}: it was made for another "
            "dataset; label this one with milepost label"
        )
    return dataset.total_frames - len(np.unique(table.index))
