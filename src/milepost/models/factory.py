"""The reward models. `load_model` and `--model` find them by name, in a folder or on the Hub; `registry.py` says how one is added.

`make_reward_model_config`, `make_reward_model` and `make_reward_pre_post_processors` are LeRobot's names for the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from milepost.models.elapsed import ElapsedConfig, ElapsedModel
from milepost.models.foreign import PackageError
from milepost.models.processing import BatchStep
from milepost.models.registry import ModelKind, Prepared, Run, kind_named, kind_of, kinds, load_model, names, offered, prepare
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.model import SARMModel
from milepost.models.topreward.config import TOPRewardConfig
from milepost.models.topreward.model import TOPRewardModel
from milepost.models.topreward.processor import TOPREWARD_FEATURE_PREFIX

__all__ = [
    "TOPREWARD_FEATURE_PREFIX",
    "ElapsedConfig",
    "ElapsedModel",
    "ModelKind",
    "Prepared",
    "Run",
    "SARMConfig",
    "SARMModel",
    "TOPRewardConfig",
    "TOPRewardModel",
    "kind_of",
    "load_model",
    "make_reward_model",
    "make_reward_model_config",
    "make_reward_pre_post_processors",
    "prepare",
]


def make_reward_model_config(model_type: str, **fields: Any) -> Any:
    """Returns the config of a model by name, with these fields; with `pretrained_path` the saved model's, but for the fields given.

    ValueError names what there is if the model or a field is unknown.

    >>> milepost.make_reward_model_config("topreward", fps=1.0).fps
    1.0
    """
    kind = kind_named(model_type) if isinstance(model_type, str) else None
    if kind is None:
        raise ValueError(f"unknown reward model '{model_type}'; known: {', '.join(names())}")
    if kind.config is None:
        raise ValueError(f"{kind.called} has no config to be made; load_model('{model_type}') makes the model")
    field_names = [field.name for field in dataclasses.fields(kind.config)]
    unknown = sorted(set(fields) - set(field_names))
    if unknown:
        raise ValueError(f"{kind.config.__name__} has no field {', '.join(unknown)}; it has: {', '.join(field_names)}")
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    if not values.get("pretrained_path"):
        with kind.blame("cannot make its config"):
            return kind.config(**values)
    saved_config = _read_config(kind, values["pretrained_path"])
    with kind.blame("cannot make its config"):
        return dataclasses.replace(saved_config, **values)


def make_reward_model(config: Any) -> Any:
    """Returns the model of a config: its weights loaded if the config has a `pretrained_path`, new if not.

    Loaded, it has the saved config but for what this one changes. DataError if the weights do not fit.

    >>> config = milepost.make_reward_model_config("sarm", hidden_dim=24, num_layers=1, encoder="pixels", image_dim=4, text_dim=4)
    >>> type(milepost.make_reward_model(config)).__name__
    'SARMModel'
    """
    kind, faults = _kind_with(config)
    if kind is None or kind.make is None:
        config_names = ", ".join(each.config.__name__ for each in kinds().values() if each.config is not None)
        hint = "; make_reward_model_config makes one by name" if isinstance(config, str) else ""
        raise ValueError(f"expected the config of a reward model ({config_names}), got {type(config).__name__}{hint}{_also(faults)}")
    path = getattr(config, "pretrained_path", None)
    if not path:
        with kind.blame("cannot be made"):
            return kind.make(config, None)
    saved_config = _read_config(kind, path)
    with kind.blame("cannot be made"):
        default = type(config)()
        fields = [field.name for field in dataclasses.fields(config)]
        changed = {name: getattr(config, name) for name in fields if getattr(config, name) != getattr(default, name)}
        return kind.make(dataclasses.replace(saved_config, **{**changed, "pretrained_path": None}), path)


def _read_config(kind: ModelKind, path: str) -> Any:
    """Returns the config that is saved in a model's folder. ValueError if the kind has none to be read."""
    if kind.read_config is None:
        raise ValueError(f"{kind.called} cannot read a saved config: its ModelKind has no read_config; leave pretrained_path out")
    with kind.blame("cannot read its saved config"):
        return kind.read_config(path)


def make_reward_pre_post_processors(
    config: Any, *, dataset_stats: Mapping[str, Any] | None = None, dataset_meta: Any = None, encoder: Any = None
) -> tuple[BatchStep, BatchStep]:
    """Returns (before, after): batch -> batch steps around `compute_reward`. TypeError for a model that takes no batches.

    `dataset_stats`, or those of `dataset_meta`, replace the state statistics of a config that has some.

    >>> config = milepost.make_reward_model_config("sarm", hidden_dim=24, num_layers=1, encoder="pixels", image_dim=4, text_dim=4)
    >>> before, after = milepost.make_reward_pre_post_processors(config)
    >>> callable(before), callable(after)
    (True, True)
    """
    kind, faults = _kind_with(config)
    if kind is None or kind.processors is None:
        raise TypeError(f"{type(config).__name__} takes no batches; use predict(episode){_also(faults)}")
    with kind.blame("cannot make its processors"):
        steps: tuple[BatchStep, BatchStep] = kind.processors(
            config, dataset_stats=dataset_stats, dataset_meta=dataset_meta, encoder=encoder
        )
    return steps


def _kind_with(config: Any) -> tuple[ModelKind | None, list[str]]:
    """Returns the kind that has this class of config, and what is wrong with packages that were looked at in vain.

    Those of other packages are looked at only if no built-in one has it; a broken one does not keep the others from being found.
    """
    faults: list[str] = []
    for own in kinds().values():
        if own.config is type(config):
            return own, faults
    for name in offered():
        try:
            kind = kind_named(name)
        except PackageError as error:
            faults.append(str(error))
            continue
        if kind is not None and kind.config is type(config):
            return kind, faults
    return None, faults


def _also(faults: Sequence[str]) -> str:
    return f"; these could not be asked: {'; '.join(faults)}" if faults else ""
