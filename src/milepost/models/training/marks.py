"""What an unfinished training run leaves in its folder, told by file names alone: nothing heavy is imported to look."""

from __future__ import annotations

from pathlib import Path

from milepost.core import warn_user

CHECKPOINT, MARK = "checkpoint.pt", "run.json"


def is_unfinished(folder: Path) -> bool:
    """Returns whether a run in this folder was interrupted, in its steps or in what comes after them."""
    return (folder / CHECKPOINT).exists() or (folder / MARK).exists()


def finish_run(folder: Path) -> None:
    """Removes the mark of a run whose model, card and whatever else was asked for are complete."""
    (folder / MARK).unlink(missing_ok=True)


def warn_of_unfinished(path: str | Path) -> None:
    """Warns of a folder whose training was interrupted: its model is that of the last save."""
    if is_unfinished(Path(path)):
        warn_user(f"the training of {path} was interrupted, and its model is that of the last save: the same train command finishes it")
