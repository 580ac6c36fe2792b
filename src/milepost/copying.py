"""A copy of a LeRobot dataset (v3.0) with more numbers for every frame: progress, weight. Columns are how LeRobot and its viewers see them.

The dataset itself is never written to, and the copy is there complete or not at all. Videos are linked (hard links) where the file system
can, else copied; the data files are written anew with the columns, info.json and all statistics say so. Files beside meta/, data/, videos/
and images/ are left out: a progress file of the dataset is not one of the copy.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from milepost.annotation.replacing import is_interrupted
from milepost.hub import Files, find_files
from milepost.metadata import Metadata, read_metadata
from milepost.outputs import atomic_folder
from milepost.parquet import put_columns, read_parquet
from milepost.statistics import KEYS, Stats, column_stats, merge
from milepost.types import DataError

TREES = ("meta", "data", "videos", "images")


def copy_with_columns(
    folder_or_repo: str | Path, folder: str | Path, columns: Mapping[str, Float[np.ndarray, "N"]], *, revision: str | None = None
) -> None:
    """Copy a dataset into the new `folder`, with these columns as float32 features; value [i] is of dataset row i, NaN where unknown.

    Statistics are of the known values. DataError if the folder is there already, the dataset is not a v3.0 one, or has a feature of such a
    name, or a column has not as many values as there are rows, or none that is known.
    """
    files = find_files(folder_or_repo, revision)
    meta = read_metadata(files.root)
    _check(files, meta, columns)
    where = Path(folder).expanduser()
    where.parent.mkdir(parents=True, exist_ok=True)
    tables = {record.data for record in meta.episodes.values()}
    with atomic_folder(where) as part:
        for name in _names(files, meta):
            new = part / name
            new.parent.mkdir(parents=True, exist_ok=True)
            if name in tables:
                put_columns(files.path(name), new, {key: (pa.float32(), partial(_rows, column=column)) for key, column in columns.items()})
            elif not name.startswith("meta/"):
                _link(files.path(name), new, share=files.repo is None)
            elif not name.startswith("meta/episodes/"):
                shutil.copyfile(files.path(name), new)
        for path in sorted((files.root / "meta/episodes").glob("*/*.parquet")):
            new = part / path.relative_to(files.root)
            new.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(_with_statistics(read_parquet(path), columns, meta), new, compression="snappy")
        _describe(part / "meta/info.json", lambda info: info["features"].update({name: _feature() for name in columns}))
        if (part / "meta/stats.json").is_file():
            whole = {name: _lists(merge([one for one in _statistics(column, meta) if one])) for name, column in columns.items()}
            _describe(part / "meta/stats.json", lambda stats: stats.update(whole))


def _check(files: Files, meta: Metadata, columns: Mapping[str, np.ndarray]) -> None:
    if meta.version != "v3.0":
        raise DataError(f"{files.name} is a dataset of version {meta.version}; only v3.0 is copied, convert it first")
    if is_interrupted(files.root):
        raise DataError(f"{files.root}: annotating it was killed while it renamed files; run milepost annotate again first")
    if not columns:
        raise DataError("there is no column to add to the copy")
    rows = max(record.row + record.length for record in meta.episodes.values())
    for name, column in columns.items():
        if name in meta.features:
            raise DataError(
                f"{files.name} has a feature '{name}' already ({meta.features[name].get('dtype')}); there is nothing to add it as"
            )
        if len(column) != rows:
            raise DataError(f"column '{name}' has {len(column)} values, {files.name} has {rows} rows")
        if np.isnan(column).all():
            raise DataError(f"column '{name}' has no known value")
    depth = [name for name, feature in meta.features.items() if feature.get("dtype") == "video" and name not in meta.cameras]
    if files.repo is not None and depth:
        raise DataError(f"{files.name} has a depth video ('{depth[0]}'), which is not downloaded here: hf download it, and copy the folder")


def _names(files: Files, meta: Metadata) -> Iterator[str]:
    """The dataset's files, relative to it: all of a folder; of a Hub dataset meta/ and what the episodes need."""
    trees = TREES if files.repo is None else ("meta",)
    for tree in trees:
        found = sorted(path for path in (files.root / tree).rglob("*") if path.is_file() and not path.name.startswith("."))
        yield from (path.relative_to(files.root).as_posix() for path in found)
    if files.repo is not None:
        records = meta.episodes.values()
        yield from sorted({record.data for record in records} | {span.path for record in records for span in record.videos.values()})


def _link(source: Path, new: Path, *, share: bool) -> None:
    """The same file under another name, or a copy where that cannot be: another disk, or the Hub's cache, which is not ours."""
    if share:
        try:
            os.link(source.resolve(), new)
            return
        except OSError:
            pass  # whatever keeps a link from being made, a copy is as good
    shutil.copyfile(source, new)


def _rows(table: pa.Table, column: Float[np.ndarray, "N"]) -> Float[np.ndarray, "R"]:
    return column[table["index"].to_numpy()].astype(np.float32)


def _statistics(column: Float[np.ndarray, "N"], meta: Metadata, episodes: Sequence[int] | None = None) -> list[Stats | None]:
    """Of the known values of these episodes (all if None), one by one; None where there are none."""
    records = [meta.episodes[number] for number in (meta.episodes if episodes is None else episodes)]
    parts = [column[record.row : record.row + record.length] for record in records]
    return [column_stats(part[~np.isnan(part)]) if not np.isnan(part).all() else None for part in parts]


def _with_statistics(table: pa.Table, columns: Mapping[str, Float[np.ndarray, "N"]], meta: Metadata) -> pa.Table:
    """meta/episodes with each episode's statistics of the columns; null where nothing of it is known."""
    if not any(name.startswith("stats/") for name in table.column_names):
        return table
    for name, column in columns.items():
        stats = [one and _lists(one) for one in _statistics(column, meta, table["episode_index"].to_pylist())]
        for key in KEYS:
            kind = pa.list_(pa.int64() if key == "count" else pa.float64())
            table = table.append_column(f"stats/{name}/{key}", pa.array([one and one[key] for one in stats], kind))
    return table


def _lists(stats: Stats) -> dict[str, list[Any]]:
    return {key: value.tolist() for key, value in stats.items()}


def _feature() -> dict[str, Any]:
    return {"dtype": "float32", "shape": [1], "names": None}


def _describe(path: Path, change: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")
