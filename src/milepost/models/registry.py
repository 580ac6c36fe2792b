"""The kinds of reward models by name: the built-in ones, and those of other packages.

A package offers a model by an entry point of the group `milepost.models`: name -> a `ModelKind`, or a class with `predict(episode)`. Its
name is what `config.json` has as `type`, what `load_model` and `--model` take, and what the progress file is called after. Whatever is
wrong with such a package is a `PackageError` that names it (`foreign.py`).

The name of a model that needs no folder is that model, even if a folder of that name is there; the folder is then `./NAME`, or a `Path`.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from milepost import encoders, progress
from milepost.core import (
    MAIN_HEAD,
    DataError,
    Dataset,
    Prepares,
    RewardModel,
    read_json_object,
    shown,
    warn_user,
)
from milepost.datasets import find_model_config
from milepost.models.foreign import PackageError, blaming, guarded, require_plain
from milepost.models.plugin_format import own_values
from milepost.models.prepared import Prepared
from milepost.models.source import source_hash
from milepost.models.training.marks import warn_of_unfinished
from milepost.vlm import say_licence

GROUP = "milepost.models"
BUILT_IN = {
    "elapsed": "milepost.models.elapsed",
    "gvl": "milepost.models.gvl.kind",
    "reward_classifier": "milepost.models.classifier.kind",
    "robometer": "milepost.models.robometer.kind",
    "roboreward": "milepost.models.roboreward.kind",
    "sarm": "milepost.models.sarm.kind",
    "success": "milepost.models.success.kind",
    "topreward": "milepost.models.topreward.kind",
    "value": "milepost.models.value.kind",
}
"""Name -> the module whose MODEL it is. A new model of this package is a file and a line here."""
MOST_NAMES = 10
"""How many names of models an error lists."""
_NAME = re.compile(r"[^\W_][\w.+-]*")
"""A name is part of file names and of options, `--NAME.OPTION`."""


@dataclass(frozen=True)
class NoOptions:
    """A model that takes no options."""


@dataclass(frozen=True)
class Run:
    """How a model is to be run: what every kind understands.

    device: such as "cpu" or "cuda". precision: "auto" is the kind's own choice. heads: those that are wanted, by name. task: the
    instruction that is given on the command line, None for the episodes' own.
    """

    device: str = "cpu"
    precision: str = "auto"
    heads: tuple[str, ...] = (MAIN_HEAD,)
    task: str | None = None


@dataclass(frozen=True)
class ModelKind:
    """One kind of reward model: everything that the rest of the package asks of it.

    load: (folder, device, **options) -> the model saved there. bare: (device, **options) -> a model that needs no folder, or None.
    config: its config's class, a dataclass. make: (config, folder) -> a model with the weights in the folder, or new ones if it is None.
    read_config: folder -> the config saved there. options: a frozen dataclass of command-line options, whose defaults mean "not given".
    prepare: (path, options, dataset, run) -> a model that is ready; the default loads it, with the options that were given. processors:
    as `make_reward_pre_post_processors`. untrainable: why `milepost train` cannot train it, "" if it can. untrained:
    (model, seed) -> one of the same shape that has learnt nothing, for an audit. owns: the config.json of somebody's checkpoint -> whether
    this kind alone can ask it. training: the module of this package whose `plan`
    says what is trained and how. training_options: a dataclass of what only that takes on the command line. package: who offers it.
    """

    name: str
    load: Callable[..., RewardModel]
    bare: Callable[..., RewardModel] | None = None
    config: type | None = None
    make: Callable[[Any, str | None], RewardModel] | None = None
    read_config: Callable[[Path | str], Any] | None = None
    options: type = NoOptions
    prepare: Callable[[str, Any, Any, Run], Prepared] | None = None
    processors: Callable[..., Any] | None = None
    untrainable: str = ""
    untrained: Callable[[Any, int], RewardModel] | None = None
    owns: Callable[[Mapping[str, Any]], bool] | None = None
    training: str = ""
    training_options: type = NoOptions
    package: str = ""

    @property
    def called(self) -> str:
        """Returns the model as messages call it."""
        return f"the model '{self.name}'" + (f" of the package {self.package}" if self.package else "")

    def blame(self, what: str = "fails") -> AbstractContextManager[None]:
        """Returns the block to call the kind's functions in: if it is another package's, what goes wrong in it names the package."""
        return blaming(self.called, what) if self.package else nullcontext()


def kinds() -> dict[str, ModelKind]:
    """Returns the built-in kinds by name."""
    return {name: import_module(module).MODEL for name, module in BUILT_IN.items()}


def offered() -> dict[str, list[EntryPoint]]:
    """Returns by name what other packages offer; nothing of it is imported."""
    points: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        if point.name not in BUILT_IN:
            points.setdefault(point.name, []).append(point)
    return points


def names() -> list[str]:
    """Returns the names of all kinds, the built-in ones first."""
    return [*BUILT_IN, *sorted(offered())]


def kind_named(name: str) -> ModelKind | None:
    """Returns the kind of that name, None if there is none. PackageError names the package that offers something else than a model.

    A built-in name is never another package's; a DataWarning names the package that offers it too.
    """
    if name in BUILT_IN:
        if packages := [_package(point) for point in entry_points(group=GROUP, name=name)]:
            one = len(packages) == 1
            _warn_of_shadows(name, f"the package{'' if one else 's'} {' and '.join(packages)} offer{'s' if one else ''}")
        kind: ModelKind = import_module(BUILT_IN[name]).MODEL
        return kind
    points = offered().get(name, [])
    if not points:
        return None
    if len(points) > 1:
        packages = [_package(point) for point in points]
        raise PackageError(f"the model '{name}' is offered by two packages, {' and '.join(packages)}; uninstall one of them")
    return _from_package(points[0])


@cache
def _warn_of_shadows(name: str, offer: str) -> None:
    """Warns, once in a process, of packages that offer a model under a built-in name."""
    warn_user(f"{offer} a model '{name}' too; milepost's own is used")


def _from_package(point: EntryPoint) -> ModelKind:
    package = _package(point)
    who = f"the model '{point.name}' of the package {package}"
    if not _NAME.fullmatch(point.name):
        raise PackageError(
            f"{who} has a name that cannot be used: it should be letters, digits, '-', '_', '.' and '+', from a letter or digit on"
        )
    if not EntryPoint.pattern.match(point.value):
        raise PackageError(f"{who} cannot be imported: its entry point {shown(point.value)} should be module:object")
    with blaming(who, "cannot be imported"):
        offer = point.load()
    if isinstance(offer, ModelKind):
        return _sound(dataclasses.replace(offer, name=point.name, package=package))
    if not inspect.isclass(offer) or not callable(getattr(offer, "predict", None)):
        raise PackageError(
            f"the package {package} offers the model '{point.name}', but {shown(point.value)} is neither a ModelKind nor a class with "
            "predict(episode)"
        )

    def bare(device: str = "cpu", **options: Any) -> Any:
        _require_arguments(who, offer, options)
        return offer(**options)

    def unsaved(folder: Path | str, device: str = "cpu", **options: Any) -> RewardModel:
        raise PackageError(f"{who} has no from_pretrained: it cannot be loaded from {folder}")

    return ModelKind(point.name, getattr(offer, "from_pretrained", None) or unsaved, bare, package=package)


def _sound(kind: ModelKind) -> ModelKind:
    """Returns the kind of another package if its fields are what they should be. PackageError names the first that is not."""
    for name in ("load", "bare", "make", "read_config", "prepare", "processors"):
        function = getattr(kind, name)
        if not callable(function) and (function is not None or name == "load"):
            raise PackageError(f"{kind.called}: the field `{name}` of its ModelKind should be a function, it is {shown(function)}")
    for name in ("config", "options"):
        group = getattr(kind, name)
        if not (inspect.isclass(group) and dataclasses.is_dataclass(group)) and (group is not None or name == "options"):
            raise PackageError(f"{kind.called}: the field `{name}` of its ModelKind should be a dataclass, it is {shown(group)}")
    with kind.blame("has options that cannot be made without arguments"):
        kind.options()
    return kind


def _require_arguments(who: str, model_class: type, options: Mapping[str, Any]) -> None:
    """Raises PackageError if the class cannot be called with these options: what it needs beyond them, or does not take."""
    try:
        parameters = inspect.signature(model_class).parameters
    except ValueError:  # a class of C code has none
        return
    needs = [
        name
        for name, each in parameters.items()
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD) and name not in options
    ]
    if needs:
        raise PackageError(
            f"{who} cannot be made by its name alone: {model_class.__name__} needs {', '.join(needs)}. The package should give "
            "these a default, or offer a ModelKind whose `bare` makes the model"
        )
    if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        _require_known(who, options, list(parameters))


def _require_known(who: str, options: Mapping[str, Any], names: Sequence[str]) -> None:
    if unknown := [name for name in options if name not in names]:
        raise DataError(f"{who} takes no option '{unknown[0]}'; it takes: {', '.join(names) or 'none'}")


def _package(point: EntryPoint) -> str:
    name = point.dist.name if point.dist is not None else None
    return f"{name} {point.dist.version}" if point.dist is not None and name else point.module


def require_trainable(name: str) -> None:
    """Raises ValueError with the reason if `milepost train` cannot train the model of this name; a name without a model passes."""
    kind = kind_named(name)
    if kind is None:
        return
    if kind.untrainable:
        raise ValueError(kind.untrainable)
    if kind.package:
        raise ValueError(
            f"milepost train can train {_trainable()} only, because every other kind is learnt in its own way; train "
            f"{kind.called} with that package. Once it is trained, milepost label DATASET --model {name}, or its folder, uses it"
        )


def trainer_of(name: str) -> ModuleType:
    """Returns the module that trains the model of this name: its `plan` gives a `training.settings.Plan`. DataError if there is none."""
    require_trainable(name)
    kind = kind_named(name)
    if kind is None or not kind.training:
        raise DataError(f"there is no model '{name}' to train; milepost train can train {_trainable()}")
    return import_module(kind.training)


def _trainable() -> str:
    """Returns the names of the kinds that can be trained, as a sentence lists them."""
    *most, last = (own.name for own in kinds().values() if own.training)
    return f"{', '.join(most)} and {last}"


def kind_of(path: str | Path) -> ModelKind:
    """Returns the kind of the model at a folder, a Hub repository or a bare name. DataError if there is no model.

    The name of a model that needs no folder wins over a folder of that name, which is written `./NAME`, or as a Path.
    """
    if not isinstance(path, str | Path):
        raise DataError(f"a model is a name, a folder or a Hub repository owner/name, as text or Path; got {type(path).__name__}")
    kind = None if isinstance(path, Path) and path.is_dir() else kind_named(str(path))
    if kind is not None and kind.bare is not None:
        return kind
    folder = find_model_config(path)
    if not (folder / "config.json").is_file():
        if kind is not None:
            raise DataError(f"no model at '{path}': {kind.called} is loaded from the folder of a saved one, which has a config.json")
        bare = [name for name in names() if name in offered() or kind_named(name).bare is not None]  # type: ignore[union-attr]
        near = difflib.get_close_matches(str(path), bare, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        more = f" or one of {len(bare) - MOST_NAMES} other names" if len(bare) > MOST_NAMES else ""
        listed = " or ".join(map(repr, bare[:MOST_NAMES]))
        raise DataError(f"no model at '{path}': expected a folder with config.json, or {listed}{more}{hint}")
    content = read_json_object(folder / "config.json", what="model config")
    values = own_values(content)
    name = values.get("type")
    if owner_of(values) is not None or (name is None and isinstance(values.get("model_type"), str)):
        raise DataError(_as_checkpoint(path, values))
    kind = kind_named(name) if isinstance(name, str) else None
    if kind is None:
        raise DataError(f"{folder / 'config.json'} has type {shown(name)}; known types: {', '.join(names())}")
    say_licence(str(path), folder / "README.md", content)
    return kind


def owner_of(values: Mapping[str, Any]) -> ModelKind | None:
    """Returns the kind that alone can ask the checkpoint with this config.json; None if there is none."""
    return next((kind for kind in kinds().values() if kind.owns is not None and kind.owns(values)), None)


def _as_checkpoint(path: str | Path, values: Mapping[str, Any]) -> str:
    """Returns what to type for a checkpoint of another library. values: its config.json."""
    askers, owner = [name for name, kind in kinds().items() if hasattr(kind.config, "vlm_name")], owner_of(values)
    if owner is None and not str(values["model_type"]).startswith("qwen3_vl"):
        return f"{path} is a '{values['model_type']}' checkpoint and no reward model; {' and '.join(askers)} ask a Qwen3-VL: --vlm-name"
    words = owner.name if owner is not None else "|".join(name for name in askers if kinds()[name].owns is None)
    return f"{path} is a vision-language model, and --model takes what asks it: use --model {words} --vlm-name {path}"


def is_bare(path: str | Path, kind: ModelKind) -> bool:
    """Returns whether this is the name of a kind that needs no folder."""
    return str(path) == kind.name and kind.bare is not None and not (isinstance(path, Path) and path.is_dir())


def load_model(path: str | Path, device: str = "cpu", **options: Any) -> RewardModel:
    """Returns a saved model: a folder or a Hub repository `owner/name`; or, by its name, one that needs no folder, such as "elapsed".

    A folder that is called like such a model is `./elapsed`, or a Path. `options`: what the model's own `from_pretrained` takes, such as
    `state_stats` for a LeRobot checkpoint, or fields of a TOPRewardConfig. DataError if there is no model, it is not what its kind says, or
    it does not take an option.

    >>> type(milepost.load_model("elapsed")).__name__
    'ElapsedModel'
    """
    kind = kind_of(path)
    warn_of_unfinished(path)
    return load(kind, path, device, options)


def load(kind: ModelKind, path: str | Path, device: str, options: Mapping[str, Any]) -> RewardModel:
    """Returns the model of this kind at a path. DataError if it has no `predict`, or an option is not the kind's."""
    bare = is_bare(path, kind)
    make = kind.bare if bare else kind.load
    assert make is not None
    if device != "cpu":
        encoders.require_device(device)
    _require_options(kind, make, options, own=1 if bare else 2)
    with kind.blame("cannot be loaded"):
        model: Any = make(device, **options) if bare else make(path, device, **options)
    if not isinstance(model, RewardModel):
        raise DataError(f"{kind.called} has no predict(episode): it is a {type(model).__name__}")
    return model


