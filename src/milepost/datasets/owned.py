"""A dataset's own files, which no output may replace: what milepost writes into a dataset goes through `transaction.py` and `writer.py`."""

from __future__ import annotations

from pathlib import Path

from milepost.core import OWNED

FOLDERS = ("meta", "data", "videos", "images")


def dataset_of(path: Path) -> Path | None:
    """Returns the root of the dataset in whose own folders a path is, None if it is in none."""
    absolute = path.expanduser().absolute()
    for parent in absolute.parents:
        if absolute.relative_to(parent).parts[0] in FOLDERS and (parent / "meta" / "info.json").is_file():
            return parent
    return None


def why_not(path: Path) -> str:
    """Returns why an output may not be at a path, "" if it may."""
    root = dataset_of(path)
    return "" if root is None else f"it is in a folder of the dataset {root}, whose own files are never replaced; choose another place"


def protect() -> None:
    """Makes every writer of milepost ask `why_not` first. It is called when a dataset is opened."""
    if why_not not in OWNED:
        OWNED.append(why_not)


def is_dataset(folder: Path) -> bool:
    """Returns whether a folder is the root of a dataset."""
    return (folder / "meta" / "info.json").is_file()
