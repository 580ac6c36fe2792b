"""Annotations from wherever they are: a dataset's columns, its per-frame subtasks, an annotation file, a store, the simulator's truth.

Everything becomes `Annotations`, so that any two can be compared. Nothing is written, except that files of a Hub dataset go into the Hub's
cache. A dataset whose replacement was interrupted is refused: half of its files would be old.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from milepost.annotation.spreadsheet import SUFFIXES, read_file
from milepost.annotation.store import read_provenance, read_store
from milepost.core import HEADS, SUCCESS, DataError, bare_reason, warn_user
from milepost.datasets import (
    Annotations,
    Files,
    Metadata,
    find_files,
    is_interrupted,
    read_columns,
    read_metadata,
    read_proportions,
    segments_of,
    whole,
)

PATIENCE_S = 3.0
"""A writer that is alive finishes its renames within this time."""


def read_annotations(source: str | Path, *, fps: float | None = None, lengths: Mapping[int, int] | None = None) -> Annotations:
    """Returns the annotations of a source: a dataset (folder or Hub id), a `.csv` or `.json` file, or an `AnnotationStore`'s folder (or one
    with a store for each head in it, as `milepost annotate` makes them).

    fps, lengths: of the dataset a file is about, see `read_file`. Episodes without an annotation are left out; those whose annotation
    cannot be true too, with a DataWarning. DataError if there is no such source or it is damaged; an annotation past an episode's end by
    less than a second is cut, as `open_dataset` does.
    """
    path = Path(source).expanduser()
    if path.suffix in SUFFIXES and not path.is_dir():
        return read_file(path, fps=fps, lengths=lengths)
    if stores := _stores(path):
        return _merged([read_store(folder) for folder in stores])
    _, meta = _open(source)
    for episode_index, record in meta.episodes.items():
        for fault in record.annotation_faults.values():
            warn_user(f"{source}: episode {episode_index}: {bare_reason(fault, episode_index)}; it is left out")
    segments_by_episode = {episode_index: record.sound_segments for episode_index, record in meta.episodes.items()}
    annotated = {
        episode_index: {head: parts for head, parts in heads.items() if parts} for episode_index, heads in segments_by_episode.items()
    }
    return {episode_index: heads for episode_index, heads in annotated.items() if heads}


def read_truth(folder_or_repo: str | Path, names: Sequence[str] | None = None) -> Annotations:
    """Returns the simulator's truth of every episode as sparse segments, up to success: the runs of the `truth.stage` column.

    names: of the stages in the order of their numbers; without it those of the sparse proportions file. DataError if the dataset has
    no truth or no names.
    """
    files, meta = _open(folder_or_repo)
    if "truth.stage" not in meta.features:
        raise DataError(f"{files.name} has no column 'truth.stage': only simulated datasets know the truth (`milepost simulate`)")
    names = tuple(names or read_proportions(files.root, "sparse") or ())
    columns = [name for name in ("truth.stage", SUCCESS) if name in meta.features]
    out = {}
    for record, values in read_columns(files, meta, columns):
        has_succeeded = values.get(SUCCESS, np.zeros(record.length, bool)).astype(bool)
        out[record.index] = {"sparse": segments_of(np.where(has_succeeded, -1, whole(values["truth.stage"])), names)}
    return {episode_index: heads for episode_index, heads in out.items() if heads["sparse"]}


def is_store(folder: str | Path) -> bool:
    """Returns whether this is a folder of answers, and no dataset."""
    return bool(_stores(Path(folder).expanduser()))


def _stores(path: Path) -> list[Path]:
    """Returns the store in this folder, or one for each head in folders of their names."""
    folders = [path] if read_provenance(path) is not None else [path / head for head in HEADS]
    return [folder for folder in folders if folder.is_dir() and read_provenance(folder) is not None]


def _merged(parts: Sequence[Annotations]) -> Annotations:
    episode_indices = sorted({episode_index for part in parts for episode_index in part})
    return {
        episode_index: {head: segments for part in parts for head, segments in part.get(episode_index, {}).items()}
        for episode_index in episode_indices
    }


def _open(folder_or_repo: str | Path) -> tuple[Files, Metadata]:
    files, until = find_files(folder_or_repo), time.monotonic() + PATIENCE_S
    while is_interrupted(files.root):
        if time.monotonic() > until:
            raise DataError(f"writing annotations into {files.root} was interrupted; repeat that command, it finishes first what it began")
        time.sleep(0.02)  # somebody may be renaming at this very moment
    return files, read_metadata(files.root)
