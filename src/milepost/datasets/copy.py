"""Copies a LeRobot dataset with more columns for every frame (progress, weight, labels) or episode, with language rows, or new time stamps.

The source is never written to, and the copy appears complete or not at all. Videos become hard links where the file system allows it, else
copies. Data files are rewritten with the columns, and info.json and all statistics describe them. Links to folders are followed. The copy
leaves out files beside meta/, data/, videos/ and images/, and data files that no episode needs, because LeRobot opens every one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int, Shaped

from milepost.core import DataError, atomic_folder, count_noun, parse_json, read_json_object, read_text, real_path
from milepost.datasets.episode_columns import EpisodeColumns, add_episode_columns, require_episode_columns
from milepost.datasets.findings import Finding
from milepost.datasets.hub import Files
from milepost.datasets.language_cells import LANGUAGE_FEATURES, LanguageRows, language_columns, require_language, require_new_style
from milepost.datasets.origin import record_origin
from milepost.datasets.owned import require_elsewhere
from milepost.datasets.parquet import MadeColumns, put_columns, read_parquet, to_numpy
from milepost.datasets.reader import LeRobotDataset, open_dataset
from milepost.datasets.records import EpisodeRecord, Metadata
from milepost.datasets.rows import data_files
from milepost.datasets.statistics import KEYS, Stats, column_stats, merge
from milepost.datasets.transaction import is_interrupted
from milepost.datasets.validation import validate

TREES = ("meta", "data", "videos", "images")
STAMPS = "timestamp"
FATAL = ("columns", "column-types", "data-file", "no-frames", "episodes", "info")
"""Kinds of errors with which LeRobot does not open a dataset."""
VIDEO_CODES = ("video-file", "video-short", "video-more", "video-span", "video-overlap", "video-choice", "video-times")
"""Kinds of findings with which nobody knows which image a row has."""


@dataclass(frozen=True)
class Copied:
    """What is not in a copy, and what is wrong in it. left_out: unused data files. damage: episode -> its fault, in words."""

    left_out: list[str]
    damage: dict[int, str]


def copy_with_columns(
    folder_or_repo: str | Path,
    folder: str | Path,
    columns: Mapping[str, Shaped[np.ndarray, "N"]],
    *,
    episode_columns: EpisodeColumns | None = None,
    language: LanguageRows | None = None,
    restamp: bool = False,
    even_damaged: bool = False,
    revision: str | None = None,
) -> Copied:
    """Copies a dataset into the new `folder`, with these columns as features; value [i] is of dataset row i, NaN where unknown.

    A column of bools becomes a bool feature, any other one float32. episode_columns: columns of meta/episodes. language: rows to add to
    `language_persistent`. restamp: write frame / fps as every row's time stamp. Statistics are of the known values. With
    `even_damaged` nobody looks for damage.

    DataError if the folder is there already, the dataset has a feature of such a name or rows of such a style, a column has not as many
    values as there are rows or none that is known, or the dataset has damage that LeRobot would not open and is not to be copied
    `even_damaged`.
    """
    dataset = open_dataset(folder_or_repo, revision=revision)
    files, meta = dataset.files, dataset.meta
    _check(files, meta, columns, is_changed=restamp or language is not None or bool(episode_columns))
    require_episode_columns(episode_columns or {})
    if language is not None:
        require_language(files, meta, list(language.episodes))
        require_new_style(files, meta, language.style)
    damage = {} if even_damaged else require_sound(folder_or_repo, revision, restamp=restamp)
    added = dict(columns) | ({STAMPS: _stamps(meta)} if restamp else {})

    def columns_of(name: str, records: Sequence[EpisodeRecord]) -> MadeColumns:
        return {**_placed(records, added), **({} if language is None else language_columns(files.path(name), language))}

    def describe(part: Path) -> None:
        _write_meta(files, part, meta, added)
        add_features(part, LANGUAGE_FEATURES if language is not None else {})
        add_episode_columns(part, episode_columns or {})
        record_origin(part, dataset, is_part=False)

    return Copied(copy_files(files, meta, Path(folder), columns_of, describe), damage)


def copy_files(
    files: Files,
    meta: Metadata,
    folder: Path,
    columns_of: Callable[[str, Sequence[EpisodeRecord]], MadeColumns],
    describe: Callable[[Path], None],
) -> list[str]:
    """Copies a dataset into a new folder, with columns in its data files. Returns the data files that were left out.

    columns_of: from the name and the episodes of a data file, the columns to put into it, as `put_columns` takes them. describe: writes
    what is new into the copy's meta/. DataError if the folder is there already, or lies in the dataset or in the Hub's cache.
    """
    where = folder.expanduser().absolute()
    require_elsewhere(where, files.root)
    where.parent.mkdir(parents=True, exist_ok=True)
    tables = {record.data for record in meta.episodes.values() if record.data}
    left_out = sorted(set(data_files(files)) - tables)
    with atomic_folder(where) as part:
        for name in copied_names(files, meta):
            new = part / name
            if name in left_out:
                continue
            new.parent.mkdir(parents=True, exist_ok=True)
            if name in tables:
                records = [record for record in meta.episodes.values() if record.data == name]
                put_columns(files.path(name), new, columns_of(name, records))
            elif name.startswith("meta/"):
                shutil.copyfile(files.path(name), new)
            else:
                link_or_copy(files.path(name), new, hard_link=files.repo is None)
        describe(part)
    return left_out


def _placed(records: Sequence[EpisodeRecord], columns: Mapping[str, Shaped[np.ndarray, "R"]]) -> MadeColumns:
    """Returns the values of each column for the rows of one data file."""
    placing = Placing(records)
    return {
        key: (pa.bool_(), partial(placing.flags, column)) if column.dtype == bool else (pa.float32(), partial(placing.values, column))
        for key, column in columns.items()
    }


def add_features(part: Path, features: Mapping[str, Mapping[str, Any]]) -> None:
    """Adds features to meta/info.json of a copy; one that is there is replaced."""
    describe_json(part / "meta/info.json", lambda info: info["features"].update(features))


def changed_stamps(dataset: LeRobotDataset) -> tuple[int, float]:
    """Returns how many rows have a time stamp that is not frame / fps, and by how many seconds the worst is off."""
    count, worst = 0, 0.0
    for name in sorted({record.data for record in dataset.meta.episodes.values() if record.data}):
        table = read_parquet(dataset.files.path(name), [STAMPS, *(["episode_index"] if _has(dataset.files.path(name)) else [])])
        times = to_numpy(STAMPS, table[STAMPS])
        if times is None or times.size != len(times):
            return sum(record.length for record in dataset.meta.episodes.values()), np.inf
        placing = Placing([record for record in dataset.meta.episodes.values() if record.data == name])
        new = placing.values(_stamps(dataset.meta), table)
        off = np.abs(times.reshape(-1).astype(np.float64) - new)
        off = np.where(np.isnan(off) & ~np.isnan(new), np.inf, np.nan_to_num(off))
        count += int((off > 1e-6 + np.abs(np.nan_to_num(new)) * 2.0**-22).sum())
        worst = max(worst, float(off.max(initial=0.0)))
    return count, worst


def _has(path: Path) -> bool:
    return "episode_index" in pq.read_schema(path).names


def _check(files: Files, meta: Metadata, columns: Mapping[str, np.ndarray], *, is_changed: bool) -> None:
    if is_interrupted(files.root):
        raise DataError(f"{files.root}: annotating it was killed while it renamed files; run milepost annotate again first")
    if not columns and not is_changed:
        raise DataError("there is no column to add to the copy")
    rows = max(record.row + record.length for record in meta.episodes.values())
    for name, column in columns.items():
        if name in meta.features:
            dtype = meta.features[name].get("dtype")
            raise DataError(
                f"{files.name} has a feature '{name}' already ({dtype}), so it cannot be added: copy the dataset that this one was made of"
            )
        if len(column) != rows:
            raise DataError(f"column '{name}' has {len(column)} values, {files.name} has {rows} rows")
        if np.isnan(column).all():
            raise DataError(f"column '{name}' has no known value")
    depth = [name for name in meta.all_cameras if meta.features[name].get("dtype") == "video" and name not in meta.cameras]
    if files.repo is not None and depth:
        raise DataError(f"{files.name} has a depth video ('{depth[0]}'), which is not downloaded here: hf download it, and copy the folder")


def require_sound(
    folder_or_repo: str | Path, revision: str | None, *, restamp: bool, episodes: Collection[int] | None = None
) -> dict[int, str]:
    """Raises DataError for damage that LeRobot would not open; with `restamp`, also for videos that do not have one image a row. Returns
    what else is wrong with each episode, and stays wrong in a copy.

    episodes: those that count, all if None; what is wrong with no episode in particular always counts.
    """
    findings = [
        finding
        for finding in validate(folder_or_repo, quick=True, revision=revision).findings
        if episodes is None or finding.episode is None or finding.episode in episodes
    ]
    bad = [each for each in findings if (each.severity == "error" and each.code in FATAL) or (restamp and each.code in VIDEO_CODES)]
    if bad:
        why = (
            "time stamps by position would claim what is not so" if bad[0].code in VIDEO_CODES else "LeRobot would not open the copy either"
        )
        more = f" ({len(bad) - 1} more: milepost info lists them)" if len(bad) > 1 else ""
        raise DataError(f"{bad[0].message}{more}; {why}: repair it, or copy it as it is with milepost copy --even-damaged")
    return _first_faults([each for each in findings if each.severity == "error" and not (restamp and each.code == "timestamp")])


def _first_faults(errors: Sequence[Finding]) -> dict[int, str]:
    """Returns episode -> the first thing that is wrong with it, and how many more there are."""
    faults: dict[int, list[str]] = {}
    for each in errors:
        if each.episode is not None:
            faults.setdefault(each.episode, []).append(each.message)
    more = {number: f" ({count_noun(len(those) - 1, 'more fault')})" for number, those in faults.items() if len(those) > 1}
    return {number: those[0] + more.get(number, "") for number, those in sorted(faults.items())}


def copied_names(files: Files, meta: Metadata) -> Iterator[str]:
    """Returns the dataset's files, relative to it: all files of a folder; of a Hub dataset, meta/ and the files that the episodes need."""
    for tree in TREES if files.repo is None else ("meta",):
        yield from files.listed(tree)
    if files.repo is not None:
        records = meta.episodes.values()
        yield from sorted({record.data for record in records} | {span.path for record in records for span in record.videos.values()})


