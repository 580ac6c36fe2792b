"""Progress and weights on disk: atomic files, labels that lose no work, and what made them written inside.

A progress file is LeRobot's (`index, episode_index, frame_index, progress_sparse[, progress_dense]`) plus our columns
(`raw_{head}` or `raw_{name}`, `stage_{head}_{k}`); its parquet metadata says which model, weights, config, dataset and code made it.
Nothing here overwrites a file of another kind, and no file is ever half-written.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from milepost.files import parse_json, read_json_object, require_plain_file, shown
from milepost.outputs import atomic_folder, atomic_path, remove_partial, require_writable, write_text
from milepost.types import DataError, Progress

PROGRESS_COLUMNS = ("index", "episode_index", "frame_index")
METADATA_PREFIX = "milepost."


@dataclass(frozen=True, eq=False)
class ProgressTable:
    """A progress file in memory: index, episode_index, frame_index (N,), by head ("sparse", "dense") the curve (N,) and the stage
    probabilities (N, K) if there are any, its metadata, and by name ("sparse", "logprob") what it has of the model's own numbers."""

    index: Int[np.ndarray, "N"]
    episode_index: Int[np.ndarray, "N"]
    frame_index: Int[np.ndarray, "N"]
    curves: Mapping[str, Float[np.ndarray, "N"]]
    stages: Mapping[str, Float[np.ndarray, "N K"]]
    metadata: Mapping[str, str]
    raws: Mapping[str, Float[np.ndarray, "N"]] = field(default_factory=dict)

    def curve(self, head: str = "sparse") -> Float[np.ndarray, "N"]:
        """The curve of that head; DataError names the columns there are."""
        if head not in self.curves:
            raise DataError(
                f"no column 'progress_{head}' in the progress file; it has: {', '.join(f'progress_{name}' for name in self.curves)}"
            )
        return self.curves[head]

    def episode(self, number: int, length: int, head: str = "sparse") -> Float[np.ndarray, "T"]:
        """One episode's curve (T,) float32 by frame number, NaN where the file has no row."""
        return self._placed(self.curve(head), number, length)

    def _placed(self, column: Float[np.ndarray, "N"], number: int, length: int) -> Float[np.ndarray, "T"]:
        rows = self.episode_index == number
        out = np.full(length, np.nan, dtype=np.float32)
        frames = self.frame_index[rows]
        if frames.size and frames.max() >= length:
            raise DataError(f"the progress file has frame {frames.max()} of episode {number}, which has {length} frames: wrong dataset?")
        out[frames] = column[rows]
        return out

    def progress(self, number: int, length: int, head: str = "sparse") -> Progress:
        """One episode by one head: its curve, and the stage probabilities and raw numbers if the file has them."""
        value, stage = self.episode(number, length, head), None
        named = {name: self._placed(column, number, length) for name, column in self.raws.items() if name not in self.curves}
        raw = self._placed(self.raws[head], number, length) if head in self.raws else next(iter(named.values()), None)
        if head in self.stages:
            rows = self.episode_index == number
            stage = np.full((length, self.stages[head].shape[1]), np.nan, dtype=np.float32)
            stage[self.frame_index[rows]] = self.stages[head][rows]
        return Progress(number, value, raw, stage, raws=named)


_REPEATED = 4
"""Rows a byte (from a megabyte on) that no file with an ascending index has: it would unpack to gigabytes."""


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Returns a parquet file's columns, all if None. DataError if it is missing, no plain file or unreadable."""
    if not path.exists():
        raise DataError(f"no such file: {path}")
    size = require_plain_file(path)
    try:
        with pq.ParquetFile(path.absolute()) as file:
            if file.metadata.num_rows > _REPEATED * max(size, 2**20):
                raise DataError(
                    f"{path} has {file.metadata.num_rows} rows in {size} bytes: they all repeat each other, so it is no such file"
                )
            names = file.schema_arrow.names
            if doubled := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
                raise DataError(
                    f"{path} has the column {shown(doubled[0])} {names.count(doubled[0])} times; which one is meant is not known"
                )
            return file.read(columns=columns)
    except (pa.ArrowInvalid, pa.ArrowTypeError, IsADirectoryError, OSError) as error:
        raise DataError(f"cannot read {path} as parquet: {str(error).splitlines()[0]}") from error


