"""Draw what a model says of each episode, one figure an episode: sample frames, progress over the stages, stage probabilities."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from milepost import datasets, encoders, figures, models, progress
from milepost.cli.console import bars, say, warn
from milepost.cli.drawings import require_own, write_drawing
from milepost.cli.readings import LeftOut, Read, by_files, open_with_cameras, warn_of_boxes
from milepost.core import Episode


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset: a folder or a Hub id."""
    model: Annotated[str | None, tyro.conf.arg(aliases=["--reward-model-path"])] = None
    """Model folder (SARM or TOPReward), Hub id or "elapsed": its progress is computed for the pictures, and nothing else is written."""
    progress: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--progress-file"])] = ()
    """Progress file or files, drawn together; default (without --model): the one beside the dataset."""
    head_mode: Literal["sparse", "dense", "both"] = "sparse"
    model_options: Annotated[models.ModelOptions, tyro.conf.arg(prefix_name=False)] = field(default_factory=models.ModelOptions)
    task: str | None = None
    """With --model: instruction of episodes that have none; SARM takes it for all episodes."""
    camera_key: str | None = None
    """Camera of the sample frames; default: the first."""
    episodes: str | None = None
    """Episodes to draw, such as 0-9,12 or 0 1 2; default: the first --num-visualizations that there is progress for."""
    num_visualizations: int = 5
    format: figures.Format = "png"
    """pdf and svg are for print."""
    width: float = 9.0
    """Inches, 3 or more; letters keep their size. 7 for a page of text, 3.4 for a column."""
    output_dir: Path = Path("progress_plots")
    overwrite: bool = False
    """Replace figures of another dataset that are in the output folder; those of this one are always replaced."""
    revision: str | None = None
    device: str = "auto"


def main(args: Args) -> int:
    if args.model is not None and args.progress:
        raise ValueError("give --model or --progress, not both")
    if args.num_visualizations < 1:
        raise ValueError(f"--num-visualizations must be at least 1, got {args.num_visualizations}")
    if args.model is None and (args.model_options != models.ModelOptions() or args.task is not None):
        raise ValueError("the options of a model are for --model: without it there is nothing to compute")
    if args.width < figures.NARROWEST:
        raise ValueError(f"--width must be at least {figures.NARROWEST:g} inches, got {args.width:g}")
    asked = () if args.camera_key is None else (args.camera_key,)
    dataset = open_with_cameras(args.dataset, asked, revision=args.revision, episodes=args.episodes)
    heads = ("sparse", "dense") if args.head_mode == "both" else (args.head_mode,)
    if args.model is not None:
        read, numbers = _by_model(args.model, args, dataset, heads), list(dataset.episode_indices)
    else:
        read, numbers = by_files(args.progress, dataset, heads)
    numbers = list(dataset.episode_indices) if args.episodes is not None else numbers[: args.num_visualizations]
    drawings = {number: args.output_dir / f"episode_{number:06d}_progress.{args.format}" for number in numbers}
    require_own(drawings.values(), dataset, overwrite=args.overwrite)
    unknown, words, left_out = 0, set[str](), LeftOut()
    with bars() as bar:
        tick = bar("plot")
        for done, number in enumerate(numbers):
            with left_out.unless_readable(number):
                episode = dataset.episode(number)
                readings = read(episode)
                left_out.warn_of_annotation(episode, readings, dataset.stages)
                figure = figures.episode_figure(figures.episode_picture(episode, readings, dataset.stages, args.camera_key), args.width)
                unknown += sum(int(np.isnan(one.value).sum()) for curves in readings.values() for one in curves.values())
                words |= set(figures.texts_of(figure))
                write_drawing(drawings[number], figures.figure_bytes(figure, args.format), dataset)
            tick(done + 1, len(numbers))
    say(f"plots: {args.output_dir}")
    warn_of_boxes(words)
    left_out.report(len(numbers))
    if unknown:
        warn(f"frames without progress in what was drawn: {unknown}; the titles say where")
    return 1 if unknown or left_out else 0


def _by_model(path: str, args: Args, dataset: datasets.LeRobotDataset, heads: tuple[str, ...]) -> Read:
    """Computed when asked for. DataError now if the model has no such head or does not fit the dataset."""
    kind = models.kind_of(path)
    prepared = models.prepare(
        path,
        models.options_for(kind, args.model_options),
        dataset,
        models.Run(encoders.resolve_device(args.device), heads=heads, task=args.task),
    )
    prepared.begin()
    name = Path(path).resolve().name

    def read(episode: Episode) -> figures.CurvesByHead:
        found = progress.predicted(prepared.model, episode, prepared.arguments)
        return {head: {name: found.heads[head]} for head in heads if head in found.heads}

    return read
