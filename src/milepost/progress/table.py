"""A progress file in memory: the same heads, curves and signals as a model's `Progress`, for all rows of a dataset.

The columns are LeRobot's (`index, episode_index, frame_index, progress_{head}`) and ours: `raw_{head}` for a head's signal "raw",
`raw_{name}` for another signal of the main head, `raw_{head}_{name}` for one of another head, `stage_{head}_{k}` for stage k. The metadata
of a column has the unit, bounds and direction of a signal, or the name of a stage. A null means that the model has no such output for the
episode; NaN means that the value is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int, Shaped

from milepost.core import MAIN_HEAD, RAW, Brief, Curve, DataError, Progress, Signal, count_noun, parse_json, require_parquet_format
from milepost.datasets import numbers_of, read_table

PROGRESS_COLUMNS = ("index", "episode_index", "frame_index")
METADATA_PREFIX = "milepost."
_SCORES = ("logprob",)
"""Signals that progress was scaled from, in files whose columns have no `score` in their metadata."""
_ROUNDING = 1e-5
"""Progress may be this far outside [0, 1], by rounding in the tool that wrote it; it is clipped then."""


@dataclass(frozen=True, eq=False, repr=False)
class ProgressTable(Brief):
    """A progress file in memory.

    index, episode_index, frame_index: (N,). heads: name ("sparse", "dense") -> its curve over the N rows. metadata: the file's metadata.
    absent: column -> the rows (N,) in which it is null, for columns with a null.
    """

    index: Int[np.ndarray, "N"]
    episode_index: Int[np.ndarray, "N"]
    frame_index: Int[np.ndarray, "N"]
    heads: Mapping[str, Curve]
    metadata: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, Bool[np.ndarray, "N"]] = field(default_factory=dict)

    @property
    def made_by(self) -> dict[str, str]:
        """Returns the provenance in our own metadata, without the prefix of its keys."""
        return {key.removeprefix(METADATA_PREFIX): value for key, value in self.metadata.items() if key.startswith(METADATA_PREFIX)}

    @property
    def name(self) -> str:
        """Returns what the model is called in legends: the last part of its path, else its kind; "progress" if the file does not say."""
        path, kind = (self.made_by.get(key, "") for key in ("model_path", "model_type"))
        return Path(path).name or kind.removesuffix("Model").lower() or "progress"

    @property
    def main(self) -> Curve:
        """Returns the curve of the first head, over the N rows."""
        return next(iter(self.heads.values()))

    def head(self, name: str) -> Curve:
        """Returns the curve of a head over the N rows. Raises DataError, which lists the columns, if there is no such head."""
        if name not in self.heads:
            columns = ", ".join(f"progress_{head}" for head in self.heads)
            raise DataError(f"no column 'progress_{name}' in the progress file; it has: {columns}")
        return self.heads[name]

    def values(self, head: str = MAIN_HEAD) -> Float[np.ndarray, "N"]:
        """Returns the progress of a head, (N,). Raises DataError, which lists the columns, if there is no such head."""
        return self.head(head).value

    def episode(self, episode_index: int, length: int, head: str = MAIN_HEAD) -> Float[np.ndarray, "T"]:
        """Returns one episode's progress (T,) float32 by frame, NaN where the file has no row."""
        return self._placed(self.values(head), self.episode_index == episode_index, episode_index, length)

    def progress(self, episode_index: int, length: int) -> Progress:
        """Returns the model's output for one episode, equal to what it returned; NaN for frames without a row in the file."""
        rows = self.episode_index == episode_index
        main = next(iter(self.heads))
        names = [name for name in self.heads if name == main or self._has(f"progress_{name}", rows)]
        return Progress(episode_index, {name: self.curve(episode_index, length, name) for name in names})

    def curve(self, episode_index: int, length: int, head: str = MAIN_HEAD) -> Curve:
        """Returns one head's curve of one episode, NaN where unknown. Raises DataError, which lists the heads, if there is no such head."""
        rows, curve = self.episode_index == episode_index, self.head(head)
        signals = {
            name: signal.with_values(self._placed(signal.values, rows, episode_index, length))
            for name, signal in curve.signals.items()
            if self._has(_column_of(head, name, main=head == next(iter(self.heads))), rows)
        }
        has_stages = curve.stage is not None and self._has(f"stage_{head}_0", rows)
        return Curve(
            self._placed(curve.value, rows, episode_index, length),
            self._placed(curve.stage, rows, episode_index, length) if has_stages and curve.stage is not None else None,
            curve.stage_names if has_stages else (),
            signals,
            curve.score if curve.score in signals else "",
        )

    def _has(self, column: str, rows: Bool[np.ndarray, "N"]) -> bool:
        return column not in self.absent or not self.absent[column][rows].all()

    def _placed(
        self, values: Shaped[np.ndarray, "N *K"], rows: Bool[np.ndarray, "N"], episode_index: int, length: int
    ) -> Shaped[np.ndarray, "T *K"]:
        """Returns an episode's rows of a column by frame."""
        out = np.full((length, *values.shape[1:]), np.nan, dtype=np.float32)
        frames = self.frame_index[rows]
        if frames.size and frames.max() >= length:
            raise DataError(
                f"the progress file has frame {frames.max()} of episode {episode_index}, which has {count_noun(length, 'frame')}: "
                "wrong dataset?"
            )
        out[frames] = values[rows]
        return out


