"""The kinds of reward models by name: the built-in ones, and those of other packages.

A package offers a model by an entry point of the group `milepost.models`: name -> a `ModelKind`, or a class with `predict(episode)`. Its
name is what `config.json` has as `type`, what `load_model` and `--model` take, and what the progress file is called after.
"""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from milepost.core import MAIN_HEAD, DataError, Dataset, DataWarning, Identified, Prepares, RewardModel, Tick, read_json_object, shown
from milepost.datasets import find_model
from milepost.models.source import source_hash

GROUP = "milepost.models"
BUILT_IN = {
    "elapsed": "milepost.models.elapsed",
    "sarm": "milepost.models.sarm.kind",
    "topreward": "milepost.models.topreward.kind",
}
"""Name -> the module whose MODEL it is. A new model of this package is a file and a line here."""


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
class Prepared:
    """A model that is ready for a dataset.

    dataset: the same, with the cameras that the model looks at. arguments: what else its `predict` takes. settings: what else is written
    down of the run. cache: the folder in which it may keep what it computes of the pictures.
    """

    model: RewardModel
    dataset: Any
    arguments: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    cache: Path | None = None

    def begin(self, on_frames: Tick | None = None) -> None:
        """Makes the model ready to keep what it computes. on_frames: is called with the frames that are read."""
        if isinstance(self.model, Prepares):
            self.model.prepare_for(self.dataset, cache=self.cache, on_frames=on_frames)


@dataclass(frozen=True)
class ModelKind:
    """One kind of reward model: everything that the rest of the package asks of it.

    load: (folder, device, **options) -> the model saved there. bare: (device, **options) -> a model that needs no folder, or None.
    config: its config's class, a dataclass. make: (config, folder) -> a model with the weights in the folder, or new ones if it is None.
    read_config: folder -> the config saved there. options: a frozen dataclass of command-line options, whose defaults mean "not given".
    prepare: (path, options, dataset, run) -> a model that is ready; the default loads it, with the options that were given. processors:
    as `make_reward_pre_post_processors`. untrainable: why `milepost train` cannot train it, "" if it can. package: who offers it.
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
    package: str = ""

    @property
    def called(self) -> str:
        """Returns the model as messages call it."""
        return f"the model '{self.name}'" + (f" of the package {self.package}" if self.package else "")


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
    """Returns the kind of that name, None if there is none. DataError names the package that offers something else than a model.

    A built-in name is never another package's; a DataWarning names the package that offers it too.
    """
    if name in BUILT_IN:
        for point in entry_points(group=GROUP, name=name):
            warnings.warn(f"the package {_package(point)} offers a model '{name}' too; milepost's own is used", DataWarning, stacklevel=1)
        kind: ModelKind = import_module(BUILT_IN[name]).MODEL
        return kind
    points = offered().get(name, [])
    if not points:
        return None
    if len(points) > 1:
        packages = " and ".join(_package(point) for point in points)
        raise DataError(f"the model '{name}' is offered by two packages, {packages}; uninstall one of them")
    return _from_package(points[0])


def _from_package(point: EntryPoint) -> ModelKind:
    package = _package(point)
    try:
        offer = point.load()
    except (ImportError, AttributeError) as error:
        raise DataError(f"the model '{point.name}' of the package {package} cannot be imported: {error}") from error
    if isinstance(offer, ModelKind):
        return dataclasses.replace(offer, name=point.name, package=package)
    if not callable(getattr(offer, "predict", None)) or not inspect.isclass(offer):
        raise DataError(
            f"the package {package} offers the model '{point.name}', but {shown(point.value)} is neither a ModelKind nor a class with "
            "predict(episode)"
        )
    load: Any = getattr(offer, "from_pretrained", None)

    def bare(device: str = "cpu", **options: Any) -> Any:
        return offer(**options)

    def unsaved(folder: Path | str, device: str = "cpu", **options: Any) -> RewardModel:
        raise DataError(f"the model '{point.name}' of the package {package} has no from_pretrained: it cannot be loaded from {folder}")

    return ModelKind(point.name, load or unsaved, bare, package=package)


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def require_trainable(name: str) -> None:
    """Raises ValueError with the reason if `milepost train` cannot train the model of this name."""
    kind = kind_named(name)
    if kind is not None and kind.untrainable:
        raise ValueError(kind.untrainable)


def kind_of(path: str | Path) -> ModelKind:
    """Returns the kind of the model at a folder, a Hub repository or a bare name. DataError if there is no model."""
    if not Path(path).is_dir() and (kind := kind_named(str(path))) is not None and kind.bare is not None:
        return kind
    folder = find_model(path)
    if not (folder / "config.json").is_file():
        bare = [name for name in names() if name in offered() or kind_named(name).bare is not None]  # type: ignore[union-attr]
        raise DataError(f"no model at '{path}': expected a folder with config.json, or {' or '.join(map(repr, bare))}")
    name = read_json_object(folder / "config.json", what="model config").get("type")
    kind = kind_named(name) if isinstance(name, str) else None
    if kind is None:
        raise DataError(f"{folder / 'config.json'} has type {shown(name)}; known types: {', '.join(names())}")
    return kind


def is_bare(path: str | Path, kind: ModelKind) -> bool:
    """Returns whether this is a kind's name and no folder."""
    return str(path) == kind.name and not Path(path).is_dir()


def load_model(path: str | Path, device: str = "cpu", **options: Any) -> RewardModel:
    """Returns a saved model: a folder or a Hub repository `owner/name`; or, by its name, one that needs no folder, such as "elapsed".

    `options`: what the model's own `from_pretrained` takes, such as `state_stats` for a LeRobot checkpoint, or fields of a TOPRewardConfig.
    DataError if there is no model, or it is not what its kind says.

    >>> type(milepost.load_model("elapsed")).__name__
    'ElapsedModel'
    """
    return load(kind_of(path), path, device, **options)


def load(kind: ModelKind, path: str | Path, device: str = "cpu", **options: Any) -> RewardModel:
    """Returns the model of this kind at a path. DataError if it has no `predict`, or an option is not the kind's."""
    make = kind.bare if is_bare(path, kind) else kind.load
    assert make is not None
    model: Any = make(device, **options) if is_bare(path, kind) else make(path, device, **options)
    if not isinstance(model, RewardModel):
        raise DataError(f"{kind.called} has no predict(episode): it is a {type(model).__name__}")
    return model


def prepare(path: str, options: Any, dataset: Dataset, run: Run) -> Prepared:
    """Returns the model at a path, ready for the dataset. options: an instance of its kind's `options`. DataError if they do not fit."""
    kind = kind_of(path)
    if kind.prepare is not None:
        return kind.prepare(path, options, dataset, run)
    require_heads(path, run.heads)
    if run.task is not None:
        raise ValueError(f"--task means nothing to {kind.called}")
    option_values = changed(options)
    model = load(kind, path, run.device, **option_values)
    if isinstance(model, Prepares):
        model.prepare_for(dataset)
    settings = {name: str(value) for name, value in option_values.items()}
    if kind.package:
        settings["package"] = kind.package
        if not isinstance(model, Identified) and (source := source_hash(model, Path(path))):
            settings["source"] = source
    return Prepared(model, dataset, settings=settings)


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
    return {name: value for name, value in vars(options).items() if value != getattr(default, name)}
