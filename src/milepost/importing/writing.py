"""Writes an opened source as a LeRobot v3.0 dataset: one episode after another, and the folder appears complete or not at all.

Encoded episodes lie in a hidden folder beside the new one until the end. A killed process leaves only that, and the next import into the
same folder removes it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from milepost.core import DataError, Tick, output_lock, quiet, temporary_name
from milepost.datasets import assemble, encode_episode, require_new_folder
from milepost.importing.source import Source


@dataclass(frozen=True)
class ImportResult:
    """What was written. empty: the names of episodes without a frame, which are left out."""

    episodes: int
    frames: int
    empty: Sequence[str]


def import_source(source: Source, root: Path, *, codec: str = "libsvtav1", on_episode: Tick = quiet) -> ImportResult:
    """Writes all episodes of a source as a dataset at `root`. Memory holds the numbers of one episode and a few images.

    on_episode: gets how many episodes are written, and of how many. Raises DataError, and writes nothing, if an episode cannot be read, if
    episodes differ in their features, or if none has a frame.
    """
    root = require_new_folder(root, source.path)
    entries = [entry for entry in source.entries if entry.length]
    empty = [entry.name for entry in source.entries if not entry.length]
    if not entries:
        raise DataError(f"{source.path} has no episode with a frame, so there is nothing to import")
    root.parent.mkdir(parents=True, exist_ok=True)
    with output_lock(root):
        work = temporary_name(root)
        work.mkdir()
        try:
            folders = [work / f"{number:06d}" for number in range(len(entries))]
            for number, (entry, folder) in enumerate(zip(entries, folders, strict=True)):
                try:
                    encode_episode(folder, entry.read(), fps=source.fps, codec=codec)
                except DataError as error:
                    raise DataError(f"{entry.name}: {str(error).replace(str(folder), '')}") from error
                on_episode(number + 1, len(entries))
            assemble(root, folders, fps=source.fps, robot_type=source.robot_type, proportions=source.proportions)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return ImportResult(len(entries), sum(entry.length for entry in entries), empty)
