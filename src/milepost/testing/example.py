"""The dataset of the examples in the docstrings."""

from __future__ import annotations

from pathlib import Path

from milepost.datasets import LeRobotDataset, open_dataset
from milepost.models import ElapsedModel
from milepost.progress import label
from milepost.testing.dots import dot_episodes, write_dots


def write_example(root: Path | str = "dots") -> LeRobotDataset:
    """Writes the dataset "dots" of the examples: six episodes, two of them failures, and the clock's progress file. Returns it opened.

    DataError if `root` exists.

    >>> write_example("more dots").episode_indices
    (0, 1, 2, 3, 4, 5)
    """
    write_dots(root, dot_episodes(6, failing=2))
    dataset = open_dataset(root)
    label(ElapsedModel(), dataset, Path(root) / "elapsed_progress.parquet")
    return dataset
