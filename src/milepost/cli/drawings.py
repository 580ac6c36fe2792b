"""Whose drawings are: each says at its end of which dataset it is, so that none of another dataset is replaced unasked.

The mark is a comment in the file's own form. It has no path in it, only a hash of one.
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
"""Bytes at the end of a file that hold its mark."""


def require_own(paths: Iterable[Path], dataset: datasets.LeRobotDataset, *, overwrite: bool) -> None:
    """DataError, before any work, if there is a drawing of another dataset; a folder is made for those to come.

    A dataset is known by its place or by its fingerprint: one that has grown is still the same. Files without a mark, as earlier versions
    wrote, are replaced with a warning.
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
    """Returns what a drawing says of its dataset: 16 hex digits of its place, and its fingerprint."""
    place = str(real_path(dataset.root)) if dataset.is_local else dataset.name
    return hashlib.sha256(place.encode()).hexdigest()[:16], dataset.fingerprint


def mark_of(path: Path) -> tuple[str, ...]:
    """Returns what a file says of its dataset; nothing if it is no file, or no drawing of ours."""
    if not path.is_file():
        return ()
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LAST))
        found = _MARK.search(file.read())
    return tuple(each.decode() for each in found.groups()) if found else ()


def write_drawing(path: Path, content: bytes, dataset: datasets.LeRobotDataset) -> None:
    """Writes a drawing with its mark, all of it or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(marked(content, path.suffix.lower(), dataset))


def marked(content: bytes, suffix: str, dataset: datasets.LeRobotDataset) -> bytes:
    """Returns the bytes of a PNG, SVG, PDF, GIF or mp4 with the mark as a comment at its end, which players and viewers pass over."""
    words = b"milepost drawing of %s %s" % tuple(each.encode() for each in marks(dataset))
    if suffix == ".png":
        chunk = b"tEXtComment\0" + words
        return content[:-12] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[-12:]
    if suffix == ".gif":
        return content[:-1] + b"!\xfe" + bytes([len(words)]) + words + b"\0" + content[-1:]
    if suffix == ".mp4":
        return content + struct.pack(">I", 8 + len(words)) + b"free" + words
    return content + (b"<!-- %s -->\n" if suffix == ".svg" else b"%% %s\n") % words
