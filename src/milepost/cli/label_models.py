"""The models that `milepost label` was given: their kinds and options, and how they are made ready for a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from milepost import datasets, encoders, models, progress
from milepost.cli.label_options import Args
from milepost.core import MAIN_HEAD


@dataclass(frozen=True, eq=False)
class Request:
    """What a command says of its models, in their order. options: of each model's kind, checked."""

    kinds: list[models.ModelKind]
    options: list[Any]


@dataclass(frozen=True, eq=False)
class Ready:
    """Models that are ready for a dataset, which shows the cameras that they look at."""

    kinds: list[models.ModelKind]
    prepared: tuple[models.Prepared, ...]
    dataset: datasets.LeRobotDataset


def request(args: Args) -> Request:
    """Returns the kinds and options of a command's models. ValueError for options that they do not have."""
    kinds = [models.kind_of(path) for path in args.model]
    return Request(kinds, models.options_for_several(kinds, args.model_options))


def ready(args: Args, request: Request, dataset: datasets.LeRobotDataset) -> Ready:
    """Returns the models of a command, ready for the dataset. DataError if they do not fit."""
    parts = zip(args.model, request.options, runs(args, request.kinds), strict=True)
    with models.sharing_vlms():
        prepared = tuple(models.prepare(path, options, dataset, run) for path, options, run in parts)
    return Ready(request.kinds, prepared, dataset.showing([camera for each in prepared for camera in each.dataset.cameras]))


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