def _column_of(head: str, signal: str, *, main: bool) -> str:
    """Returns the column of a signal."""
    if signal == RAW:
        return f"raw_{head}"
    return f"raw_{signal}" if main else f"raw_{head}_{signal}"


# Reading


def read_progress(path: Path | str, episodes: tuple[int, int] | None = None) -> ProgressTable:
    """Returns a progress file written by milepost, LeRobot or others. A row that is in the file twice counts once.

    episodes: the first and the last that are needed; where the file says in which of its parts they are, the other parts are not read.
    Raises DataError if a needed column is missing, if rows contradict each other, or if progress is not in [0, 1] (or NaN, unknown).

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> table = milepost.read_progress("dots/elapsed_progress.parquet")
    >>> sorted(table.heads), table.curve(0, 33).value[-1].item()
    (['sparse'], 1.0)
    """
    path = Path(path)
    table = read_table(path, episodes=episodes)
    require_parquet_format(table.schema.metadata, path)
    missing = [name for name in PROGRESS_COLUMNS if name not in table.column_names]
    heads = [name.removeprefix("progress_") for name in table.column_names if name.startswith("progress_")]
    if missing or not heads:
        raise DataError(f"{path} is no progress file: missing {', '.join(missing) or 'progress_*'}; it has {', '.join(table.column_names)}")
    if len(table) == 0:
        raise DataError(f"{path} has no rows: nothing is labelled in it")
    table, keys = _sound(path, table, heads)
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items() if key != b"ARROW:schema"}
    signals = _signals(path, table, heads)
    config = parse_json(metadata.get(f"{METADATA_PREFIX}config") or "{}", source=f"{path}, its metadata: label again; the model's config")
    curves = {head: _read_curve(path, table, head, signals.get(head, {}), config) for head in heads}
    nullable = [name for name in table.column_names if name.startswith(("progress_", "raw_", "stage_")) and table.column(name).null_count]
    absent = {name: table.column(name).is_null().to_numpy() for name in nullable}
    return ProgressTable(**keys, heads=curves, metadata=metadata, absent=absent)


def _read_curve(path: Path, table: pa.Table, head: str, signals: Mapping[str, tuple[Signal, bool]], config: object) -> Curve:
    stages = [name for name in table.column_names if name.startswith(f"stage_{head}_")]
    score = next((name for name, (_, is_score) in signals.items() if is_score), "")
    return Curve(
        np.clip(numbers_of(path, table, f"progress_{head}", np.float32), 0, 1),
        np.stack([numbers_of(path, table, name, np.float32) for name in stages], axis=1) if stages else None,
        _stage_names(table, head, stages, config),
        {name: signal for name, (signal, _) in signals.items()},
        score,
    )


def _stage_names(table: pa.Table, head: str, columns: Sequence[str], config: object) -> tuple[str, ...]:
    """Returns the names of a head's stages: from the columns, else from the config in the file's metadata, else none."""
    column_names = [(table.schema.field(name).metadata or {}).get(b"milepost.stage", b"").decode() for name in columns]
    if all(column_names):
        return tuple(column_names)
    names = config.get(f"{head}_subtask_names") if isinstance(config, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) and len(names) == len(columns) else ()


def _signals(path: Path, table: pa.Table, heads: Sequence[str]) -> dict[str, dict[str, tuple[Signal, bool]]]:
    """Returns head -> name -> (signal, whether progress was scaled from it)."""
    signals_of_heads: dict[str, dict[str, tuple[Signal, bool]]] = {}
    for column in [name for name in table.column_names if name.startswith("raw_")]:
        about = {
            key.decode().removeprefix(METADATA_PREFIX): value.decode() for key, value in (table.schema.field(column).metadata or {}).items()
        }
        suffix = column.removeprefix("raw_")
        head, name = (suffix, RAW) if suffix in heads else (heads[0], suffix)
        head, name = about.get("head", head), about.get("signal", name)
        values = numbers_of(path, table, column, np.float32)
        signal = Signal(
            values,
            about.get("unit", ""),
            _bound(about, "low", -math.inf),
            _bound(about, "high", math.inf),
            about.get("rises", "true") == "true",
        )
        score = about["score"] == "true" if "score" in about else name in _SCORES
        signals_of_heads.setdefault(head if head in heads else heads[0], {})[name] = (signal, score)
    return signals_of_heads


