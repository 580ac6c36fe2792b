"""Options that mean the same on every verb: which episodes, which device, where the progress file is, whose state statistics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from milepost.console import Tick, warn
from milepost.embed import Encoder, FeatureCache, cache_folder
from milepost.lerobot import LeRobotDataset, open_dataset
from milepost.models.sarm import SARMModel, read_state_stats
from milepost.store import METADATA_PREFIX, ProgressTable
from milepost.types import DataError, RewardModel


def parse_episodes(text: str | None) -> list[int] | None:
    """ "0-9,12" -> episode numbers in that order, None for all. ValueError shows the right form."""
    if text is None:
        return None
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise ValueError(f"--episodes takes numbers and ranges such as 0-9,12; got '{text}'")
        numbers += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(numbers))


def resolve_device(name: str) -> str:
    """ "auto" is the GPU if there is one. ValueError if a device is asked for that is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: torch sees no GPU here; use --device cpu")
    return name


def feature_cache(dataset: LeRobotDataset, encoder: Encoder, *, keep: bool, tick: Tick | None = None) -> FeatureCache:
    """Where this dataset's features are kept ($MILEPOST_CACHE, else ~/.cache/milepost/features), or nowhere, and then unrounded."""
    return FeatureCache(cache_folder() if keep else None, dataset.fingerprint, encoder=encoder, half=keep, on_frames=tick)


def progress_file(dataset: LeRobotDataset, given: Path | None) -> Path:
    """The progress file asked for, or the only one beside the dataset; DataError says how to make one."""
    if given is not None:
        return given
    found = sorted(dataset.root.glob("*_progress.parquet"))
    if len(found) != 1:
        what = f"several: {', '.join(f.name for f in found)}; choose with --progress" if found else "none; make one with milepost label"
        raise DataError(f"progress files beside {dataset.root}: {what}")
    return found[0]


def settle_model(model: RewardModel, state_stats: str | None, dataset: LeRobotDataset) -> None:
    """A SARM model made ready for this dataset: its cameras are there, its state statistics settled. DataError names the cameras there are.

    The statistics asked for; else the model's own; else, said aloud, those of the dataset at hand. They are part of its config then.
    """
    if not isinstance(model, SARMModel):
        return
    missing = [camera for camera in model.config.cameras if camera not in dataset.cameras]
    if missing:
        raise DataError(f"the model looks at camera '{missing[0]}'; this dataset has: {', '.join(dataset.cameras) or 'none'}")
    if model.config.state_stats_from and state_stats is None:
        return
    source = open_dataset(state_stats) if state_stats is not None else dataset
    model.use_state_stats(read_state_stats(source.root, model.config.state_key, source=f"{source.name}/meta/stats.json"))
    if state_stats is None:
        warn(
            f"this checkpoint has no state statistics: taking those of {source.name}; if it learnt from another dataset, use --state-stats"
        )


def require_dataset(path: Path, table: ProgressTable, dataset: LeRobotDataset) -> None:
    """DataError if the progress file was made for another dataset."""
    require_made_for(path, {key.removeprefix(METADATA_PREFIX): value for key, value in table.metadata.items()}, dataset)


def require_made_for(path: Path, made: Mapping[str, str], dataset: LeRobotDataset) -> None:
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


def require_rows(path: Path, table: ProgressTable, dataset: LeRobotDataset) -> int:
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
