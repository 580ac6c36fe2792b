"""Writes an opened source as a LeRobot v3.0 dataset: one episode after another, and the folder appears complete or not at all.

Encoded episodes lie in a hidden folder beside the new one until the end. A killed process leaves only that, and the next import into the
same folder removes it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from milepost.core import DataError, Tick, output_lock, quiet, temporary_name
from milepost.datasets import assemble, encode_episode, require_new_folder
from milepost.importing.source import Entry, Source


@dataclass(frozen=True)
class ImportResult:
    """What was written. empty: the names of episodes without a frame, which are left out."""

    episodes: int
    frames: int
    empty: Sequence[str]


def import_source(source: Source, root: Path, *, codec: str = "libsvtav1", on_look: Tick = quiet, on_episode: Tick = quiet) -> ImportResult:
    """Writes all episodes of a source as a dataset at `root`. Memory holds the numbers of one episode and a few images.

    The numbers and the first image of every episode are read before anything is encoded. on_look: gets how many were looked at so, and of
    how many; on_episode: how many are written. Raises DataError, and writes nothing, if episodes cannot be read, all of which it names, if
    episodes differ in their features, or if none has a frame.
    """
    root = require_new_folder(root, source.path)
    entries = [entry for entry in source.entries if entry.length]
    empty = [entry.name for entry in source.entries if not entry.length]
    if not entries:
        raise DataError(f"{source.path} has no episode with a frame, so there is nothing to import")
    _for_each(source, entries, lambda entry: _read(entry, images=1), on_look)
    root.parent.mkdir(parents=True, exist_ok=True)
    with output_lock(root):
        work = temporary_name(root)
        work.mkdir()
        try:
            folders = _encode(source, entries, work, codec, on_episode)
            assemble(root, folders, fps=source.fps, robot_type=source.robot_type, proportions=source.proportions)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return ImportResult(len(entries), sum(entry.length for entry in entries), empty)


def _encode(source: Source, entries: Sequence[Entry], work: Path, codec: str, on_episode: Tick) -> list[Path]:
    """Encodes each episode into a folder of its own. After a damaged one the others are only read, so that all damaged ones are named."""
    folders: list[Path] = []

    def encode(entry: Entry) -> None:
        if entry is not entries[len(folders)]:  # one before it is damaged
            return _read(entry)
        folder = work / f"{entry.number:06d}"
        try:
            encode_episode(folder, entry.read(), fps=source.fps, codec=codec)
        except DataError as error:
            raise DataError(str(error).replace(str(folder), "")) from error
        return folders.append(folder)

    _for_each(source, entries, encode, on_episode)
    return folders


def _read(entry: Entry, images: int | None = None) -> None:
    """Reads the numbers of an episode, and so many images of each camera; all if None."""
    for frames in entry.read().frames.values():
        for _ in islice(frames, images):
            pass


def _for_each(source: Source, entries: Sequence[Entry], do: Callable[[Entry], None], tick: Tick) -> None:
    """Calls `do` with each episode. DataError names those with which it fails, and how to leave them out."""
    places = {entry.number: place for place, entry in enumerate(entries)}

    def one(number: int) -> None:
        entry = entries[places[number]]
        try:
            do(entry)
        except DataError as error:
            name = "" if entry.name == f"episode {number}" else f"{entry.name}: "
            raise DataError(f"{name}{error}") from error
        finally:
            tick(places[number] + 1, len(entries))

    source.choices.each(places, one)
