"""Write a model's progress for every frame of a dataset: `<dataset>/<model>_progress.parquet`, which LeRobot's RA-BC reads as it is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from milepost import datasets, encoders, metrics, models, progress
from milepost.cli import plot
from milepost.cli.console import bars, closed_after, ranges, say, table, warn
from milepost.core import DataError, Judges, count_noun, later, output_lock, to_json


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset: a folder or a Hub id."""
    model: Annotated[str, tyro.conf.arg(aliases=["--reward-model-path"])]
    """Model folder or Hub id; or the name of a model that needs no folder: "topreward" (zero-shot), "elapsed" (a clock), or one of another
    package. A folder of such a name is written ./elapsed. For the options of another package's: milepost label --model NAME --help."""
    model_options: Annotated[models.ModelOptions, tyro.conf.arg(prefix_name=False)] = field(default_factory=models.ModelOptions)
    task: str | None = None
    """Instruction for episodes without one; SARM uses it for all episodes."""
    head_mode: Literal["sparse", "dense", "both"] = "sparse"
    """Heads to write; dense and both write both columns."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the networks. auto: float32, but bfloat16 for a VLM on a GPU. SARM has no float16."""
    output_path: Path | None = None
    """File to write; default: beside the dataset. Required for a Hub dataset."""
    episodes: str | None = None
    """Episodes to label, such as 0-9,12 or 0 1 2; default: all."""
    revision: str | None = None
    device: str = "auto"
    overwrite: bool = False
    """Replace a progress file of another model, or of other options."""
    num_visualizations: int = 0
    """Also draw the first so many episodes, as `milepost plot` does."""
    output_dir: Path = Path("progress_plots")
    """Folder of these figures."""
    push_to_hub: bool = False
    """Also upload the file into the Hub dataset's own repository, or that of --output-repo-id."""
    output_repo_id: str | None = None
    """Hub dataset to upload to, which must hold the same episodes."""
    json: bool = False


def _flags() -> set[str]:
    groups = (vars(getattr(models.ModelOptions(), group)) for group in vars(models.ModelOptions()))
    return {*Args.__dataclass_fields__, *(name for group in groups for name in group)}


def main(args: Args) -> int:
    """Labels the dataset and reports; returns 1 if frames have no progress."""
    kind = models.kind_of(args.model)
    options = models.options_for(kind, args.model_options)
    dataset = datasets.open_dataset(args.dataset, revision=args.revision, episodes=args.episodes)
    if args.output_path is None and not dataset.is_local:
        raise DataError("a Hub dataset is never written into: give --output-path")
    repository = _repository(args, dataset)
    heads = ("sparse",) if args.head_mode == "sparse" else ("sparse", "dense")
    run = models.Run(encoders.resolve_device(args.device), args.precision, heads, args.task)
    prepared = models.prepare(args.model, options, dataset, run)
    dataset = prepared.dataset
    path = args.output_path or dataset.root / f"{kind.name}_progress.parquet"
    settings, bare = {**prepared.arguments, **prepared.settings}, models.is_bare(args.model, kind)
    made_by = progress.provenance(prepared.model, dataset, args.model, bare=bare, **settings)
    if path.is_dir():
        raise DataError(f"{path} is a folder; --output-path takes the name of a file")
    with output_lock(path):
        finished = None if args.overwrite else progress.existing_result(path, made_by, dataset.episode_indices, flags=_flags())
        if finished is not None:
            progress.remove_unfinished(path, made_by)
            warn("labelled already, by this model with these options: nothing to do")
        labelled = finished or _label(args, prepared, dataset, path, made_by)
    threshold = prepared.model.success_threshold if isinstance(prepared.model, Judges) else -math.inf
    code = _report(args, path, labelled, _successes(threshold, labelled), dataset.episode_indices)
    if args.num_visualizations > 0:
        _draw(args, path, dataset)
    if repository is not None:
        say(f"uploaded: {datasets.upload_progress(path, dataset.root, repository)}")
    return code


