"""Draw progress curves over the stages, with sample frames: one PNG an episode."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from milepost.commands.options import parse_episodes, progress_file
from milepost.console import bars, say
from milepost.lerobot import open_dataset
from milepost.plots import episode_figure, png
from milepost.report import picture
from milepost.store import atomic_path, read_progress


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    progress: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--progress-file"])] = ()
    """Progress file or files, drawn together; default: the one beside the dataset."""
    head_mode: Literal["sparse", "dense"] = "sparse"
    camera_key: str | None = None
    """Camera of the sample frames; default: the first."""
    episodes: str | None = None
    """Episodes to draw, such as 0-9,12; default: the first --num-visualizations."""
    num_visualizations: int = 5
    output_dir: Path = Path("progress_plots")


def main(args: Args) -> int:
    numbers = parse_episodes(args.episodes)
    dataset = open_dataset(args.dataset, episodes=numbers)
    paths = args.progress or (progress_file(dataset, None),)
    tables = {path.stem.removesuffix("_progress"): read_progress(path) for path in paths}
    stages = dataset.stages.get(args.head_mode)
    count = len(dataset) if numbers is not None else min(args.num_visualizations, len(dataset))
    args.output_dir.mkdir(parents=True, exist_ok=True)
    with bars() as bar:
        tick = bar("plot")
        for i in range(count):
            episode = dataset[i]
            with atomic_path(args.output_dir / f"episode_{episode.index:06d}_progress.png") as temporary:
                temporary.write_bytes(png(episode_figure(picture(episode, tables, stages, args.camera_key, head=args.head_mode))))
            tick(i + 1, count)
    say(f"plots: {args.output_dir}")
    return 0
