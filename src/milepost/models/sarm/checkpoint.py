"""A saved SARM on disk, ours or LeRobot's: `config.json` and `model.safetensors`. What does not fit is refused by name, never guessed.

The statistics that robot states are normalised with are part of our config. LeRobot has none in its own and normalises with whatever
dataset is at hand. Its training leaves those of the training dataset in a file beside the weights, which LeRobot never reads again: they
are used here. A checkpoint without that file needs a dataset to take them from, once: `state_stats=`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from milepost.core import DataError, atomic_path, read_json_object, require_plain_file
from milepost.datasets import read_column_stats
from milepost.models.plugin_format import own_values
from milepost.models.sarm import lerobot_format
from milepost.models.sarm.config import SARMConfig

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
        stats = _tensors(path)
        if f"{key}.mean" in stats and f"{key}.std" in stats:
            mean, std = (tuple(stats[f"{key}.{name}"].flatten().tolist()) for name in ("mean", "std"))
            return StateStats(mean, std, path.name)
    return None


def _tensors(path: Path) -> dict[str, Tensor]:
    require_plain_file(path, what="weights")
    try:
        return safetensors.torch.load(path.read_bytes())
    except SafetensorError as error:
        raise DataError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error


def read_files(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns the contents of config.json and the weights of a saved model. DataError if a file is missing or broken."""
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).exists():
            raise DataError(f"{folder} is not a saved model: {folder / name} is missing")
    return own_values(read_json_object(folder / "config.json", what="model config")), _tensors(folder / "model.safetensors")


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


def write_folder(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Writes `config.json` and `model.safetensors`: both or, if the disk is full, neither."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "config.json") as about:
        about.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        _write_tensors(folder / "model.safetensors", weights)


def write_lerobot_folder(folder: Path, config: SARMConfig, weights: Mapping[str, Tensor]) -> None:
    """Writes the model as LeRobot 0.6.1 reads it, and the state statistics where its training would leave them. DataError if LeRobot could
    not run this model.
    """
    write_folder(folder, lerobot_format.write_config(config), lerobot_format.to_lerobot_weights(weights, config))
    if config.state_stats_from:
        stats = {"mean": torch.tensor(config.state_mean), "std": torch.tensor(config.state_std)}
        named = {f"{config.state_key}.{name}": tensor for name, tensor in stats.items()}
        _write_tensors(folder / f"policy_preprocessor_step_2{NORMALIZER}", named)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(safetensors.torch.save({k: v.cpu().contiguous() for k, v in tensors.items()}))


def require_fit(folder: Path, expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Raises DataError if weights do not fit the model of their config, or are not finite; it names the parameters."""
    if wrong := misfits(expected, weights):
        raise DataError(f"the model in {folder} cannot be loaded, its weights do not fit its config: {'; '.join(wrong)}")
    if broken := [name for name, weight in weights.items() if not torch.isfinite(weight).all()]:
        raise DataError(f"the model in {folder} has NaN or infinite weights: {', '.join(sorted(broken)[:5])}")


def misfits(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """Returns what keeps these weights from being loaded: parameters missing, unknown or of another shape, by name."""
    messages = []
    for words, names in (("missing", expected.keys() - weights.keys()), ("unknown", weights.keys() - expected.keys())):
        if names:
            messages.append(f"{len(names)} {words} ({', '.join(sorted(names))})")
    for name in sorted(expected.keys() & weights.keys()):
        if expected[name].shape != weights[name].shape:
            messages.append(f"'{name}' should be {tuple(expected[name].shape)} and is {tuple(weights[name].shape)}")
    return messages


def hash_of(weights: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 of tensors with their names, whatever device they are on."""
    digest = hashlib.sha256()
    for name, tensor in weights.items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
