"""Ownership of figures: each file names its dataset at its end, so that a figure of another dataset is never replaced without --overwrite.

The mark is a comment in the file's own format. It contains a hash of the path, not the path.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

from milepost import datasets
from milepost.cli.console import warn
from milepost.core import DataError, atomic_path, real_path, require_writable

_MARK = re.compile(rb"milepost drawing of ([0-9a-f]{16}) ([0-9a-f]{16})")
_LAST = 512
"""Bytes at the end of a file that are searched for its mark."""


def require_own(paths: Iterable[Path], dataset: datasets.LeRobotDataset, *, overwrite: bool) -> None:
    """Raises DataError, before any work, if a file is a figure of another dataset; makes the folder of the new figures.

    A dataset is identified by its path or by its fingerprint, so a dataset that has grown is still the same. Files without a mark, from
    earlier versions, are replaced with a warning.
    """
    mine = marks(dataset)
    for path in paths:
        require_writable(path.parent)
        whose = mark_of(path)
        if whose and not overwrite and not set(whose) & set(mine):
            raise DataError(f"{path} is there already, of another dataset; choose another --output-dir, or use --overwrite")
        if not whose and path.exists():
            warn(f"{path} is replaced; it does not say which dataset it is of")


def marks(dataset: datasets.LeRobotDataset) -> tuple[str, str]:
    """Returns the identification of a dataset: 16 hex digits of its path, and its fingerprint."""
    place = str(real_path(dataset.root)) if dataset.is_local else dataset.name
    return hashlib.sha256(place.encode()).hexdigest()[:16], dataset.fingerprint


def mark_of(path: Path) -> tuple[str, ...]:
    """Returns a file's mark; an empty tuple if there is no file, or if it has no mark."""
    if not path.is_file():
        return ()
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LAST))
        match = _MARK.search(file.read())
    return tuple(each.decode() for each in match.groups()) if match else ()


def write_drawing(path: Path, content: bytes, dataset: datasets.LeRobotDataset) -> None:
    """Writes a drawing with its mark, all of it or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(marked(content, path.suffix.lower(), dataset))


def marked(content: bytes, suffix: str, dataset: datasets.LeRobotDataset) -> bytes:
    """Returns the bytes of a PNG, SVG, PDF, GIF or mp4 with the mark as a comment at its end, which players and viewers ignore."""
    words = b"milepost drawing of %s %s" % tuple(each.encode() for each in marks(dataset))
    if suffix == ".png":
        chunk = b"tEXtComment\0" + words
        return content[:-12] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[-12:]
    if suffix == ".gif":
        return content[:-1] + b"!\xfe" + bytes([len(words)]) + words + b"\0" + content[-1:]
    if suffix == ".mp4":
        return content + struct.pack(">I", 8 + len(words)) + b"free" + words
    return content + (b"<!-- %s -->\n" if suffix == ".svg" else b"%% %s\n") % words
