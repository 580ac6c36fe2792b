"""Write a model's progress for every frame of a dataset: `<dataset>/<model>_progress.parquet`, which LeRobot's RA-BC reads as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from milepost import datasets, encoders, models, progress
from milepost.cli.console import bars, closed_after, say, table, warn
from milepost.cli.label_options import Args, flags, rewritten
from milepost.cli.label_report import Labelled, successes_in_words, threshold_of
from milepost.cli.label_several import draw, label_several, upload_target
from milepost.core import DataError, later, output_lock, to_json

__all__ = ["Args", "main", "rewritten"]


def main(args: Args) -> int:
    """Labels the dataset and reports; returns 1 if frames have no progress."""
    if len(args.model) > 1:
        return label_several(args)
    name = args.model[0]
    kind = models.kind_of(name)
    options = models.options_for(kind, args.model_options)
    dataset = datasets.open_dataset(args.dataset, revision=args.revision, episodes=args.episodes)
    if args.output_path is None and not dataset.is_local:
        raise DataError("a Hub dataset is never written into: give --output-path")
    repository = upload_target(args, dataset)
    heads = ("sparse",) if args.head_mode == "sparse" else ("sparse", "dense")
    run = models.Run(encoders.resolve_device(args.device), args.precision, heads, args.task)
    prepared = models.prepare(name, options, dataset, run)
    dataset = prepared.dataset
    path = args.output_path or dataset.root / f"{kind.name}_progress.parquet"
    settings, bare = {**prepared.arguments, **prepared.settings}, models.is_bare(name, kind)
    made_by = progress.provenance(prepared.model, dataset, name, bare=bare, **settings)
    if path.is_dir():
        raise DataError(f"{path} is a folder; --output-path takes the name of a file")
    with output_lock(path):
        finished = None if args.overwrite else progress.existing_result(path, made_by, dataset.episode_indices, flags=flags())
        if finished is not None:
            progress.remove_unfinished(path, made_by)
            warn("labelled already, by this model with these options: nothing to do")
        table_of_all = finished or _label(args, prepared, dataset, path, made_by)
    labelled = Labelled(path, table_of_all, threshold_of(prepared.model), dataset.episode_indices)
    _report(args, labelled)
    if args.num_visualizations > 0:
        draw(args, (path,), dataset)
    if repository is not None:
        say(f"uploaded: {datasets.upload_progress(path, dataset.root, repository)}")
    return labelled.code


def _label(
    args: Args, prepared: models.Prepared, dataset: datasets.LeRobotDataset, path: Path, made_by: Mapping[str, str]
) -> progress.ProgressTable:
    """Labels the dataset and returns the finished file."""
    unread: list[str] = []
    with closed_after(prepared.model), bars() as bar:
        prepared.begin(later(bar, "encode frames"))
        labelled = progress.label(
            prepared.model, dataset, path, overwrite=args.overwrite, on_progress=bar("label"),
            on_unreadable=lambda number, error: unread.append(progress.left_unknown(number, error)),
            options=prepared.arguments, made_by=made_by,
        )  # fmt: skip
    for line in unread:
        warn(line)
    return labelled


def _report(args: Args, labelled: Labelled) -> None:
    """Prints the result as a table or as JSON."""
    if args.json:
        say(to_json(labelled.numbers()))
    else:
        row = labelled.row()
        table("progress", list(row), [list(row.values())])
        if labelled.successes is not None:
            say(f"above the success threshold: {successes_in_words(labelled.successes)}")
        say(f"progress: {labelled.path}")
    labelled.warn()
