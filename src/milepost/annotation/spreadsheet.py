"""Annotations as a table that a person can edit: CSV or JSON, one row a segment, and back with every row checked.

A boundary is given in seconds, in frames, or in both, and both must then be the same frame: after a change empty the other cell, or
delete the two columns not edited. Rows may stand in any order. Refuses, by file and line, what is not a segment of the dataset.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from milepost.core import HEADS, DataError, Segment, read_text, require_shallow, segment_faults, shown, write_text
from milepost.datasets import Annotations, no_episode

COLUMNS = ("episode", "head", "name", "start_s", "end_s", "start_frame", "stop_frame")
SUFFIXES = (".csv", ".json")
_BOUNDARIES = (("start_s", "start_frame"), ("end_s", "stop_frame"))
_SPACE = re.compile(r"[\s,]*")
_Line = tuple[int, Mapping[str, Any]]


def to_file(path: str | Path, annotations: Annotations, fps: float, *, overwrite: bool = False) -> int:
    """Writes a `.csv` or `.json` file, sorted by episode, head and time; returns its number of rows. stop and end are exclusive.

    DataError for another suffix, or if the file exists and `overwrite` is not asked for: it may hold a person's corrections.
    """
    path = _known(Path(path))
    if path.exists() and not overwrite:
        raise DataError(f"{path} exists and may hold corrections; remove it, choose another name or ask for overwriting")
    digits = max(3, math.ceil(math.log10(2 * fps)))  # enough to round back to the same frame
    rows = [
        (episode_index, head, s.name, round(s.start / fps, digits), round(s.stop / fps, digits), s.start, s.stop)
        for episode_index, heads in sorted(annotations.items())
        for head in HEADS
        for s in heads.get(head, ())
    ]
    if path.suffix == ".json":
        lines = (json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False, allow_nan=False) for row in rows)
        text = "[\n" + ",\n".join(lines) + "\n]\n"
    else:
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerows([COLUMNS, *rows])
        text = buffer.getvalue()
    write_text(path, text)
    return len(rows)


def read_file(
    path: str | Path,
    *,
    fps: float | None = None,
    lengths: Mapping[int, int] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
) -> dict[int, dict[str, tuple[Segment, ...]]]:
    """Reads what `to_file` wrote and a person edited. Episodes without a row are not in the result.

    fps: frames per second; without it only the frame columns can be read. lengths: episode -> frames, for the episodes there are.
    names: head -> its stages. DataError with file and line for a row that is no segment, an unknown episode, head or stage, a stage
    that ends before it starts, past the episode's end or after the next one begins.
    """
    path = _known(Path(path))
    lines_by_head: dict[tuple[int, str], list[tuple[int, Segment]]] = {}
    faults: list[tuple[int, str]] = []
    for line, row in _rows(path):
        try:
            episode_index, head, segment = _segment(row, fps)
            _require_episode(episode_index, lengths)
        except DataError as error:
            faults.append((line, str(error)))
            continue
        lines_by_head.setdefault((episode_index, head), []).append((line, segment))
    out: dict[int, dict[str, tuple[Segment, ...]]] = {}
    for (episode_index, head), pairs in sorted(lines_by_head.items(), key=lambda item: (item[0][0], HEADS.index(item[0][1]))):
        pairs.sort(key=lambda pair: (pair[1].start, pair[1].stop))
        length, stage_names = math.inf if lengths is None else lengths[episode_index], (names or {}).get(head)
        places = [f" (line {line})" for line, _ in pairs]
        parts = [segment for _, segment in pairs]
        for fault in segment_faults(parts, length, stage_names, head=head, episode=f"episode {episode_index}", notes=places):
            order = f"episode {episode_index}: {fault.words}; {head} stages of an episode may not overlap"
            faults.append((pairs[fault.place][0], order if fault.kind == "order" else fault.words))
        out.setdefault(episode_index, {})[head] = tuple(segment for _, segment in pairs)
    if faults:
        raise DataError("\n".join(f"{path}, line {line}: {fault}" for line, fault in sorted(faults)))
    return out


def _known(path: Path) -> Path:
    if path.suffix not in SUFFIXES:
        raise DataError(f"an annotation file ends in {' or '.join(SUFFIXES)}, got {path}")
    return path


def _rows(path: Path) -> Iterator[_Line]:
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}); save it as UTF-8") from error
    yield from _json_rows(path, text) if path.suffix == ".json" else _csv_rows(path, text)


def _csv_rows(path: Path, text: str) -> Iterator[_Line]:
    """Yields the rows of a CSV. Spreadsheets of some countries write ';' between the cells and ',' inside numbers."""
    first = text.split("\n", 1)[0]
    separator = ";" if ";" in first and "," not in first else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        _require_columns(path, header)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                if len(cells) > len(header):
                    raise DataError(f"{path}, line {reader.line_num}: {len(cells)} cells, the header names {len(header)}; quote commas")
                numbers = {k: c.replace(",", ".") if separator == ";" and k != "name" else c for k, c in zip(header, cells, strict=False)}
                yield reader.line_num, numbers
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV ({error})") from error


def _json_rows(path: Path, text: str) -> Iterator[_Line]:
    """Yields the objects of a JSON list with the lines they begin at, which the JSON module alone does not tell."""
    require_shallow(text, str(path))
    decoder, place = json.JSONDecoder(), len(text) - len(text.lstrip())
    if not text[place:].startswith("["):
        raise DataError(f"{path} should be a list of objects, one a segment")
    place = _SPACE.match(text, place + 1).end()  # type: ignore[union-attr]
    try:
        while not text.startswith("]", place):
            row, end = decoder.raw_decode(text, place)
            line = text.count("\n", 0, place) + 1
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {line}: should be an object, got {shown(row)}")
            _require_columns(path, list(row))
            yield line, row
            place = _SPACE.match(text, end).end()  # type: ignore[union-attr]
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from error


def _require_columns(path: Path, header: Sequence[str]) -> None:
    missing = [name for name in COLUMNS[:3] if name not in header]
    missing += [f"{time} or {frame}" for time, frame in _BOUNDARIES if time not in header and frame not in header]
    unknown = [name for name in header if name not in COLUMNS]
    if missing or unknown:
        raise DataError(
            f"{path} should have the columns {', '.join(COLUMNS)}; missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(map(repr, unknown)) or 'none'}"
        )


def _segment(row: Mapping[str, Any], fps: float | None) -> tuple[int, str, Segment]:
    episode_index, head, name = _whole(row, "episode"), str(row.get("head", "")).strip(), row.get("name")
    if episode_index is None:
        raise DataError("the episode's number is missing")
    if head not in HEADS:
        raise DataError(f"the head should be {' or '.join(HEADS)}, got '{head}'")
    if not isinstance(name, str) or not name.strip():
        raise DataError("the stage's name is missing")
    start, stop = (_frame(row, time, frame, fps) for time, frame in _BOUNDARIES)
    if start < 0 or stop < start:
        raise DataError(f"'{name}' goes from frame {start} to {stop}; a stage starts at 0 or later and ends after it starts")
    return episode_index, head, Segment(name, start, stop)


def _frame(row: Mapping[str, Any], time: str, frame: str, fps: float | None) -> int:
    """Returns a boundary's frame: the nearest to its seconds, or its frame number. DataError if the two differ."""
    seconds, frame_index = _number(row, time), _whole(row, frame)
    if seconds is None or (fps is None and frame_index is not None):
        if frame_index is None:
            raise DataError(f"neither {time} nor {frame} is given")
        return frame_index
    if fps is None:
        raise DataError(f"{time} is in seconds, and how many frames a second has is not known here; give {frame}")
    nearest = math.floor(seconds * fps + 0.5)
    if frame_index is not None and frame_index != nearest:
        raise DataError(
            f"{time} {seconds:g} is frame {nearest}, but {frame} says {frame_index}; empty the one that is old (or delete the columns not "
            "edited)"
        )
    return nearest


def _number(row: Mapping[str, Any], column: str) -> float | None:
    cell = row.get(column)
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    try:
        value = float(cell)
    except (TypeError, ValueError):
        raise DataError(f"{column} should be a number, got {shown(cell)}") from None
    if isinstance(cell, bool) or not math.isfinite(value):
        raise DataError(f"{column} should be a number, got {shown(cell)}")
    return value


def _whole(row: Mapping[str, Any], column: str) -> int | None:
    value = _number(row, column)
    if value is not None and value != int(value):
        raise DataError(f"{column} should be a whole number, got {shown(row[column])}")
    return None if value is None else int(value)


def _require_episode(episode_index: int, lengths: Mapping[int, int] | None) -> None:
    if lengths is not None and episode_index not in lengths:
        raise no_episode(episode_index, lengths, "there are")
