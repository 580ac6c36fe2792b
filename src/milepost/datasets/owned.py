"""Where nothing may be written: among a dataset's own files, whose writers are `transaction.py` and `writer.py`, and in a cache; and where
a new dataset may be.
"""

from __future__ import annotations

from pathlib import Path

from milepost.core import OWNED, DataError, real_path
from milepost.datasets.hub import cache_name

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


def require_elsewhere(folder: Path, source: Path) -> None:
    """Raises DataError if a new dataset would lie in its source, in another dataset or in a cache, which nobody writes into."""
    place = real_path(folder.parent)
    if cache := cache_name(place):
        raise DataError(f"{folder} is in {cache}, which is shared by all programs; choose another folder")
    for parent in (place, *place.parents):
        if is_dataset(parent):
            raise DataError(f"{folder} is in the dataset {parent}, which it would become a part of; choose another folder")
    if place.is_relative_to(real_path(source)):
        raise DataError(f"{folder} is in {source}, which is only read; choose another folder")


def require_new_folder(folder: Path, source: Path) -> Path:
    """Returns where a new dataset will be, as an absolute path. DataError if there is something, or as `require_elsewhere`."""
    where = folder.expanduser().absolute()
    if where.exists() or where.is_symlink():
        raise DataError(f"{where} exists already and is not overwritten; remove it or choose another name")
    require_elsewhere(where, source)
    return where
