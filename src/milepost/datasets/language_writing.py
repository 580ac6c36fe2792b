"""Writes stages as LeRobot's language columns (LeRobot 0.6), into a copy of the dataset: `annotate --to-language`.

Each stage is a row of style `subtask` in `language_persistent`, at the time stamp of its first frame; where a stage ends and none begins, a
row without content says so. The rows of an episode stand in every one of its frames. The source is never written to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from milepost.core import DataError, Segment, require_sound_segments
from milepost.datasets.annotation_columns import Annotations
from milepost.datasets.copy import Copied, add_features, copy_files, require_sound
from milepost.datasets.hub import Files
from milepost.datasets.language_cells import LANGUAGE_FEATURES, LanguageRows, language_columns, require_language
from milepost.datasets.language_rows import STYLE, LanguageRow
from milepost.datasets.origin import record_origin
from milepost.datasets.reader import open_dataset
from milepost.datasets.records import Metadata, no_episode
from milepost.datasets.subtask_index import read_columns

ROLE = "assistant"


def copy_with_language(
    folder_or_repo: str | Path, folder: str | Path, annotations: Annotations, *, head: str = "sparse", revision: str | None = None
) -> Copied:
    """Copies a LeRobot v3 dataset into the new `folder`, with one head of these annotations as subtasks in its language columns.

    They replace the subtasks that these episodes have in the source's column; an episode that is not named keeps its own. DataError,
    before anything is written, if there is no such annotation, if segments do not fit their episode, if the source is no v3 dataset, has
    damage that LeRobot would not open, or another column of that name, if the frames of an episode hold different rows, or if the folder
    is there already or lies in a dataset or the Hub's cache.
    """
    dataset = open_dataset(folder_or_repo, revision=revision)
    files, meta = dataset.files, dataset.meta
    segments = {number: tuple(heads[head]) for number, heads in annotations.items() if head in heads}
    _check(meta, segments)
    require_language(files, meta, list(segments))
    damage = require_sound(folder_or_repo, revision, restamp=False)
    rows = LanguageRows(STYLE, ROLE, _new_rows(files, meta, segments))

    def describe(part: Path) -> None:
        add_features(part, LANGUAGE_FEATURES)
        record_origin(part, dataset, is_part=False)

    left_out = copy_files(files, meta, Path(folder), lambda name, _: language_columns(files.path(name), rows), describe)
    return Copied(left_out, damage)


def _check(meta: Metadata, segments: Mapping[int, Sequence[Segment]]) -> None:
    """Raises DataError for what cannot be written."""
    if not any(segments.values()):
        raise DataError("there is no annotation of this head to write")
    for number, parts in segments.items():
        if number not in meta.episodes:
            raise no_episode(number, meta.episodes)
        require_sound_segments(parts, None, meta.episodes[number].length)


def _new_rows(files: Files, meta: Metadata, segments: Mapping[int, Sequence[Segment]]) -> dict[int, tuple[LanguageRow, ...]]:
    """Returns the rows of each episode, with the time stamps of its own frames."""
    return {
        record.index: tuple(_rows(segments[record.index], values["timestamp"].astype(np.float64)))
        for record, values in read_columns(files, meta, ["timestamp"])
        if record.index in segments
    }


def _rows(segments: Sequence[Segment], times: Float[np.ndarray, "T"]) -> Iterator[LanguageRow]:
    """Yields the rows of one episode; a stage without a frame has none."""
    parts = [segment for segment in segments if segment.start < segment.stop]
    for part, following in zip(parts, [*(each.start for each in parts[1:]), len(times)], strict=True):
        yield LanguageRow(part.name, float(times[part.start]))
        if part.stop < following:
            yield LanguageRow("", float(times[part.stop]))
