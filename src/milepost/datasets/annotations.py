"""Writes annotations into a local dataset as LeRobot's SARM reads them: columns of meta/episodes and meta/temporal_proportions_*.json.

All files are replaced as one (`replacing`). A file whose annotations do not change is not touched; a rewritten file keeps every other
column, row group and note. Episodes and heads that the caller does not name keep their annotation. A v2.1 dataset gets the same fields in
meta/episodes.jsonl, which milepost reads (LeRobot trains on v3.0 only). Annotations that SARM would misread without an error are refused:
stages out of order, past the end or of an unknown name. Proportions are SARM's eq. 1 (arXiv 2509.25358).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from milepost.core import (
    HEADS,
    WHOLE,
    Brief,
    DataError,
    Segment,
    Stages,
    count_noun,
    is_finished,
    names_in_order,
    names_of,
    parse_json,
    proportions,
    require_one_of,
    require_sound_segments,
    shortlist,
    warn_user,
)
from milepost.datasets.annotation_columns import FIELDS, Annotations, HeadAnnotations, Row, arrays, prefixes, row_of
from milepost.datasets.metadata import PROPORTIONS, read_metadata, read_proportions
from milepost.datasets.parquet import guarded, open_parquet
from milepost.datasets.records import Metadata, no_episode
from milepost.datasets.transaction import replacing, require_editable

Rule = Literal["finished", "lerobot"]
ANNOTATION_FILES = ("meta/episodes/**", "meta/episodes.jsonl", PROPORTIONS.format(head="*"))
"""The files that `write_annotations` replaces, as patterns."""
New = Callable[[str], Path]
"""Name of a file relative to the dataset -> where to write its new content."""


@runtime_checkable
class IsOpen(Protocol):
    """A dataset that is open: its annotations are read again after they were written."""

    @property
    def root(self) -> Path: ...

    def refresh(self) -> None: ...


@dataclass(frozen=True, repr=False)
class Written(Brief):
    """The result of a call. files: the replaced files, relative to the dataset.

    episodes: head -> how many episodes have an annotation now. stages: head -> its stages and proportions, for the heads that were written.
    """

    files: tuple[str, ...]
    episodes: Mapping[str, int]
    stages: Mapping[str, Stages]


class ChangedError(DataError):
    """An annotation on disk is not the one that the caller expects: another process or person wrote it meanwhile."""


def write_annotations(
    folder: str | Path | IsOpen,
    annotations: Annotations | HeadAnnotations,
    *,
    names: Mapping[str, Sequence[str]] | None = None,
    rule: Rule = "finished",
    expected: Annotations | None = None,
    overwrite: bool = False,
    keep_language: bool = True,
) -> Written:
    """Writes these annotations into the dataset in this folder, all of them or none; an empty tuple removes an episode's annotation.

    folder: the folder, or the dataset that is open: its episodes have the new annotations then. One that is open elsewhere keeps those that
    it was opened with, until it is opened again. annotations: episode -> head -> segments, or what `annotate` returned. names: head -> all
    its stages in order. Without it the order is that of the dataset's proportions file, else that of first appearance. rule: "finished" is
    eq. 1 over the attempts that reached their end (over all, if none did), as `milepost train` counts; "lerobot" takes, for each stage, the
    mean over the episodes that have it, and scales the sum to 1. expected: head -> the annotations that the episodes must have now; else
    ChangedError is raised and nothing is written. No other process can write between this check and the writing. overwrite: replaces, or
    removes, annotations that the dataset has; without it that is a DataError, unless `expected` names them. If only the dense head is
    written and the dataset has no sparse annotation, it gets the sparse proportions {"task": 1.0}. keep_language: where the stages are the
    subtasks of `language_persistent`, those of the other episodes are written as well, since they no longer count once meta/ has an
    annotation. A second call with the same arguments changes nothing. Raises DataError, before anything is written, if the dataset is not
    the user's own local one (see `replacing`) or an annotation does not fit it.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> segments = (milepost.Segment("reach", 0, 20), milepost.Segment("carry", 20, 33))
    >>> names = {"sparse": ["reach", "carry", "place"]}
    >>> written = milepost.write_annotations("dots", {0: {"sparse": segments}}, names=names, overwrite=True)
    >>> written.episodes
    {'sparse': 6}
    """
    require_one_of(rule, get_args(Rule), "rule")
    names = {head: names_of(stages) for head, stages in (names or {}).items()}
    if isinstance(annotations, HeadAnnotations):
        names = {annotations.head: annotations.names} | names
        annotations = annotations.by_episode()
    for head in names:
        require_one_of(head, HEADS, "a head in names")
        if len(set(names[head])) < len(names[head]):
            raise DataError(f"the {head} stages in names must be distinct, got {', '.join(map(str, names[head]))}")
    expected, root = expected or {}, require_editable(folder.root if isinstance(folder, IsOpen) else folder)
    written = _write(root, annotations, names, rule=rule, expected=expected, overwrite=overwrite, keep_language=keep_language)
    if isinstance(folder, IsOpen):
        folder.refresh()
    return written


def with_language(annotations: Annotations, meta: Metadata) -> dict[int, dict[str, tuple[Segment, ...]]]:
    """Returns the annotations, and the sparse ones of the other episodes where those are the subtasks of the language column.

    A DataWarning counts the episodes whose subtasks cannot be read.
    """
    merged = {episode_index: dict(heads) for episode_index, heads in annotations.items()}
    if not meta.from_language:
        return merged
    others = [record for record in meta.episodes.values() if "sparse" not in merged.get(record.index, {})]
    if unreadable := [record.index for record in others if "sparse" in record.annotation_faults]:
        what = f"the subtasks of {count_noun(len(unreadable), 'episode')} in language_persistent cannot be read, first of episode"
        warn_user(f"{what} {unreadable[0]}: these episodes have no annotation in meta/ (milepost info says why)")
    for record in others:
        if segments := record.sound_segments.get("sparse"):
            merged.setdefault(record.index, {})["sparse"] = segments
    return merged


def _write(
    root: Path,
    annotations: Annotations,
    names: Mapping[str, Sequence[str]],
    *,
    rule: Rule,
    expected: Annotations,
    overwrite: bool,
    keep_language: bool,
) -> Written:
    """Writes the annotations of the heads that they are for."""
    for each in (annotations, expected):
        _check_shape(each)
    with replacing(root) as new:
        meta = read_metadata(root)
        _check_known(annotations, meta)
        _check_expected(expected, meta)
        if not overwrite:
            _check_kept(annotations, expected, meta)
        own, annotations = annotations, with_language(annotations, meta) if keep_language else annotations
        heads = tuple(head for head in HEADS if any(head in each for each in annotations.values()))
        merged = {head: dict(_merged(head, annotations, meta, keep_language)) for head in heads}
        orders = {head: _order(root, head, merged[head].values(), names.get(head, ())) for head in heads}
        for head in heads:
            _check_fit(head, merged[head], meta, orders[head], own)
        stages = {head: stages_by_rule(merged[head], meta, orders[head], rule) for head in heads}
        contents: dict[str, Any] = {head: dict(zip(s.names, s.shares, strict=True)) for head, s in stages.items() if s is not None}
        if heads == ("dense",) and contents and not _any_sparse(meta, keep_language) and read_proportions(root, "sparse") is None:
            contents["sparse"] = dict(zip(WHOLE.names, WHOLE.shares, strict=True))
        rewrite = _rewrite_v30 if meta.version == "v3.0" else _rewrite_v21
        files = [*rewrite(root, new, annotations, heads=heads, meta=meta)]
        for head, shares in contents.items():
            name = PROPORTIONS.format(head=head)
            text = json.dumps(shares, indent=2, allow_nan=False)  # ASCII: LeRobot opens it with whatever encoding the machine has
            if not (root / name).is_file() or (root / name).read_text(encoding="utf-8") != text:
                new(name).write_text(text, encoding="utf-8")
                files.append(name)
    counts = {head: sum(bool(segments) for segments in merged[head].values()) for head in heads}
    return Written(tuple(files), counts, {head: s for head, s in stages.items() if s is not None})


def _check_shape(annotations: Annotations) -> None:
    """Raises DataError unless the annotations are by episode and by head."""
    if not isinstance(annotations, Mapping) or not all(isinstance(heads, Mapping) for heads in annotations.values()):
        raise DataError('annotations are by episode and by head, such as {0: {"sparse": (Segment("reach", 0, 20),)}}')
    for episode_index in annotations:
        if not isinstance(episode_index, int | np.integer) or isinstance(episode_index, bool):
            raise DataError(f"annotations are by the number of the episode, an int such as 0; got {episode_index!r}")


def _check_known(annotations: Annotations, meta: Metadata) -> None:
    if not any(annotations.values()):
        raise DataError("there is no annotation to write")
    for episode_index, heads in annotations.items():
        if episode_index not in meta.episodes:
            raise no_episode(episode_index, meta.episodes)
        if unknown := set(heads) - set(HEADS):
            raise DataError(f"episode {episode_index}: annotations are for {' or '.join(HEADS)}, got '{', '.join(sorted(unknown))}'")


def _check_expected(expected: Annotations, meta: Metadata) -> None:
    for episode_index, heads in expected.items():
        for head, segments in heads.items():
            if episode_index not in meta.episodes or meta.episodes[episode_index].readable_segments.get(head, ()) != tuple(segments):
                raise ChangedError(
                    f"the {head} annotation of episode {episode_index} was changed meanwhile; look at it again before writing"
                )


def _check_kept(annotations: Annotations, expected: Annotations, meta: Metadata) -> None:
    """Raises DataError if an annotation that the dataset has, and that the caller does not name in `expected`, would be replaced."""
    for head in HEADS:
        conflicts = [
            episode_index
            for episode_index, heads in annotations.items()
            if head in heads
            and head not in expected.get(episode_index, {})
            and (old := meta.episodes[episode_index].readable_segments.get(head))
            and tuple(old) != tuple(heads[head])
        ]
        if conflicts:
            some = shortlist(sorted(conflicts))
            raise DataError(f"the dataset has {head} annotations of episodes {some}, which would be replaced: give overwrite=True")


def _merged(head: str, annotations: Annotations, meta: Metadata, keep_language: bool) -> Iterator[tuple[int, tuple[Segment, ...]]]:
    """Yields every episode with the annotation that it will have: the new one if there is one, else the old one.

    An old annotation with a fault stays on disk, but no proportion counts it.
    """
    for episode_index, record in meta.episodes.items():
        new_heads = annotations.get(episode_index, {})
        old = {} if record.from_language and not keep_language else record.sound_segments
        yield episode_index, new_heads[head] if head in new_heads else old.get(head, ())


def _order(root: Path, head: str, annotations: Iterable[Sequence[Segment]], names: Sequence[str]) -> tuple[str, ...]:
    """Returns the stages of the proportions file if it lists all that are in use, else the stages by their first appearance."""
    if names:
        return tuple(names)
    listed_names = tuple(read_proportions(root, head) or ())
    annotated_episodes = [segments for segments in annotations if segments]
    return (
        listed_names
        if {segment.name for segments in annotated_episodes for segment in segments} <= set(listed_names)
        else names_in_order(annotated_episodes)
    )


def _check_fit(
    head: str, merged: Mapping[int, tuple[Segment, ...]], meta: Metadata, names: Sequence[str], annotations: Annotations
) -> None:
    """Raises DataError for an annotation that does not fit its episode or the stages.

    Old annotations are checked too, because the proportions are means over all.
    """
    for episode_index, segments in merged.items():
        try:
            require_sound_segments(segments, names, meta.episodes[episode_index].length)
        except DataError as error:
            old = (
                ""
                if head in annotations.get(episode_index, {})
                else "; that is what its language column says, which is written into meta/ too: annotate this episode as well"
                if meta.from_language
                else "; that is what the dataset has: annotate this episode again, or remove it"
            )
            raise DataError(f"episode {episode_index}, {head}: {error}{old}") from error


def stages_by_rule(merged: Mapping[int, tuple[Segment, ...]], meta: Metadata, names: Sequence[str], rule: Rule) -> Stages | None:
    """Returns the head's stages and proportions after the call; None if no episode has an annotation (an old proportions file stays)."""
    annotated_episodes = {episode_index: segments for episode_index, segments in merged.items() if segments}
    if not annotated_episodes:
        return None
    if rule == "lerobot":
        return Stages(tuple(names), _mean_proportions(annotated_episodes.values(), names))
    records = meta.episodes
    nonempty_episodes = {
        episode_index: segments for episode_index, segments in annotated_episodes.items() if any(s.stop > s.start for s in segments)
    }
    finished_episodes = [
        segments for episode_index, segments in nonempty_episodes.items() if is_finished(segments, names, records[episode_index].success)
    ]
    return proportions(finished_episodes or nonempty_episodes.values(), names)


