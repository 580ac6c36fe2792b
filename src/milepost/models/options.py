"""The command-line options of all kinds of models: one group for each kind, the same on every verb that runs a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from milepost.core import DataError
from milepost.models.registry import BUILT_IN, ModelKind, NoOptions, changed, kind_of, offered
from milepost.models.sarm.options import SARMOptions
from milepost.models.topreward.options import TOPRewardOptions

FLAGS = ("--model", "--reward-model-path")


@dataclass(frozen=True)
class ModelOptions:
    """What the built-in kinds take."""

    sarm: Annotated[SARMOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=SARMOptions)
    topreward: Annotated[TOPRewardOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=TOPRewardOptions)


def options_for(kind: ModelKind, options: ModelOptions) -> Any:
    """Returns the options of one kind. ValueError if an option of another kind was given: it means nothing to this one."""
    for group in vars(options):
        if group != kind.name and (option_names := list(changed(getattr(options, group)))):
            raise ValueError(f"--{option_names[0].replace('_', '-')} means nothing to a model of type {kind.name}")
    return getattr(options, kind.name, None) or kind.options()


def with_model(args: type, arguments: Sequence[str]) -> type:
    """Returns the verb's arguments with the options of the model that is named among them, if it is another package's.

    They are called `--NAME.OPTION`, so that no package's options hide another's.
    """
    fields = {each.name: each for each in dataclasses.fields(args)}
    kind = _named(arguments) if "model_options" in fields else None
    if kind is None or kind.name in BUILT_IN or kind.options is NoOptions:
        return args
    group = dataclasses.make_dataclass(
        "ModelOptions", [(kind.name, kind.options, field(default_factory=kind.options))], bases=(ModelOptions,), frozen=True
    )
    prefixes = Annotated[group, tyro.conf.arg(name="")]  # type: ignore[valid-type]
    return dataclasses.make_dataclass(
        args.__name__, [("model_options", prefixes, field(default_factory=group))], bases=(args,), frozen=True
    )


def _named(arguments: Sequence[str]) -> ModelKind | None:
    """Returns the kind of the model that `--model` names, None if there is none or no other package offers any."""
    if not offered():
        return None
    for place, word in enumerate(arguments):
        flag, _, value = word.partition("=")
        if flag in FLAGS:
            path = value or (arguments[place + 1] if place + 1 < len(arguments) else "")
            if path in offered() or Path(path).is_dir():
                try:
                    return kind_of(path)
                except DataError:
                    return None  # the verb says what is wrong with it
    return None
