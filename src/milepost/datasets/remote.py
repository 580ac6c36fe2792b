"""A dataset at an address that fsspec knows (s3://, gs://, memory://, file://): a folder here with the files that are needed.

Opening lists the address once. A file is copied when it is needed, whole or not at all, and kept under its name, size and version (ETag,
time of change): what has changed there is copied again, what has not is used again. Nothing is written there. Who may read is what fsspec
takes from the environment. This is the only module that imports fsspec, and it does so on first use.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from milepost.core import DataError, atomic_path, count_noun, is_inside, read_json_object, real_path, require_inside

CHUNK = 8 << 20
"""Bytes that are read at once."""
REASON = 600
"""Characters of a message: the Hub puts what to do after a first line that is only a status, so one line would be too little."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://.+")
_PASSWORD = re.compile(r"(?<=://)([^/@:]*):[^/@]*@")
_VERSION = [
    "etag",
    "lastmodified",
    "last_modified",
    "mtime",
    "created",
    "updated",
    "generation",
    "version_id",
    "versionid",
    "md5hash",
    "crc32c",
    "oid",
]
"""What a file system says of a file's version, in lower case: each says some of it."""
_LIBRARIES = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp": ("ClientError",),
    "google.auth.exceptions": ("GoogleAuthError",),
    "azure.core.exceptions": ("AzureError",),
    "httpx": ("HTTPError",),
    "requests": ("RequestException",),
}  # fmt: skip
"""Module -> its errors that are no OSError; they are looked at only if a file system has imported the module."""


@dataclass(frozen=True)
class Remote:
    """The files at an address as they were listed. stamps: name -> (size or -1, version). address: without a password."""

    address: str
    stamps: Mapping[str, tuple[int, str]]
    system: Any = field(default=None, repr=False, compare=False)
    path: str = ""

    @property
    def commit(self) -> str:
        """Returns a hash of the names, sizes and versions of all files under data/ and videos/, or elsewhere outside meta/."""
        return _digest({name: stamp for name, stamp in self.stamps.items() if not name.startswith("meta/") and "/" in name})

    @property
    def root(self) -> Path:
        """Returns the folder here that stands for the dataset as it was listed."""
        return self._home / _digest(self.stamps)

    @property
    def _home(self) -> Path:
        return remote_folder() / hashlib.sha256(self.address.encode()).hexdigest()[:16]

    def fetch(self, relative: str) -> Path:
        """Returns the path of a file here, copied first if need be. DataError if there is none, or it cannot be copied.

        OSError if this disk is full.
        """
        target = self.root / require_inside(relative, source=self.address)
        if target.exists():
            return target
        if relative not in self.stamps:
            raise DataError(f"{self.address} has no file {relative}; copy the dataset there again, or leave out what needs the file")
        kept_as = self._home / "files" / _digest({relative: self.stamps[relative]})
        if not kept_as.exists():
            kept_as.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(kept_as) as temporary:
                self._copy(relative, temporary)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._place(kept_as, target)
        return target

    def fetch_all(self, pattern: str) -> list[Path]:
        """Returns the files here whose names match, copied first if need be, sorted."""
        return [self.fetch(name) for name in sorted(self.stamps) if fnmatchcase(name, pattern)]

    def _place(self, kept_as: Path, target: Path) -> None:
        """Makes a file of our own appear under its name in the dataset, all at once."""
        with contextlib.suppress(FileExistsError):  # another process was first
            try:
                os.link(kept_as, target)
            except FileExistsError:
                raise
            except OSError:  # a disk without hard links
                beside = kept_as.with_name(f"{kept_as.name}-{secrets.token_hex(4)}")
                shutil.copyfile(kept_as, beside)
                beside.replace(target)

    def note(self) -> None:
        """Writes down which address the folder stands for, so that `remote_of` finds it again."""
        about = self.root.with_suffix(".json")
        if not about.exists():
            about.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(about) as temporary:
                temporary.write_text(json.dumps({"address": self.address, "files": self.stamps}, allow_nan=False), encoding="utf-8")

    def _copy(self, relative: str, path: Path) -> None:
        """Copies a file to a path here. DataError if it cannot be read, or ends before its size."""
        system, where = (self.system, self.path) if self.system is not None else _opened(self.address)
        size, copied = self.stamps[relative][0], 0
        failures, who = _failures(), f"{relative} of {self.address} could not be copied"
        try:
            source = system.open(f"{where}/{relative}", "rb")
        except failures as error:
            raise DataError(f"{who}: {_reason(error)}") from error
        with source, path.open("wb") as target:
            while True:
                try:
                    chunk = source.read(CHUNK)
                except failures as error:
                    raise DataError(f"{who}: {_reason(error)}; the same command tries again") from error
                if not chunk:
                    break
                copied += target.write(chunk)
        if size not in (-1, copied):
            raise DataError(f"{who}: it ended after {copied} of {size} bytes, or is being changed; the same command tries again")


def is_address(name: str) -> bool:
    """Returns whether this is an address, as in `s3://bucket/towels`, and not a path or a Hub id."""
    return _ADDRESS.fullmatch(name) is not None


