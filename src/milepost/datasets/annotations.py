"""Write annotations into a local dataset as LeRobot's SARM reads them: columns of meta/episodes and meta/temporal_proportions_*.json.

All files are replaced as one (`replacing`); a file whose annotations stay is not touched, and of a rewritten one every other column,
row group and note is kept. Episodes and heads that are not given keep what they have. A v2.1 dataset gets the same fields in
meta/episodes.jsonl, where milepost reads them (LeRobot trains on v3.0 alone). Refuses what SARM would misread in silence: stages out of
order, past the end or of an unknown name. Shares are SARM's eq. 1 (arXiv 2509.25358).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from milepost.core import WHOLE, DataError, Segment, Stages, is_finished, names_in_order, parse_json, proportions, require_sound_segments
from milepost.datasets.annotation_columns import FIELDS, Annotations, Row, arrays, prefixes, row_of
from milepost.datasets.metadata import PROPORTIONS, read_metadata, read_proportions
from milepost.datasets.parquet import guarded, open_parquet
from milepost.datasets.records import HEADS, Metadata, no_episode
from milepost.datasets.transaction import replacing, require_editable

Rule = Literal["finished", "lerobot"]
ANNOTATION_FILES = ("meta/episodes/**", "meta/episodes.jsonl", PROPORTIONS.format(head="*"))
"""The files that `write_annotations` replaces, as patterns."""
New = Callable[[str], Path]
"""Name of a file relative to the dataset -> where to write its new content."""


@dataclass(frozen=True)
class Written:
    """What a call did. files: those replaced, relative to the dataset. episodes: head -> how many have an annotation now.
    stages: head -> its stages and shares, for the heads written."""

    files: tuple[str, ...]
    episodes: Mapping[str, int]
    stages: Mapping[str, Stages]


class ChangedError(DataError):
    """An annotation is not what the caller took it for: somebody wrote it meanwhile."""


def write_annotations(
    folder: str | Path,
    annotations: Annotations,
    *,
    names: Mapping[str, Sequence[str]] | None = None,
    rule: Rule = "finished",
    expected: Annotations | None = None,
) -> Written:
    """Write these annotations into the dataset in this folder, all of them or none; an empty tuple removes an episode's.

    names: head -> all its stages in order; without it the order of the dataset's own proportions file, else that in which they appear.
    rule: "finished" is eq. 1 over the attempts that reached their end (all, if none did), as `milepost train` counts; "lerobot" counts
    for each stage the episodes that show it and scales the sum to 1. expected: what episodes must have now, by head: else
    ChangedError, and nothing is written; nobody can write between this look and the writing. Written dense alone, a dataset without any
    sparse annotation gets the sparse proportions {"task": 1.0}. The same call twice changes nothing the second time.
    DataError if the dataset is not a local one of one's own (see `replacing`), or an annotation does not fit it: nothing is written then.
    """
    root = require_editable(folder)
    heads = tuple(head for head in HEADS if any(head in each for each in annotations.values()))
    with replacing(root) as new:
        meta = read_metadata(root)
        _check_known(annotations, meta)
        _check_expected(expected or {}, meta)
        merged = {head: dict(_merged(head, annotations, meta)) for head in heads}
        orders = {head: _order(root, head, merged[head].values(), (names or {}).get(head, ())) for head in heads}
        for head in heads:
            _check_fit(head, merged[head], meta, orders[head], annotations)
        stages = {head: _stages(merged[head], meta, orders[head], rule) for head in heads}
        contents: dict[str, Any] = {head: dict(zip(s.names, s.shares, strict=True)) for head, s in stages.items() if s is not None}
        if heads == ("dense",) and contents and not _any_sparse(meta) and read_proportions(root, "sparse") is None:
            contents["sparse"] = dict(zip(WHOLE.names, WHOLE.shares, strict=True))
        rewrite = _rewrite_v30 if meta.version == "v3.0" else _rewrite_v21
        files = [*rewrite(root, new, annotations, heads=heads, meta=meta)]
        for head, shares in contents.items():
            name = PROPORTIONS.format(head=head)
            text = json.dumps(shares, indent=2)  # ASCII: LeRobot opens it with whatever encoding the machine has
            if not (root / name).is_file() or (root / name).read_text(encoding="utf-8") != text:
                new(name).write_text(text, encoding="utf-8")
                files.append(name)
    counts = {head: sum(bool(segments) for segments in merged[head].values()) for head in heads}
    return Written(tuple(files), counts, {head: s for head, s in stages.items() if s is not None})


def _check_known(annotations: Annotations, meta: Metadata) -> None:
    if not any(annotations.values()):
        raise DataError("there is no annotation to write")
    for number, heads in annotations.items():
        if number not in meta.episodes:
            raise no_episode(number, meta.episodes)
        if unknown := set(heads) - set(HEADS):
            raise DataError(f"episode {number}: annotations are for {' or '.join(HEADS)}, got '{', '.join(sorted(unknown))}'")


def _check_expected(expected: Annotations, meta: Metadata) -> None:
    for number, heads in expected.items():
        for head, segments in heads.items():
            if number not in meta.episodes or meta.episodes[number].readable_segments.get(head, ()) != tuple(segments):
                raise ChangedError(f"the {head} annotation of episode {number} was changed meanwhile; look at it again before writing")


def _merged(head: str, annotations: Annotations, meta: Metadata) -> Iterator[tuple[int, tuple[Segment, ...]]]:
    """Every episode with what it will have: what is given, else what it has. What cannot be true stays as it is, and counts in no share."""
    for number, record in meta.episodes.items():
        given = annotations.get(number, {})
        yield number, given[head] if head in given else record.sound_segments.get(head, ())


def _order(root: Path, head: str, annotations: Iterable[Sequence[Segment]], names: Sequence[str]) -> tuple[str, ...]:
    """The stages as declared, else as the dataset has them if that covers all in use, else by where they appear."""
    if names:
        return tuple(names)
    told = tuple(read_proportions(root, head) or ())
    held = [segments for segments in annotations if segments]
    return told if {segment.name for segments in held for segment in segments} <= set(told) else names_in_order(held)


def _check_fit(
    head: str, merged: Mapping[int, tuple[Segment, ...]], meta: Metadata, names: Sequence[str], annotations: Annotations
) -> None:
    """DataError for an annotation that does not fit its episode or the stages, one that is kept too: shares are taken over all."""
    for number, segments in merged.items():
        try:
            require_sound_segments(segments, names, meta.episodes[number].length)
        except DataError as error:
            old = "" if head in annotations.get(number, {}) else "; that is what the dataset has: annotate this episode again, or remove it"
            raise DataError(f"episode {number}, {head}: {error}{old}") from error


def _stages(merged: Mapping[int, tuple[Segment, ...]], meta: Metadata, names: Sequence[str], rule: Rule) -> Stages | None:
    """The head's stages and shares after the call; None if no episode is left with an annotation (an old proportions file stays)."""
    held = {number: segments for number, segments in merged.items() if segments}
    if not held:
        return None
    if rule == "lerobot":
        return Stages(tuple(names), _shares_where_shown(held.values(), names))
    records = meta.episodes
    shown = {number: segments for number, segments in held.items() if any(s.stop > s.start for s in segments)}
    done = [segments for number, segments in shown.items() if is_finished(segments, names, records[number].success)]
    return proportions(done or shown.values(), names)


