"""A saved SARM on disk, ours or LeRobot's, and the statistics of its robot states.

The statistics that robot states are normalised with are part of our config. LeRobot has none in its own and normalises with whatever
dataset is at hand. Its training leaves those of the training dataset in a file beside the weights, which LeRobot never reads again: they
are used here. A checkpoint without that file needs a dataset to take them from, once: `state_stats=`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from milepost.core import DataError
from milepost.datasets import read_column_stats
from milepost.models.sarm import lerobot_format
from milepost.models.sarm.config import SARMConfig
from milepost.models.saved import read_files, read_tensors, write_folder, write_tensors

NORMALIZER = "_normalizer_processor.safetensors"


@dataclass(frozen=True)
class StateStats:
    """Mean and standard deviation of each channel of the robot state (S numbers each, raw units), and where they come from."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.source:
            raise DataError(f"state statistics need one std a mean, and a source, got {len(self.mean)}, {len(self.std)}, '{self.source}'")


def read_state_stats(dataset: Path | str, key: str = "observation.state", name: str = "") -> StateStats:
    """Returns those that a LeRobot dataset has of its robot state. name: what the dataset is called, if not as its folder.

    DataError if it has none.
    """
    return StateStats(*read_column_stats(Path(dataset), key, name=name))


def beside_weights(folder: Path, key: str) -> StateStats | None:
    """Returns the statistics that LeRobot's training left in the model folder, None if it left none."""
    for path in sorted(folder.glob(f"*{NORMALIZER}")):
        stats = read_tensors(path)
        if f"{key}.mean" in stats and f"{key}.std" in stats:
            mean, std = (tuple(stats[f"{key}.{name}"].flatten().tolist()) for name in ("mean", "std"))
            return StateStats(mean, std, path.name)
    return None


def read_folder(folder: Path) -> tuple[SARMConfig, dict[str, Tensor]]:
    """Returns config and weights of a saved model, LeRobot's translated. DataError if a file is missing, broken or of another kind."""
    values, weights = read_files(folder)
    if not lerobot_format.is_lerobot(values):
        return SARMConfig.from_dict(values), weights
    config = lerobot_format.read_config(values)
    stats = beside_weights(folder, config.state_key)
    return with_state_stats(config, stats) if stats else config, lerobot_format.from_lerobot_weights(weights, config)


def with_state_stats(config: SARMConfig, stats: StateStats) -> SARMConfig:
    """Returns the config with these statistics and their source."""
    return dataclasses.replace(config, state_mean=stats.mean, state_std=stats.std, state_stats_from=stats.source)


def write_lerobot_folder(folder: Path, config: SARMConfig, weights: Mapping[str, Tensor]) -> None:
    """Writes the model as LeRobot 0.6.1 reads it, and the state statistics where its training would leave them. DataError if LeRobot could
    not run this model.
    """
    write_folder(folder, lerobot_format.write_config(config), lerobot_format.to_lerobot_weights(weights, config))
    if config.state_stats_from:
        stats = {"mean": torch.tensor(config.state_mean), "std": torch.tensor(config.state_std)}
        named = {f"{config.state_key}.{name}": tensor for name, tensor in stats.items()}
        write_tensors(folder / f"policy_preprocessor_step_2{NORMALIZER}", named)
