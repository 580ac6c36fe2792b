"""Checks that the rows of a file belong to a dataset: one rule for progress files and weights files.

A file of another dataset is refused. If something is odd but readable, it is returned as a warning in words: nothing is printed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from milepost.core import Brief, DataError, Episode
from milepost.datasets import LeRobotDataset, find_file, origin_of
from milepost.progress.table import ProgressTable, read_progress

LEROBOTS = "sarm_progress.parquet"
"""The progress file that LeRobot's own weighting looks for beside a dataset."""
_AGAIN = "it was made for another dataset; label this one with milepost label"


@dataclass(frozen=True, eq=False, repr=False)
class MatchedProgress(Brief):
    """A progress file whose rows are the dataset's. missing: the number of frames, of episodes in use, without a row in the file."""

    path: Path
    table: ProgressTable
    missing: int
    warnings: tuple[str, ...] = ()


def match_progress(path: Path, dataset: LeRobotDataset, episodes: Sequence[int] | None = None) -> MatchedProgress:
    """Returns the progress file at this path or Hub address, or, as LeRobot's tools look for it, of this name beside the dataset.

    episodes: those whose rows are needed, all if None. Rows of others may be left out, and `missing` counts them then. Raises DataError if
    it cannot be read or belongs to another dataset.
    """
    path = find_file(path)
    if not path.exists() and path.name == str(path) and (beside := dataset.files.beside(path.name)):
        path = beside[0]
    table = read_progress(path, (min(episodes), max(episodes)) if episodes and len(episodes) < len(dataset.hints.episodes) else None)
    warnings = require_made_for(path, table.made_by, dataset)
    require_rows(path, table, dataset)
    missing = dataset.total_frames - _covered(np.unique(table.index), dataset)
    return MatchedProgress(path, table, missing, warnings)


def find_progress(dataset: LeRobotDataset, path: Path | None = None) -> MatchedProgress:
    """Returns the named progress file, else the only one beside the dataset, else SARM's, which LeRobot would take.

    Raises DataError if there is none, or several without SARM's; the message says how to make or choose one.
    """
    if path is not None:
        return match_progress(path, dataset)
    usual_path, warnings = usual_progress(dataset)
    match = match_progress(usual_path, dataset)
    return MatchedProgress(match.path, match.table, match.missing, (*warnings, *match.warnings))


def usual_progress(dataset: LeRobotDataset) -> tuple[Path, tuple[str, ...]]:
    """Returns the progress file to use if none is named, and warnings about the choice. Raises DataError as `find_progress` does."""
    return chosen_progress(sorted(dataset.files.beside("*_progress.parquet")), dataset.root)


