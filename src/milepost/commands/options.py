"""Options that mean the same on every verb that runs a model: which device, which features are kept."""

from __future__ import annotations

import torch

from milepost.console import Tick
from milepost.embed import Encoder, FeatureCache, cache_folder
from milepost.lerobot import LeRobotDataset


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
