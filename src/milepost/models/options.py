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
from milepost.models.registry import ModelKind, NoOptions, changed, kind_named, kind_of, offered, require_trainable
from milepost.models.robometer.options import RobometerOnly
from milepost.models.roboreward.options import RoboRewardOnly
from milepost.models.sarm.options import SARMOptions
from milepost.models.success.options import SuccessTraining
from milepost.models.topreward.options import TOPRewardOnly
from milepost.models.tuning.options import TuningOptions
from milepost.models.value.options import ValueOptions, ValueTraining
from milepost.models.zero_shot.options import PrefixOptions, VLMOptions

FLAGS = ("--model", "--reward-model-path")
THEIRS = "of_package"
"""`THEIRS_0`, `THEIRS_1` and so on are the fields of `ModelOptions` with the options of other packages' models, whose names may be no names
of a field; `THEIRS` has model -> field."""
CHECKPOINT = ("vlm_name", "vlm_revision")
"""Options that name weights."""


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
    tuning: Annotated[TuningOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=TuningOptions)


def training_changes(name: str, options: TrainingOptions) -> dict[str, Any]:
    """Returns the options that were given for the training of this kind. ValueError if one of another kind was given."""
    kind, own = kind_named(name), {}
    for group in vars(options).values():
        values = changed(group)
        if kind is not None and type(group) is kind.training_options:
            own = values
        elif values:
            raise ValueError(f"--{next(iter(values)).replace('_', '-')} means nothing to a model of type {name}")
    return own


def options_for(kind: ModelKind, options: ModelOptions) -> Any:
    """Returns the options of one kind. ValueError if an option of another kind was given: it means nothing to this one."""
    own = {each.name for each in dataclasses.fields(kind.options)}
    values: dict[str, Any] = {}
    for group, group_options in vars(options).items():
        if group.startswith(THEIRS) and kind.package:
            return group_options
        changes = changed(group_options)
        if strangers := [name for name in changes if kind.package or name not in own]:
            raise ValueError(f"--{strangers[0].replace('_', '-')} means nothing to a model of type {kind.name}")
        values |= changes
    return kind.options(**values)


def options_for_several(kinds: Sequence[ModelKind], options: ModelOptions) -> list[Any]:
    """Returns the options of each of the kinds: an option goes to every one that has it.

    ValueError if none of them has it, or if it names one checkpoint for kinds that each have their own.
    """
    if len(kinds) == 1:
        return [options_for(kinds[0], options)]
    shared: list[dict[str, Any]] = [{} for _ in kinds]
    packages: dict[str, Any] = getattr(options, THEIRS, {})
    for group, group_options in vars(options).items():
        for name, value in changed(group_options).items() if group != THEIRS and not group.startswith(f"{THEIRS}_") else ():
            owners = [place for place, kind in enumerate(kinds) if not kind.package and name in _fields(kind)]
            _require_clear(name, kinds, owners)
            for place in owners:
                shared[place][name] = value
    return [
        getattr(options, packages[kind.name]) if kind.package and kind.name in packages else kind.options(**values)
        for kind, values in zip(kinds, shared, strict=True)
    ]


def _fields(kind: ModelKind) -> set[str]:
    return {each.name for each in dataclasses.fields(kind.options)}


def _require_clear(name: str, kinds: Sequence[ModelKind], owners: Sequence[int]) -> None:
    """Raises ValueError if an option is no kind's, or would give one checkpoint to kinds that were trained apart. owners: places in
    `kinds`."""
    flag = f"--{name.replace('_', '-')}"
    if not owners:
        raise ValueError(f"{flag} means nothing to models of type {' and '.join(dict.fromkeys(kind.name for kind in kinds))}")
    checkpoints = {getattr(kinds[place].config, "vlm_name", None): kinds[place].name for place in owners}
    if name in CHECKPOINT and len(checkpoints) > 1:
        first, second = list(checkpoints.values())[:2]
        raise ValueError(
            f"{flag} would name one VLM for {first} and {second}, which ask different ones: leave it out for the usual ones, label one "
            "after the other, or save each with its own VLM and give the folders as --model (docs/models.md shows how)"
        )


def with_model(args: type, arguments: Sequence[str]) -> type:
    """Returns the verb's arguments with the options of the models that are named among them, if they are other packages'.

    They are called `--NAME.OPTION`, so that no package's options hide another's. PackageError if the package is at fault.
    """
    fields = {each.name: each for each in dataclasses.fields(args)}
    named_kinds = _named(arguments) if "model_options" in fields else []
    kinds = [kind for kind in named_kinds if kind.package and kind.options is not NoOptions]
    if not kinds:
        return args
    theirs: list[Any] = []
    for number, kind in enumerate(kinds):
        options = _guarded(kind)
        with kind.blame("has options that the command line cannot take"):
            tyro.cli(options, args=[])
        annotated = Annotated[options, tyro.conf.arg(name=kind.name)]  # type: ignore[valid-type]
        theirs.append((f"{THEIRS}_{number}", annotated, field(default_factory=options)))
    group = dataclasses.make_dataclass(
        "ModelOptions", theirs, bases=(ModelOptions,), frozen=True,
        namespace={THEIRS: {kind.name: f"{THEIRS}_{number}" for number, kind in enumerate(kinds)}},
    )  # fmt: skip
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
    """Raises ValueError with the reason if `--model` names a model that `milepost train` cannot train; the last one counts, as in
    parsing."""
    if paths := paths_named(arguments):
        require_trainable(paths[-1])


def names_model(flag: str) -> bool:
    """Returns whether this word of a command line is the option that names a model."""
    return re.sub("_", "-", flag) in FLAGS


def paths_named(arguments: Sequence[str]) -> list[str]:
    """Returns what `--model` names, each time it is among the arguments.

    >>> paths_named(["towels", "--model", "sarm", "--reward-model-path=elapsed"])
    ['sarm', 'elapsed']
    """
    paths = []
    for place, word in enumerate(arguments):
        flag, _, value = word.partition("=")
        if names_model(flag):
            paths.append(value or (arguments[place + 1] if place + 1 < len(arguments) else ""))
    return [path for path in paths if path]


def _named(arguments: Sequence[str]) -> list[ModelKind]:
    """Returns the kinds of the models that `--model` names, each once; none if no other package offers any."""
    kinds: dict[str, ModelKind] = {}
    names = offered()
    for path in paths_named(arguments) if names else ():
        if path not in names and not Path(path).is_dir():
            continue
        try:
            kind = kind_of(path)
        except PackageError:
            raise
        except DataError:
            if path in names:
                raise
            continue  # the verb says what is wrong with it
        kinds.setdefault(kind.name, kind)
    return list(kinds.values())