def _mean_proportions(annotations: Iterable[Sequence[Segment]], names: Sequence[str]) -> tuple[float, ...]:
    """Returns the mean proportion of each stage over the episodes that have it, scaled to sum to 1: LeRobot's reading of eq. 1."""
    by_name: dict[str, list[float]] = {name: [] for name in names}
    for segments in annotations:
        whole = sum(s.stop - s.start for s in segments)
        for name in dict.fromkeys(s.name for s in segments) if whole else ():
            by_name[name].append(sum(s.stop - s.start for s in segments if s.name == name) / whole)
    means = np.array([np.mean(shares) if shares else 0.0 for shares in by_name.values()])
    if not means.sum() > 0:
        raise DataError("no annotated episode to take stage proportions from")
    return tuple(float(mean) for mean in means / means.sum())


def _any_sparse(meta: Metadata, keep_language: bool) -> bool:
    if meta.from_language and not keep_language:
        return False
    return any(record.sound_segments.get("sparse") for record in meta.episodes.values())


def _rewrite_v30(root: Path, new: New, annotations: Annotations, *, heads: Sequence[str], meta: Metadata) -> Iterator[str]:
    """Adds the columns to every meta file, so that all files keep one schema. Yields the names of the files that change."""
    paths = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        changed = pool.map(partial(_rewrite_file, root, new, annotations, heads=heads, fps=meta.fps), paths)
        yield from (name for name in changed if name)


