"""Weights files that belong to a dataset, by the same rule as progress files (`progress.matching`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from milepost.core import Brief
from milepost.datasets import LeRobotDataset, find_file, has_rows_of
from milepost.progress import by_row, require_made_for
from milepost.weights.file import read_weights_file


@dataclass(frozen=True, eq=False, repr=False)
class MatchedWeights(Brief):
    """A weights file whose rows are the dataset's. weight: (R,) by dataset row, NaN where the file has none.

    is_identified: the file says that it was made for this very dataset. Otherwise nothing but its row numbers speaks for it.
    """

    path: Path
    weight: Float[np.ndarray, "R"]
    warnings: tuple[str, ...] = ()
    is_identified: bool = True


def match_weights(path: Path, dataset: LeRobotDataset) -> MatchedWeights:
    """Returns the weights file at this path. DataError if it cannot be read or is not this dataset's."""
    path = find_file(path)
    index, weight, settings = read_weights_file(path)
    warnings = require_made_for(path, settings, dataset)
    is_identified = has_rows_of(dataset, settings.get("dataset_fingerprint", ""))
    return MatchedWeights(path, by_row(path, index, weight, dataset), warnings, is_identified)