def link_or_copy(source: Path, new: Path, *, hard_link: bool) -> None:
    """Makes a hard link, or a copy where a link is impossible: on another disk, or from the Hub's cache, which is shared."""
    if hard_link:
        try:
            os.link(real_path(source), new)
            return
        except OSError:
            pass  # whatever keeps a link from being made, a copy is as good
    shutil.copyfile(source, new)


class Placing:
    """The dataset row of each row of a data file, row group by row group. Rows of no episode have none."""

    def __init__(self, records: Sequence[EpisodeRecord]) -> None:
        self._records = {record.index: record for record in records}
        self._seen = dict.fromkeys(self._records, 0)
        self._last: tuple[pa.Table | None, np.ndarray] = (None, np.empty(0, np.int64))

    def values(self, column: Float[np.ndarray, "R"], table: pa.Table) -> Float[np.ndarray, "N"]:
        """Returns the column's values of these rows, NaN for the rows of no episode."""
        rows = self.rows(table)
        out = np.full(len(rows), np.nan, np.float32)
        out[rows >= 0] = column[rows[rows >= 0]]
        return out

    def flags(self, column: Bool[np.ndarray, "R"], table: pa.Table) -> Bool[np.ndarray, "N"]:
        """Returns the column's values of these rows, False for the rows of no episode."""
        return self.values(column.astype(np.float32), table) == 1

    def rows(self, table: pa.Table) -> Int[np.ndarray, "N"]:
        """Returns the dataset row of each of these rows, -1 for the rows of no episode."""
        if self._last[0] is not table:  # several columns ask for the same rows
            self._last = (table, self._counted(table))
        return self._last[1]

    def _counted(self, table: pa.Table) -> Int[np.ndarray, "N"]:
        owner = to_numpy("episode_index", table["episode_index"]) if "episode_index" in table.column_names else None
        only = next(iter(self._records), -1)
        owner = np.full(table.num_rows, only) if owner is None else owner.reshape(-1)
        rows = np.full(table.num_rows, -1, np.int64)
        for episode_index, record in self._records.items():
            positions = np.flatnonzero(owner == episode_index)[: record.length - self._seen[episode_index]]
            rows[positions] = record.row + self._seen[episode_index] + np.arange(len(positions))
            self._seen[episode_index] += len(positions)
        return rows