def chosen_progress(paths: Sequence[Path], folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Returns as `usual_progress` which of the progress files in a folder to use. Raises DataError as `find_progress` does."""
    if len(paths) > 1 and (usual := folder / LEROBOTS) in paths:
        others = ", ".join(path.name for path in paths if path != usual)
        choose = "--progress (in Python progress=) chooses another"
        return usual, (f"of {len(paths)} progress files {usual.name} is taken, as LeRobot does; also there: {others}; {choose}",)
    if len(paths) != 1:
        problem = (
            f"several: {', '.join(path.name for path in paths)}; choose with --progress" if paths else "none; make one with milepost label"
        )
        raise DataError(f"progress files beside {folder}: {problem}")
    return paths[0], ()


def require_made_for(path: Path, provenance: Mapping[str, str], dataset: LeRobotDataset) -> tuple[str, ...]:
    """Returns warnings if it is uncertain that a file was made for this dataset. Raises DataError if it was made for another one.

    provenance: has `dataset` and `dataset_fingerprint`. Two folders are compared by fingerprint. That of a Hub dataset is its commit, which
    changes with its annotations, so Hub datasets are compared by name. A copy with all rows of the dataset in their order counts as it.
    """
    dataset_name, fingerprint = provenance.get("dataset", ""), provenance.get("dataset_fingerprint", "")
    if not fingerprint or fingerprint == dataset.fingerprint:
        return ()
    origin = origin_of(dataset)
    if fingerprint in origin.same_rows:
        return ()
    if fingerprint in origin.part_of:
        raise DataError(
            f"{path} was made for the dataset that '{dataset.name}' is a part of, so its rows have other numbers: label this one with "
            "milepost label, or make the copy again with --progress, which writes the rows that stay beside it"
        )
    on_hub = "/" in dataset_name
    if on_hub == dataset.is_local:
        return (
            f"{path} was made for '{dataset_name}', this is '{dataset.name}': taken for the same dataset, since one of them is a folder",
        )
    if not on_hub or dataset_name != dataset.name:
        raise DataError(
            f"{path} was made for another dataset ('{dataset_name}', fingerprint {fingerprint}; this one has {dataset.fingerprint})"
        )
    return ()


def require_rows(path: Path | str, table: ProgressTable, dataset: LeRobotDataset) -> None:
    """Raises DataError unless every row of the file is the frame of the dataset that it claims to be."""
    arrays = dataset.meta.arrays
    numbers, first, length = arrays.number, arrays.row, arrays.length
    position = np.minimum(np.searchsorted(numbers, table.episode_index), len(numbers) - 1)
    if len(foreign := np.flatnonzero(numbers[position] != table.episode_index)):
        raise DataError(
            f"{path} has episode {table.episode_index[foreign[0]]}, which {dataset.name} has not ({numbers[0]} to {numbers[-1]}): {_AGAIN}"
        )
    start, stop = first[position], first[position] + length[position]
    wrong = np.flatnonzero((table.index != start + table.frame_index) | (table.index < start) | (table.index >= stop))
    if len(wrong):
        row = wrong[0]
        raise DataError(
            f"{path}: {len(wrong)} rows do not fit {dataset.name}, first index {table.index[row]} (episode {table.episode_index[row]}, "
            f"frame {table.frame_index[row]}), where that episode has rows {start[row]} to {stop[row] - 1}: {_AGAIN}"
        )


def require_episode(path: Path | str, table: ProgressTable, episode: Episode) -> None:
    """Raises DataError unless the file's rows of this episode are its frames."""
    is_own = table.episode_index == episode.index
    index, frame = table.index[is_own], table.frame_index[is_own]
    wrong = np.flatnonzero((index != episode.row + frame) | (frame < 0) | (frame >= episode.length))
    if len(wrong):
        raise DataError(
            f"{path}: {len(wrong)} rows of episode {episode.index} do not fit it, first index {index[wrong[0]]} (frame {frame[wrong[0]]}), "
            f"where it has rows {episode.row} to {episode.row + episode.length - 1}: {_AGAIN}"
        )


def row_count(dataset: LeRobotDataset) -> int:
    """Returns the number of rows of the whole dataset, with the episodes that are not in use."""
    arrays = dataset.meta.arrays
    return int((arrays.row + arrays.length).max())


def by_row(
    path: Path | str, index: Int[np.ndarray, "N"], values: Shaped[np.ndarray, "N"], dataset: LeRobotDataset
) -> Float[np.ndarray, "R"]:
    """Returns a column of a file by row of the dataset, NaN where the file has none. Raises DataError for a row beyond the dataset."""
    count = row_count(dataset)
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < count:
        raise DataError(f"{path} has rows {index.min()} to {index.max()}, {dataset.name} has {count}: it was made for another dataset")
    out = np.full(count, np.nan, np.float32)
    out[index] = values
    return out


def curves_by_row(path: Path | str, table: ProgressTable, dataset: LeRobotDataset) -> dict[str, Float[np.ndarray, "R"]]:
    """Returns head -> its curve by row of the dataset. Raises DataError as `require_rows` does."""
    require_rows(path, table, dataset)
    return {head: by_row(path, table.index, curve.value, dataset) for head, curve in table.heads.items()}


def _covered(index: Int[np.ndarray, "N"], dataset: LeRobotDataset) -> int:
    """Returns how many of these rows, which rise, are of episodes in use."""
    start, stop = dataset.row_ranges
    return int((np.searchsorted(index, stop) - np.searchsorted(index, start)).sum())
