"""Options that mean the same on every verb: which episodes, which device, where the progress file is."""

from __future__ import annotations

from pathlib import Path

import torch

from milepost.console import Tick
from milepost.embed import Encoder, FeatureCache, cache_folder
from milepost.lerobot import LeRobotDataset
from milepost.types import DataError


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
