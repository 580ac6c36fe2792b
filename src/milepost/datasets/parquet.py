"""Reads a dataset's parquet files: their footers, and an episode's rows without those of its neighbours.

A reader keeps the row groups of one episode at most, so a pass over a dataset in order reads each group once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from milepost.core import DataError, require_plain_file, shown

MOST_ROWS = 20_000_000
"""Rows read at once. Equal rows take no room in a file, and all of theirs in memory; a day at 100 frames a second has half as many."""


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Returns the table of a parquet file. Raises DataError, which names the file, if it is missing or damaged."""
    with open_parquet(path) as file:
        return guarded(path, lambda: file.read(columns=columns))


def open_parquet(path: Path) -> pq.ParquetFile:
    """Opens a parquet file and reads its footer. Raises DataError, which names the file, if it is missing or damaged."""
    if not path.exists():
        raise DataError(f"parquet file {path} is missing; copy or download the dataset again")
    if not require_plain_file(path, what="parquet file"):
        raise DataError(f"parquet file {path} is empty: whoever wrote it was stopped; copy or download it again")
    file: pq.ParquetFile = guarded(path, lambda: pq.ParquetFile(path.absolute()))
    names = guarded(path, lambda: file.schema_arrow.names)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"parquet file {path} has two columns of the name {shown(twice[0])}; write it again with one of them")
    return file


def null_images(path: Path, column: str) -> tuple[int, int | None]:
    """Returns how many rows of a data file have no image in this column, and the first one's episode; by its statistics where they say.

    An image is bytes, or a name, or a struct of both; a cell is empty if neither is there. Only groups whose statistics count nulls in all
    parts are read.
    """
    count, episode = 0, None
    with open_parquet(path) as file:
        for group in range(file.metadata.num_row_groups):
            statistics = file.metadata.row_group(group)
            parts = [statistics.column(place) for place in range(statistics.num_columns)]
            parts = [part for part in parts if part.path_in_schema in (column, f"{column}.bytes", f"{column}.path")]
            if not parts or not all(part.statistics is not None and part.statistics.null_count for part in parts):
                continue
            names = [column, *({"episode_index"} & set(file.schema_arrow.names))]
            table = guarded(path, partial(file.read_row_group, group, names))
            cells = table[column].combine_chunks()
            fields = (
                [pc.struct_field(cells, place) for place in range(cells.type.num_fields)] if pa.types.is_struct(cells.type) else [cells]
            )
            empty = np.logical_and.reduce([pc.is_null(each).to_numpy(zero_copy_only=False) for each in fields])
            if episode is None and empty.any() and "episode_index" in table.column_names:
                number = table["episode_index"][int(np.argmax(empty))].as_py()
                episode = int(number) if isinstance(number, int | float) else None
            count += int(empty.sum())
    return count, episode


def guarded(path: Path, function: Callable[[], Any]) -> Any:
    """Returns the result of `function`. Arrow's errors become one DataError that names the file."""
    try:
        return function()
    except (pa.ArrowException, OSError) as error:
        reason = shown((str(error).strip() or type(error).__name__).splitlines()[0], 160)[1:-1]
        raise DataError(f"parquet file {path} is damaged or truncated ({reason}); copy or download it again") from error