def read_progress(path: Path) -> ProgressTable:
    """Returns a progress file written by us, by LeRobot or by others; rows that stand in it twice are taken once.

    DataError if a needed column is missing, its rows contradict each other, or progress is not in [0, 1] (or NaN, unknown).
    """
    table = read_table(path)
    missing = [name for name in PROGRESS_COLUMNS if name not in table.column_names]
    curves = {name.removeprefix("progress_"): name for name in table.column_names if name.startswith("progress_")}
    if missing or not curves:
        raise DataError(f"{path} is no progress file: missing {', '.join(missing) or 'progress_*'}; it has {', '.join(table.column_names)}")
    stages = {head: [name for name in table.column_names if name.startswith(f"stage_{head}_")] for head in curves}
    if len(table) == 0:
        raise DataError(f"{path} has no rows: nothing is labelled in it")
    table = _sound(path, table, list(curves.values()))
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items() if key != b"ARROW:schema"}
    return ProgressTable(
        index=_numpy(path, table, "index", np.int64),
        episode_index=_numpy(path, table, "episode_index", np.int64),
        frame_index=_numpy(path, table, "frame_index", np.int64),
        curves={head: np.clip(_numpy(path, table, name, np.float32), 0, 1) for head, name in curves.items()},
        stages={h: np.stack([_numpy(path, table, name, np.float32) for name in names], axis=1) for h, names in stages.items() if names},
        metadata=metadata,
        raws={name.removeprefix("raw_"): _numpy(path, table, name, np.float32) for name in table.column_names if name.startswith("raw_")},
    )


def _sound(path: Path, table: pa.Table, curves: Sequence[str]) -> pa.Table:
    """The rows, each once, if they do not contradict themselves; the one check for all verbs."""
    keys = {name: _numpy(path, table, name, np.int64) for name in PROGRESS_COLUMNS}
    values = {name: _numpy(path, table, name, np.float32) for name in curves}
    index = keys["index"]
    for name, column in values.items():
        strange = ~(np.isnan(column) | ((column >= -_ROUNDING) & (column <= 1 + _ROUNDING)))
        if strange.any():
            raise DataError(
                f"{path}: '{name}' is progress, from 0 to 1 or NaN, but {int(strange.sum())} rows are not, first {column[strange][0]:g} at "
                f"index {index[strange][0]}"
            )
    _, first, where = np.unique(index, return_index=True, return_inverse=True)
    for name, column in (keys | values).items():
        other = column != column[first][where]
        other &= ~(np.isnan(column) & np.isnan(column[first][where]))
        if other.any():
            raise DataError(f"{path}: row {index[other][0]} stands in it twice, with different values of '{name}'; make the file again")
    _require_one_start(path, *keys.values())
    return table if len(first) == len(index) else table.take(pa.array(np.sort(first)))


def _require_one_start(path: Path, index: Int[np.ndarray, "N"], episode: Int[np.ndarray, "N"], frame: Int[np.ndarray, "N"]) -> None:
    """Every row of an episode says the same of the dataset row at which the episode starts."""
    order = np.argsort(episode, kind="stable")
    start = (index - frame)[order]
    other = np.flatnonzero((np.diff(episode[order]) == 0) & (np.diff(start) != 0))
    if len(other):
        at = order[other[0] + 1]
        raise DataError(
            f"{path}: index {index[at]} says frame {frame[at]} of episode {episode[at]}, which its other rows contradict; the rows are of "
            "several datasets, or were changed"
        )


_ROUNDING = 1e-5


def _is_whole(column: pa.ChunkedArray) -> bool:
    values = column.to_numpy()
    return bool(np.isfinite(values).all() and (np.abs(values) < 2**53).all() and (values == np.floor(values)).all())


def _numpy(path: Path, table: pa.Table, name: str, dtype: type) -> np.ndarray:
    column = table.column(name)
    whole = np.issubdtype(dtype, np.integer)
    if whole and pa.types.is_floating(column.type) and not column.null_count and _is_whole(column):
        column = column.cast(pa.int64())  # other tools keep whole numbers as doubles
    if not (pa.types.is_integer(column.type) or (pa.types.is_floating(column.type) and not whole)):
        raise DataError(f"{path}: column '{name}' should hold {'whole ' if whole else ''}numbers, it is {column.type}")
    if column.null_count and whole:
        raise DataError(f"{path}: column '{name}' has {column.null_count} missing values")
    return column.to_numpy(zero_copy_only=False).astype(dtype)


