"""Replaces several files of a dataset as one: all new files are written beside the old ones, then a journal, then they are renamed.

If the process is killed before the journal is written, the old files are unchanged and the next call removes the leftovers. If it is killed
later, the next call finishes the renaming before it does anything else. A dataset in the Hub's cache, files that are links, and a second
writer are refused. A journal may come with a downloaded dataset: only files of the kinds written here, inside the dataset, are ever
renamed.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from milepost.core import DataError, flush_to_disk, is_inside, read_json, real_path, shown
from milepost.datasets.hub import cache_name, in_cache

JOURNAL = "meta/.milepost-replacing.json"
_SUFFIX = ".milepost-new"
_OURS = re.compile(
    r"meta/(info\.json|subtasks\.parquet|episodes\.jsonl|temporal_proportions_(sparse|dense)\.json|episodes/[^/]+/[^/]+\.parquet)"
    r"|data/([^/]+/)*[^/]+\.parquet"
)
"""The files that annotating replaces."""


class BusyError(DataError):
    """Another process is replacing files of this dataset. It takes only moments."""


def require_editable(folder: str | Path) -> Path:
    """Returns the dataset's folder if it is the user's own. Raises DataError for a Hub dataset: its cache is shared and never edited."""
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DataError(f"there is no folder {folder}. {_advice(str(folder))}")
    if cache := cache_name(real_path(root)):
        raise DataError(f"{root} is in {cache}, which is shared by all that read this dataset. {_advice('OWNER/NAME')}")
    if not (root / "meta").is_dir():
        raise DataError(f"{root} is not a LeRobot dataset: it has no meta/ folder")
    return root


def copy_meta(root: Path, folder: Path) -> None:
    """Copies meta/ of a dataset into a new folder, links followed, all of it or nothing."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(root / "meta", part / "meta")
    part.rename(folder)


def is_interrupted(root: Path) -> bool:
    """Returns whether a replacement was killed while it was renaming: some files are new then and some old."""
    return (root / JOURNAL).is_file()


def finish_interrupted(folder: str | Path) -> None:
    """Finishes a replacement that was killed while it was renaming; does nothing if there was none."""
    root = Path(folder).expanduser()
    if is_interrupted(root):
        with replacing(require_editable(root)):
            pass


@contextmanager
def replacing(root: Path) -> Iterator[Callable[[str], Path]]:
    """Yields a function that returns, for a file name relative to `root`, the path to write its new content to.

    All new files are in place when the block ends without an error, and none if it ends with one. An interrupted replacement is finished
    first. Raises DataError if a file is a link, BusyError if another process is replacing files of this dataset.
    """
    names: list[str] = []

    def new(name: str) -> Path:
        _require_own(root / name)
        _require_ours(root, name, "info.json")
        names.append(name)
        return _beside(root / name)

    with _alone(root):
        _finish(root)
        try:
            yield new
            for name in names:
                _settle(root / name)
            if names:
                _beside(root / JOURNAL).write_text(json.dumps({"files": names}, allow_nan=False), encoding="utf-8")
                _settle(root / JOURNAL)
                _beside(root / JOURNAL).replace(root / JOURNAL)
        finally:
            if not is_interrupted(root):
                for name in (*names, JOURNAL):
                    _beside(root / name).unlink(missing_ok=True)
        _finish(root)


def _finish(root: Path) -> None:
    """Renames the files that the journal lists; without a journal, removes what a killed process left."""
    journal = root / JOURNAL
    if journal.is_file():
        for name in _journal(root):
            if _beside(root / name).is_file():
                _beside(root / name).replace(root / name)
        journal.unlink()
    for part in ("meta", "data"):
        for leftover in (root / part).rglob(f".*{_SUFFIX}"):
            if is_inside(leftover.parent, root):
                leftover.unlink()


def _journal(root: Path) -> list[str]:
    """Returns the files that an interrupted replacement was renaming. Raises DataError if the journal is not one that is written here."""
    journal = root / JOURNAL
    if journal.is_symlink():
        raise DataError(f"{journal} is a link, and no journal of milepost's: remove it")
    content = read_json(journal, what="journal")
    names = content.get("files") if isinstance(content, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{journal} is no journal of milepost's: remove it")
    for name in names:
        _require_ours(root, name, f"{journal} (remove it if it came with the dataset)")
    return names


def _require_ours(root: Path, name: str, source: str) -> None:
    """Raises DataError unless this is a file that annotating replaces, in the dataset itself."""
    if not _OURS.fullmatch(name) or ".." in name.split("/"):
        raise DataError(f"{source} names {shown(name, 120)}, and annotating replaces files of meta/ and data/ alone; nothing was written")
    if not is_inside((root / name).parent, root):
        raise DataError(f"{source} names {name}, which a link leads out of {root}: work on a copy without links (`cp -rL FOLDER COPY`)")


def _beside(path: Path) -> Path:
    """Returns a name on the same disk that no reader takes for a parquet file."""
    return path.with_name(f".{path.name}{_SUFFIX}")


def _settle(path: Path) -> None:
    """Flushes a file to disk and gives it the old file's permissions."""
    flush_to_disk(_beside(path))
    if path.exists():
        shutil.copymode(path, _beside(path))


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    if sys.platform == "win32":
        raise DataError(f"annotations are written into a dataset on Linux and macOS only, and this is {sys.platform}: use WSL 2")
    import fcntl

    handle = os.open(root / "meta", os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another process is writing annotations into {root}; wait until it is done") from None
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL):  # a network disk without locks on folders
                raise
        yield
    finally:
        os.close(handle)


def _require_own(path: Path) -> None:
    if path.is_symlink() or in_cache(real_path(path)):
        raise DataError(f"{path} is a link{f' to {path.readlink()}' if path.is_symlink() else ''}; {_advice('OWNER/NAME')}")


def _advice(repo: str) -> str:
    return (
        "A Hub dataset is not edited in the cache: make a copy of your own first (`cp -rL FOLDER COPY`, or `hf download "
        f"{repo} --repo-type dataset --local-dir COPY`) and use that, or name the repository to publish with --output-repo-id"
    )
