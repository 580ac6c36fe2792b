"""The command-line options of all kinds of models: one group for each kind, the same on every verb that runs a model."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from milepost.core import DataError
from milepost.models.foreign import PackageError
from milepost.models.gvl.options import GVLOnly
from milepost.models.registry import ModelKind, NoOptions, changed, kind_of, offered, require_trainable
from milepost.models.robometer.options import RobometerOnly
from milepost.models.roboreward.options import RoboRewardOnly
from milepost.models.sarm.options import SARMOptions
from milepost.models.success.options import SuccessTraining
from milepost.models.topreward.options import TOPRewardOnly
from milepost.models.value.options import ValueOptions, ValueTraining
from milepost.models.zero_shot.options import PrefixOptions, VLMOptions

FLAGS = ("--model", "--reward-model-path")
THEIRS = "of_package"
"""The field of `ModelOptions` with the options of another package's model, whose name may be no name of a field."""


@dataclass(frozen=True)
class ModelOptions:
    """What the built-in kinds take: the options of several kinds, and those of one."""

    sarm: Annotated[SARMOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=SARMOptions)
    vlm: Annotated[VLMOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=VLMOptions)
    prefixes: Annotated[PrefixOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=PrefixOptions)
    topreward: Annotated[TOPRewardOnly, tyro.conf.OmitArgPrefixes] = field(default_factory=TOPRewardOnly)
    roboreward: Annotated[RoboRewardOnly, tyro.conf.OmitArgPrefixes] = field(default_factory=RoboRewardOnly)
    robometer: Annotated[RobometerOnly, tyro.conf.OmitArgPrefixes] = field(default_factory=RobometerOnly)
    gvl: Annotated[GVLOnly, tyro.conf.OmitArgPrefixes] = field(default_factory=GVLOnly)
    value: Annotated[ValueOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ValueOptions)


@dataclass(frozen=True)
class TrainingOptions:
    """What the built-in kinds take when they are trained, beside what `milepost train` has for all of them."""

    success: Annotated[SuccessTraining, tyro.conf.OmitArgPrefixes] = field(default_factory=SuccessTraining)
    value: Annotated[ValueTraining, tyro.conf.OmitArgPrefixes] = field(default_factory=ValueTraining)


def training_changes(name: str, options: TrainingOptions) -> dict[str, Any]:
    """Returns the options that were given for the training of this kind. ValueError if one of another kind was given."""
    for group in vars(options):
        if group != name and (option_names := list(changed(getattr(options, group)))):
            raise ValueError(f"--{option_names[0].replace('_', '-')} means nothing to a model of type {name}")
    return changed(getattr(options, name)) if hasattr(options, name) else {}


def options_for(kind: ModelKind, options: ModelOptions) -> Any:
    """Returns the options of one kind. ValueError if an option of another kind was given: it means nothing to this one."""
    own = {each.name for each in dataclasses.fields(kind.options)}
    values: dict[str, Any] = {}
    for group, group_options in vars(options).items():
        if group == THEIRS and kind.package:
            return group_options
        changes = changed(group_options)
        if strangers := [name for name in changes if kind.package or name not in own]:
            raise ValueError(f"--{strangers[0].replace('_', '-')} means nothing to a model of type {kind.name}")
        values |= changes
    return kind.options(**values)


def with_model(args: type, arguments: Sequence[str]) -> type:
    """Returns the verb's arguments with the options of the model that is named among them, if it is another package's.

    They are called `--NAME.OPTION`, so that no package's options hide another's. PackageError if the package is at fault.
    """
    fields = {each.name: each for each in dataclasses.fields(args)}
    kind = _named(arguments) if "model_options" in fields else None
    if kind is None or not kind.package or kind.options is NoOptions:
        return args
    options = _guarded(kind)
    with kind.blame("has options that the command line cannot take"):
        tyro.cli(options, args=[])
    theirs = Annotated[options, tyro.conf.arg(name=kind.name)]  # type: ignore[valid-type]
    group = dataclasses.make_dataclass(
        "ModelOptions", [(THEIRS, theirs, field(default_factory=options))], bases=(ModelOptions,), frozen=True
    )
    prefixes = Annotated[group, tyro.conf.arg(name="")]  # type: ignore[valid-type]
    return dataclasses.make_dataclass(
        args.__name__, [("model_options", prefixes, field(default_factory=group))], bases=(args,), frozen=True
    )


def _guarded(kind: ModelKind) -> type:
    """Returns the kind's options, whose own checks name the package when they refuse a value."""
    options = kind.options
    check = getattr(options, "__post_init__", None)
    if check is None:
        return options

    def checked(self: Any, *values: Any) -> None:
        with kind.blame("does not take its options"):
            check(self, *values)

    frozen = options.__dataclass_params__.frozen  # type: ignore[attr-defined]
    space = {"__post_init__": checked, "__module__": options.__module__, "__doc__": options.__doc__}
    return dataclasses.make_dataclass(options.__name__, [], bases=(options,), namespace=space, frozen=frozen)


def require_trainable_among(arguments: Sequence[str]) -> None:
    """Raises ValueError with the reason if `--model` names a model that `milepost train` cannot train."""
    if path := _path(arguments):
        require_trainable(path)


def _path(arguments: Sequence[str]) -> str:
    """Returns what `--model` names, "" if it is not among the arguments; the last one counts, as in parsing."""
    path = ""
    for place, word in enumerate(arguments):
        flag, _, value = word.partition("=")
        if re.sub("_", "-", flag) in FLAGS:
            path = value or (arguments[place + 1] if place + 1 < len(arguments) else "")
    return path


def _named(arguments: Sequence[str]) -> ModelKind | None:
    """Returns the kind of the model that `--model` names, None if there is none or no other package offers any."""
    path, names = _path(arguments), offered()
    if path in names:
        return kind_of(path)
    if not names or not Path(path).is_dir():
        return None
    try:
        return kind_of(path)
    except PackageError:
        raise
    except DataError:
        return None  # the verb says what is wrong with it