def plain_address(address: str) -> str:
    """Returns an address as file systems take it: `file:///my%20towels` is the folder `/my towels`, unless there is one of that very name.

    >>> plain_address("file:///no/my%20towels"), plain_address("s3://bucket/my%20towels")
    ('file:///no/my towels', 's3://bucket/my%20towels')
    """
    is_here = address.startswith("file://") and not Path(address.removeprefix("file://")).exists()
    return unquote(address) if is_here else address


def remote_folder() -> Path:
    """Returns where files of addresses are kept: `remote` in $MILEPOST_CACHE, else in ~/.cache/milepost."""
    return Path(os.environ.get("MILEPOST_CACHE") or Path.home() / ".cache" / "milepost").expanduser() / "remote"


def open_remote(address: str) -> Remote:
    """Returns the dataset at an address, listed, with its meta/ copied here. DataError if there is none, or it cannot be reached."""
    address = plain_address(address)
    shown_address = _public(address)
    system, where = _opened(address)
    try:
        system.invalidate_cache()
        listing = system.find(where, detail=True)
    except _failures() as error:
        raise DataError(f"{shown_address} could not be listed: {_reason(error)}") from error
    stamps = {name: _stamp(about) for path, about in listing.items() if (name := _relative(path, where))}
    if not any(name.startswith("meta/") for name in stamps):
        there = f"it has {count_noun(len(stamps), 'file')}, and no meta/" if stamps else "there is nothing at this address"
        raise DataError(f"{shown_address} is no LeRobot dataset: {there}; an address names the folder with meta/info.json in it")
    remote = Remote(shown_address, stamps, system, where)
    remote.note()
    remote.fetch_all("meta/*")
    return remote


def remote_of(folder: Path) -> Remote | None:
    """Returns the address that a folder here stands for, as it was listed; None if the folder stands for none."""
    about = folder.with_suffix(".json")
    if not is_inside(folder, remote_folder()) or real_path(folder).parent.parent != real_path(remote_folder()) or not about.is_file():
        return None
    content = read_json_object(about, what="list of files")
    stamps = {str(name): (int(size), str(version)) for name, (size, version) in content["files"].items()}
    return Remote(str(content["address"]), stamps)


def _opened(address: str) -> tuple[Any, str]:
    """Returns the file system of an address, and the path in it. DataError if nothing here can read such an address."""
    import fsspec

    kind = address.partition(":")[0]
    install = "pip install 'milepost[s3]'" if kind in ("s3", "s3a") else "install it with pip"
    try:
        system, where = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise DataError(f"addresses with {kind}:// need a package that is not installed ({error}); {install}") from error
    except _failures() as error:
        raise DataError(f"{_public(address)} cannot be opened: {_reason(error)}") from error
    return system, where.rstrip("/")


def _public(address: str) -> str:
    """Returns an address without a password, as it may be printed and written down."""
    return _PASSWORD.sub(r"\1@", address).rstrip("/")


def _relative(path: str, where: str) -> str:
    """Returns the name of a file in the dataset, "" for what is no such file: another's, or one that would leave the folder here."""
    folder = f"{where.strip('/')}/".lstrip("/")
    name = path.strip("/")
    try:
        return require_inside(name.removeprefix(folder), source="") if name.startswith(folder) else ""
    except DataError:
        return ""


def _stamp(about: Mapping[str, Any]) -> tuple[int, str]:
    """Returns the size of a file, -1 if it is not known, and all that is known of its version."""
    size = about.get("size")
    version = {str(key).lower(): str(value) for key, value in about.items() if str(key).lower() in _VERSION and value is not None}
    return int(size) if isinstance(size, int) else -1, json.dumps(version, sort_keys=True)


def _digest(stamps: Mapping[str, tuple[int, str]]) -> str:
    return hashlib.sha256(json.dumps(sorted(stamps.items())).encode()).hexdigest()[:16]


def one_line(text: str) -> str:
    """Returns a message of others on one line, without control characters, cut off where it is too long to read."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= REASON else f"{line[:REASON]}..."


def _failures() -> tuple[type[Exception], ...]:
    """Returns the errors of file systems: the network's, refused access, settings that are missing."""
    modules = [(sys.modules[module], names) for module, names in _LIBRARIES.items() if module in sys.modules]
    errors = [getattr(module, name, None) for module, names in modules for name in names]
    return (OSError, ValueError, EOFError, ImportError, *(each for each in errors if each is not None))


def _reason(error: Exception) -> str:
    """Returns why a file system failed, on one line, with what to do where that is known."""
    text = one_line(str(error).strip() or type(error).__name__)
    if isinstance(error, FileNotFoundError):
        return f"there is no such place or file ({text}); check the address"
    if isinstance(error, PermissionError) or "credential" in text.lower() or "denied" in text.lower():
        return f"you may not read it ({text}); fsspec takes who you are from the environment, such as AWS_PROFILE or AWS_ACCESS_KEY_ID"
    return text