def _shares_where_shown(annotations: Iterable[Sequence[Segment]], names: Sequence[str]) -> tuple[float, ...]:
    """LeRobot's reading of eq. 1: a stage's mean is taken over the episodes that show it, and the means are scaled to sum to 1."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for segments in annotations:
        whole = sum(s.stop - s.start for s in segments)
        for name in dict.fromkeys(s.name for s in segments) if whole else ():
            found[name].append(sum(s.stop - s.start for s in segments if s.name == name) / whole)
    means = np.array([np.mean(shares) if shares else 0.0 for shares in found.values()])
    if not means.sum() > 0:
        raise DataError("no annotated episode to take stage proportions from")
    return tuple(float(share) for share in means / means.sum())


def _any_sparse(meta: Metadata) -> bool:
    return any(record.sound_segments.get("sparse") for record in meta.episodes.values())


def _rewrite_v30(root: Path, new: New, annotations: Annotations, *, heads: Sequence[str], meta: Metadata) -> Iterator[str]:
    """Every meta file gets the columns, so that all files keep one schema. Yields the names of those that change."""
    paths = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        changed = pool.map(partial(_rewrite_file, root, new, annotations, heads=heads, fps=meta.fps), paths)
        yield from (name for name in changed if name)


def _rewrite_file(root: Path, new: New, annotations: Annotations, path: Path, *, heads: Sequence[str], fps: float) -> str:
    """The new content of one meta file, written where `new` says; returns its name, empty if it stays as it is."""
    wanted = {"episode_index", *(f"{prefix}{field}" for head in heads for prefix in prefixes(head) for field in FIELDS)}
    with open_parquet(path) as file:
        held = guarded(path, partial(file.read, [name for name in file.schema_arrow.names if name in wanted]))
        made = {name: column for head in heads for name, column in arrays(head, [*_rows(head, held, annotations, fps)]).items()}
        if all(_says(held, name, column) for name, column in made.items()):
            return ""
        table = guarded(path, file.read)
        groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        codec = file.metadata.row_group(0).column(0).compression if groups else "SNAPPY"
    for name, column in made.items():
        place = table.schema.get_field_index(name)
        table = table.append_column(name, column) if place < 0 else table.set_column(place, name, column)
    relative = path.relative_to(root).as_posix()
    _write_groups(new(relative), table, groups, codec)
    return relative


def _rows(head: str, table: pa.Table, annotations: Annotations, fps: float) -> Iterator[Row]:
    """The cells of this head, row by row: of what is given, else as they stand, in the unprefixed columns if nowhere else."""
    nothing = [None] * table.num_rows
    held = {name: table[name].to_pylist() for name in table.column_names}
    for i, number in enumerate(table["episode_index"].to_pylist()):
        given = annotations.get(number, {})
        if head in given:
            yield row_of(given[head], fps)
            continue
        stands = (prefix for prefix in prefixes(head) if held.get(f"{prefix}names", nothing)[i] is not None)
        prefix = next(stands, prefixes(head)[0])
        yield {field: held.get(f"{prefix}{field}", nothing)[i] for field in FIELDS}


def _says(table: pa.Table, name: str, column: pa.Array) -> bool:
    """Has the table this column already, with the same type?"""
    return name in table.column_names and table[name].type == column.type and table[name].combine_chunks().equals(column)


def _write_groups(path: Path, table: pa.Table, groups: Sequence[int], codec: str) -> None:
    """A parquet file with these numbers of rows in its row groups. Dictionaries and footer statistics of the many statistics columns
    would take most of the time and serve no reader."""
    plain = [name for name in table.column_names if not name.startswith("stats/")]
    with pq.ParquetWriter(path, table.schema, compression=codec, use_dictionary=plain, write_statistics=plain) as writer:
        start = 0
        for rows in groups:
            writer.write_table(table.slice(start, rows), row_group_size=max(1, rows))
            start += rows


def _rewrite_v21(root: Path, new: New, annotations: Annotations, *, heads: Sequence[str], meta: Metadata) -> Iterator[str]:
    """One line an episode. Every line gets the fields, null where not annotated: LeRobot's converter to v3.0 takes all from one line."""
    name = "meta/episodes.jsonl"
    old = (root / name).read_text(encoding="utf-8")
    lines = []
    for line in filter(str.strip, old.splitlines()):
        entry = parse_json(line, source="meta/episodes.jsonl")
        given, cells = annotations.get(entry["episode_index"], {}), dict(entry)
        for head in heads:
            stands = next((p for p in prefixes(head) if entry.get(f"{p}names") is not None), prefixes(head)[0])
            row = row_of(given[head], meta.fps) if head in given else {field: entry.get(f"{stands}{field}") for field in FIELDS}
            cells |= {f"{prefix}{field}": cell for prefix in prefixes(head) for field, cell in row.items()}
        lines.append(line if cells == entry else json.dumps(cells))
    text = "".join(f"{line}\n" for line in lines)
    if text != old:
        new(name).write_text(text, encoding="utf-8")
        yield name
