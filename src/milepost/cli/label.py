"""Write a model's progress for every frame of a dataset.

The file is `<dataset>/<model>_progress.parquet`. LeRobot's RA-BC reads it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from milepost import datasets, progress, scale
from milepost.cli.console import bars, say, table, warn
from milepost.cli.label_datasets import label_datasets
from milepost.cli.label_models import Ready, Readying, origins, ready, request
from milepost.cli.label_options import Args, flags, rewritten
from milepost.cli.label_ray import compute, plan
from milepost.cli.label_report import Labelled, successes_in_words, threshold_of
from milepost.cli.label_several import draw, label_several, upload_target
from milepost.cli.several_datasets import Answer, are_several, print_json
from milepost.core import DataError, later, output_lock, require_place

__all__ = ["Args", "main", "rewritten"]


def main(args: Args) -> int:
    """Labels the datasets and reports; returns 1 if frames have no progress."""
    cluster = scale.Cluster.from_options(args.ray_options)
    if args.output_path is not None:
        (require_place if are_several(args) or len(args.model) > 1 else _require_file)(args.output_path)
    with cluster.joined(warn) if cluster is not None else nullcontext():
        return label_datasets(args, cluster, _label_dataset) if are_several(args) else _label_dataset(args, cluster)


def _require_file(path: Path) -> None:
    """Raises DataError, or OSError, if a file cannot be written: better now than when a cluster is there, or after the work."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; --output-path takes the name of a file")
    require_place(path.parent)


def _label_dataset(args: Args, cluster: scale.Cluster | None, make_ready: Readying = ready, answer: Answer = print_json) -> int:
    """Labels one dataset. answer: takes what `--json` prints."""
    return (label_several if len(args.model) > 1 else _label_one)(args, cluster, make_ready, answer)


def _label_one(args: Args, cluster: scale.Cluster | None, make_ready: Readying, answer: Answer) -> int:
    """Labels with one model."""
    asks = request(args)
    dataset = datasets.open_dataset(args.dataset, revision=args.revision, episodes=args.episodes)
    if args.output_path is None and not dataset.is_local:
        raise DataError(f"{dataset.files.never_written}: give --output-path")
    repository = upload_target(args, dataset)
    if cluster is None:
        here = make_ready(args, asks, dataset)
        dataset, (made_by,), threshold = here.dataset, origins(args, here), threshold_of(here.prepared[0].model)
        label = partial(_label, args, here)
    else:
        planned = plan(args, cluster)
        dataset, (made_by,), (threshold,) = dataset.showing(planned.cameras), planned.made_by, planned.thresholds
        label = partial(_label_on, args, cluster)
    path = args.output_path or dataset.root / f"{asks.kinds[0].name}_progress.parquet"
    _require_file(path)
    with output_lock(path):
        finished = None if args.overwrite else progress.existing_result(path, made_by, dataset.episode_indices, flags=flags())
        if finished is not None:
            progress.remove_unfinished(path, made_by)
            warn("labelled already, by this model with these options: nothing to do")
        table_of_all = finished or label(dataset, path, made_by)
    labelled = Labelled(path, table_of_all, threshold, dataset.episode_indices)
    _report(args, labelled, answer)
    if args.num_visualizations > 0:
        draw(args, (path,), dataset)
    if repository is not None:
        say(f"uploaded: {datasets.upload_progress(path, dataset.root, repository)}")
    return labelled.code


def _label(args: Args, here: Ready, dataset: datasets.LeRobotDataset, path: Path, made_by: Mapping[str, str]) -> progress.ProgressTable:
    """Labels the dataset and returns the finished file."""
    unread, (prepared,) = list[str](), here.prepared
    with here.used(0), bars() as bar:
        prepared.begin(later(bar, "encode frames"))
        labelled = progress.label(
            prepared.model, dataset, path, overwrite=args.overwrite, on_progress=bar("label"),
            on_unreadable=lambda number, error: unread.append(progress.left_unknown(number, error)),
            options=prepared.arguments, made_by=made_by,
        )  # fmt: skip
    for line in unread:
        warn(line)
    return labelled


def _label_on(
    args: Args, cluster: scale.Cluster, dataset: datasets.LeRobotDataset, path: Path, made_by: Mapping[str, str]
) -> progress.ProgressTable:
    """Labels the dataset on a cluster and returns the finished file."""
    unread, tally = list[str](), scale.Tally.of(cluster)
    with bars() as bar:
        tables = progress.label_elsewhere(
            partial(compute, args, cluster, dataset, tally, bar("label")), dataset, {path: made_by}, overwrite=args.overwrite,
            on_unreadable=lambda _, number, error: unread.append(progress.left_unknown(number, error)),
            on_stop=_raise,
        )  # fmt: skip
    for line in [*tally.lines(), *unread]:
        warn(line)
    return tables[path]


def _raise(path: Path, error: DataError) -> None:
    raise error


def _report(args: Args, labelled: Labelled, answer: Answer) -> None:
    """Prints the result as a table, or answers with it."""
    if args.json:
        answer(labelled.numbers())
    else:
        row = labelled.row()
        table("progress", list(row), [list(row.values())])
        if labelled.successes is not None:
            say(f"above the success threshold: {successes_in_words(labelled.successes)}")
        say(f"progress: {labelled.path}")
    labelled.warn()
