"""`milepost label` with several models: the dataset is read once, and each model writes its own progress file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from milepost import datasets, models, progress, scale
from milepost.cli import plot
from milepost.cli.console import bars, say, table, warn
from milepost.cli.label_models import Ready, Readying, origins, request
from milepost.cli.label_options import Args, flags
from milepost.cli.label_ray import compute, plan
from milepost.cli.label_report import Labelled, successes_in_words, threshold_of
from milepost.cli.several_datasets import Answer
from milepost.core import DataError, count_noun, later, output_lock


@dataclass(frozen=True, eq=False)
class Work:
    """What one model does. place: its place in the command. name: what it is called beside the others, and in its file's name.
    model_path: as it was named."""

    place: int
    name: str
    model_path: str
    path: Path
    made_by: Mapping[str, str]
    threshold: float


@dataclass
class Outcome:
    """What became of the models. tables: the files that are there. stops: model -> what ended its labels. unread: lines to read."""

    tables: dict[str, progress.ProgressTable]
    stops: dict[str, str]
    unread: list[str]


def label_several(args: Args, cluster: scale.Cluster | None, make_ready: Readying, answer: Answer) -> int:
    """Labels the dataset with several models and reports; returns 1 if frames have no progress, or a model was stopped."""
    asks = request(args)
    names = names_beside(args.model, asks.kinds)
    dataset = datasets.open_dataset(args.dataset, revision=args.revision, episodes=args.episodes)
    folder = _folder(args, dataset)
    repository = upload_target(args, dataset)
    if cluster is None:
        here = make_ready(args, asks, dataset)
        dataset, made_by, thresholds = here.dataset, origins(args, here), [threshold_of(each.model) for each in here.prepared]
        label = partial(_label, args, here)
    else:
        planned = plan(args, cluster)
        dataset, made_by, thresholds = dataset.showing(planned.cameras), planned.made_by, planned.thresholds
        label = partial(_label_on, args, cluster)
    works = [
        Work(place, name, path, folder / f"{name}_progress.parquet", made_by[place], thresholds[place])
        for place, (name, path) in enumerate(zip(names, args.model, strict=True))
    ]
    outcome = _labelled(args, works, dataset, label)
    files = {
        work.name: Labelled(work.path, outcome.tables[work.name], work.threshold, dataset.episode_indices)
        for work in works
        if work.name in outcome.tables
    }
    _report(args, works, files, outcome, answer)
    if args.num_visualizations > 0:
        draw(args, [file.path for file in files.values()], dataset)
    if repository is not None:
        for file in files.values():
            say(f"uploaded: {datasets.upload_progress(file.path, dataset.root, repository)}")
    return 1 if outcome.stops or any(file.code for file in files.values()) else 0


def names_beside(paths: Sequence[str], kinds: Sequence[models.ModelKind]) -> list[str]:
    """Returns a name for each model: its kind's, as in the file that it writes alone; of several of one kind, that of its folder.

    DataError if two would have one name.
    """
    kind_names = [kind.name for kind in kinds]
    names = [
        kind.name if kind_names.count(kind.name) == 1 or models.is_bare(path, kind) else Path(path).absolute().name
        for path, kind in zip(paths, kinds, strict=True)
    ]
    if twice := [place for place, name in enumerate(names) if names.count(name) > 1]:
        first, second = (paths[place] for place in twice[:2])
        raise DataError(
            f"{first} and {second} would both write {names[twice[0]]}_progress.parquet; label with one after the other, each with a file "
            "of its own (--output-path)"
        )
    return names


def upload_target(args: Args, dataset: datasets.LeRobotDataset) -> str | None:
    """Returns the Hub dataset to upload to, None if nothing is uploaded. DataError if it is not named."""
    if not args.push_to_hub:
        if args.output_repo_id is not None:
            raise DataError("--output-repo-id says where to upload; without --push-to-hub nothing is uploaded")
        return None
    if args.output_repo_id is None and dataset.is_local:
        raise DataError(f"{dataset.name} is a folder: name the Hub dataset to upload to with --output-repo-id OWNER/NAME")
    return args.output_repo_id or dataset.name


def draw(args: Args, paths: Sequence[Path], dataset: datasets.LeRobotDataset) -> None:
    """Draws the first episodes, as `milepost plot` does."""
    labelled_first = ",".join(map(str, dataset.episode_indices[: args.num_visualizations]))
    drawing = plot.Args(args.dataset, progress=tuple(paths), head_mode=args.head_mode, episodes=labelled_first if args.episodes else None)
    drawing = dataclasses.replace(drawing, num_visualizations=args.num_visualizations, output_dir=args.output_dir)
    plot.main(dataclasses.replace(drawing, revision=args.revision, overwrite=args.overwrite))


def _folder(args: Args, dataset: datasets.LeRobotDataset) -> Path:
    """Returns the folder of the files, made if need be. DataError if `--output-path` is a file, or missing for a Hub dataset."""
    if args.output_path is None:
        if not dataset.is_local:
            raise DataError(f"{dataset.files.never_written}: give --output-path, the folder of the progress files")
        return dataset.root
    if args.output_path.is_file() or args.output_path.suffix == ".parquet":
        raise DataError(
            f"{args.output_path} is the name of a file, and each of the models writes one of its own; --output-path takes a folder then"
        )
    args.output_path.mkdir(parents=True, exist_ok=True)
    return args.output_path


def _labelled(args: Args, works: Sequence[Work], dataset: datasets.LeRobotDataset, label: Callable[..., None]) -> Outcome:
    """Labels with the models whose files are not complete. Returns all files, and what went wrong. label: labels with some of the models,
    and adds their files to the outcome."""
    outcome = Outcome({}, {}, [])
    with ExitStack() as locks:
        for path in sorted(work.path for work in works):
            locks.enter_context(output_lock(path))
        for work in works if not args.overwrite else ():
            finished = progress.existing_result(work.path, work.made_by, dataset.episode_indices, flags=flags())
            if finished is not None:
                warn(f"{work.name}: labelled already, by this model with these options: nothing to do")
                outcome.tables[work.name] = finished
        if remaining := [work for work in works if work.name not in outcome.tables]:
            label(remaining, dataset, outcome)
    return outcome


def _label(args: Args, here: Ready, works: Sequence[Work], dataset: datasets.LeRobotDataset, outcome: Outcome) -> None:
    """Labels with these models in one reading, and adds their files to the outcome."""
    prepared = here.prepared
    with ExitStack() as opened, bars() as bar:
        for work in works:
            opened.enter_context(here.used(work.place))
            prepared[work.place].begin(later(bar, f"encode frames ({work.name})"))
        label = partial(
            progress.label_several,
            {work.path: prepared[work.place].model for work in works},
            dataset,
            on_progress=bar("label"),
            options={work.path: prepared[work.place].arguments for work in works},
            made_by={work.path: work.made_by for work in works},
        )
        _add_files(args, label, works, outcome)


def _label_on(args: Args, cluster: scale.Cluster, works: Sequence[Work], dataset: datasets.LeRobotDataset, outcome: Outcome) -> None:
    """Labels with these models on a cluster, and adds their files to the outcome."""
    tally, theirs = scale.Tally.of(cluster), dataclasses.replace(args, model=tuple(work.model_path for work in works))
    with bars() as bar:
        work_of_all = partial(compute, theirs, cluster, dataset, tally, bar("label"))
        label = partial(progress.label_elsewhere, work_of_all, dataset, {work.path: work.made_by for work in works})
        _add_files(args, label, works, outcome)
    outcome.unread[:0] = tally.lines()


def _add_files(args: Args, label: Callable[..., Mapping[Path, progress.ProgressTable]], works: Sequence[Work], outcome: Outcome) -> None:
    """Labels, and adds the files and what went wrong to the outcome."""
    names = {work.path: work.name for work in works}
    try:
        tables = label(
            overwrite=args.overwrite,
            on_unreadable=lambda path, number, error: outcome.unread.append(f"{names[path]}: {progress.left_unknown(number, error)}"),
            on_stop=lambda path, error: outcome.stops.update({names[path]: str(error)}),
        )
    except DataError:
        if not outcome.tables or len(outcome.stops) < len(works):
            raise
        tables = {}  # all of these were stopped, and there are files of others to report
    outcome.tables.update({names[path]: each for path, each in tables.items()})


def _report(args: Args, works: Sequence[Work], files: Mapping[str, Labelled], outcome: Outcome, answer: Answer) -> None:
    """Prints a row for each model, or all as JSON; then what went wrong."""
    if args.json:
        rows = [
            {"name": work.name, "model": work.model_path}
            | (files[work.name].numbers() if work.name in files else {"path": str(work.path), "stopped": outcome.stops[work.name]})
            for work in works
        ]
        answer({"models": rows})
    else:
        cells = {name: each.row() for name, each in files.items()}
        columns = list(dict.fromkeys(column for row in cells.values() for column in row))
        table("progress", ["model", *columns], [[name, *(row.get(column, "-") for column in columns)] for name, row in cells.items()])
        for name, each in files.items():
            if each.successes is not None:
                say(f"{name}, above the success threshold: {successes_in_words(each.successes)}")
            say(f"progress: {each.path}")
    for line in outcome.unread:
        warn(line)
    for name, each in files.items():
        each.warn(f"{name}: ")
    for name, reason in outcome.stops.items():
        warn(f"{name} stopped and its file is unfinished, the others went on; the same command goes on with it: {reason}")
    if outcome.stops:
        warn(f"{count_noun(len(files), 'model')} of {len(works)} finished")