def _require_options(kind: ModelKind, make: Callable[..., Any], options: Mapping[str, Any], own: int) -> None:
    """Raises DataError, which names those there are, if an option is not the function's. own: parameters that are no options."""
    try:
        parameters = list(inspect.signature(make).parameters.values())
    except (TypeError, ValueError):  # a function of C code has none
        return
    if not any(each.kind is each.VAR_KEYWORD for each in parameters):
        _require_known(kind.called, options, [each.name for each in parameters[own:]])
    elif kind.config is not None and not kind.package:  # what another package takes beside its config is its own matter
        _require_known(kind.called, options, [each.name for each in dataclasses.fields(kind.config)])


def prepare(path: str, options: Any, dataset: Dataset, run: Run) -> Prepared:
    """Returns the model at a path, ready for the dataset. options: an instance of its kind's `options`. DataError if they do not fit."""
    kind = kind_of(path)
    warn_of_unfinished(path)
    if kind.prepare is not None:
        with kind.blame("cannot be made ready for this dataset"):
            prepared = kind.prepare(path, options, dataset, run)
    else:
        prepared = _prepared(kind, path, options, dataset, run)
    return _guarded(kind, path, prepared, dataset, run) if kind.package else prepared


def _prepared(kind: ModelKind, path: str, options: Any, dataset: Dataset, run: Run) -> Prepared:
    if not kind.package:
        require_heads(path, run.heads)
    if run.task is not None:
        raise ValueError(f"--task means nothing to {kind.called}")
    if run.precision != "auto":
        raise ValueError(f"--precision {run.precision} means nothing to {kind.called}: leave it at auto")
    option_values = changed(options)
    model = load(kind, path, run.device, option_values)
    if isinstance(model, Prepares):
        with kind.blame("cannot be made ready for this dataset"):
            model.prepare_for(dataset)
    return Prepared(model, dataset, settings={f"{kind.name}.{name}": str(value) for name, value in option_values.items()})


