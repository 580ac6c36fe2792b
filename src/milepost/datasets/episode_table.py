"""meta/episodes of v3.0 as it lies on disk, in Arrow's columns: an `EpisodeRecord` is made when it is asked for, and not kept.

A million episodes opened as records are two gigabytes; as columns they are two hundred megabytes. Only entries without any fault are taken
in this form: `tabulate` looks at whole columns, and returns None if one entry is odd. Then the caller reads them one by one, and says
what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from milepost.core import RANGES, DataError, Segment, expand
from milepost.datasets.entries import UNUSED, EntryReader
from milepost.datasets.episode_arrays import EpisodeArrays, Numbers, VideoArrays, position
from milepost.datasets.records import EpisodeRecord, HasColumns, is_own

_BLOCK = 256
"""Entries that are turned into Python's objects at a time; those of the last block are kept."""
_PLACE = ("chunk_index", "file_index")
Tables = Sequence[tuple[str, pa.Table]]
"""The files of meta/episodes: the name, and the table without statistics."""
Language = Callable[[EpisodeRecord], tuple[Segment, ...]]


class EpisodeTable(HasColumns):
    """Episode_index -> record, rising, as a mapping that makes the records. arrays: the numbers of all of them."""

    def __init__(
        self, tables: Tables, reader: EntryReader, arrays: EpisodeArrays, language: Language | None = None, *, counts: bool = False
    ) -> None:
        """Takes the files, and the arrays of them all. language: reads the subtasks of an episode's language column. counts: whether they
        are its sparse annotation."""
        self.arrays, self.from_language = arrays, counts and language is not None
        self._tables, self._reader, self._language = tuple(tables), reader, language
        self.columns = tuple(dict.fromkeys(name for _, table in tables for name in table.column_names))
        self.facts = tuple(name for name in self.columns if not is_own(name))
        self.has_annotations = any("subtask_names" in name for name in self.columns)
        self._edges = np.cumsum([0, *(table.num_rows for _, table in tables)])
        self._block: tuple[int, list[EpisodeRecord]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_block": None}

    def __len__(self) -> int:
        return len(self.arrays.number)

    def __iter__(self) -> Iterator[int]:
        return iter(Numbers(self.arrays.number))

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int | np.integer) and position(self.arrays.number, int(number)) >= 0

    def __getitem__(self, number: int) -> EpisodeRecord:
        place = position(self.arrays.number, number)
        if place < 0:
            raise KeyError(number)
        block = self._block
        if block is None or not 0 <= place - block[0] < len(block[1]):
            self._block = block = self._read(place)
        return block[1][place - block[0]]

    def distinct(self, name: str) -> tuple[Int[np.ndarray, "E"], tuple[Any, ...]]:
        """Returns the values of a column, each once, and which one each episode has; None where there is none."""
        values: dict[Any, int] = {}
        codes = []
        for _, table in self._tables:
            if name not in table.column_names:
                codes.append(np.full(table.num_rows, values.setdefault(None, len(values))))
                continue
            column = table[name].combine_chunks().dictionary_encode("encode")
            own = np.array([values.setdefault(_hashable(value), len(values)) for value in column.dictionary.to_pylist()], np.int64)
            codes.append(own[column.indices.to_numpy(zero_copy_only=False).astype(np.int64)] if len(own) else np.zeros(0, np.int64))
        return np.concatenate(codes) if codes else np.zeros(0, np.int64), tuple(values)

    def with_language(self, language: Language) -> EpisodeTable:
        """Returns the table with a reader of the language column, whose subtasks count if there are no columns of annotations at all."""
        return EpisodeTable(self._tables, self._reader, self.arrays, language, counts=not self.has_annotations)

    def _read(self, place: int) -> tuple[int, list[EpisodeRecord]]:
        """Returns the records around this place, and where they begin."""
        which = int(np.searchsorted(self._edges, place, side="right")) - 1
        start = int(self._edges[which])
        first = (place - start) // _BLOCK * _BLOCK
        source, table = self._tables[which]
        records = [self._record(entry, source) for entry in table.slice(first, _BLOCK).to_pylist()]
        return start + first, records

    def _record(self, entry: Mapping[str, Any], source: str) -> EpisodeRecord:
        record = self._reader.record(entry, source)
        assert record is not None
        return record if self._language is None else replace(record, language=self._language, from_language=self.from_language)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def tabulate(tables: Tables, reader: EntryReader) -> EpisodeTable | None:
    """Returns the entries as a table, if none has a fault and their numbers rise through the files; else None."""
    parts = [_arrays(table, reader) for _, table in tables]
    whole = [part for part in parts if part is not None]
    if len(whole) < len(parts) or not sum(len(part.number) for part in whole):
        return None
    arrays = _joined(whole)
    paths = [set(video.names) for video in (arrays.videos or {}).values()]
    is_shared = len(set().union(*paths)) < sum(map(len, paths))  # one video of two cameras is looked at record by record
    return None if is_shared or not (np.diff(arrays.number) > 0).all() else EpisodeTable(tables, reader, arrays)


