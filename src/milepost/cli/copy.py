"""Copy a dataset with progress and weights as columns of every frame: LeRobot can read them, and the Hub's viewer plots them.

The dataset itself is not changed. Columns: progress (progress_sparse and progress_dense where a file has both), weight; NaN is unknown.
With --restamp, every row's time stamp in the copy is frame / fps. Use it for recordings with real clock times, which LeRobot refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from milepost import datasets, progress, weights
from milepost.cli.console import say, table, warn, warn_all


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset: a folder or a Hub id."""
    output_dir: Path
    """Folder of the copy; it must not exist."""
    progress: Annotated[Path | None, tyro.conf.arg(aliases=["--progress-file"])] = None
    """Progress file; default: the one beside the dataset. Optional with --restamp."""
    weights: Path | None = None
    """Weights file of `milepost weigh`; it becomes a column too."""
    restamp: bool = False
    """Write frame / fps as the time stamps of the copy; every row must have exactly one image. The number of changes is reported."""
    even_damaged: bool = False
    """Also copy a dataset that LeRobot cannot open, without repair."""
    revision: str | None = None


def main(args: Args) -> int:
    """Copies the dataset; returns 1 if frames have no value."""
    dataset = datasets.open_dataset(args.dataset, revision=args.revision)
    records = dataset.meta.episodes.values()
    columns = {} if _only_stamps(args, dataset) else _progress(args, dataset)
    if args.weights is not None:
        matched = weights.match_weights(args.weights, dataset)
        warn_all(matched.warnings)
        columns["weight"] = matched.weight
    stamps = datasets.changed_stamps(dataset) if args.restamp else None
    left_out = datasets.copy_with_columns(
        args.dataset, args.output_dir, columns, restamp=args.restamp, even_damaged=args.even_damaged, revision=args.revision
    )
    has_row = np.zeros(progress.row_count(dataset), bool)
    for record in records:
        has_row[record.row : record.row + record.length] = True
    unknown = {name: int(np.isnan(column[has_row]).sum()) for name, column in columns.items()}
    if columns:
        lines = [(name, int(has_row.sum()), unknown[name], f"{np.nanmean(column):.3f}") for name, column in columns.items()]
        table("Columns", ("column", "frames", "unknown", "mean"), lines)
    if stamps is not None:
        count, worst = stamps
        say(f"time stamps: {count} of {int(has_row.sum())} written anew as frame / {dataset.fps:g} fps, the worst was {worst:.3f} s off")
    say(f"copy: {args.output_dir}")
    if left_out:
        warn(f"data files that no episode needs are not in the copy: {', '.join(left_out[:9])}")
    if any(unknown.values()):
        warn("frames without a value are NaN in the copy: " + ", ".join(f"{count} of {name}" for name, count in unknown.items() if count))
    return 1 if any(unknown.values()) else 0


def _only_stamps(args: Args, dataset: datasets.LeRobotDataset) -> bool:
    return args.restamp and args.progress is None and not list(dataset.root.glob("*_progress.parquet"))


def _progress(args: Args, dataset: datasets.LeRobotDataset) -> dict[str, np.ndarray]:
    """Returns the columns of the progress file. DataError if it belongs to another dataset."""
    matched = progress.find_progress(dataset, args.progress)
    warn_all(matched.warnings)
    curves = progress.curves_by_row(matched.path, matched.table, dataset)
    return {"progress" if len(curves) == 1 else f"progress_{head}": curve for head, curve in curves.items()}