def _draw(args: Args, path: Path, dataset: datasets.LeRobotDataset) -> None:
    """Draws the first episodes, as `milepost plot` does."""
    labelled_first = ",".join(map(str, dataset.episode_indices[: args.num_visualizations]))
    drawing = plot.Args(args.dataset, progress=(path,), head_mode=args.head_mode, episodes=labelled_first if args.episodes else None)
    drawing = dataclasses.replace(drawing, num_visualizations=args.num_visualizations, output_dir=args.output_dir)
    plot.main(dataclasses.replace(drawing, revision=args.revision, overwrite=args.overwrite))


def _repository(args: Args, dataset: datasets.LeRobotDataset) -> str | None:
    """Returns the Hub dataset to upload to, None if nothing is uploaded. DataError if it is not named."""
    if not args.push_to_hub:
        if args.output_repo_id is not None:
            raise DataError("--output-repo-id says where to upload; without --push-to-hub nothing is uploaded")
        return None
    if args.output_repo_id is None and dataset.is_local:
        raise DataError(f"{dataset.name} is a folder: name the Hub dataset to upload to with --output-repo-id OWNER/NAME")
    return args.output_repo_id or dataset.name


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


def _successes(threshold: float, labelled: progress.ProgressTable) -> dict[int, bool] | None:
    """Returns episode -> whether its final score is above the threshold; None without a threshold. An episode without scores is left
    out."""
    if not math.isfinite(threshold) or not labelled.main.score:
        return None
    return {number: end > threshold for number, end in _ends(labelled).items()}


def _ends(labelled: progress.ProgressTable) -> dict[int, float]:
    """Returns episode -> the mean of its last three scores, where it has any."""
    curve = labelled.main
    if not curve.score:
        return {}
    score, numbers = curve.signals[curve.score].values, np.unique(labelled.episode_index)
    ends = {int(number): metrics.final(score[labelled.episode_index == number]) for number in numbers}
    return {number: end for number, end in ends.items() if not math.isnan(end)}


def _report(
    args: Args, path: Path, labelled: progress.ProgressTable, successes: Mapping[int, bool] | None, asked_for: Sequence[int]
) -> int:
    """Prints the result as a table or as JSON; returns 1 if frames of the requested episodes are unknown."""
    unknown, curve = {n: count for n, count in progress.unknown_frames(labelled).items() if n in set(asked_for)}, labelled.main.value
    episodes = len(np.unique(labelled.episode_index))
    if args.json:
        numbers: dict[str, Any] = {"path": str(path), "frames": len(curve), "episodes": episodes, "unknown_frames": sum(unknown.values())}
        if successes is not None:
            numbers["successes"] = [number for number, success in successes.items() if success]
        say(to_json(numbers))
    else:
        mean = f"{np.nanmean(curve):.3f}" if not np.isnan(curve).all() else "-"
        columns, row = ["episodes", "frames", "unknown", "mean"], [episodes, len(curve), sum(unknown.values()), mean]
        if labelled.main.score:
            ends = _ends(labelled)
            columns, row = [*columns, f"mean final {labelled.main.score}"], [*row, f"{np.mean(list(ends.values())):.3f}" if ends else "-"]
        table("progress", columns, [row])
        if successes is not None:
            say(f"above the success threshold: {sum(successes.values())} of {len(successes)} episodes")
        say(f"progress: {path}")
    signals, score = labelled.main.signals, labelled.main.score
    if f"{score}_bound" in signals:
        has_question = ~np.isnan(signals[f"{score}_bound"].values)
        missing = int(np.isnan(signals[score].values[has_question]).sum())
        warn(
            f"to {missing} of the questions the server did not list the answer among its likeliest tokens: their score is NaN, and "
            f"raw_{score}_bound says what it is at most"
        )
    if unknown:
        count, where = sum(unknown.values()), "episode" if len(unknown) == 1 else "episodes"
        warn(f"{count_noun(count, 'frame')} {'has' if count == 1 else 'have'} no progress, in {where} {ranges(sorted(unknown))}")
    rowless = set(asked_for) - set(labelled.episode_index.tolist())  # their rows cannot be read, so they are not in the file
    return 1 if unknown or rowless else 0
