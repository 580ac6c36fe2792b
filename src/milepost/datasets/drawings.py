"""Ownership of figures, videos and pages: each file names its dataset at its end, so that one of another dataset, or a file of a person's,
is never replaced unasked.

The mark is a comment in the file's own format. It contains a hash of the path, not the path.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

from milepost.core import DataError, atomic_path, real_path
from milepost.datasets.reader import LeRobotDataset

_MARK = re.compile(rb"milepost drawing of ([0-9a-f]{16}) ([0-9a-f]{16})")
_LAST = 512
"""Bytes at the end of a file that are searched for its mark."""
Source = LeRobotDataset | Path
"""What a drawing is of: a dataset, or a progress file without one."""


def require_own_drawings(paths: Iterable[Path], source: Source, *, overwrite: bool = False, instead: str = "") -> None:
    """Raises DataError, before any work, if a file that is there is not a drawing of this dataset.

    A dataset is identified by its path or by its fingerprint, so a dataset that has grown is still the same. instead: what the user can
    do, for the message.
    """
    for path in paths if not overwrite else ():
        if path.is_file() and not set(mark_of(path)) & set(drawing_marks(source)):
            whose = "of another dataset" if mark_of(path) else "and milepost did not make it of this dataset"
            raise DataError(f"{path} is there already, {whose}; {instead or 'choose another name, or remove it first'}")


def drawing_marks(source: Source) -> tuple[str, str]:
    """Returns the identification of a dataset: 16 hex digits of its path, and its fingerprint. Of a file: its path's alone, twice."""
    if isinstance(source, Path):
        digits = _digits(str(real_path(source)))
        return digits, digits
    return _digits(str(real_path(source.root)) if source.is_local else source.name), source.fingerprint


def _digits(place: str) -> str:
    return hashlib.sha256(place.encode()).hexdigest()[:16]


def mark_of(path: Path) -> tuple[str, ...]:
    """Returns a file's mark; an empty tuple if there is no file, or if it has no mark."""
    if not path.is_file():
        return ()
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LAST))
        match = _MARK.search(file.read())
    return tuple(each.decode() for each in match.groups()) if match else ()


def write_drawing(path: Path, content: bytes, source: Source) -> None:
    """Writes a drawing with its mark, all of it or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(marked_drawing(content, path.suffix.lower(), source))


def marked_drawing(content: bytes, suffix: str, source: Source) -> bytes:
    """Returns the bytes of a PNG, SVG, PDF, GIF, mp4 or HTML page with the mark as a comment at its end, which players and viewers
    ignore."""
    words = b"milepost drawing of %s %s" % tuple(each.encode() for each in drawing_marks(source))
    if suffix == ".png":
        chunk = b"tEXtComment\0" + words
        return content[:-12] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[-12:]
    if suffix == ".gif":
        return content[:-1] + b"!\xfe" + bytes([len(words)]) + words + b"\0" + content[-1:]
    if suffix == ".mp4":
        return content + struct.pack(">I", 8 + len(words)) + b"free" + words
    return content + (b"%% %s\n" if suffix == ".pdf" else b"<!-- %s -->\n") % words
