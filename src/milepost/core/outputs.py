"""Files and folders that milepost writes: whole or not at all, one writer at a time, and nothing left behind.

A temporary file or folder stands beside its place under `.NAME.OWNER.RANDOM.milepost`, where OWNER is the host, the process and when that
began. What a killed process left is removed at the next start, by this mark alone: nothing without it is ever removed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from milepost.core.types import DataError

MARK = ".milepost"
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)


class BusyError(DataError):
    """Another process writes the same output. The message says which one."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`; on success it is flushed to disk and renamed over `path`, on any error it is removed.

    Raises OSError (disk full, read-only folder) with `path` untouched.
    """
    path = Path(path)
    temporary = temporary_name(path)
    # The kernel applies the process's umask here; reading it by os.umask() would change it for other threads for a moment.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Gives a temporary folder beside `folder`; on success it is flushed to disk and renamed, on any error it is removed.

    DataError if `folder` is there already.
    """
    folder = Path(folder)
    if folder.exists() or folder.is_symlink():
        raise DataError(f"{folder} exists already and is not overwritten; remove it or choose another name")
    temporary = temporary_name(folder)
    temporary.mkdir(parents=True)
    for left in folder.parent.glob(f".*{MARK}"):
        if left.name.startswith(_start_of(folder)) and _is_gone(_owner_of(left)):
            _remove(left)
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_name(path: Path) -> Path:
    """Returns a name beside `path` that nobody else has, which readers take for no file of theirs and which says whose it is."""
    return path.with_name(f"{_start_of(path)}{_owner()}.{secrets.token_hex(4)}{MARK}")


def _start_of(path: Path) -> str:
    short = path.name.encode()[:120].decode(errors="ignore")  # file systems take 255 bytes
    return f".{short}."


def _owner_of(temporary: Path) -> str:
    """OWNER in a temporary name of ours, "" in another one."""
    return next(iter(temporary.name.removesuffix(MARK).rsplit(".", 2)[-2:-1]), "")


def write_text(path: Path, text: str) -> None:
    """Writes a text file, all of it or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def require_writable(folder: Path) -> None:
    """Makes the folder if it is missing and removes what killed processes left in it. OSError, before hours of work, if it cannot."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"milepost")
    clear_leftovers(folder)


def clear_leftovers(folder: Path) -> int:
    """Removes temporary files and folders in `folder` whose process is no more. Returns how many there were.

    Those of another machine stay: whether their process lives cannot be seen from here.
    """
    count = 0
    for path in folder.glob(f".*{MARK}"):
        if _is_gone(_owner_of(path)):
            _remove(path)
            count += 1
    return count


def remove_partial(folder: Path, mark: str) -> None:
    """Removes an unfinished folder of ours with all that is in it. DataError if it does not have the file `mark`, which ours have."""
    if folder.is_symlink() or not folder.is_dir() or not (folder / mark).is_file():
        raise DataError(f"{folder} is not a folder that milepost made (it has no {mark}), so it is not removed; move it away first")
    shutil.rmtree(folder)


@contextmanager
def output_lock(path: Path, *, wait_s: float = 0) -> Iterator[None]:
    """Holds the output `path` (a file or a folder) for this process until the block is left; leftovers of killed writers of it are removed.

    A block inside a block of the same output and thread is fine. BusyError if another process or thread holds it,
    at once or after `wait_s`. The system frees the lock of a process that ends, however it ends. A disk without locks is used without one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path = Path(os.path.realpath(path.parent)) / path.name
    place = path.with_name(f".{path.name.encode()[:120].decode(errors='ignore')}.lock")
    lock = filelock.FileLock(str(place), timeout=0, is_singleton=True)
    try:
        lock.acquire(timeout=wait_s)
    except filelock.Timeout:
        raise BusyError(f"{path} is being written by another process ({_holder(place)}); wait until it is done, or stop it") from None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        yield
        return
    outermost = lock.lock_counter == 1
    try:
        if outermost:
            _sign(place)
            _clear_of(path)
        yield
    finally:
        if outermost:
            place.unlink(missing_ok=True)  # before the release: whoever opened it meanwhile finds it gone and makes a new one
        lock.release()


def _sign(place: Path) -> None:
    about = {"host": socket.gethostname(), "pid": os.getpid(), "command": " ".join(Path(sys.argv[0]).name.split() + sys.argv[1:3])}
    place.write_text(json.dumps(about), encoding="utf-8")


def _holder(place: Path) -> str:
    try:
        about = json.loads(place.read_text(encoding="utf-8"))
        return f"process {int(about['pid'])} on {about['host']}: {about['command']}"
    except (OSError, ValueError, KeyError, TypeError):  # it began or ended just now
        return "it does not say which"


def _clear_of(path: Path) -> None:
    """Whoever holds the lock of an output is its only writer: every temporary file of it is a leftover, of whichever machine."""
    mine = _owner()
    for left in path.parent.glob(f".*{MARK}"):  # no pattern with the name: it may have brackets in it
        if left.name.startswith(_start_of(path)) and left.name.count(".") == path.name.count(".") + 4 and _owner_of(left) != mine:
            _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _owner() -> str:
    return f"{_host()}-{os.getpid()}-{_began(os.getpid())}"


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _began(process: int) -> str:
    """When a process began, in ticks since the machine did, which tells two processes of one number apart. "" if it is no more."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _is_gone(owner: str) -> bool:
    host, process, began = [*owner.split("-"), "", ""][:3]
    return host == _host() and process.isdigit() and _began(int(process)) != began
