"""The reward models by name: a plain dict, name -> (config, class). To add one, copy elapsed.py and add its line here.

`make_reward_model_config`, `make_reward_model` and `make_reward_pre_post_processors` are LeRobot's names for the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from milepost.files import read_json_object
from milepost.hub import find_model
from milepost.models.elapsed import ElapsedConfig, ElapsedModel
from milepost.models.sarm import SARMConfig, SARMModel
from milepost.models.sarm.checkpoint import read_folder
from milepost.models.sarm.processor import FeatureEncoder, Step, make_sarm_processors, to_cpu
from milepost.models.topreward import TOPREWARD_FEATURE_PREFIX, TOPRewardConfig, TOPRewardModel
from milepost.models.topreward.model import read_config
from milepost.models.topreward.processor import encode_batch
from milepost.types import DataError, RewardModel

MODELS = {
    "elapsed": (ElapsedConfig, ElapsedModel),
    "sarm": (SARMConfig, SARMModel),
    "topreward": (TOPRewardConfig, TOPRewardModel),
}
BARE = ("elapsed", "topreward")
"""Models that need no folder: their name is enough."""

__all__ = ["TOPREWARD_FEATURE_PREFIX", *(kind.__name__ for pair in MODELS.values() for kind in pair), "load_model", "model_kind",
           "make_reward_model", "make_reward_model_config", "make_reward_pre_post_processors"]  # fmt: skip


def model_kind(path: str | Path) -> str:
    """Which of MODELS is at a folder, a Hub repository or a bare name. DataError if none is."""
    if str(path) in BARE and not Path(path).is_dir():
        return str(path)
    folder = find_model(path)
    if not (folder / "config.json").is_file():
        raise DataError(f"no model at '{path}': expected a folder with config.json, or {' or '.join(map(repr, BARE))}")
    kind = read_json_object(folder / "config.json", what="model config").get("type")
    if kind not in ("sarm", "topreward"):
        raise DataError(f"{folder / 'config.json'} has type '{kind}'; known types: {', '.join(MODELS)}")
    return str(kind)


def load_model(path: str | Path, device: str = "cpu", **options: Any) -> RewardModel:
    """A saved model: a folder or a Hub repository `owner/name`; or "elapsed" or "topreward", which need none. DataError if it is none.

    `options`: what the model's own `from_pretrained` takes, such as `state_stats` for a LeRobot checkpoint, or fields of a TOPRewardConfig.
    """
    kind = model_kind(path)
    if kind == "elapsed":
        return ElapsedModel()
    if kind == "sarm":
        return SARMModel.from_pretrained(path, device, **options)
    if str(path) == "topreward" and not Path(path).is_dir():
        return TOPRewardModel(make_reward_model_config("topreward", device=device, **options))
    return TOPRewardModel.from_pretrained(path, device, **options)


def make_reward_model_config(model_type: str, **fields: Any) -> Any:
    """The config of a model by name, with these fields; with `pretrained_path` the saved model's, but for the fields given.

    ValueError names what there is if the model or a field is unknown.
    """
    if model_type not in MODELS:
        raise ValueError(f"unknown reward model '{model_type}'; known: {', '.join(MODELS)}")
    config = MODELS[model_type][0]
    known = [field.name for field in dataclasses.fields(config)]
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise ValueError(f"{config.__name__} has no field {', '.join(unknown)}; it has: {', '.join(known)}")
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    if given.get("pretrained_path"):
        return dataclasses.replace(_saved(config, given["pretrained_path"]), **given)
    return config(**given)


def _saved(kind: type, folder: str) -> Any:
    """The config of this kind in a model folder."""
    return read_config(folder) if kind is TOPRewardConfig else read_folder(find_model(folder))[0]


def make_reward_model(config: Any) -> Any:
    """The model of a config: its weights loaded if the config has a `pretrained_path`, new if not.

    Loaded, it has the saved config but for what this one changes. DataError if the weights do not fit.
    """
    kinds = {kind for kind, _ in MODELS.values()}
    if type(config) not in kinds:
        raise ValueError(
            f"expected the config of a reward model ({', '.join(kind.__name__ for kind in kinds)}), got {type(config).__name__}"
        )
    if isinstance(config, ElapsedConfig):
        return ElapsedModel(config)
    if config.pretrained_path:
        saved, default = _saved(type(config), config.pretrained_path), type(config)()
        names = [field.name for field in dataclasses.fields(config)]
        changed: dict[str, Any] = {name: getattr(config, name) for name in names if getattr(config, name) != getattr(default, name)}
        whole = dataclasses.replace(saved, **{name: value for name, value in changed.items() if name != "pretrained_path"})
        if isinstance(whole, TOPRewardConfig):
            return TOPRewardModel(whole)
        return SARMModel.from_pretrained(
            config.pretrained_path, config.device or "cpu", config=dataclasses.replace(whole, device=saved.device)
        )
    return TOPRewardModel(config) if isinstance(config, TOPRewardConfig) else SARMModel(config).to(config.device or "cpu")


def make_reward_pre_post_processors(
    config: Any, *, dataset_stats: Mapping[str, Any] | None = None, dataset_meta: Any = None, encoder: FeatureEncoder | None = None
) -> tuple[Step, Step]:
    """(before, after): batch -> batch steps around `compute_reward`. TypeError for a model that takes no batches.

    `dataset_stats`, or those of `dataset_meta`, replace the state statistics of the config (SARM).
    """
    if isinstance(config, TOPRewardConfig):
        return partial(encode_batch, config=config), to_cpu
    if not isinstance(config, SARMConfig):
        raise TypeError(f"{type(config).__name__} takes no batches; use predict(episode)")
    return make_sarm_processors(config, dataset_stats=dataset_stats or getattr(dataset_meta, "stats", None), encoder=encoder)