def progress_table(progress: Progress, row: int) -> pa.Table:
    """One episode as rows of a progress file; `row` is the dataset row of its first frame."""
    length = len(progress)
    columns: dict[str, pa.Array] = {
        "index": pa.array(np.arange(row, row + length), pa.int64()),
        "episode_index": pa.array(np.full(length, progress.episode), pa.int64()),
        "frame_index": pa.array(np.arange(length), pa.int64()),
    }
    heads = {"sparse": progress} | ({"dense": progress.dense} if progress.dense is not None else {})
    columns |= {f"progress_{head}": pa.array(curve.value, pa.float32()) for head, curve in heads.items()}
    for head, curve in heads.items():
        raws = curve.raws or ({head: curve.raw} if curve.raw is not None else {})
        columns |= {f"raw_{name}": pa.array(raw.astype(np.float32), pa.float32()) for name, raw in raws.items()}
        if curve.stage is not None:
            columns |= {f"stage_{head}_{k}": pa.array(each.astype(np.float32), pa.float32()) for k, each in enumerate(curve.stage.T)}
    return pa.table(columns)


def unfinished(path: Path) -> dict[str, str]:
    """Returns the provenance of an unfinished run of the progress file at `path` that has labelled an episode; empty if there is none."""
    folder = _partial(path)
    if not (folder / _MARK).is_file() or not any(folder.glob("*.parquet")):
        return {}
    return unfinished_provenance(folder / _MARK)


def unfinished_provenance(mark: Path) -> dict[str, str]:
    """Returns what an unfinished run says of its making."""
    return {str(key): str(value) for key, value in read_json_object(mark, what="provenance").items()}


