"""Writes files and folders whole or not at all, with one writer at a time, and removes what a killed process left.

A temporary file or folder lies beside the final one under `.NAME.OWNER.RANDOM.milepost`. OWNER is the host, the process number and the time
at which the process began. Leftovers of a killed process are removed at the next start; a file without this mark is never removed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from milepost.core.errors import DataError

MARK = ".milepost"
# What a lock raises on file systems without locks, such as some network disks.
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)


class BusyError(DataError):
    """Another process writes the same output. The message says which one."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`. On success the file is flushed to disk and renamed to `path`; on an error it is removed.

    Raises OSError (disk full, read-only folder); `path` is then unchanged. DataError if `path` is a folder, or is in a folder that is not
    there: better now than after the work.
    """
    path = Path(path)
    require_file_name(path)
    temporary = temporary_name(path)
    # The kernel applies the process's umask here; reading it by os.umask() would change it for other threads for a moment.
    with _making_a_file_in(path.parent):
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        flush_to_disk(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _making_a_file_in(folder: Path) -> Iterator[None]:
    """Raises DataError where the system says that there is no such file: no file can be made in the folder, such as in /proc."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"the folder {folder} cannot be written to: no file can be made there; choose another place") from error


OWNED: list[Callable[[Path], str]] = []
"""Functions that return why nobody may write a file at a path, "" if anybody may. `datasets/` adds one: a dataset's own files."""


def looks_remote(path: Path) -> bool:
    """Tells whether a path was an address, of whose slashes one is left.

    >>> looks_remote(Path("s3://bucket/out.parquet")), looks_remote(Path("out.parquet"))
    (True, False)
    """
    return bool(path.parts) and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]+:", path.parts[0]) is not None and not Path(path.parts[0]).exists()


def _require_here(path: Path) -> None:
    if looks_remote(path):
        raise DataError(f"{path} is an address, and files are written on this machine alone: give a path here, and copy the file there")