def _rewrite_file(root: Path, new: New, annotations: Annotations, path: Path, *, heads: Sequence[str], fps: float) -> str:
    """Writes one meta file with the columns to where `new` says. Returns its name, "" if the file does not change."""
    names = {"episode_index", *(f"{prefix}{field}" for head in heads for prefix in prefixes(head) for field in FIELDS)}
    with open_parquet(path) as file:
        old = guarded(path, partial(file.read, [name for name in file.schema_arrow.names if name in names]))
        columns = {name: column for head in heads for name, column in arrays(head, [*_rows(head, old, annotations, fps)]).items()}
        if all(_is_unchanged(old, name, column) for name, column in columns.items()):
            return ""
        table = guarded(path, file.read)
        groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        codec = file.metadata.row_group(0).column(0).compression if groups else "SNAPPY"
    for name, column in columns.items():
        place = table.schema.get_field_index(name)
        table = table.append_column(name, column) if place < 0 else table.set_column(place, name, column)
    relative = path.relative_to(root).as_posix()
    _write_groups(new(relative), table, groups, codec)
    return relative


def _rows(head: str, table: pa.Table, annotations: Annotations, fps: float) -> Iterator[Row]:
    """Yields the cells of this head for each row: the new annotation, else the old cells, from the unprefixed columns if no others have
    any.
    """
    nothing = [None] * table.num_rows
    cells = {name: table[name].to_pylist() for name in table.column_names}
    for i, episode_index in enumerate(table["episode_index"].to_pylist()):
        new_heads = annotations.get(episode_index, {})
        if head in new_heads:
            yield row_of(new_heads[head], fps)
            continue
        present = (prefix for prefix in prefixes(head) if cells.get(f"{prefix}names", nothing)[i] is not None)
        prefix = next(present, prefixes(head)[0])
        yield {field: cells.get(f"{prefix}{field}", nothing)[i] for field in FIELDS}


