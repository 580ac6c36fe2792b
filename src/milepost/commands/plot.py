"""Draw what a model says of each episode, one figure an episode: sample frames, progress over the stages, stage probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from milepost.commands.belonging import parse_episodes, progress_file
from milepost.commands.drawings import require_own, write_drawing
from milepost.commands.options import feature_cache, resolve_device, settle_model
from milepost.commands.readings import LeftOut, Read, by_files, open_with_cameras, require_heads, warn_of_boxes
from milepost.console import bars, say, warn
from milepost.lerobot import LeRobotDataset
from milepost.models import load_model, model_kind
from milepost.models.sarm import SARMModel
from milepost.plots import NARROWEST, Format, drawn, episode_figure, words_of
from milepost.report import Reading, picture
from milepost.types import Episode


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset: a folder or a Hub id."""
    model: Annotated[str | None, tyro.conf.arg(aliases=["--reward-model-path"])] = None
    """Model folder (SARM or TOPReward), Hub id or "elapsed": its progress is computed for the pictures, and nothing else is written."""
    progress: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--progress-file"])] = ()
    """Progress file or files, drawn together; default (without --model): the one beside the dataset."""
    head_mode: Literal["sparse", "dense", "both"] = "sparse"
    stride: int = 1
    """With --model: look at every N-th frame and the last; between them progress is interpolated."""
    encoder: str | None = None
    """With --model: instead of the encoder it names, a folder or owner/name."""
    no_cache: tyro.conf.FlagCreatePairsOff[bool] = False
    """Do not keep the frames' features on disk."""
    camera_key: str | None = None
    """Camera of the sample frames; default: the first."""
    episodes: str | None = None
    """Episodes to draw, such as 0-9,12 or 0 1 2; default: the first --num-visualizations that there is progress for."""
    num_visualizations: int = 5
    format: Format = "png"
    """pdf and svg are for print."""
    width: float = 9.0
    """Inches, 3 or more; letters keep their size. 7 for a page of text, 3.4 for a column."""
    output_dir: Path = Path("progress_plots")
    overwrite: bool = False
    """Replace figures of another dataset that are in the output folder; those of this one are always replaced."""
    state_stats: str | None = None
    """For a LeRobot checkpoint without them: the dataset whose state statistics it was trained with; default: DATASET, as LeRobot does."""
    revision: str | None = None
    device: str = "auto"


def main(args: Args) -> int:
    if args.model is not None and args.progress:
        raise ValueError("give --model or --progress, not both")
    if args.num_visualizations < 1:
        raise ValueError(f"--num-visualizations must be at least 1, got {args.num_visualizations}")
    if args.stride < 1 or (args.stride > 1 and args.model is None):
        raise ValueError(f"--stride must be at least 1, and is for --model; got {args.stride}")
    if args.width < NARROWEST:
        raise ValueError(f"--width must be at least {NARROWEST:g} inches, got {args.width:g}")
    chosen = parse_episodes(args.episodes)
    asked = () if args.camera_key is None else (args.camera_key,)
    dataset = open_with_cameras(args.dataset, asked, revision=args.revision, episodes=chosen)
    heads = ("sparse", "dense") if args.head_mode == "both" else (args.head_mode,)
    if args.model is not None:
        read, numbers = _by_model(args.model, args, dataset, heads), list(dataset.episode_indices)
    else:
        read, numbers = by_files(args.progress or (progress_file(dataset, None),), dataset, heads)
    numbers = list(chosen) if chosen is not None else numbers[: args.num_visualizations]
    figures = {number: args.output_dir / f"episode_{number:06d}_progress.{args.format}" for number in numbers}
    require_own(figures.values(), dataset, overwrite=args.overwrite)
    unknown, words, left_out = 0, set[str](), LeftOut()
    with bars() as bar:
        tick = bar("plot")
        for done, number in enumerate(numbers):
            with left_out.unless_readable(number):
                episode = dataset.episode(number)
                readings = read(episode)
                left_out.warn_of_annotation(episode, readings, dataset.stages)
                figure = episode_figure(picture(episode, readings, dataset.stages, args.camera_key), args.width)
                unknown += sum(int(np.isnan(one.progress.value).sum()) for models in readings.values() for one in models.values())
                words |= set(words_of(figure))
                write_drawing(figures[number], drawn(figure, args.format), dataset)
            tick(done + 1, len(numbers))
    say(f"plots: {args.output_dir}")
    warn_of_boxes(words)
    left_out.report(len(numbers))
    if unknown:
        warn(f"frames without progress in what was drawn: {unknown}; the titles say where")
    return 1 if unknown or left_out else 0


def _by_model(path: str, args: Args, dataset: LeRobotDataset, heads: Sequence[str]) -> Read:
    """Computed when asked for. DataError now if the model has no such head or does not fit the dataset."""
    kind = model_kind(path)
    if kind != "sarm" and (args.encoder is not None or args.stride > 1 or args.no_cache):
        raise ValueError(f"--encoder, --stride and --no-cache mean nothing to a model of type {kind}")
    model = load_model(path, resolve_device(args.device), **({"encoder": args.encoder} if kind == "sarm" else {}))
    stages = dict(model.config.heads) if isinstance(model, SARMModel) else {}
    require_heads(path, list(stages) or ["sparse"], heads)
    settle_model(model, args.state_stats, dataset)
    if isinstance(model, SARMModel):
        model.cache = feature_cache(dataset, model.frozen, keep=not args.no_cache)
    name = Path(path).resolve().name

    def read(episode: Episode) -> Mapping[str, Mapping[str, Reading]]:
        said = model.predict(episode, heads=heads, stride=args.stride) if isinstance(model, SARMModel) else model.predict(episode)
        of = {"sparse": said, "dense": said.dense}
        return {head: {name: Reading(one, stages[head].names if head in stages else ())} for head in heads if (one := of[head]) is not None}

    return read
