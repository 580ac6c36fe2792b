"""LeRobot's newest form of subtasks (0.6) as annotations: what `lerobot-annotate` writes into the column `language_persistent`.

Reading an episode gives the same segments (`EpisodeRecord.segments`), as long as meta/episodes has no annotation. Here all episodes are
read at once, as the head that the caller names. The rows themselves are read in `datasets/language_rows.py`.
"""

from __future__ import annotations

from pathlib import Path

from milepost.core import DataError, Segment
from milepost.datasets.hub import find_files
from milepost.datasets.language_rows import LANGUAGE, STYLE, LanguageColumn
from milepost.datasets.metadata import read_metadata


def read_language_subtasks(folder_or_repo: str | Path, head: str = "sparse") -> dict[int, dict[str, tuple[Segment, ...]]]:
    """Returns the subtasks of `language_persistent` as segments of `head`, without episodes that have none.

    A row that begins between two frames is in force from the next one on. Raises DataError if there is no such column, if no episode has a
    subtask, or if the rows of an episode contradict each other.
    """
    files = find_files(folder_or_repo)
    column, out = LanguageColumn(files), {}
    for record in read_metadata(files.root).episodes.values():
        try:
            segments = column.segments(record)
        except DataError as error:
            raise DataError(f"episode {record.index}: {error}") from error
        if segments:
            out[record.index] = {head: segments}
    if not out:
        raise DataError(f"{files.root} has no row of style '{STYLE}' in {LANGUAGE}")
    return out