def _is_unchanged(table: pa.Table, name: str, column: pa.Array) -> bool:
    """Returns whether the table has an equal column of this name and type already."""
    return name in table.column_names and table[name].type == column.type and table[name].combine_chunks().equals(column)


def _write_groups(path: Path, table: pa.Table, groups: Sequence[int], codec: str) -> None:
    """Writes a parquet file whose row groups have these numbers of rows.

    Dictionaries and footer statistics are off: with hundreds of statistics columns they would take most of the time, and no reader uses
    them.
    """
    plain = [name for name in table.column_names if not name.startswith("stats/")]
    with pq.ParquetWriter(path, table.schema, compression=codec, use_dictionary=plain, write_statistics=plain) as writer:
        start = 0
        for rows in groups:
            writer.write_table(table.slice(start, rows), row_group_size=max(1, rows))
            start += rows


def _rewrite_v21(root: Path, new: New, annotations: Annotations, *, heads: Sequence[str], meta: Metadata) -> Iterator[str]:
    """Rewrites meta/episodes.jsonl; every line gets the fields, null where there is no annotation.

    LeRobot's converter to v3.0 takes the names of all fields from one line, so no line may lack them.
    """
    name = "meta/episodes.jsonl"
    old = (root / name).read_text(encoding="utf-8")
    lines = []
    for line in filter(str.strip, old.splitlines()):
        entry = parse_json(line, source="meta/episodes.jsonl")
        new_heads, cells = annotations.get(entry["episode_index"], {}), dict(entry)
        for head in heads:
            source = next((prefix for prefix in prefixes(head) if entry.get(f"{prefix}names") is not None), prefixes(head)[0])
            row = row_of(new_heads[head], meta.fps) if head in new_heads else {field: entry.get(f"{source}{field}") for field in FIELDS}
            cells |= {f"{prefix}{field}": cell for prefix in prefixes(head) for field, cell in row.items()}
        lines.append(line if cells == entry else json.dumps(cells))
    text = "".join(f"{line}\n" for line in lines)
    if text != old:
        new(name).write_text(text, encoding="utf-8")
        yield name
