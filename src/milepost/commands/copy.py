"""Copy a dataset with progress, and weights if asked, as columns of every frame: LeRobot reads them, the Hub's viewer charts them.

The dataset itself is not touched. Columns: progress (progress_sparse and progress_dense where a file has both), weight; NaN is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from milepost.commands.belonging import progress_file, require_dataset, require_made_for, require_rows
from milepost.console import say, table, warn
from milepost.copying import copy_with_columns
from milepost.lerobot import open_dataset
from milepost.store import read_progress, read_weights
from milepost.types import DataError


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset (v3.0): a folder or a Hub id."""
    output_dir: Path
    """The copy: a folder that is not there yet."""
    progress: Annotated[Path | None, tyro.conf.arg(aliases=["--progress-file"])] = None
    """Progress file; default: the one beside the dataset."""
    weights: Path | None = None
    """Weights file of `milepost weigh`, as a column too."""
    revision: str | None = None


def main(args: Args) -> int:
    dataset = open_dataset(args.dataset, revision=args.revision)
    path = progress_file(dataset, args.progress)
    read = read_progress(path)
    require_dataset(path, read, dataset)
    require_rows(path, read, dataset)
    rows = max(dataset.row_range(number)[1] for number in dataset.episode_indices)
    columns = {}
    for head, curve in read.curves.items():
        columns["progress" if len(read.curves) == 1 else f"progress_{head}"] = _placed(read.index, curve, rows)
    if args.weights is not None:
        index, weight, made = read_weights(args.weights)
        require_made_for(args.weights, made, dataset)
        if len(index) and not 0 <= index.min() <= index.max() < rows:
            raise DataError(f"{args.weights} has row {index.max()}, {dataset.name} has {rows}: it was made for another dataset")
        columns["weight"] = _placed(index, weight, rows)
    copy_with_columns(args.dataset, args.output_dir, columns, revision=args.revision)
    unknown = {name: int(np.isnan(column).sum()) for name, column in columns.items()}
    table("Columns", ("column", "frames", "unknown", "mean"), [(n, rows, unknown[n], f"{np.nanmean(c):.3f}") for n, c in columns.items()])
    say(f"copy: {args.output_dir}")
    if any(unknown.values()):
        warn("frames without a value are NaN in the copy: " + ", ".join(f"{count} of {name}" for name, count in unknown.items() if count))
    return 1 if any(unknown.values()) else 0


def _placed(index: np.ndarray, values: np.ndarray, rows: int) -> np.ndarray:
    out = np.full(rows, np.nan, np.float32)
    out[index] = values
    return out
