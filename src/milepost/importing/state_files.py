"""Reads the state file of a video: a CSV with a header, a NumPy array (.npy), or the arrays `state` and `action` (.npz)."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from milepost.core import DataError, read_text

ACTION = "action."
"""Columns of a CSV with this in front are the action's."""


def read_state_file(path: Path, *, who: str) -> tuple[tuple[Float32[np.ndarray, "N S"], Float32[np.ndarray, "N A"]], dict[str, list[str]]]:
    """Returns state and action, and the names of their channels where the file has them. who: who names the file, for messages.

    Raises DataError if the file is missing, of another kind, or not made of numbers.
    """
    if not path.is_file():
        raise DataError(f"{who} names the state file {path}, which is not there")
    try:
        if path.suffix.lower() == ".csv":
            return _from_csv(path)
        if path.suffix.lower() in (".npy", ".npz"):
            return _from_numpy(path), {}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"the state file {path} cannot be read: {error}") from error
    raise DataError(f"the state file {path} must be .csv, .npy or .npz")


def _from_csv(path: Path) -> tuple[tuple[np.ndarray, np.ndarray], dict[str, list[str]]]:
    header, *lines = [line for line in csv.reader(io.StringIO(read_text(path).removeprefix("\ufeff"))) if line] or [[]]
    if not lines:
        raise ValueError("it needs a header with the names of the channels, and a row a frame")
    names = [name.strip() for name in header]
    values = np.array(lines, dtype=np.float64).astype(np.float32).reshape(len(lines), len(names))
    is_action = np.array([name.startswith(ACTION) for name in names], bool)
    channels = {
        "observation.state": [name for name in names if not name.startswith(ACTION)],
        "action": [name.removeprefix(ACTION) for name in names if name.startswith(ACTION)],
    }
    return (values[:, ~is_action], values[:, is_action]), {key: each for key, each in channels.items() if each}


def _from_numpy(path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = np.load(path, allow_pickle=False)
    if isinstance(content, np.ndarray):
        arrays = {"state": content}
    else:
        with content:
            arrays = {name: content[name] for name in content.files}
    if not arrays.keys() & {"state", "action"}:
        raise ValueError(f"it has no array 'state' or 'action', only {', '.join(arrays)}")
    length = len(next(iter(arrays.values())))
    state, action = (_matrix(arrays.get(name), length) for name in ("state", "action"))
    return state, action


def _matrix(values: np.ndarray | None, length: int) -> Float32[np.ndarray, "N D"]:
    if values is None:
        return np.empty((length, 0), np.float32)
    if values.ndim not in (1, 2) or values.dtype.kind not in "fiub":
        raise ValueError(f"an array must hold numbers, one row a frame, got {values.dtype} {values.shape}")
    return values.reshape(len(values), -1).astype(np.float32)
