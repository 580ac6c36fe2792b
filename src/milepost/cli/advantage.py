"""Make advantage labels from progress, for RECAP or classifier-free guidance.

A label says whether a frame was followed by more progress than usual.

Before anything is written, it shows who becomes positive: by task, by outcome, and by tenth of the episode. --beside has a second model
beside it. The dataset itself is not changed.
"""

from __future__ import annotations

import json as json_module
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from milepost import datasets, progress, weights
from milepost.cli import copied
from milepost.cli.advantage_report import doubts, report_of, show, without_label
from milepost.cli.console import say, warn_all
from milepost.cli.effects import Effect, require_effects
from milepost.cli.progress_io import require_varied
from milepost.core import DataError, UnreadableError, output_lock, real_path, to_json, write_text

INTERVENTIONS = ("intervention", "complementary_info.is_intervention")
"""Columns that mark the frames in which a person acted: that of LeRobot's pull request 3764, and that of its HIL-SERL recordings."""


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset: a folder, a Hub id or an address (s3://...)."""
    progress: Annotated[Path | None, tyro.conf.arg(aliases=["--progress-file"])] = None
    """Progress file; default: the one beside the dataset."""
    beside: Path | None = None
    """Another model's progress file: how far its labels agree is printed."""
    form: Literal["rlinf", "lerobot", "column"] = "rlinf"
    """rlinf: the files meta/advantages_TAG.parquet and meta/returns_TAG.parquet. lerobot: a copy of the dataset in the form of LeRobot's
    pull request 3764 (rows of style advantage, mc_return, is_terminal). column: a copy with the columns advantage and
    advantage_continuous."""
    output_dir: Path | None = None
    """Folder of the files (default: advantages_TAG in the current folder), or of the copy, which must not exist."""
    tag: str = "milepost"
    """Name of these labels, in the names of RLinf's files."""
    convention: Literal["rlinf", "lerobot"] | None = None
    """Whose proportion of frames becomes positive: RLinf's 30 %, or the 70 % of LeRobot's pull request 3764. Default: that of --form, and
    RLinf's for a column."""
    positive: float | None = None
    """The proportion of frames that becomes positive, instead of a convention's."""
    horizon: int | Literal["end"] = 50
    """How many frames an advantage looks ahead; end: to the end of the episode."""
    failure: float = -1.0
    """The value at the end of a failed episode, in tasks: -1 is as far from success as at the start."""
    episodes: str | None = None
    """Episodes to label, such as 0-9,12 or 0 1 2; default: all. The others are negative, with an unknown advantage (NaN)."""
    skip_unsolved: bool = False
    """Leave the episodes of tasks without a success as those that --episodes leaves out; by default such a task is an error."""
    per_task: bool = True
    """Give every task a threshold of its own."""
    head_mode: Literal["sparse", "dense"] = "sparse"
    dry_run: bool = False
    """Print who would become positive, and write nothing."""
    overwrite: bool = False
    """Replace files of the same tag that another program made, or of another dataset; those of an earlier run are always replaced."""
    revision: str | None = None
    json: bool = False


@dataclass(frozen=True, eq=False)
class Made:
    """The labels of a dataset, and what they were made from. left: the episodes without labels. settings: how, in words, for the files."""

    dataset: datasets.LeRobotDataset
    episodes: list[weights.EpisodeProgress]
    left: list[weights.EpisodeProgress]
    labels: weights.AdvantageLabels
    settings: dict[str, str]


def main(args: Args) -> int:
    """Reports who becomes positive, then writes the labels."""
    config = _config(args)
    require_effects(args, [Effect(("overwrite",), args.form == "rlinf", "with --form rlinf, since a copy never replaces a folder")])
    dataset = datasets.open_dataset(args.dataset, revision=args.revision, episodes=args.episodes)
    folder = _folder(args, dataset)
    if args.form != "rlinf" and args.output_dir is not None:
        datasets.require_new_folder(folder, dataset.root)
    match = progress.find_progress(dataset, args.progress)
    warn_all(match.warnings)
    episodes = _solved(args, _episodes(dataset, match, args.head_mode))
    labels = weights.label_advantages(episodes, config)
    beside = None if args.beside is None else _labels_beside(args, dataset, config, match.path)
    report = report_of(episodes, labels, beside)
    left = _left(args, dataset, {each.episode for each in episodes})
    first, then = without_label(report, labels, match.missing, len(left), datasets.leave_out_verb(dataset.version)), doubts(report)
    if not args.json:
        warn_all(first)
        show(report)
        warn_all(then)
    settings = {"dataset": dataset.name, "dataset_fingerprint": dataset.fingerprint, "progress_file": str(match.path)}
    settings |= {"head_mode": args.head_mode, "config": json_module.dumps(asdict(config)), "explained_by_time": f"{report['by_time']:.3f}"}
    written, copy = ([], None) if args.dry_run else _write(args, folder, Made(dataset, episodes, left, labels, settings))
    of_copy = [] if copy is None else copied.in_words(copy, args.dataset, dataset)
    code = 1 if copy is not None and copy.damage else 0
    if args.json:
        say(to_json(report | {"warnings": [*first, *then, *of_copy], "written": list(map(str, written))}))
        return code
    say(f"labels: {', '.join(map(str, written)) or 'none are written, because of --dry-run'}")
    if written and args.form == "rlinf":
        say("RLinf reads both files from meta/ of the dataset: copy them there, and give the tag as data.advantage_tag")
    warn_all(of_copy)
    return code


def _config(args: Args) -> weights.AdvantageConfig:
    if args.positive is not None and args.convention is not None:
        raise ValueError("--positive is the proportion that --convention names: leave one of them out")
    convention = args.convention or ("lerobot" if args.form == "lerobot" else "rlinf")
    positive = weights.CONVENTIONS[convention] if args.positive is None else args.positive
    return weights.AdvantageConfig(None if args.horizon == "end" else args.horizon, positive, args.failure, args.per_task)


def _folder(args: Args, dataset: datasets.LeRobotDataset) -> Path:
    """Returns the folder to write into. DataError if it is needed and not named, is there, or is of the Hub."""
    paths = weights.advantage_paths(args.output_dir or Path(f"advantages_{args.tag}"), args.tag)
    folder = paths[0].parent.parent
    if args.form == "rlinf":
        weights.require_own_advantages(paths, overwrite=args.overwrite, dataset_fingerprint=dataset.fingerprint)
        where = folder.expanduser().absolute()
        if any(datasets.is_dataset(each) for each in (where, *where.parents)):
            raise DataError(
                f"{folder} is a dataset or lies in one, which is not written into: give another --output-dir, and copy the files"
            )
    elif args.output_dir is None and not args.dry_run:
        raise DataError(f"--form {args.form} writes a copy of the dataset: name its folder with --output-dir")
    return folder


def _episodes(dataset: datasets.LeRobotDataset, match: progress.MatchedProgress, head: str) -> list[weights.EpisodeProgress]:
    """Returns every episode's progress with its task, success and interventions. DataError if the progress says nothing."""
    require_varied(match.table.values(head), "make labels from")
    episodes = []
    for number in dataset.episode_indices:
        episode = dataset.episode(number)
        curve = match.table.episode(number, episode.length, head)
        column = next((episode.columns[name] for name in INTERVENTIONS if name in episode.columns), None)
        by_person = None if column is None else np.nan_to_num(np.asarray(column, dtype=float).reshape(-1)) > 0
        episodes.append(weights.EpisodeProgress(number, episode.task, curve, episode.success, by_person))
    return episodes


def _labels_beside(args: Args, dataset: datasets.LeRobotDataset, config: weights.AdvantageConfig, path: Path) -> weights.AdvantageLabels:
    match = progress.find_progress(dataset, args.beside)
    if real_path(match.path) == real_path(path):
        raise DataError(f"--beside is {path}, the progress file that the labels are made from: give another model's")
    warn_all(match.warnings)
    return weights.label_advantages(_solved(args, _episodes(dataset, match, args.head_mode)), config)


def _solved(args: Args, episodes: list[weights.EpisodeProgress]) -> list[weights.EpisodeProgress]:
    """Returns the episodes that get labels: with --skip-unsolved without those of tasks that never succeeded. DataError if none is left."""
    unsolved = set(weights.unsolved_tasks(episodes)) if args.skip_unsolved else set()
    solved = [each for each in episodes if each.task not in unsolved]
    if not solved:
        raise DataError("no task of these episodes has a success, so nothing can be labelled: record one, or choose other --episodes")
    return solved


def _left(args: Args, dataset: datasets.LeRobotDataset, labelled: set[int]) -> list[weights.EpisodeProgress]:
    """Returns the episodes of the dataset without labels, whose progress is taken as unknown."""
    rest = [number for number in dataset.meta.episodes if number not in labelled]
    if not rest:
        return []
    whole = datasets.open_dataset(args.dataset, revision=args.revision)
    return [_without_progress(whole, number) for number in rest]


def _without_progress(dataset: datasets.LeRobotDataset, number: int) -> weights.EpisodeProgress:
    """Returns an episode that gets no labels. What cannot be read, which is a reason to leave it out, is taken from meta/."""
    record = dataset.meta.episodes[number]
    unknown = np.full(record.length, np.nan, np.float32)
    try:
        episode = dataset.episode(number)
    except UnreadableError:
        return weights.EpisodeProgress(number, dataset.task_of(number), unknown, record.success)
    return weights.EpisodeProgress(number, episode.task, unknown, episode.success)


def _write(args: Args, folder: Path, result: Made) -> tuple[list[Path], datasets.Copied | None]:
    """Writes the labels in the form that was asked for. Returns what is new, and what there is to say of a copy of the dataset."""
    episodes = sorted([*result.episodes, *result.left], key=lambda each: each.episode)
    if args.form == "rlinf":
        labels = sorted([*result.labels.episodes, *map(weights.unlabelled, result.left)], key=lambda each: each.episode)
        with output_lock(folder):
            return list(weights.write_advantages(folder, args.tag, episodes, labels, result.settings)), None
    if args.form == "lerobot":
        columns, rows = (
            weights.lerobot_columns(result.dataset, episodes),
            weights.lerobot_rows(result.dataset, result.labels.episodes),
        )
    else:
        columns, rows = weights.plain_columns(result.dataset, result.labels.episodes), None
    copy = datasets.copy_with_columns(args.dataset, folder, columns, language=rows, revision=args.revision)
    form = {"form": weights.LEROBOT_FORM if args.form == "lerobot" else "column"}
    about = folder / f"advantage_{args.tag}.json"
    write_text(about, to_json(form | result.settings))
    return [folder, about], copy
