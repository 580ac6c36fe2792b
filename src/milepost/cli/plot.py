"""Draw one figure per episode, with sample frames and progress curves.

The curves are drawn over the stages, with the stage probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from milepost import datasets, encoders, figures, models, progress
from milepost.cli.console import bars
from milepost.cli.drawings import require_own
from milepost.cli.progress_io import ReadCurves, SkippedEpisodes, by_files, open_with_cameras
from milepost.core import Episode


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset: a folder, a Hub id or an address (s3://...)."""
    model: Annotated[str | None, tyro.conf.arg(aliases=["--reward-model-path"])] = None
    """Model folder, Hub id, or the name of a model that needs no folder, such as "elapsed" (a folder of that name is ./elapsed): its
    progress is computed for the figures, and no progress file is written."""
    progress: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--progress-file"])] = ()
    """One or several progress files, drawn together; default (without --model): the one beside the dataset."""
    head_mode: Literal["sparse", "dense", "both"] = "sparse"
    model_options: Annotated[models.ModelOptions, tyro.conf.arg(prefix_name=False)] = field(default_factory=models.ModelOptions)
    task: str | None = None
    """With --model: instruction for episodes without one; SARM uses it for all episodes."""
    camera_key: str | None = None
    """Camera of the sample frames; default: the first."""
    episodes: str | None = None
    """Episodes to draw, such as 0-9,12 or 0 1 2; default: the first --num-visualizations that have progress."""
    num_visualizations: int = 5
    format: figures.Format = "png"
    """pdf and svg are for print."""
    width: float = 9.0
    """Width in inches, at least 3; the font size does not change. 7 for a page of text, 3.4 for a column."""
    output_dir: Path = Path("progress_plots")
    overwrite: bool = False
    """Replace figures of another dataset in the output folder; figures of this dataset are always replaced."""
    revision: str | None = None
    device: str = "auto"


def main(args: Args) -> int:
    """Draws the figures; returns 1 if frames have no progress or episodes are left out."""
    if args.model is not None and args.progress:
        raise ValueError("give --model or --progress, not both")
    if args.num_visualizations < 1:
        raise ValueError(f"--num-visualizations must be at least 1, got {args.num_visualizations}")
    if args.model is None and (args.model_options != models.ModelOptions() or args.task is not None):
        raise ValueError("the options of a model are for --model: without it there is nothing to compute")
    if args.width < figures.NARROWEST:
        raise ValueError(f"--width must be at least {figures.NARROWEST:g} inches, got {args.width:g}")
    cameras = () if args.camera_key is None else (args.camera_key,)
    dataset = open_with_cameras(args.dataset, cameras, revision=args.revision, episodes=args.episodes)
    heads = ("sparse", "dense") if args.head_mode == "both" else (args.head_mode,)
    if args.model is not None:
        curves_of, numbers = _by_model(args.model, args, dataset, heads), list(dataset.episode_indices)
    else:
        curves_of, numbers = by_files(args.progress, dataset, heads)
    numbers = list(dataset.episode_indices) if args.episodes is not None else numbers[: args.num_visualizations]
    drawings = {number: args.output_dir / f"episode_{number:06d}_progress.{args.format}" for number in numbers}
    require_own(drawings.values(), dataset, overwrite=args.overwrite)
    words, skipped = set[str](), SkippedEpisodes()
    with bars() as bar:
        tick = bar("plot")
        for count, number in enumerate(numbers):
            with skipped.unless_readable(number):
                episode = dataset.episode(number)
                curves = curves_of(episode)
                skipped.warn_of_annotation(episode, curves, dataset.stages)
                figure = figures.episode_figure(figures.episode_view(episode, curves, dataset.stages, args.camera_key), args.width)
                skipped.count_unknown(curves)
                words |= set(figures.texts_of(figure))
                datasets.write_drawing(drawings[number], figures.figure_bytes(figure, args.format), dataset)
            tick(count + 1, len(numbers))
    return skipped.report_drawings(f"plots: {args.output_dir}", words, len(numbers), gaps="what was drawn: {}; the titles say where")


def _by_model(path: str, args: Args, dataset: datasets.LeRobotDataset, heads: tuple[str, ...]) -> ReadCurves:
    """Returns a function that computes an episode's curves. DataError now if the model has no such head or does not fit the dataset."""
    kind = models.kind_of(path)
    prepared = models.prepare(
        path,
        models.options_for(kind, args.model_options),
        dataset,
        models.Run(encoders.resolve_device(args.device), heads=heads, task=args.task),
    )
    prepared.begin()
    name = Path(path).resolve().name

    def curves_of(episode: Episode) -> figures.CurvesByHead:
        result = progress.predicted(prepared.model, episode, prepared.arguments)
        there = [head for head in heads if head in result.heads] or list(result.heads)[:1]
        return {head: {name: result.heads[head]} for head in there}

    return curves_of