def _guarded(kind: ModelKind, path: str, prepared: Any, dataset: Dataset, run: Run) -> Prepared:
    """Returns what another package prepared, its model guarded, and its package noted; a model without identity() by its code and files.

    PackageError if it is not what `prepare` should return.
    """
    if not isinstance(prepared, Prepared) or not isinstance(prepared.model, RewardModel):
        model = prepared.model if isinstance(prepared, Prepared) else prepared
        raise PackageError(
            f"{kind.called}: its prepare() should return Prepared, with a model that has predict(); got {type(model).__name__}"
        )
    if not isinstance(prepared.dataset, type(dataset)):
        raise PackageError(f"{kind.called}: the dataset that its prepare() returns should be the one it got, or a part of it")
    functions = (progress.label, progress.provenance)
    reserved = [name for each in functions for name in inspect.signature(each).parameters if name != "settings"]
    require_plain(kind.called, "arguments", prepared.arguments, reserved)
    require_plain(kind.called, "settings", prepared.settings, [*reserved, *prepared.arguments])
    source = source_hash(
        prepared.model, None if is_bare(path, kind) else Path(path)
    )  # its identity() may not know that its code was changed
    settings = {**prepared.settings, "package": kind.package, **({"source": source} if source else {})}
    return dataclasses.replace(prepared, model=guarded(prepared.model, kind.called, run.heads), settings=settings)


def require_heads(
    path: str, heads: Sequence[str], available: Sequence[str] = (MAIN_HEAD,), *, why: str = "--head-mode means nothing"
) -> None:
    """Raises DataError if the model at a path has not all of these heads."""
    for head in heads:
        if head not in available:
            raise DataError(f"{path} has no {head} head; it has: {', '.join(available)} ({why})")


def changed(options: Any) -> dict[str, Any]:
    """Returns option -> value of what is not as by default."""
    default = type(options)()
    values = {each.name: getattr(options, each.name) for each in dataclasses.fields(options)}
    return {name: value for name, value in values.items() if value != getattr(default, name)}
