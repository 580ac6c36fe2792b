"""The models that `milepost label` was given: their kinds and options, and how they are made ready for a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from milepost import datasets, encoders, models, progress
from milepost.cli.console import closed_after
from milepost.cli.label_options import Args
from milepost.core import MAIN_HEAD, require_cameras


@dataclass(frozen=True, eq=False)
class Request:
    """What a command says of its models, in their order. options: of each model's kind, checked."""

    kinds: list[models.ModelKind]
    options: list[Any]


@dataclass(frozen=True, eq=False)
class Ready:
    """Models that are ready for a dataset, which shows the cameras that they look at. stay_open: another dataset may come."""

    kinds: list[models.ModelKind]
    prepared: tuple[models.Prepared, ...]
    dataset: datasets.LeRobotDataset
    stay_open: bool = False

    def used(self, place: int) -> AbstractContextManager[None]:
        """Returns the block to label in with the model at a place, which is closed after it unless it stays open."""
        return nullcontext() if self.stay_open else closed_after(self.prepared[place].model)


Readying: TypeAlias = "Callable[[Args, Request, datasets.LeRobotDataset], Ready]"
"""As `ready`."""


def request(args: Args) -> Request:
    """Returns the kinds and options of a command's models. ValueError for options that they do not have."""
    kinds = [models.kind_of(path) for path in args.model]
    return Request(kinds, models.options_for_several(kinds, args.model_options))


def ready(args: Args, request: Request, dataset: datasets.LeRobotDataset) -> Ready:
    """Returns the models of a command, ready for the dataset. DataError if they do not fit."""
    return _ready(args, request, dataset, [None] * len(request.kinds))


def _ready(args: Args, request: Request, dataset: datasets.LeRobotDataset, before: Sequence[models.Prepared | None]) -> Ready:
    """Returns what `ready` does. before: models that are loaded already, and serve another dataset as they are."""
    parts = zip(before, args.model, request.options, runs(args, request.kinds), strict=True)
    with models.sharing_vlms():
        prepared = tuple(
            each.again(dataset) if each is not None else models.prepare(path, options, dataset, run) for each, path, options, run in parts
        )
    return Ready(request.kinds, prepared, dataset.showing([camera for each in prepared for camera in each.dataset.cameras]))


class Lasting:
    """The models of a command with several datasets. A model is loaded once, unless it took something from the dataset before."""

    def __init__(self) -> None:
        self._loaded: list[models.Prepared | None] = []

    def check(self, args: Args, request: Request, dataset: datasets.LeRobotDataset) -> None:
        """Raises DataError if a model does not fit the dataset. Of one that is loaded for each dataset anew, the cameras are compared."""
        if not self._loaded:
            self.ready(args, request, dataset)
            return
        for each in self._loaded:
            if each is not None and each.serves_many:
                each.again(dataset)
            elif each is not None and (cameras := getattr(getattr(each.model, "config", None), "cameras", ())):
                require_cameras(cameras, dataset.cameras, hint=f"the model looks at {', '.join(cameras)}")

    def ready(self, args: Args, request: Request, dataset: datasets.LeRobotDataset) -> Ready:
        """Returns the models ready for the dataset. They stay open. DataError if they do not fit."""
        self._loaded = self._loaded or [None] * len(request.kinds)
        for place, each in enumerate(self._loaded):
            if each is not None and not each.serves_many:
                self._close(place)
        here = _ready(args, request, dataset, self._loaded)
        self._loaded = list(here.prepared)
        return replace(here, stay_open=True)

    def close(self) -> None:
        """Closes the models, and shows their final messages."""
        for place in range(len(self._loaded)):
            self._close(place)

    def _close(self, place: int) -> None:
        prepared, self._loaded[place] = self._loaded[place], None
        if prepared is not None:
            with closed_after(prepared.model):
                pass


@contextmanager
def lasting() -> Iterator[Lasting]:
    """Yields the models of a command with several datasets, and closes them in any case."""
    models_of_all = Lasting()
    with models.sharing_vlms():
        try:
            yield models_of_all
        finally:
            models_of_all.close()


def runs(args: Args, kinds: Sequence[models.ModelKind]) -> list[models.Run]:
    """Returns how each model is run. Beside others, a kind that understands nothing of the run but the device gets only that."""
    heads = (MAIN_HEAD,) if args.head_mode == "sparse" else ("sparse", "dense")
    device = encoders.resolve_device(args.device)
    run = models.Run(device, args.precision, heads, args.task)
    if all(kind.prepare is None for kind in kinds):
        return [run] * len(kinds)
    return [run if kind.prepare is not None else models.Run(device) for kind in kinds]


def origins(args: Args, here: Ready) -> list[dict[str, str]]:
    """Returns the provenance of each model's file."""
    return [
        progress.provenance(each.model, here.dataset, path, bare=models.is_bare(path, kind), **each.arguments, **each.settings)
        for path, kind, each in zip(args.model, here.kinds, here.prepared, strict=True)
    ]
