"""Opens HDF5 files through h5py, for both layouts in HDF5. A file is open only while something is read from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from milepost.core import DataError, load, parse_json, require_plain_file
from milepost.importing.channels import Arrays

SUFFIXES = (".hdf5", ".h5", ".hdf")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yields the open file. Raises DataError if it is missing, no HDF5 file, or damaged where it is read, and if h5py is missing."""
    h5py = load("h5py", purpose="HDF5 files", install="milepost[hdf5]")
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    require_plain_file(path, what="HDF5 file")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path} is not an HDF5 file, or is truncated; copy or record it again ({_reason(error)})") from error
    with file:
        yield file


def _reason(error: BaseException) -> str:
    return str(error).partition("(")[2].rstrip(")") or str(error)


def datasets_in(group: Any) -> dict[str, Any]:
    """Returns name -> array of what lies directly in a group; arrays without a frame axis are left out."""
    return {name: each for name, each in group.items() if hasattr(each, "shape") and each.shape}


def arrays_of(path: Path, name: str, places: dict[str, Any]) -> Arrays:
    """Returns the arrays of an episode. places: key -> the open array, whose path in the file is kept."""
    paths = {key: each.name for key, each in places.items()}

    def read(key: str, start: int, stop: int) -> np.ndarray:
        with opened(path) as file:
            try:
                return file[paths[key]][start:stop]
            except OSError as error:
                raise DataError(f"{path}: '{key}' is damaged after frame {start}; copy the file again ({_reason(error)})") from error

    return Arrays(name, {key: each.shape for key, each in places.items()}, {key: each.dtype for key, each in places.items()}, read)


def text_of(value: Any) -> str:
    """Returns an attribute that is text, as str or bytes; "" for anything else."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""


def object_of(value: Any, source: str) -> dict[str, Any]:
    """Returns an attribute that is a JSON object; {} where there is none. Raises DataError if it is no JSON."""
    text = text_of(value)
    content = parse_json(text, source=source) if text.strip() else {}
    return content if isinstance(content, dict) else {}
