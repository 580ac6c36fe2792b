"""Do the rows of a file belong to a dataset? One rule for progress files and weights files, whoever reads them.

Refuses a file of another dataset. What is odd and read all the same is returned in words: nothing is printed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from milepost.core import DataError, Episode
from milepost.datasets import LeRobotDataset, find_file
from milepost.progress.table import ProgressTable, read_progress

LEROBOTS = "sarm_progress.parquet"
"""The progress file that LeRobot's own weighting looks for beside a dataset."""
_AGAIN = "it was made for another dataset; label this one with milepost label"


@dataclass(frozen=True, eq=False)
class MatchedProgress:
    """A progress file whose rows are the dataset's. missing: frames of the episodes in use that it has no row of."""

    path: Path
    table: ProgressTable
    missing: int
    warnings: tuple[str, ...] = ()


def match_progress(path: Path, dataset: LeRobotDataset) -> MatchedProgress:
    """Returns the progress file at this path or Hub address. DataError if it cannot be read, or is another dataset's."""
    path = find_file(path)
    table = read_progress(path)
    warnings = require_made_for(path, table.made_by, dataset)
    require_rows(path, table, dataset)
    missing = dataset.total_frames - int(np.isin(np.unique(table.index), _rows_in_use(dataset)).sum())
    return MatchedProgress(path, table, missing, warnings)


def find_progress(dataset: LeRobotDataset, given: Path | None = None) -> MatchedProgress:
    """Returns the progress file asked for, else the only one beside the dataset, else of several SARM's, which LeRobot takes.

    DataError if there is none, or several of which none is usual: it says how to make or choose one.
    """
    if given is not None:
        return match_progress(given, dataset)
    path, warnings = usual_progress(dataset)
    found = match_progress(path, dataset)
    return MatchedProgress(found.path, found.table, found.missing, (*warnings, *found.warnings))


def usual_progress(dataset: LeRobotDataset) -> tuple[Path, tuple[str, ...]]:
    """Returns the progress file that is taken where none is asked for, and what to say of the choice. DataError as `find_progress`."""
    found = sorted(dataset.files.beside("*_progress.parquet"))
    if len(found) > 1 and (usual := dataset.root / LEROBOTS) in found:
        return usual, (f"of {len(found)} progress files {usual.name} is taken, as LeRobot does; --progress chooses another",)
    if len(found) != 1:
        what = f"several: {', '.join(f.name for f in found)}; choose with --progress" if found else "none; make one with milepost label"
        raise DataError(f"progress files beside {dataset.root}: {what}")
    return found[0], ()


def require_made_for(path: Path, made: Mapping[str, str], dataset: LeRobotDataset) -> tuple[str, ...]:
    """Returns what to say of a file whose making (`dataset`, `dataset_fingerprint`) leaves a doubt. DataError if it is another dataset's.

    Two folders are compared by fingerprint; that of a Hub dataset is its commit, which changes with its annotations.
    """
    made_for, print_ = made.get("dataset", ""), made.get("dataset_fingerprint", "")
    if not print_ or print_ == dataset.fingerprint:
        return ()
    on_hub = "/" in made_for
    if on_hub == dataset.is_local:
        return (f"{path} was made for '{made_for}', this is '{dataset.name}': taken for the same dataset, since one of them is a folder",)
    if not on_hub or made_for != dataset.name:
        raise DataError(f"{path} was made for another dataset ('{made_for}', fingerprint {print_}; this one has {dataset.fingerprint})")
    return ()


def require_rows(path: Path | str, table: ProgressTable, dataset: LeRobotDataset) -> None:
    """Raises DataError unless every row of the file is the frame, of an episode of the dataset, that it says it is."""
    records = dataset.meta.episodes.values()
    numbers, first, length = (np.array([getattr(each, name) for each in records]) for name in ("index", "row", "length"))
    place = np.minimum(np.searchsorted(numbers, table.episode_index), len(numbers) - 1)
    if len(strange := np.flatnonzero(numbers[place] != table.episode_index)):
        raise DataError(
            f"{path} has episode {table.episode_index[strange[0]]}, which {dataset.name} has not ({numbers[0]} to {numbers[-1]}): {_AGAIN}"
        )
    start, stop = first[place], first[place] + length[place]
    wrong = np.flatnonzero((table.index != start + table.frame_index) | (table.index < start) | (table.index >= stop))
    if len(wrong):
        row = wrong[0]
        raise DataError(
            f"{path}: {len(wrong)} rows do not fit {dataset.name}, first index {table.index[row]} (episode {table.episode_index[row]}, "
            f"frame {table.frame_index[row]}), where that episode has rows {start[row]} to {stop[row] - 1}: {_AGAIN}"
        )


def require_episode(path: Path | str, table: ProgressTable, episode: Episode) -> None:
    """Raises DataError unless the file's rows of this episode are its frames."""
    own = table.episode_index == episode.index
    index, frame = table.index[own], table.frame_index[own]
    wrong = np.flatnonzero((index != episode.row + frame) | (frame < 0) | (frame >= episode.length))
    if len(wrong):
        raise DataError(
            f"{path}: {len(wrong)} rows of episode {episode.index} do not fit it, first index {index[wrong[0]]} (frame {frame[wrong[0]]}), "
            f"where it has rows {episode.row} to {episode.row + episode.length - 1}: {_AGAIN}"
        )


def row_count(dataset: LeRobotDataset) -> int:
    """Returns how many rows the whole dataset has, those of episodes not in use among them."""
    return max(record.row + record.length for record in dataset.meta.episodes.values())


def by_row(
    path: Path | str, index: Int[np.ndarray, "N"], values: Shaped[np.ndarray, "N"], dataset: LeRobotDataset
) -> Float[np.ndarray, "R"]:
    """Returns a column of a file by row of the dataset, NaN where the file has none. DataError for a row that the dataset has not."""
    count = row_count(dataset)
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < count:
        raise DataError(f"{path} has rows {index.min()} to {index.max()}, {dataset.name} has {count}: it was made for another dataset")
    out = np.full(count, np.nan, np.float32)
    out[index] = values
    return out


def curves_by_row(path: Path | str, table: ProgressTable, dataset: LeRobotDataset) -> dict[str, Float[np.ndarray, "R"]]:
    """Returns head -> its curve by row of the dataset. DataError as `require_rows`."""
    require_rows(path, table, dataset)
    return {head: by_row(path, table.index, curve.value, dataset) for head, curve in table.heads.items()}


def _rows_in_use(dataset: LeRobotDataset) -> Int[np.ndarray, "N"]:
    ranges: Sequence[tuple[int, int]] = [dataset.row_range(number) for number in dataset.episode_indices]
    return np.concatenate([np.arange(start, stop) for start, stop in ranges])
