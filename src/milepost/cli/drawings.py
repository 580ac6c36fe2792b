"""The figures and videos of a verb: their folder is made, and no file but one of the same dataset is replaced without --overwrite."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from milepost import datasets
from milepost.core import require_writable


def require_own(paths: Iterable[Path], dataset: datasets.LeRobotDataset, *, overwrite: bool) -> None:
    """Makes the folder of the new drawings. Raises DataError, before any work, if a file is there that is not one of this dataset's."""
    paths = list(paths)
    datasets.require_own_drawings(paths, dataset, overwrite=overwrite, instead="choose another --output-dir, or use --overwrite")
    for folder in {path.parent for path in paths}:
        require_writable(folder)