def _arrays(table: pa.Table, reader: EntryReader) -> EpisodeArrays | None:
    """Returns one file's entries as arrays; None if one of them is odd."""
    if reader.version != "v3.0" or len(set(table.column_names)) < table.num_columns:
        return None
    numbers = {name: _whole(table, name, kind) for name, kind in _KINDS.items()}
    number, length, row, stop = (numbers[name] for name in _KINDS)
    if number is None or length is None or row is None or (stop is None and "dataset_to_index" in table.column_names):
        return None
    if (length < 1).any() or (stop is not None and (stop != row + length).any()):
        return None
    words, files = _tasks(table), _files(table, "data", reader.data_path, {})
    if words is None or files is None:
        return None
    videos = {}
    for camera in (key for key, feature in reader.features.items() if feature.get("dtype") == "video"):
        video = _video(table, camera, reader)
        if video is None:
            return None
        videos[camera] = video
    return EpisodeArrays(number, row, length, *files, *words, videos)


_KINDS = {"episode_index": "episode_index", "length": "length", "dataset_from_index": "row", "dataset_to_index": "row"}
"""Column -> kind of number in `RANGES`."""


def _whole(table: pa.Table, name: str, kind: str) -> Int[np.ndarray, "N"] | None:
    """Returns a column of plausible whole numbers without gaps; None for any other."""
    if name not in table.column_names or not pa.types.is_integer(table[name].type) or table[name].null_count:
        return None
    values = table[name].to_numpy()
    fits = not len(values) or (values.min() >= RANGES[kind].low and values.max() <= RANGES[kind].high)
    return values.astype(np.int64, copy=False) if fits else None


def _seconds(table: pa.Table, name: str) -> Float[np.ndarray, "N"] | None:
    """Returns a column of numbers, NaN where there is none; None for any other."""
    if name not in table.column_names or not (pa.types.is_floating(table[name].type) or pa.types.is_integer(table[name].type)):
        return None
    return table[name].cast(pa.float64()).to_numpy()


def _tasks(table: pa.Table) -> tuple[Int[np.ndarray, "N"], tuple[tuple[str, ...], ...]] | None:
    """Returns which tasks each episode has, and the words of each choice; None if a cell is no list of words."""
    if "tasks" not in table.column_names or table["tasks"].null_count:
        return None
    column = table["tasks"].combine_chunks()
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)) or not pa.types.is_string(column.type.value_type):
        return None
    words = column.flatten()
    if words.null_count:
        return None
    if len(words) == len(column) and not len(words.filter(pc.not_equal(pc.list_value_length(column), 1))):
        encoded = words.dictionary_encode()
        return encoded.indices.to_numpy().astype(np.int32), tuple((text,) for text in encoded.dictionary.to_pylist())
    choices: dict[tuple[str, ...], int] = {}
    codes = np.empty(len(column), np.int32)
    for place, cell in enumerate(column):
        codes[place] = choices.setdefault(tuple(cell.as_py()), len(choices))
    return codes, tuple(choices)


def _files(table: pa.Table, of: str, template: str, fields: Mapping[str, str]) -> tuple[Int[np.ndarray, "N"], tuple[str, ...]] | None:
    """Returns which file each episode has, and their names; None if one is not named, or not well."""
    chunk, file = (_whole(table, f"{of}/{name}", name) for name in _PLACE)
    if chunk is None or file is None:
        return None
    width = int(file.max(initial=0)) + 1
    if int(chunk.max(initial=0)) >= 2**62 // width:
        return None
    pairs, code = np.unique(chunk * width + file, return_inverse=True)
    try:
        names = [expand(template, source=of, **fields, **dict(zip(_PLACE, divmod(int(pair), width), strict=True))) for pair in pairs]
    except DataError:
        return None
    unique = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return np.array([unique[name] for name in names], np.int32)[code.reshape(-1)] if names else code.astype(np.int32), tuple(unique)


def _video(table: pa.Table, camera: str, reader: EntryReader) -> VideoArrays | None:
    """Returns the parts that episodes have of a camera's videos; None if one has none, or leaves images beside it out."""
    key = f"videos/{camera}"
    files = _files(table, key, reader.video_path, {"video_key": camera})
    start, stop = (_seconds(table, f"{key}/{name}") for name in ("from_timestamp", "to_timestamp"))
    if files is None or start is None or not (np.abs(start) < 1e9).all() or any(f"{key}/{name}" in table.column_names for name in UNUSED):
        return None
    if stop is None:
        if f"{key}/to_timestamp" in table.column_names:
            return None
        stop = np.full(len(start), np.nan)
    return VideoArrays(*files, start, np.where((np.abs(stop) < 1e9) & (stop > start), stop, np.nan))


def _joined(parts: Sequence[EpisodeArrays]) -> EpisodeArrays:
    """Returns the arrays of all files as one."""
    number, row, length = (np.concatenate([getattr(part, name) for part in parts]) for name in ("number", "row", "length"))
    files = _renumbered([(part.file, part.names) for part in parts])
    tasks = _renumbered([(part.task, part.tasks) for part in parts])
    videos = {}
    for camera in parts[0].videos or {}:
        own = [part.videos[camera] for part in parts if part.videos is not None]
        file = _renumbered([(video.file, video.names) for video in own])
        videos[camera] = VideoArrays(*file, *(np.concatenate([getattr(video, name) for video in own]) for name in ("start_s", "stop_s")))
    return EpisodeArrays(number, row, length, *files, *tasks, videos)


def _renumbered(parts: Sequence[tuple[np.ndarray, tuple[Any, ...]]]) -> tuple[Int[np.ndarray, "E"], tuple[Any, ...]]:
    """Returns the codes of several tables by one list of their values."""
    places: dict[Any, int] = {}
    codes = [np.array([places.setdefault(value, len(places)) for value in values], np.int32)[code] for code, values in parts]
    return np.concatenate(codes), tuple(places)