def numbered_words(kind: str, words: Sequence[str]) -> pa.Table:
    """Returns one of LeRobot's tables of words (`task` in meta/tasks.parquet): the columns `{kind}_index` and `{kind}`.

    Its metadata makes pandas use the words as the index.
    """
    columns = [{"name": f"{kind}_index", "pandas_type": "int64", "numpy_type": "int64"}]
    columns.append({"name": kind, "pandas_type": "unicode", "numpy_type": "object"})
    pandas = {
        "index_columns": [kind],
        "column_indexes": [{"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": None}],
        "columns": [{**column, "field_name": column["name"], "metadata": None} for column in columns],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.3.3",
    }
    table = pa.table({f"{kind}_index": pa.array(range(len(words)), pa.int64()), kind: pa.array(words, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


MadeColumns = Mapping[str, tuple[pa.DataType, Callable[[pa.Table], np.ndarray | pa.Array]]]
"""Name of a column -> its type, and the function that makes it of a table of rows."""


def put_columns(old: Path, new: Path, columns: MadeColumns) -> None:
    """Rewrites a data file with these columns, in their old position if they exist, else at the end; each is computed from a table of rows.

    It works on one row group at a time, because a file with images does not fit in memory. Everything else stays. If Hugging Face
    `datasets` keeps a list of columns in the file's metadata, new columns of single values are added to it; of others it knows no short
    form, so the list is left out then, as LeRobot leaves it out.
    """
    with open_parquet(old) as file:
        target = file.schema_arrow
        for name, (kind, _) in columns.items():
            field, place = pa.field(name, kind), target.get_field_index(name)
            target = target.append(field) if place < 0 else target.set(place, field)
        if target.metadata is not None:
            kinds = {name: str(kind) for name, (kind, _) in columns.items()}
            is_flat = not any(pa.types.is_nested(kind) for kind, _ in columns.values())
            notes = {key: note for key, note in target.metadata.items() if key != b"huggingface"}
            target = target.with_metadata(_noted(target.metadata, kinds) if is_flat else notes)
        groups = file.metadata.num_row_groups
        codec = file.metadata.row_group(0).column(0).compression if groups else "SNAPPY"
        codec = "NONE" if codec == "UNCOMPRESSED" else codec  # what a footer calls it, no writer takes
        with pq.ParquetWriter(new, target, compression=codec) as writer:
            for group in range(groups):
                table = guarded(old, partial(file.read_row_group, group))
                new_arrays = {name: _array(make(table), kind) for name, (kind, make) in columns.items()}
                arrays = [new_arrays[name] if name in new_arrays else table[name] for name in target.names]
                writer.write_table(pa.table(arrays, schema=target), row_group_size=max(1, table.num_rows))


def _array(values: np.ndarray | pa.Array, kind: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, kind)


def _noted(metadata: Mapping[bytes, bytes], kinds: Mapping[str, str]) -> dict[bytes, bytes]:
    notes = dict(metadata)
    if b"huggingface" in notes:
        content = json.loads(notes[b"huggingface"])
        if "features" in content.get("info", {}):
            content["info"]["features"] |= {
                name: {"dtype": {"float": "float32"}.get(kind, kind), "_type": "Value"} for name, kind in kinds.items()
            }
            notes[b"huggingface"] = json.dumps(content).encode()
    return notes


@dataclass(frozen=True)
class RowSummary:
    """The footer of a data file. count: rows. episodes, index: lowest and highest value, None if the footer does not have them."""

    count: int
    episodes: tuple[int, int] | None
    index: tuple[int, int] | None
    has_episodes: bool
    has_index: bool


def summarise(path: Path) -> RowSummary:
    """Returns what the footer of a data file says. DataError, with the file's name, if it is missing or damaged."""
    with open_parquet(path) as file:
        names = file.schema_arrow.names
        spans = {name: _spans(file, name) for name in ("episode_index", "index") if name in names}
        return RowSummary(
            file.metadata.num_rows,
            _whole(spans.get("episode_index")),
            _whole(spans.get("index")),
            "episode_index" in names,
            "index" in names,
        )


def _whole(spans: Sequence[tuple[float | int, float | int] | None] | None) -> tuple[int, int] | None:
    ranges = [span for span in spans or () if span is not None]
    if not ranges or len(ranges) != len(spans or ()):
        return None
    low, high = min(span[0] for span in ranges), max(span[1] for span in ranges)
    return (int(low), int(high)) if low == int(low) and high == int(high) else None


class RowReader:
    """A reader of one episode's rows. It keeps the last row groups and footer. image_columns: columns that are read only by name."""

    def __init__(self, image_columns: Sequence[str] = ()) -> None:
        self._image_columns = frozenset(image_columns)
        self._footer: tuple[Path, list[str], list[tuple[float | int, float | int] | None]] | None = None
        self._table: tuple[tuple[Any, ...], pa.Table] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A worker process reads its own; sending a table along would cost more.
        return {"_image_columns": self._image_columns, "_footer": None, "_table": None}

    def episode(self, path: Path, episode: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Returns the rows whose episode_index is `episode`, in the file's order: the named columns, or all but those of images.

        A file without `episode_index` belongs to one episode, so all its rows are returned.
        """
        names, spans = self._read_footer(path)
        if missing := set(columns or ()) - set(names):
            raise DataError(f"parquet file {path} has no column {', '.join(sorted(missing))}")
        groups = [i for i, span in enumerate(spans) if span is None or span[0] <= episode <= span[1]]
        key = (path, tuple(groups), None if columns is None else tuple(columns))
        last = self._table
        if last is None or last[0] != key:
            self._table = last = (key, self._read(path, groups, columns))
        table = last[1]
        if "episode_index" not in names:
            return table
        owner = to_numpy("episode_index", table["episode_index"])
        if owner is None or owner.size != len(owner):
            raise DataError(f"parquet file {path}: 'episode_index' should hold one whole number a row")
        positions = np.flatnonzero(owner.reshape(-1) == episode)
        contiguous = len(positions) and positions[-1] - positions[0] + 1 == len(positions)
        return table.slice(int(positions[0]), len(positions)) if contiguous else table.take(pa.array(positions, pa.int64()))

    def _read_footer(self, path: Path) -> tuple[list[str], list[tuple[float | int, float | int] | None]]:
        last = self._footer
        if last is None or last[0] != path:
            with open_parquet(path) as file:
                names = file.schema_arrow.names
                groups: list[tuple[float | int, float | int] | None] = [None] * file.metadata.num_row_groups
                self._footer = last = (path, names, _spans(file, "episode_index") if "episode_index" in names else groups)
        return last[1:]

    def _read(self, path: Path, groups: list[int], columns: Sequence[str] | None) -> pa.Table:
        with open_parquet(path) as file:
            if (rows := sum(file.metadata.row_group(group).num_rows for group in groups)) > MOST_ROWS:
                raise DataError(f"parquet file {path} has {rows} rows in one place; at most {MOST_ROWS} are read at once")
            names = file.schema_arrow.names
            if columns is None:
                names = [field.name for field in file.schema_arrow if not is_image(field.type) and field.name not in self._image_columns]
            else:
                names = [*columns, *(["episode_index"] if "episode_index" in names else [])]
            return guarded(path, lambda: file.read_row_groups(groups, columns=names))


class RaggedError(DataError):
    """A column has a different number of values in each row, so it is not an array."""


def to_numpy(name: str, column: pa.ChunkedArray) -> np.ndarray | None:
    """Returns a column of numbers, booleans or fixed-size (nested) lists of them as (T, ...); None for a column of anything else.

    A missing single number becomes NaN. Raises RaggedError for lists that are missing or differ in length.
    """
    array, shape = column.combine_chunks(), [len(column)]
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], column.type)
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        if not _holds_numbers(array.type):
            return None
        lengths = pc.unique(pc.list_value_length(array)).to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            some = ", ".join("missing" if length is None else str(length) for length in lengths[:6])
            raise RaggedError(f"column '{name}' holds lists of lengths {some}; every frame needs as many numbers")
        shape.append(lengths[0])
        array = array.flatten()
    return array.to_numpy(zero_copy_only=False).reshape(shape) if _holds_numbers(array.type) else None


def _holds_numbers(kind: pa.DataType) -> bool:
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def is_image(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _spans(file: pq.ParquetFile, column: str) -> list[tuple[float | int, float | int] | None]:
    """Returns the lowest and highest value of a column in each row group, from the footer; None if the footer does not have them.

    A column that is a list of one number has another path in the footer, but the same values.
    """
    meta = file.metadata
    paths = [meta.schema.column(i).path for i in range(meta.num_columns)]
    leaves = [i for i, path in enumerate(paths) if path == column or path.startswith(f"{column}.")]
    ranges: list[tuple[float | int, float | int] | None] = []
    for group in range(meta.num_row_groups):
        statistics = meta.row_group(group).column(leaves[0]).statistics if len(leaves) == 1 else None
        has_range = statistics is not None and statistics.has_min_max and statistics.null_count in (0, None)
        low, high = (statistics.min, statistics.max) if statistics is not None and has_range else (None, None)
        ranges.append((low, high) if isinstance(low, int | float) and isinstance(high, int | float) else None)
    return ranges


_REPEATED = 4
"""Rows a byte (from a megabyte on) that no file with an ascending index has: it would unpack to gigabytes."""


def read_table(path: Path, columns: Sequence[str] | None = None, *, episodes: tuple[int, int] | None = None) -> pa.Table:
    """Returns a parquet file's columns, all if None. DataError if it is missing, no plain file or unreadable.

    episodes: the first and the last that are needed, all if None; groups of rows without one of them are left out, if some have one.
    """
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
            if duplicates := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
                raise DataError(
                    f"{path} has the column {shown(duplicates[0])} {names.count(duplicates[0])} times; which one is meant is not known"
                )
            spans = _spans(file, "episode_index") if episodes is not None and "episode_index" in names else []
            groups = [i for i, span in enumerate(spans) if span is None or (episodes and span[0] <= episodes[1] and episodes[0] <= span[1])]
            return file.read_row_groups(groups, columns=columns) if 0 < len(groups) < len(spans) else file.read(columns=columns)
    except (pa.ArrowInvalid, pa.ArrowTypeError, IsADirectoryError, OSError) as error:
        raise DataError(f"cannot read {path} as parquet: {str(error).splitlines()[0]}") from error


def _is_whole(column: pa.ChunkedArray) -> bool:
    values = column.to_numpy()
    return bool(np.isfinite(values).all() and (np.abs(values) < 2**53).all() and (values == np.floor(values)).all())


def numbers_of(path: Path, table: pa.Table, name: str, dtype: type) -> np.ndarray:
    """Returns a column as (N,) numbers of this type, NaN for nulls. DataError if it holds something else."""
    column = table.column(name)
    whole = np.issubdtype(dtype, np.integer)
    if whole and pa.types.is_floating(column.type) and not column.null_count and _is_whole(column):
        column = column.cast(pa.int64())  # other tools keep whole numbers as doubles
    if not (pa.types.is_integer(column.type) or (pa.types.is_floating(column.type) and not whole)):
        raise DataError(f"{path}: column '{name}' should hold {'whole ' if whole else ''}numbers, it is {column.type}")
    if column.null_count and whole:
        raise DataError(f"{path}: column '{name}' has {column.null_count} missing values")
    return column.to_numpy(zero_copy_only=False).astype(dtype)