def _stamps(meta: Metadata) -> Float[np.ndarray, "R"]:
    """Returns frame / fps by dataset row; NaN for rows of no episode."""
    out = np.full(max(record.row + record.length for record in meta.episodes.values()), np.nan)
    for record in meta.episodes.values():
        out[record.row : record.row + record.length] = np.arange(record.length) / meta.fps
    return out


def _write_meta(files: Files, part: Path, meta: Metadata, columns: Mapping[str, np.ndarray]) -> None:
    """Writes info.json and all statistics, with the new columns."""
    for name in files.listed("meta/episodes"):
        if not name.endswith(".parquet"):
            continue
        (part / name).unlink()
        if (table := read_parquet(files.path(name))).num_rows:
            pq.write_table(_with_statistics(table, columns, meta), part / name, compression="snappy")
    lines = part / "meta/episodes_stats.jsonl"
    if lines.is_file():
        lines.write_text(_lines_with_statistics(read_text(lines), columns, meta), encoding="utf-8")
    added = {name: _feature(column) for name, column in columns.items() if name not in meta.features}
    describe_json(part / "meta/info.json", lambda info: info["features"].update(added))
    if (part / "meta/stats.json").is_file():
        parts = {name: [one for one in _statistics(column, meta) if one] for name, column in columns.items()}
        whole = {name: as_lists(merge(parts_stats)) for name, parts_stats in parts.items() if parts_stats}
        describe_json(part / "meta/stats.json", lambda stats: stats.update(whole))