def require_file_name(path: Path) -> None:
    """Raises DataError if a file cannot be written at `path`: it is a folder, its folder is missing, or it is a dataset's own."""
    _require_here(path)
    for reason in filter(None, (owned(path) for owned in OWNED)):
        raise DataError(f"{path} cannot be written: {reason}")
    if path.is_dir():
        raise DataError(f"{path} is a folder; give the name of a file in it, such as {path / 'NAME'}")
    if not path.parent.is_dir():
        raise DataError(f"{path} cannot be written: {path.parent} is {'no folder' if path.parent.exists() else 'not there; make it first'}")


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `folder`. On success it is flushed to disk and renamed; on an error it is removed.

    Raises DataError if `folder` exists.
    """
    folder = Path(folder)
    _require_here(folder)
    if folder.exists() or folder.is_symlink():
        raise DataError(f"{folder} exists already and is not overwritten; remove it or choose another name")
    temporary = temporary_name(folder)
    with _making_a_file_in(folder):
        temporary.mkdir(parents=True)
    for leftover in folder.parent.glob(f".*{MARK}"):
        if leftover.name.startswith(_start_of(folder)) and _is_gone(_owner_of(leftover)):
            _remove(leftover)
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                flush_to_disk(path)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_name(path: Path) -> Path:
    """Returns a unique name beside `path` that contains its owner and that no reader takes for one of its files."""
    return path.with_name(f"{_start_of(path)}{_owner()}.{secrets.token_hex(4)}{MARK}")


def _start_of(path: Path) -> str:
    short = path.name.encode()[:120].decode(errors="ignore")  # file systems take 255 bytes
    return f".{short}."


def _owner_of(temporary: Path) -> str:
    """Returns OWNER of a temporary name of ours, "" of any other name."""
    return next(iter(temporary.name.removesuffix(MARK).rsplit(".", 2)[-2:-1]), "")


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def require_writable(folder: Path) -> None:
    """Makes the folder if it is missing, checks that it is writable, and removes what killed processes left in it.

    Raises OSError if it is not writable: better now than after hours of work.
    """
    _try_to_write(folder)
    clear_leftovers(folder)


def require_place(path: Path) -> None:
    """Checks that the nearest folder at or above `path` that is there is writable, and makes nothing. Raises DataError or OSError."""
    path = Path(path)
    _require_here(path)
    _try_to_write(next(folder for folder in (path, *path.parents, Path()) if folder.is_dir()))


def _try_to_write(folder: Path) -> None:
    _require_here(folder)
    with _making_a_file_in(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"milepost")


def clear_leftovers(folder: Path) -> int:
    """Removes temporary files and folders in `folder` whose process has ended. Returns how many there were.

    Those of another machine stay, because this machine cannot see whether their process still runs.
    """
    count = 0
    for path in folder.glob(f".*{MARK}"):
        if _is_gone(_owner_of(path)):
            _remove(path)
            count += 1
    return count


def remove_partial(folder: Path, mark: str, output: Path) -> None:
    """Removes an unfinished folder of ours as `remove_folder` does. Raises DataError if the file `mark`, which ours have, is not in it."""
    if folder.is_symlink() or not folder.is_dir() or not (folder / mark).is_file():
        raise DataError(f"{folder} is not a folder that milepost made (it has no {mark}), so it is not removed; move it away first")
    remove_folder(folder, output)


def remove_folder(folder: Path, output: Path) -> None:
    """Removes a folder of ours at once. If the process is killed meanwhile, the next writer of `output` removes the rest."""
    leftover = temporary_name(output)
    folder.rename(leftover)
    shutil.rmtree(leftover)


@contextmanager
def output_lock(path: Path, *, wait_s: float = 0) -> Iterator[None]:
    """Locks the output `path` (a file or a folder) until the block ends, and removes leftovers of killed writers of it.

    The same thread may lock the same output again inside the block. Raises BusyError if another process or thread has the lock for longer
    than `wait_s` seconds. The system frees the lock of a process that ends or is killed. On a disk without locks, none is taken.
    """
    path = Path(path)
    _try_to_write(path.parent)  # a lock would say that another process has it
    path = Path(os.path.realpath(path.parent)) / path.name
    lock_file = path.with_name(f".{path.name.encode()[:120].decode(errors='ignore')}.lock")
    lock = filelock.FileLock(str(lock_file), timeout=0, is_singleton=True)
    try:
        lock.acquire(timeout=wait_s)
    except filelock.Timeout:
        raise BusyError(f"{path} is being written by another process ({_holder(lock_file)}); wait until it is done, or stop it") from None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        yield
        return
    outermost = lock.lock_counter == 1
    try:
        if outermost:
            _sign(lock_file)
            _clear_of(path)
        yield
    finally:
        if outermost:
            with suppress(PermissionError):  # Windows removes no open file: it stays, and locks nothing
                lock_file.unlink(missing_ok=True)  # before the release: who opened it meanwhile finds it gone and makes a new one
        lock.release()


def flush_to_disk(path: Path) -> None:
    """Returns when a file's content is on the disk. Windows flushes only a file that is open for writing."""
    with path.open("rb+" if sys.platform == "win32" else "rb") as file:
        os.fsync(file.fileno())


def _sign(lock_file: Path) -> None:
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "command": " ".join(Path(sys.argv[0]).name.split() + sys.argv[1:3])}
    with suppress(PermissionError):  # Windows lets nobody write into a file that is locked
        lock_file.write_text(json.dumps(holder, allow_nan=False), encoding="utf-8")


def _holder(lock_file: Path) -> str:
    try:
        holder = json.loads(lock_file.read_text(encoding="utf-8"))
        return f"process {int(holder['pid'])} on {holder['host']}: {holder['command']}"
    except (OSError, ValueError, KeyError, TypeError):  # it began or ended just now
        return "it does not say which"


def _clear_of(path: Path) -> None:
    """Removes temporary files of other owners, of any machine: the caller has the lock and is the only writer, so they are leftovers."""
    owner = _owner()
    for leftover in path.parent.glob(f".*{MARK}"):  # no pattern with the name: it may have brackets in it
        if (
            leftover.name.startswith(_start_of(path))
            and leftover.name.count(".") == path.name.count(".") + 4
            and _owner_of(leftover) != owner
        ):
            _remove(leftover)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _owner() -> str:
    return f"{_host()}-{os.getpid()}-{_start_ticks(os.getpid())}"


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _start_ticks(process: int) -> str:
    """Returns when a process began, in clock ticks since the machine started; "" if there is no such process.

    The system uses process numbers again; the time tells two processes of one number apart.
    """
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _is_gone(owner: str) -> bool:
    host, process, start_ticks = [*owner.split("-"), "", ""][:3]
    return host == _host() and process.isdigit() and _start_ticks(int(process)) != start_ticks
