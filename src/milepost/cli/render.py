"""Make films of episodes: the pictures, and under them the progress curve as it plays, with stage and weight. H.264 mp4, or GIF too."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from milepost import datasets, figures, weights
from milepost.cli.console import bars, say, warn, warn_all
from milepost.cli.drawings import marked, require_own
from milepost.cli.readings import LeftOut, by_files, open_with_cameras, warn_of_boxes
from milepost.core import DataError, Episode, atomic_path

MOST = 4
"""Curves whose colours can be told apart."""


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset: a folder or a Hub id."""
    progress: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--progress-file"])] = ()
    """Progress file or files, drawn together; default: the one beside the dataset."""
    head_mode: Literal["sparse", "dense"] = "sparse"
    weights: Path | None = None
    """Weights file of `milepost weigh`, drawn as a strip."""
    camera_key: tuple[str, ...] = ()
    """Camera, or several to be shown side by side; default: the first."""
    episodes: Annotated[str | None, tyro.conf.arg(aliases=["--episode"])] = None
    """Episodes to film, such as 0-9,12 or 0 1 2, or "all"; default: the first --num-visualizations that there is progress for."""
    num_visualizations: int = 5
    gif: bool = False
    """A GIF beside each mp4: at most 480 pixels wide and 12.5 frames a second."""
    height: int | None = None
    """Height of the pictures in pixels; default: their own, small ones made larger by a whole factor."""
    output_dir: Path = Path("progress_videos")
    overwrite: bool = False
    """Replace films of another dataset that are in the output folder; those of this one are always replaced."""
    revision: str | None = None


def main(args: Args) -> int:
    _require_sense(args)
    chosen = None if args.episodes == "all" else args.episodes
    dataset = open_with_cameras(args.dataset, args.camera_key, revision=args.revision, episodes=chosen)
    cameras = dataset.choose_cameras(args.camera_key, flag="--camera-key", most=1)
    read, numbers = by_files(args.progress, dataset, (args.head_mode,))
    weight = _weights(args.weights, dataset) if args.weights is not None else None
    if chosen is not None:
        numbers = list(dataset.episode_indices)
    elif args.episodes != "all":
        numbers = numbers[: args.num_visualizations]
    films = {number: args.output_dir / f"episode_{number:06d}_progress.mp4" for number in numbers}
    kinds = (".mp4", ".gif") if args.gif else (".mp4",)
    require_own([path.with_suffix(kind) for path in films.values() for kind in kinds], dataset, overwrite=args.overwrite)
    unknown, words, left_out = 0, set[str](cameras), LeftOut()
    with bars() as bar:
        for done, number in enumerate(numbers):
            with left_out.unless_readable(number):
                episode = dataset.episode(number)
                readings = read(episode)
                left_out.warn_of_annotation(episode, readings, dataset.stages)
                what = figures.episode_picture(
                    episode, readings, dataset.stages, weight=weight(episode) if weight is not None else None, sampled=False
                )
                tick = bar(f"episode {number} ({done + 1} of {len(numbers)})")
                with ExitStack() as stack:
                    made = {kind: stack.enter_context(atomic_path(films[number].with_suffix(kind))) for kind in kinds}
                    figures.render_video(episode, what, cameras, made[".mp4"], height=args.height, gif=made.get(".gif"), tick=tick)
                    for kind, path in made.items():
                        path.write_bytes(marked(path.read_bytes(), kind, dataset))
                unknown += sum(int(np.isnan(one.value).sum()) for one in readings[args.head_mode].values())
                words |= {what.title, *(name for head in what.heads.values() for name in (*head.curves, *head.stage_names))}
    say(f"films: {args.output_dir}")
    warn_of_boxes(words)
    left_out.report(len(numbers))
    if unknown:
        warn(f"frames without progress in what was filmed: {unknown}; the curves have gaps there")
    return 1 if unknown or left_out else 0


def _require_sense(args: Args) -> None:
    if args.num_visualizations < 1:
        raise ValueError(f"--num-visualizations must be at least 1, got {args.num_visualizations}")
    if args.height is not None and not 16 <= args.height <= 4320:
        raise ValueError(f"--height must be 16 to 4320 pixels, got {args.height}")
    if len(set(args.progress)) > MOST:
        raise ValueError(f"a film has room for {MOST} curves, got {len(set(args.progress))} progress files")


def _weights(path: Path, dataset: datasets.LeRobotDataset) -> Callable[[Episode], np.ndarray]:
    """Episode -> (T,) its weights, NaN where the file has none. DataError if the file is of another dataset."""
    file = weights.match_weights(path, dataset)
    warn_all(file.warnings)

    def of(episode: Episode) -> np.ndarray:
        own = file.weight[episode.row : episode.row + episode.length]
        if np.isnan(own).all():
            raise DataError(f"{path} has no weight for episode {episode.index} (rows {episode.row} to {episode.row + episode.length - 1})")
        return own

    return of