def _statistics(column: Shaped[np.ndarray, "N"], meta: Metadata, episodes: Sequence[int] | None = None) -> list[Stats | None]:
    """Returns the statistics of the known values of each of these episodes (of all if None); None where every value is unknown."""
    records = [meta.episodes.get(number) for number in (meta.episodes if episodes is None else episodes)]
    parts = [column[record.row : record.row + record.length] if record is not None else column[:0] for record in records]
    return [column_stats(part[~np.isnan(part)]) if not np.isnan(part).all() else None for part in parts]


def _with_statistics(table: pa.Table, columns: Mapping[str, Shaped[np.ndarray, "N"]], meta: Metadata) -> pa.Table:
    """Returns meta/episodes with each episode's statistics of the columns; null where all its values are unknown."""
    if not any(name.startswith("stats/") for name in table.column_names):
        return table
    for name, column in columns.items():
        stats = [one and as_lists(one) for one in _statistics(column, meta, table["episode_index"].to_pylist())]
        for key in KEYS:
            kind = pa.list_(pa.int64() if key == "count" else pa.float64())
            field, values = f"stats/{name}/{key}", pa.array([one and one[key] for one in stats], kind)
            place = table.schema.get_field_index(field)
            table = table.append_column(field, values) if place < 0 else table.set_column(place, field, values)
    return table


def _lines_with_statistics(text: str, columns: Mapping[str, Shaped[np.ndarray, "N"]], meta: Metadata) -> str:
    """Returns v2.1's episodes_stats.jsonl with each episode's statistics of the columns."""
    lines = []
    for line in text.split("\n"):
        if line.strip():
            entry = parse_json(line, source="meta/episodes.jsonl")
            for name, column in columns.items():
                if (stats := _statistics(column, meta, [entry.get("episode_index")])[0]) is not None:
                    entry.setdefault("stats", {})[name] = {key: as_lists(stats)[key] for key in ("min", "max", "mean", "std", "count")}
            lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
    return "".join(lines)


def as_lists(stats: Stats) -> dict[str, list[Any]]:
    """Returns statistics as lists, as meta/ has them."""
    return {key: value.tolist() for key, value in stats.items()}


def _feature(column: Shaped[np.ndarray, "R"]) -> dict[str, Any]:
    return {"dtype": "bool" if column.dtype == bool else "float32", "shape": [1], "names": None}


def describe_json(path: Path, change: Any) -> None:
    """Changes the object in a JSON file of a copy. change: gets the object and edits it."""
    content = read_json_object(path)
    change(content)
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")
