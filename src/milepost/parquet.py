"""A dataset's parquet files: an episode's rows without reading its neighbours', and pictures kept inside the rows.

A reader holds the row groups of one episode at most, so going through a dataset in order reads each group once.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int, UInt8

from milepost.types import DataError, UnreadableError


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a parquet file. DataError, with the file's name, if it is missing or damaged."""
    with open_parquet(path) as file:
        return guarded(path, lambda: file.read(columns=columns))


def open_parquet(path: Path) -> pq.ParquetFile:
    """A parquet file with its footer read. DataError, with the file's name, if it is missing or damaged."""
    if not path.is_file():
        raise DataError(f"parquet file {path} is missing; copy or download the dataset again")
    return guarded(path, lambda: pq.ParquetFile(path))


def guarded(path: Path, read: Callable[[], Any]) -> Any:
    """What `read` returns; Arrow's errors become one DataError that names the file."""
    try:
        return read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"parquet file {path} is damaged or truncated ({error}); copy or download it again") from error


def numbered_words(kind: str, words: Sequence[str]) -> pa.Table:
    """LeRobot's tables of words (`task` in meta/tasks.parquet): `{kind}_index` and `{kind}`, with the notes that make pandas take the
    words for the index."""
    described = [{"name": f"{kind}_index", "pandas_type": "int64", "numpy_type": "int64"}]
    described.append({"name": kind, "pandas_type": "unicode", "numpy_type": "object"})
    pandas = {
        "index_columns": [kind],
        "column_indexes": [{"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": None}],
        "columns": [{**column, "field_name": column["name"], "metadata": None} for column in described],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.3.3",
    }
    table = pa.table({f"{kind}_index": pa.array(range(len(words)), pa.int64()), kind: pa.array(words, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def put_columns(old: Path, new: Path, columns: Mapping[str, tuple[pa.DataType, Callable[[pa.Table], np.ndarray]]]) -> None:
    """A data file with these columns, at their place if they are there and at the end if not; of a table of rows each makes its values.

    One row group at a time: pictures inside rows would not fit in memory. Everything else stays; where Hugging Face `datasets` keeps its
    list of columns in the file's notes, the new ones are in it.
    """
    with open_parquet(old) as file:
        target = file.schema_arrow
        for name, (kind, _) in columns.items():
            field, place = pa.field(name, kind), target.get_field_index(name)
            target = target.append(field) if place < 0 else target.set(place, field)
        if target.metadata is not None:
            target = target.with_metadata(_noted(target.metadata, {name: str(kind) for name, (kind, _) in columns.items()}))
        groups = file.metadata.num_row_groups
        codec = file.metadata.row_group(0).column(0).compression if groups else "SNAPPY"
        with pq.ParquetWriter(new, target, compression=codec) as writer:
            for group in range(groups):
                table = guarded(old, partial(file.read_row_group, group))
                made = {name: pa.array(make(table), kind) for name, (kind, make) in columns.items()}
                arrays = [made[name] if name in made else table[name] for name in target.names]
                writer.write_table(pa.table(arrays, schema=target), row_group_size=max(1, table.num_rows))


def _noted(metadata: Mapping[bytes, bytes], kinds: Mapping[str, str]) -> dict[bytes, bytes]:
    notes = dict(metadata)
    if b"huggingface" in notes:
        told = json.loads(notes[b"huggingface"])
        if "features" in told.get("info", {}):
            told["info"]["features"] |= {
                name: {"dtype": {"float": "float32"}.get(kind, kind), "_type": "Value"} for name, kind in kinds.items()
            }
            notes[b"huggingface"] = json.dumps(told).encode()
    return notes


class RowReader:
    """Rows of one episode. The last row groups read and the last file's footer are kept."""

    def __init__(self) -> None:
        self._footer: tuple[Path, list[str], list[tuple[int, int] | None]] | None = None
        self._table: tuple[tuple[Any, ...], pa.Table] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_footer": None, "_table": None}  # a worker process reads its own; sending a table along would cost more

    def episode(self, path: Path, episode: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows whose episode_index is `episode`, in the file's order; the columns asked for, or all that hold no pictures."""
        names, spans = self._read_footer(path)
        if missing := set(columns or ()) - set(names):
            raise DataError(f"parquet file {path} has no column {', '.join(sorted(missing))}")
        groups = [i for i, span in enumerate(spans) if span is None or span[0] <= episode <= span[1]]
        key = (path, tuple(groups), None if columns is None else tuple(columns))
        last = self._table
        if last is None or last[0] != key:
            self._table = last = (key, self._read(path, groups, columns))
        table = last[1]
        found = np.flatnonzero(table["episode_index"].to_numpy() == episode)
        contiguous = len(found) and found[-1] - found[0] + 1 == len(found)
        return table.slice(int(found[0]), len(found)) if contiguous else table.take(pa.array(found))

    def _read_footer(self, path: Path) -> tuple[list[str], list[tuple[int, int] | None]]:
        last = self._footer
        if last is None or last[0] != path:
            with open_parquet(path) as file:
                names = file.schema_arrow.names
                if "episode_index" not in names:
                    raise DataError(f"parquet file {path} has no column 'episode_index'; it is not a LeRobot data file")
                self._footer = last = (path, names, _episode_spans(file))
        return last[1:]

    def _read(self, path: Path, groups: list[int], columns: Sequence[str] | None) -> pa.Table:
        with open_parquet(path) as file:
            if columns is None:
                names = [field.name for field in file.schema_arrow if not _is_picture(field.type)]
            else:
                names = [*columns, "episode_index"]
            return guarded(path, lambda: file.read_row_groups(groups, columns=names))


@dataclass(frozen=True, eq=False)
class ImageFrames:
    """PNG or JPEG pictures inside parquet rows (or files the rows name), as `types.Frames`.

    path: finds the parquet file. file: finds a file by its name relative to the dataset. length: T.
    """

    reader: RowReader
    path: Callable[[], Path]
    file: Callable[[str], Path]
    episode: int
    camera: str
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, frames: Int[np.ndarray, "N"]) -> UInt8[np.ndarray, "N H W 3"]:
        """The images at these frame numbers, any order, repeats allowed; each is decoded once. IndexError outside [0, T)."""
        frames = np.asarray(frames)
        if frames.size and (frames.min() < 0 or frames.max() >= len(self)):
            raise IndexError(f"frames {frames.min()}..{frames.max()} asked of a camera with {len(self)} frames")
        wanted, where = np.unique(frames.astype(np.int64), return_inverse=True)
        cells = self._cells()
        if not len(wanted):
            return np.empty((0, *self._decode(cells, 0).shape), np.uint8)
        once = self._stack(cells, wanted)
        return once if np.array_equal(wanted, frames) else once[where]

    def chunks(self, size: int = 64) -> Iterator[UInt8[np.ndarray, "N H W 3"]]:
        """Every image once, in order, at most `size` at a time; only compressed pictures stay in memory."""
        if size < 1:
            raise ValueError(f"chunks need a size of at least 1, got {size}")
        cells = self._cells()
        for start in range(0, len(self), size):
            yield self._stack(cells, np.arange(start, min(start + size, len(self))))

    def _cells(self) -> pa.ChunkedArray:
        cells = self.reader.episode(self.path(), self.episode, [self.camera])[self.camera]
        if len(cells) != self.length:
            raise UnreadableError(f"parquet file {self.path()}: episode {self.episode} should have {self.length} rows, it has {len(cells)}")
        return cells

    def _stack(self, cells: pa.ChunkedArray, frames: np.ndarray) -> np.ndarray:
        first = self._decode(cells, int(frames[0]))
        out = np.empty((len(frames), *first.shape), np.uint8)
        out[0] = first
        for i, frame in enumerate(frames[1:], start=1):
            image = self._decode(cells, int(frame))
            if image.shape != first.shape:
                raise UnreadableError(
                    f"{self._who(int(frame))}: its size is {image.shape[:2]}, that of frame {frames[0]} {first.shape[:2]}"
                )
            out[i] = image
        return out

    def _decode(self, cells: pa.ChunkedArray, frame: int) -> np.ndarray:
        cell = cells[frame].as_py() or {}
        content, name = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (None, cell)
        if content is None and not name:
            raise UnreadableError(f"{self._who(frame)} is empty")
        try:
            with PIL.Image.open(io.BytesIO(content) if content is not None else self.file(str(name))) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:  # SyntaxError: how Pillow calls a broken PNG
            raise UnreadableError(f"{self._who(frame)} cannot be read ({error}); copy or download the file again") from error

    def _who(self, frame: int) -> str:
        return f"parquet file {self.path()}: the picture of camera '{self.camera}', episode {self.episode}, frame {frame}"


def to_numpy(name: str, column: pa.ChunkedArray) -> np.ndarray | None:
    """A column of numbers, booleans or fixed-size (nested) lists of them as (T, ...); None if it holds anything else.

    DataError for lists that differ in length or are missing. A missing single number becomes NaN.
    """
    array, shape = column.combine_chunks(), [len(column)]
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], column.type)
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        if not _holds_numbers(array.type):
            return None
        lengths = pc.unique(pc.list_value_length(array)).to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            raise DataError(f"column '{name}' holds lists of lengths {lengths}; every frame needs as many numbers")
        shape.append(lengths[0])
        array = array.flatten()
    return array.to_numpy(zero_copy_only=False).reshape(shape) if _holds_numbers(array.type) else None


def _holds_numbers(kind: pa.DataType) -> bool:
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _is_picture(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _episode_spans(file: pq.ParquetFile) -> list[tuple[int, int] | None]:
    """The lowest and highest episode_index of each row group, from the footer; None where it does not say."""
    meta = file.metadata
    leaf = next(i for i in range(meta.num_columns) if meta.schema.column(i).path == "episode_index")
    told = [meta.row_group(group).column(leaf).statistics for group in range(meta.num_row_groups)]
    return [(each.min, each.max) if each is not None and each.has_min_max else None for each in told]