def made_alike(there: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Returns whether episodes labelled by the one provenance are as the other would label them."""
    return comparable(there, now) == comparable(now, now)


def comparable(there: Mapping[str, str], now: Mapping[str, str]) -> dict[str, Any]:
    """Returns a provenance without what changes no episode that is labelled: the code's version, which episodes were asked for, and an
    instruction for episodes without one that is new `now` (without it they were left unknown)."""
    settings, config, config_now = (
        parse_json(text or "{}", source="the file's provenance") for text in (there.get("settings"), there.get("config"), now.get("config"))
    )
    if isinstance(settings, dict):
        settings.pop("episodes", None)
    if isinstance(config, dict) and isinstance(config_now, dict) and config.get("default_task", 0) is None:
        config["default_task"] = config_now.get("default_task")
    return {**{key: value for key, value in there.items() if key != "milepost_version"}, "settings": settings, "config": config}


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


_MARK = "provenance.json"
_KEEP_S, _KEEP_FRAMES = 2.0, 1_000_000
"""Seconds of work, and frames, that are at most lost by a kill: a part of their own for each short episode cost more than labelling it."""


class ProgressStore:
    """A progress file in the making: what is labelled lands on disk within seconds, `finish` joins it. Interrupted work is found again.

    The unfinished parts live beside the file in `<file>.partial/`, marked with `provenance`; parts made by another model,
    dataset or setting are removed, never mixed in. A folder of that name without our mark is refused. The caller holds the file's
    `output_lock`: a store has one writer.
    """

    def __init__(self, path: Path, provenance: Mapping[str, str], *, anew: bool = False) -> None:
        self.path = Path(path)
        self.provenance = dict(provenance)
        self.folder = _partial(self.path)
        mark = self.folder / _MARK
        if self.folder.is_dir() and any(self.folder.iterdir()) and (anew or self._is_foreign(mark)):
            remove_partial(self.folder, _MARK)
        if not mark.is_file():
            if self.folder.is_dir():
                self.folder.rmdir()
            with atomic_folder(self.folder) as part:  # it is never there without its mark
                (part / _MARK).write_text(json.dumps(self.provenance), encoding="utf-8")
        require_writable(self.folder)
        if unfinished_provenance(mark) != self.provenance:
            write_text(mark, json.dumps(self.provenance))
        self._done = {int(n) for part in self._parts() for n in read_table(part, ["episode_index"])["episode_index"].unique().to_pylist()}
        self._waiting: list[pa.Table] = []
        self._waiting_frames = 0
        self._kept_at = time.monotonic()

    def _is_foreign(self, mark: Path) -> bool:
        return not mark.is_file() or not made_alike(unfinished_provenance(mark), self.provenance)

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("*.parquet"))

    def has(self, episode: int) -> bool:
        """Returns whether this episode is already labelled by the same model and settings."""
        return episode in self._done

    @property
    def holds_any(self) -> bool:
        """Whether any episode is labelled."""
        return bool(self._done)

    def adopt(self, there: ProgressTable) -> None:
        """Takes over what a finished file of the same model and settings knows: its episodes without unknown frames, not labelled here yet.

        A file made otherwise is left alone.
        """
        made = {key.removeprefix(METADATA_PREFIX): value for key, value in there.metadata.items() if key.startswith(METADATA_PREFIX)}
        if not made_alike(made, self.provenance):
            return
        table = read_table(self.path)
        bad = np.logical_or.reduce([np.isnan(curve) for curve in there.curves.values()])
        keep = ~np.isin(there.episode_index, [*np.unique(there.episode_index[bad]), *self._done])
        if keep.any():
            self._add(table.filter(pa.array(keep)).replace_schema_metadata(None), set(there.episode_index[keep].tolist()))

    def add(self, progress: Progress, row: int) -> None:
        """Adds one episode's progress; it is on disk within `_KEEP_S` seconds of work, and when `keep` is called."""
        self._add(progress_table(progress, row), {progress.episode})
        if time.monotonic() - self._kept_at > _KEEP_S or self._waiting_frames > _KEEP_FRAMES:
            self.keep()

    def _add(self, rows: pa.Table, episodes: set[int]) -> None:
        self._waiting.append(rows)
        self._waiting_frames += len(rows)
        self._done |= episodes

    def keep(self) -> None:
        """Writes what was added since the last time to disk, as one part."""
        self._kept_at = time.monotonic()
        if not self._waiting:
            return
        table = _joined(self._waiting)
        first = int(table["episode_index"][0].as_py())
        with atomic_path(self.folder / f"episodes-{first:06d}-{secrets.token_hex(4)}.parquet") as temporary:
            pq.write_table(table, temporary)
        self._waiting, self._waiting_frames = [], 0

    def finish(self) -> ProgressTable:
        """Joins the parts, sorted by index, into the progress file, and removes them."""
        parts = [*map(read_table, self._parts()), *self._waiting]
        if not parts:
            shutil.rmtree(self.folder)
            raise DataError("no episode was labelled: there is nothing to write")
        table = _joined(parts).sort_by("index")
        metadata = {f"{METADATA_PREFIX}{key}": value for key, value in self.provenance.items()}
        metadata["reward_model_path"] = self.provenance.get("model_path", "")
        with atomic_path(self.path) as temporary:
            pq.write_table(table.replace_schema_metadata(metadata), temporary)
        shutil.rmtree(self.folder)
        return read_progress(self.path)

    def close(self) -> None:
        """Keeps what was added; a folder in which nothing was ever kept is removed."""
        if self.folder.is_dir():
            self.keep()
            if not self._parts():
                shutil.rmtree(self.folder)


def _joined(parts: Sequence[pa.Table]) -> pa.Table:
    """One table with the columns of all parts in the order of a progress file; a column that a part lacks is null there."""
    table = pa.concat_tables(parts, promote_options="default")
    order = {name: place for place, name in enumerate(("index", "episode_index", "frame_index", "progress_sparse", "progress_dense"))}
    return table.select(sorted(table.column_names, key=lambda name: order.get(name, len(order))))


def write_weights(path: Path, index: Int[np.ndarray, "N"], weight: Float[np.ndarray, "N"], metadata: Mapping[str, str]) -> None:
    """`index` int64 and `weight` float32, and how they were made."""
    table = pa.table({"index": pa.array(index, pa.int64()), "weight": pa.array(weight, pa.float32())})
    labelled = table.replace_schema_metadata({f"{METADATA_PREFIX}{key}": value for key, value in metadata.items()})
    with atomic_path(path) as temporary:
        pq.write_table(labelled, temporary)


def read_weights(path: Path) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "N"], dict[str, str]]:
    """(index, weight, metadata without our prefix) of a weights file. DataError if it is none or a weight is no number from 0 on."""
    table = read_table(path)
    if missing := [name for name in ("index", "weight") if name not in table.column_names]:
        raise DataError(f"{path} is no weights file: missing {', '.join(missing)}; it has {', '.join(table.column_names)}")
    index, weight = _numpy(path, table, "index", np.int64), _numpy(path, table, "weight", np.float32)
    fine = np.isfinite(weight) & (weight >= 0)
    if not fine.all():
        raise DataError(f"{path}: {int((~fine).sum())} weights are missing, NaN, infinite or below 0; make it again with milepost weigh")
    metadata = {key.decode().removeprefix(METADATA_PREFIX): value.decode() for key, value in (table.schema.metadata or {}).items()}
    return index, weight, metadata


def is_weights_file(path: Path) -> bool:
    """Was this file written by `write_weights`? False for a file of another kind, a progress file of ours included."""
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError):
        return False
    return schema.names == ["index", "weight"] and any(key.startswith(METADATA_PREFIX.encode()) for key in schema.metadata or {})
