"""Options that mean the same on every verb that runs a model: which device, which features are kept, whose state statistics."""

from __future__ import annotations

import torch

from milepost.console import Tick, warn
from milepost.embed import Encoder, FeatureCache, cache_folder
from milepost.lerobot import LeRobotDataset, open_dataset
from milepost.models.sarm import SARMModel, read_state_stats
from milepost.types import DataError, RewardModel


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
