"""Copy a dataset with progress and weights as columns of every frame: LeRobot can read them, and the Hub's viewer plots them.

The dataset itself is not changed. Columns: progress (progress_sparse and progress_dense where a file has both), weight; NaN is unknown.
--episode-columns writes what is known of each episode into meta/episodes, for LeRobot's episode_filter.
With --restamp, every row's time stamp in the copy is frame / fps. Use it for recordings with real clock times, which LeRobot refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from milepost import datasets, progress, weights
from milepost.cli import episode_columns
from milepost.cli.console import say, table, warn, warn_all


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset: a folder or a Hub id."""
    output_dir: Path
    """Folder of the copy; it must not exist."""
    progress: Annotated[Path | None, tyro.conf.arg(aliases=["--progress-file"])] = None
    """Progress file; default: the one beside the dataset. Optional with --episode-columns and --restamp."""
    weights: Path | None = None
    """Weights file of `milepost weigh`; it becomes a column too."""
    episode_columns: tuple[Path, ...] | None = None
    """Also write final_progress, mean_weight, the counts of events, mark and success of each episode into meta/episodes. Without files: the
    usual progress file, weights.parquet and the marks of the review page, as far as they are there."""
    restamp: bool = False
    """Write frame / fps as the time stamps of the copy; every row must have exactly one image. The number of changes is reported."""
    even_damaged: bool = False
    """Also copy a dataset that LeRobot cannot open, without repair."""
    revision: str | None = None


def main(args: Args) -> int:
    """Copies the dataset; returns 1 if frames have no value."""
    dataset = datasets.open_dataset(args.dataset, revision=args.revision)
    matched = _matched(args, dataset)
    columns = {} if matched is None else _columns(matched, dataset)
    if args.weights is not None:
        matched_weights = weights.match_weights(args.weights, dataset)
        warn_all(matched_weights.warnings)
        columns["weight"] = matched_weights.weight
    stamps = datasets.changed_stamps(dataset) if args.restamp else None
    left_out = datasets.copy_with_columns(
        args.dataset,
        args.output_dir,
        columns,
        episode_columns=_of_episodes(args, dataset, matched, columns.get("weight")),
        restamp=args.restamp,
        even_damaged=args.even_damaged,
        revision=args.revision,
    )
    unknown = _report_columns(dataset, columns)
    if stamps is not None:
        count, worst = stamps
        say(f"time stamps: {count} of {_frames(dataset)} written anew as frame / {dataset.fps:g} fps, the worst was {worst:.3f} s off")
    say(f"copy: {args.output_dir}")
    if left_out:
        warn(f"data files that no episode needs are not in the copy: {', '.join(left_out[:9])}")
    if any(unknown.values()):
        warn("frames without a value are NaN in the copy: " + ", ".join(f"{count} of {name}" for name, count in unknown.items() if count))
    return 1 if any(unknown.values()) else 0


def _matched(args: Args, dataset: datasets.LeRobotDataset) -> progress.MatchedProgress | None:
    """Returns the progress file; None if there is none and something else is copied. DataError if it belongs to another dataset."""
    is_optional = args.restamp or args.episode_columns is not None
    if is_optional and args.progress is None and not dataset.files.beside("*_progress.parquet"):
        return None
    matched = progress.find_progress(dataset, args.progress)
    warn_all(matched.warnings)
    return matched


def _columns(matched: progress.MatchedProgress, dataset: datasets.LeRobotDataset) -> dict[str, np.ndarray]:
    """Returns the per-frame columns of the progress file."""
    curves = progress.curves_by_row(matched.path, matched.table, dataset)
    return {"progress" if len(curves) == 1 else f"progress_{head}": curve for head, curve in curves.items()}


def _of_episodes(
    args: Args, dataset: datasets.LeRobotDataset, matched: progress.MatchedProgress | None, weight: np.ndarray | None
) -> datasets.EpisodeColumns:
    if args.episode_columns is None:
        return {}
    rows = {number: slice(record.row, record.row + record.length) for number, record in dataset.meta.episodes.items()}
    return episode_columns.gather(dataset, episode_columns.sources_of(dataset, args.episode_columns, matched, weight), rows)


def _report_columns(dataset: datasets.LeRobotDataset, columns: dict[str, np.ndarray]) -> dict[str, int]:
    """Prints what became columns of every frame. Returns how many frames of each have no value."""
    has_row = np.zeros(progress.row_count(dataset), bool)
    for record in dataset.meta.episodes.values():
        has_row[record.row : record.row + record.length] = True
    unknown = {name: int(np.isnan(column[has_row]).sum()) for name, column in columns.items()}
    if columns:
        lines = [(name, int(has_row.sum()), unknown[name], f"{np.nanmean(column):.3f}") for name, column in columns.items()]
        table("Columns", ("column", "frames", "unknown", "mean"), lines)
    return unknown


def _frames(dataset: datasets.LeRobotDataset) -> int:
    return sum(record.length for record in dataset.meta.episodes.values())