def _bound(about: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(about.get(name, default))
    except ValueError:
        return default


def _sound(path: Path, table: pa.Table, heads: Sequence[str]) -> tuple[pa.Table, dict[str, np.ndarray]]:
    """Returns the rows, each once, if they do not contradict each other; and their numbers, by column: the one check for all verbs."""
    keys = {name: numbers_of(path, table, name, np.int64) for name in PROGRESS_COLUMNS}
    table = table.drop_columns(list(keys))  # they need half of the memory
    index = keys["index"]
    for name in (f"progress_{head}" for head in heads):
        column = numbers_of(path, table, name, np.float32)
        is_outside = ~(np.isnan(column) | ((column >= -_ROUNDING) & (column <= 1 + _ROUNDING)))
        if is_outside.any():
            raise DataError(
                f"{path}: '{name}' is progress, from 0 to 1 or NaN, but {int(is_outside.sum())} rows are not, first "
                f"{column[is_outside][0]:g} at index {index[is_outside][0]}"
            )
    if not (index[1:] > index[:-1]).all():
        first = _first_rows(path, table, keys, heads)
        table, keys = table.take(pa.array(first)), {name: column[first] for name, column in keys.items()}
    _require_one_start(path, *keys.values())
    return table, keys


def _first_rows(path: Path, table: pa.Table, keys: Mapping[str, np.ndarray], heads: Sequence[str]) -> Int[np.ndarray, "M"]:
    """Returns the first row of each index, in the order of the file. DataError if another row of this index says something else."""
    index = keys["index"]
    _, first, inverse = np.unique(index, return_index=True, return_inverse=True)
    values = {name: numbers_of(path, table, name, np.float32) for name in (f"progress_{head}" for head in heads)}
    for name, column in (dict(keys) | values).items():
        differs = column != column[first][inverse]
        differs &= ~(np.isnan(column) & np.isnan(column[first][inverse]))
        if differs.any():
            raise DataError(f"{path}: row {index[differs][0]} stands in it twice, with different values of '{name}'; make the file again")
    return np.sort(first)


def _require_one_start(path: Path, index: Int[np.ndarray, "N"], episode: Int[np.ndarray, "N"], frame: Int[np.ndarray, "N"]) -> None:
    """Raises DataError unless all rows of an episode imply the same dataset row for its first frame."""
    start = index - frame
    if not (episode[1:] >= episode[:-1]).all():
        order = np.argsort(episode, kind="stable")
        start, episode, index, frame = start[order], episode[order], index[order], frame[order]
    contradictions = np.flatnonzero((episode[1:] == episode[:-1]) & (start[1:] != start[:-1]))
    if len(contradictions):
        at = contradictions[0] + 1
        raise DataError(
            f"{path}: index {index[at]} says frame {frame[at]} of episode {episode[at]}, which its other rows contradict; the rows are of "
            "several datasets, or were changed"
        )


# Writing


def progress_rows(progress: Progress, row: int) -> pa.Table:
    """Returns one episode as rows of a progress file; `row` is the dataset row of its first frame."""
    length = len(progress)
    numbers = {
        "index": np.arange(row, row + length),
        "episode_index": np.full(length, progress.episode),
        "frame_index": np.arange(length),
    }
    fields = [pa.field(name, pa.int64()) for name in numbers]
    columns: list[np.ndarray] = list(numbers.values())
    fields += [pa.field(f"progress_{head}", pa.float32()) for head in progress.heads]
    columns += [curve.value for curve in progress.heads.values()]
    main = next(iter(progress.heads))
    for head, curve in progress.heads.items():
        for name, signal in curve.signals.items():
            about = _about(signal) | {"head": head, "signal": name, "score": str(name == curve.score).lower()}
            fields.append(pa.field(_column_of(head, name, main=head == main), pa.float32(), metadata=_prefixed(about)))
            columns.append(signal.values)
        for k in range(0 if curve.stage is None else curve.stage.shape[1]):
            about = {"stage": curve.stage_names[k]} if curve.stage_names else {}
            fields.append(pa.field(f"stage_{head}_{k}", pa.float32(), metadata=_prefixed(about)))
            columns.append(curve.stage[:, k])  # type: ignore[index]
    names = [each.name for each in fields]
    if duplicates := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise DataError(f"two of the model's numbers would be in the column '{duplicates[0]}'; give one of its signals another name")
    arrays = [
        pa.array(column.astype(np.float32) if pa.types.is_floating(f.type) else column, f.type)
        for column, f in zip(columns, fields, strict=True)
    ]
    return pa.table(arrays, schema=pa.schema(fields))


def _about(signal: Signal) -> dict[str, str]:
    """Returns the metadata of a signal's column."""
    return {"unit": signal.unit, "low": str(signal.low), "high": str(signal.high), "rises": str(signal.rises).lower()}


def _prefixed(about: Mapping[str, str]) -> dict[str, str] | None:
    return {f"{METADATA_PREFIX}{key}": value for key, value in about.items()} or None


def unknown_frames(table: ProgressTable) -> dict[int, int]:
    """Returns episode_index -> the number of its frames without progress (NaN)."""
    is_unknown = np.isnan(table.main.value)
    episode_indices, counts = np.unique(table.episode_index[is_unknown], return_counts=True)
    return {int(episode_index): int(count) for episode_index, count in zip(episode_indices, counts, strict=True)}
