"""Writes the rows of a progress file that stay in a copy of some frames of some episodes, with their new numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from milepost.core import DataError, atomic_path
from milepost.datasets import LeRobotDataset, numbers_of, read_table
from milepost.progress.table import METADATA_PREFIX, PROGRESS_COLUMNS


def write_part_progress(path: Path, new: Path, ranges: Mapping[int, tuple[int, int]], copy: LeRobotDataset) -> int:
    """Writes the rows of the progress file at `path` that stay, numbered as in the copy, to `new`. Returns how many there are.

    ranges: episode_index of the source -> its frames [start, stop) that stay; the n-th in ascending order is episode n of the copy. All
    other columns keep their values: the model saw the whole episode. The file's provenance says so (`part_of`), and names the copy as its
    dataset. DataError if the ranges are not those of the copy, or no row stays.
    """
    table = read_table(path)
    episode, frame = (numbers_of(path, table, name, np.int64) for name in PROGRESS_COLUMNS[1:])
    numbers = sorted(ranges)
    starts, stops = (np.array([ranges[number][side] for number in numbers]) for side in (0, 1))
    if (stops - starts).tolist() != [copy.length(index) for index in copy.episode_indices]:
        raise DataError(f"{copy.name} is no copy of these frames: label it with milepost label")
    place = np.minimum(np.searchsorted(numbers, episode), len(numbers) - 1)
    stays = (np.array(numbers)[place] == episode) & (frame >= starts[place]) & (frame < stops[place])
    if not stays.any():
        raise DataError(f"{path} has no row of the frames that stay: label the copy with milepost label")
    place, frame = place[stays], (frame - starts[place])[stays]
    first = np.concatenate([[0], np.cumsum(stops - starts)])
    rows = table.filter(pa.array(stays))
    for name, column in zip(PROGRESS_COLUMNS, (first[place] + frame, place, frame), strict=True):
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(column, pa.int64()))
    about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    source = about.get(f"{METADATA_PREFIX}dataset_fingerprint", "")
    about |= {f"{METADATA_PREFIX}dataset": copy.name, f"{METADATA_PREFIX}dataset_fingerprint": copy.fingerprint}
    with atomic_path(new) as temporary:
        pq.write_table(rows.replace_schema_metadata({**about, f"{METADATA_PREFIX}part_of": source or path.name}), temporary)
    return int(stays.sum())
