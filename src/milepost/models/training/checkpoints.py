"""An unfinished training run on disk: its checkpoint, and a small mark that says whose it is and whether its steps are done.

The mark stands from the first step until everything that comes after training (card, table, upload) is complete, so the same command always
finds its way back. Reads no pickled objects, only tensors and plain values. Refuses another run's files, and damaged ones by name.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from milepost.core import DataError, atomic_path, read_json_object, require_plain_file, to_json, write_text
from milepost.models.training.marks import CHECKPOINT, MARK

_DAMAGED = (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, ValueError, AttributeError)
"""What torch and the loading of a state raise for a file that was cut, changed or replaced."""


def write_mark(folder: Path, key: str, done: Mapping[str, Any] | None = None) -> None:
    """Writes whose run is in this folder; `done`: how it went, once its steps are done."""
    write_text(folder / MARK, to_json({"key": key, "done": None if done is None else dict(done)}))


def read_mark(folder: Path, key: str, *, overwrite: bool) -> dict[str, Any] | None:
    """Returns how the run of this key went if its steps are done, else None. DataError if it is another run's and not `overwrite`."""
    if not (folder / MARK).exists() or (folder / CHECKPOINT).exists():
        return None
    mark = read_json_object(folder / MARK, what="mark of a run")
    if mark.get("key") != key:
        if not overwrite:
            raise _other_run(folder, "")
        return None
    done = mark.get("done")
    return done if isinstance(done, dict) else None


def read_checkpoint(folder: Path, key: str, *, overwrite: bool) -> dict[str, Any] | None:
    """Returns the checkpoint of the run of this key. None if `overwrite` and it is damaged or another's, which is a DataError otherwise."""
    path = folder / CHECKPOINT
    require_plain_file(path, what="checkpoint")
    try:
        with readable_checkpoint(path):
            saved = torch.load(path, weights_only=True, map_location="cpu")
            whose, step = saved["key"], int(saved["step"])
    except DataError:
        if not overwrite:
            raise
        return None
    if whose == key:
        return saved
    if not overwrite:
        raise _other_run(folder, f" (step {step})")
    return None


@contextmanager
def readable_checkpoint(path: Path) -> Iterator[None]:
    """Turns what reading a damaged checkpoint raises into a DataError that names it."""
    try:
        yield
    except _DAMAGED as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise DataError(f"the checkpoint {path} is damaged ({reason}); use --overwrite to start over") from error


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint, whole or not at all. OSError, the disk's own, if it cannot be written."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:  # an open file: given a path, torch hides the disk's error
        torch.save(dict(state), file)


def _other_run(folder: Path, where: str) -> DataError:
    return DataError(
        f"{folder} holds an unfinished run with other settings or data{where}: run that command again, use --overwrite to start over, or "
        "another --output-dir"
    )
