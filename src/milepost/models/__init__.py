"""The reward models by name: a plain dict, name -> (config, class). To add one, copy elapsed.py and add its line here.

`make_reward_model_config`, `make_reward_model` and `make_reward_pre_post_processors` are LeRobot's names for the same.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from milepost.hub import find_model
from milepost.models.elapsed import ElapsedConfig, ElapsedModel
from milepost.models.sarm import SARMConfig, SARMModel
from milepost.models.sarm.processor import FeatureEncoder, Step, make_sarm_processors
from milepost.types import DataError, RewardModel

MODELS = {
    "elapsed": (ElapsedConfig, ElapsedModel),
    "sarm": (SARMConfig, SARMModel),
}


def load_model(path: str | Path, device: str = "cpu", **options: Any) -> RewardModel:
    """A saved model: a folder or a Hub repository `owner/name`; or "elapsed", which needs none. DataError if it is none of these.

    `options`: what the model's own `from_pretrained` takes, such as `state_stats` for a LeRobot checkpoint.
    """
    if str(path) == "elapsed":
        return ElapsedModel()
    folder = find_model(path)
    if not (folder / "config.json").is_file():
        raise DataError(f"no model at '{path}': expected a folder with config.json, or 'elapsed'")
    try:
        kind = json.loads((folder / "config.json").read_text()).get("type")
    except json.JSONDecodeError as error:
        raise DataError(f"{folder / 'config.json'} is not valid JSON: {error}") from error
    if kind != "sarm":
        raise DataError(f"{folder / 'config.json'} has type '{kind}'; known types: {', '.join(MODELS)}")
    return SARMModel.from_pretrained(folder, device, **options)


def make_reward_model_config(model_type: str, **fields: Any) -> Any:
    """The config of a model by name, with these fields. ValueError names what there is if the model or a field is unknown."""
    if model_type not in MODELS:
        raise ValueError(f"unknown reward model '{model_type}'; known: {', '.join(MODELS)}")
    config = MODELS[model_type][0]
    known = [field.name for field in dataclasses.fields(config)]
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise ValueError(f"{config.__name__} has no field {', '.join(unknown)}; it has: {', '.join(known)}")
    return config(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})


def make_reward_model(config: Any) -> Any:
    """The model of a config: loaded if the config has a `pretrained_path` (what is saved there is then its config), new if not."""
    kinds = {kind for kind, _ in MODELS.values()}
    if type(config) not in kinds:
        raise ValueError(
            f"expected the config of a reward model ({', '.join(kind.__name__ for kind in kinds)}), got {type(config).__name__}"
        )
    if isinstance(config, ElapsedConfig):
        return ElapsedModel(config)
    if config.pretrained_path:
        return SARMModel.from_pretrained(config.pretrained_path, config.device or "cpu")
    return SARMModel(config).to(config.device or "cpu")


def make_reward_pre_post_processors(
    config: Any, *, dataset_stats: Mapping[str, Any] | None = None, dataset_meta: Any = None, encoder: FeatureEncoder | None = None
) -> tuple[Step, Step]:
    """(before, after): batch -> batch steps around `compute_reward`. TypeError for a model that takes no batches.

    `dataset_stats`, or those of `dataset_meta`, replace the state statistics of the config.
    """
    if not isinstance(config, SARMConfig):
        raise TypeError(f"{type(config).__name__} takes no batches; use predict(episode)")
    return make_sarm_processors(config, dataset_stats=dataset_stats or getattr(dataset_meta, "stats", None), encoder=encoder)
