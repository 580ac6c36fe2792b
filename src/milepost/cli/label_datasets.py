"""`milepost label` with several datasets: each gets the files that it would get alone, and the models are loaded once.

Before any work begins, each dataset is opened and the models are asked whether they fit it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from milepost import datasets, scale
from milepost.cli.console import warn
from milepost.cli.label_models import Lasting, Request, lasting, request
from milepost.cli.label_options import Args
from milepost.cli.label_ray import misfits
from milepost.cli.several_datasets import Answer, each_dataset, names_of, reason_of, require_places, subfolder
from milepost.core import DataError


def label_datasets(args: Args, cluster: scale.Cluster | None, label: Callable[..., int]) -> int:
    """Labels the datasets one after the other, and reports. label: labels one. Returns the exit code, see `each_dataset`."""
    names, asks = names_of(args), request(args)
    if args.output_repo_id is not None:
        raise ValueError("--output-repo-id names one repository, and these are several datasets: leave it out, and each goes to its own")
    with lasting() as models_of_all:
        places, left_out = _checked(args, asks, names, None if cluster is not None else models_of_all)
        if cluster is not None:
            for name, reason in misfits([_alone(args, name) for name in places], cluster).items():
                _leave_out(name, reason, left_out)

        def work(name: str, answer: Answer) -> int:
            try:
                return label(_for_one(args, asks, name, places[name]), cluster, models_of_all.ready, answer)
            finally:
                if args.output_path is not None:
                    _remove_empty(args.output_path / places[name], args.output_path)

        return each_dataset(args, names, work, left_out)


def _checked(args: Args, asks: Request, names: Sequence[str], models_of_all: Lasting | None) -> tuple[dict[str, Path], dict[str, str]]:
    """Returns where the outputs of each dataset lie in a folder for all, and why a dataset is left out. models_of_all: those that are asked
    whether they fit."""
    places, left_out = dict[str, Path](), dict[str, str]()
    for name in names:
        try:
            dataset = datasets.open_dataset(name, revision=args.revision, episodes=args.episodes)
            if args.output_path is None and not dataset.is_local:
                raise DataError(f"{dataset.files.never_written}: give --output-path, the folder of the files of all datasets")
            if models_of_all is not None:
                models_of_all.check(args, asks, dataset)
            places[name] = subfolder(dataset)
        except (DataError, OSError) as error:
            _leave_out(name, reason_of(error), left_out)
    if args.output_path is not None:
        require_places(places, args.output_path)
    return places, left_out


def _leave_out(name: str, reason: str, left_out: dict[str, str]) -> None:
    left_out[name] = reason
    warn(f"before the work begins: {name} is left out: {reason}")


def _remove_empty(folder: Path, above: Path) -> None:
    """Removes the folder of a dataset that was left out, and those of its Hub id, if nothing is in them."""
    while folder != above.parent and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _alone(args: Args, name: str) -> Args:
    """Returns the command for one dataset alone."""
    return dataclasses.replace(args, dataset=name, more_datasets=(), datasets_file=None)


def _for_one(args: Args, asks: Request, name: str, place: Path) -> Args:
    """Returns the command for one of the datasets, with a folder of its own for what is not written beside it."""
    alone = dataclasses.replace(_alone(args, name), output_dir=args.output_dir / place)
    output = args.output_path
    if output is not None:
        output = output / place
        output.mkdir(parents=True, exist_ok=True)
        output = output if len(asks.kinds) > 1 else output / f"{asks.kinds[0].name}_progress.parquet"
    return dataclasses.replace(alone, output_path=output)
