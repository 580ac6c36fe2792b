"""Make videos of episodes, with the progress curve under the camera images.

The curve moves with the video, and the stage and the weight are written beside it. The files are H.264 mp4, and GIF with --gif.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from milepost import datasets, figures, weights
from milepost.cli.console import bars, warn_all
from milepost.cli.drawings import require_own
from milepost.cli.progress_io import SkippedEpisodes, by_files, open_with_cameras
from milepost.core import DataError, Episode, atomic_path

MOST = 4
"""Most curves in a video: with more, their colours are hard to distinguish."""


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset: a folder, a Hub id or an address (s3://...)."""
    progress: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--progress-file"])] = ()
    """One or several progress files, drawn together; default: the one beside the dataset."""
    head_mode: Literal["sparse", "dense"] = "sparse"
    weights: Path | None = None
    """Weights file of `milepost weigh`, drawn as a strip."""
    camera_key: tuple[str, ...] = ()
    """One camera, or several to show side by side; default: the first."""
    episodes: Annotated[str | None, tyro.conf.arg(aliases=["--episode"])] = None
    """Episodes to render, such as 0-9,12 or 0 1 2, or "all"; default: the first --num-visualizations that have progress."""
    num_visualizations: int = 5
    gif: bool = False
    """A GIF beside each mp4: at most 480 pixels wide and 12.5 frames a second."""
    height: int | None = None
    """Height of the images in pixels; default: their own; small images are enlarged by a whole factor."""
    output_dir: Path = Path("progress_videos")
    overwrite: bool = False
    """Replace videos of another dataset in the output folder; videos of this dataset are always replaced."""
    revision: str | None = None


def main(args: Args) -> int:
    """Renders the videos; returns 1 if frames have no progress or episodes are left out."""
    _require_sense(args)
    selection = None if args.episodes == "all" else args.episodes
    dataset = open_with_cameras(args.dataset, args.camera_key, revision=args.revision, episodes=selection)
    cameras = dataset.choose_cameras(args.camera_key, flag="--camera-key", most=1)
    curves_of, numbers = by_files(args.progress, dataset, (args.head_mode,))
    weight = _weights(args.weights, dataset) if args.weights is not None else None
    if selection is not None:
        numbers = list(dataset.episode_indices)
    elif args.episodes != "all":
        numbers = numbers[: args.num_visualizations]
    videos = {number: args.output_dir / f"episode_{number:06d}_progress.mp4" for number in numbers}
    kinds = (".mp4", ".gif") if args.gif else (".mp4",)
    require_own([path.with_suffix(kind) for path in videos.values() for kind in kinds], dataset, overwrite=args.overwrite)
    words, skipped = set[str](cameras), SkippedEpisodes()
    with bars() as bar:
        for count, number in enumerate(numbers):
            with skipped.unless_readable(number):
                episode = dataset.episode(number)
                curves = curves_of(episode)
                skipped.warn_of_annotation(episode, curves, dataset.stages)
                content = figures.episode_view(
                    episode, curves, dataset.stages, weight=weight(episode) if weight is not None else None, sampled=False
                )
                tick = bar(f"episode {number} ({count + 1} of {len(numbers)})")
                with ExitStack() as stack:
                    paths = {kind: stack.enter_context(atomic_path(videos[number].with_suffix(kind))) for kind in kinds}
                    figures.render_video(episode, content, cameras, paths[".mp4"], height=args.height, gif=paths.get(".gif"), tick=tick)
                    for kind, path in paths.items():
                        path.write_bytes(datasets.marked_drawing(path.read_bytes(), kind, dataset))
                skipped.count_unknown(curves)
                words |= {content.title, *(name for head in content.heads.values() for name in (*head.curves, *head.stage_names))}
    return skipped.report_drawings(f"videos: {args.output_dir}", words, len(numbers), gaps="the videos: {}; the curves have gaps there")


def _require_sense(args: Args) -> None:
    if args.num_visualizations < 1:
        raise ValueError(f"--num-visualizations must be at least 1, got {args.num_visualizations}")
    if args.height is not None and not 16 <= args.height <= 4320:
        raise ValueError(f"--height must be 16 to 4320 pixels, got {args.height}")
    if len(set(args.progress)) > MOST:
        raise ValueError(f"a video has room for {MOST} curves, got {len(set(args.progress))} progress files")


def _weights(path: Path, dataset: datasets.LeRobotDataset) -> Callable[[Episode], np.ndarray]:
    """Returns episode -> (T,) its weights, NaN where the file has none. DataError if the file belongs to another dataset."""
    file = weights.match_weights(path, dataset)
    warn_all(file.warnings)

    def of(episode: Episode) -> np.ndarray:
        own = file.weight[episode.row : episode.row + episode.length]
        if np.isnan(own).all():
            raise DataError(f"{path} has no weight for episode {episode.index} (rows {episode.row} to {episode.row + episode.length - 1})")
        return own

    return of
