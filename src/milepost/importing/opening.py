"""Finds out which layout a path has, by what is in it, and opens it with that layout's own file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from milepost.core import DataError
from milepost.datasets import is_dataset
from milepost.importing.aloha import episode_files, open_aloha
from milepost.importing.hdf5 import SUFFIXES, opened
from milepost.importing.lerobot import open_lerobot
from milepost.importing.replay_buffer import is_store, open_replay_buffer
from milepost.importing.rlds import is_rlds, open_rlds
from milepost.importing.robomimic import open_robomimic
from milepost.importing.source import Choices, Source
from milepost.importing.videos import open_videos

Format = Literal["videos", "robomimic", "aloha", "zarr", "rlds", "lerobot"]
OPENERS: dict[Format, Callable[[Path, Choices], Source]] = {
    "videos": open_videos,
    "robomimic": open_robomimic,
    "aloha": open_aloha,
    "zarr": open_replay_buffer,
    "rlds": open_rlds,
    "lerobot": open_lerobot,
}
FORMATS: tuple[Format, ...] = get_args(Format)


def open_source(path: Path, form: str = "auto", choices: Choices | None = None) -> Source:
    """Opens recordings in one of the layouts of `FORMATS`; "auto" looks at the path.

    Raises DataError if nothing is there, if it has no layout that is known, or if the layout's own function refuses it.
    """
    path = path.expanduser()
    if not path.exists():
        raise DataError(f"there is no {path}; give a folder of videos with a CSV, an HDF5 file or a folder of them, or a Zarr store")
    name = layout_of(path) if form == "auto" else next((each for each in FORMATS if each == form), None)
    if name is None:
        raise DataError(f"--format must be auto or one of {', '.join(FORMATS)}, got '{form}'")
    choices = choices or Choices()
    return replace(OPENERS[name](path, choices), choices=choices)


def layout_of(path: Path) -> Format:
    """Returns which layout a file or folder has. Raises DataError if it has none that is known."""
    if is_store(path):
        return "zarr"
    if path.is_dir():
        if is_dataset(path):
            return "lerobot"
        if is_rlds(path):
            return "rlds"
        if any(path.glob("*.csv")):
            return "videos"
        if files := episode_files(path):
            if (name := _layout_of_files(files)) == "robomimic":
                raise DataError(f"{path} has files in robomimic's layout, which has all episodes in one; name one of them: {files[0]}")
            return name
    elif path.suffix.lower() == ".csv":
        return "videos"
    elif path.suffix.lower() in SUFFIXES:
        return _hdf5_layout(path)
    raise DataError(f"{path} has no layout that is known here; name one with --format: {', '.join(FORMATS)}")


def _layout_of_files(files: Sequence[Path]) -> Format:
    """Returns the layout of the first of these files that has one; others may be damaged. DataError of the first file if none has."""
    fault: DataError | None = None
    for file in files:
        try:
            return _hdf5_layout(file)
        except DataError as error:
            fault = fault or error
    raise fault or DataError("there is no HDF5 file")


def _hdf5_layout(path: Path) -> Format:
    with opened(path) as file:
        if "data" in file:
            return "robomimic"
        if "observations" in file:
            return "aloha"
        top = ", ".join(file) or "empty"
        raise DataError(f"{path} has neither a group 'data' (robomimic) nor a group 'observations' (ALOHA); its top level is {top}")
