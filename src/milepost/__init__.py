"""milepost: how far along is the task, for every frame of a robot demonstration. The public names, imported when first used."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "DataError": "types",
    "Episode": "types",
    "Progress": "types",
    "Segment": "types",
    "Stages": "stages",
    "RabcConfig": "weights",
    "weigh": "weights",
    "weighted_mean": "weights",
    "SampleWeights": "sample_weights",
    "UniformWeights": "sample_weights",
    "WeightedSampler": "sample_weights",
    "open_dataset": "lerobot",
    "read_progress": "progress_table",
    "load_model": "models",
    "make_reward_model": "models",
    "make_reward_model_config": "models",
    "make_reward_pre_post_processors": "models",
    "label": "labelling",
    "ElapsedModel": "models",
    "SARMConfig": "models",
    "SARMModel": "models",
    "TOPREWARD_FEATURE_PREFIX": "models",
    "TOPRewardConfig": "models",
    "TOPRewardModel": "models",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'milepost' has no attribute '{name}'")
    return getattr(importlib.import_module(f"milepost.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
