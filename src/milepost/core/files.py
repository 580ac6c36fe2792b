"""Reads files of other people within limits: plain files of a sane size, JSON of a sane depth, plausible numbers, plain path templates.

The files of a dataset or a model folder and the replies of a server are all opened here. Every refusal is a DataError that names the file
and says what was expected. It repeats at most a few characters of the content. Nothing here writes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from milepost.core.errors import DataError

MEGABYTE = 1024**2
JSON_LIMIT = 64 * MEGABYTE
"""Bytes of a JSON file. LeRobot's statistics of a dataset with a hundred features are below one megabyte."""
DEPTH = 64
"""Levels of nesting in JSON. Nothing that is read here has more than ten."""
_POINTER, _LFS = 1024, b"version https://git-lfs"
"""The most bytes that a git-LFS pointer has, and its first bytes."""
TYPED = 400
"""Letters of numbers that a command in a message has."""
DIGITS = 25
"""Digits of a whole number in JSON: more than any row, frame or byte count has."""


@dataclass(frozen=True)
class Range:
    """The plausible values of a number: from `low` to `high`, both included."""

    low: float | int
    high: float | int
    whole: bool = False
    unit: str = ""


RANGES: Mapping[str, Range] = {
    "fps": Range(1e-3, 1e4, unit="frames per second"),
    "length": Range(0, 10**8, whole=True, unit="frames"),
    "row": Range(0, 10**12, whole=True, unit="rows"),
    "episode_index": Range(0, 10**9, whole=True),
    "task_index": Range(0, 10**9, whole=True),
    "chunk_index": Range(0, 10**9, whole=True),
    "file_index": Range(0, 10**9, whole=True),
    "chunks_size": Range(1, 10**9, whole=True),
    "seconds": Range(0, 10**9, unit="s"),
    "width": Range(0, 10**6, whole=True, unit="numbers a frame"),
    "side": Range(1, 2**15, whole=True, unit="pixels"),
    "layers": Range(1, 512, whole=True),
    "size": Range(1, 2**17, whole=True),
    "window": Range(1, 4096, whole=True, unit="frames"),
    "share": Range(0, 1),
}
"""Kind of number -> its range. The limits are far beyond any real robot: a number outside means a damaged or hostile file."""


def plausible(kind: str, value: object, *, source: str, name: str | None = None) -> float | int:
    """Returns `value` as a number of the kind `RANGES[kind]`: an int where the kind is whole, else a float.

    A float without a fraction passes as a whole number. Raises DataError for anything else, also for NaN and booleans. name: the number's
    name in the message.
    """
    limits = RANGES[kind]
    number: Any = value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else value
    is_plausible = isinstance(number, int | float) and not isinstance(number, bool) and limits.low <= number <= limits.high
    if not is_plausible or (limits.whole and number != math.floor(number)):
        expected = f"a {'whole ' if limits.whole else ''}number from {limits.low:g} to {limits.high:g}"
        raise DataError(
            f"{source}: '{name or kind}' should be {expected}{f' ({limits.unit})' if limits.unit else ''}, it is {shown(value)}"
        )
    return int(number) if limits.whole else float(number)


def count_noun(number: int, what: str) -> str:
    """Returns "1 episode", "2 episodes", "2 successes"."""
    return f"{number} {what}{'' if number == 1 else 'es' if what.endswith('s') else 's'}"


def ranges(numbers: Iterable[int]) -> str:
    """Returns ascending numbers as `--episodes` takes them.

    >>> ranges([0, 1, 2, 5, 7, 8])
    '0-2,5,7-8'
    """
    return ",".join(_in_words(run) for run in _runs(numbers))


def ranges_to_type(numbers: Iterable[int]) -> str:
    """Returns ascending numbers for a command in a message, as `--without` takes them; NUMBERS if nobody would read so many.

    >>> ranges_to_type([3, 4, 7]), ranges_to_type(range(0, 1000, 2))
    ('3-4,7', 'NUMBERS')
    """
    each = ranges(numbers)
    return each if len(each) <= TYPED else "NUMBERS"


def shortlist(numbers: Iterable[int], most: int = 10) -> str:
    """Returns the first ranges of ascending numbers, for a message, and how many numbers the other ranges have.

    >>> shortlist([0, 1, 2, 5, 7, 8], most=2)
    '0-2, 5 and 2 more'
    """
    runs = _runs(numbers)
    more = sum(last - first + 1 for first, last in runs[most:])
    return ", ".join(_in_words(run) for run in runs[:most]) + (f" and {more} more" if more else "")


def _runs(numbers: Iterable[int]) -> list[list[int]]:
    """Returns the first and the last number of each run without a gap."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return runs


def _in_words(run: Sequence[int]) -> str:
    first, last = run
    return str(first) if first == last else f"{first}-{last}"


def shown(value: object, limit: int = 40) -> str:
    """Returns a value as a message shows it: short, on one line, without control characters; for bytes and lists only their size."""
    if value is None:
        return "missing"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    if isinstance(value, list | tuple | dict | set):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 100:
        return f"a number of more than {DIGITS} digits"
    text = "".join(letter if letter.isprintable() else "?" for letter in str(value)[: limit + 1])
    text = text if len(text) <= limit else f"{text[:limit]}..."
    return f"'{text}'" if isinstance(value, str) else text


def require_plain_file(path: Path, *, what: str = "file", limit: int | None = None) -> int:
    """Returns the size in bytes of the plain file at `path`, links followed.

    Raises DataError if it is missing, a folder, a pipe or a device, if it may not be read, if it has more than `limit` bytes, or if it is
    a git-LFS pointer.
    """
    try:
        status = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{what} {path} is missing") from None
    except PermissionError:
        raise unreadable(path, what) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise DataError(f"{what} {path} cannot be opened: {_reason(error)}") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no plain file (a pipe, a socket or a device)"
        raise DataError(f"{what} {path} is {kind}")
    if not os.access(path, os.R_OK):
        raise unreadable(path, what)
    if 0 < status.st_size <= _POINTER and _is_pointer(path):
        raise DataError(
            f"{what} {path} is a git-LFS pointer, which stands for a file that was not fetched: run 'git lfs install' once, then "
            "'git lfs pull' in that folder"
        )
    if limit is not None and status.st_size > limit:
        raise DataError(f"{what} {path} has {status.st_size / MEGABYTE:.0f} MB; at most {limit / MEGABYTE:.0f} MB are read")
    return status.st_size


def _is_pointer(path: Path) -> bool:
    """Returns whether the file is a git-LFS pointer, the few lines that git leaves in place of a large file."""
    with path.open("rb") as file:
        return file.read(len(_LFS)) == _LFS


def sampled_digest(path: Path, blocks: int = 16, block: int = 4096) -> tuple[int, str]:
    """Returns the size and a hash of evenly spread blocks, the first and the last included.

    It takes a few milliseconds for a file of any size; a change between the blocks that keeps the size goes unnoticed.
    """
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for start in sorted({i * max(0, size - block) // (blocks - 1) for i in range(blocks)}):
            file.seek(start)
            digest.update(file.read(block))
    return size, digest.hexdigest()[:16]


def unreadable(path: Path, what: str = "file") -> DataError:
    """Returns the error for a file that exists but may not be read."""
    return DataError(f"{what} {path} may not be read: you have no permission; change it with chmod or chown, or read a copy")


def read_bytes(path: Path, *, what: str = "file", limit: int = JSON_LIMIT) -> bytes:
    """Returns the content of a plain file. Raises DataError as `require_plain_file` does, and for an error of the disk."""
    require_plain_file(path, what=what, limit=limit)
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise DataError(f"{what} {path} cannot be read: {_reason(error)}") from error
    if len(content) > limit:
        raise DataError(f"{what} {path} grows beyond {limit / MEGABYTE:.0f} MB while it is read")
    return content


def read_text(path: Path, *, what: str = "file", limit: int = JSON_LIMIT) -> str:
    """Returns a text file's content, UTF-8 with or without a byte order mark. Raises DataError for other encodings."""
    try:
        return read_bytes(path, what=what, limit=limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{what} {path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def read_json(path: Path, *, what: str = "file", limit: int = JSON_LIMIT, finite: bool = False) -> Any:
    """Returns the content of a JSON file. Raises DataError as `read_text` and `parse_json` do."""
    return parse_json(read_text(path, what=what, limit=limit), source=f"{what} {path}", finite=finite)


def read_json_object(path: Path, *, what: str = "file", limit: int = JSON_LIMIT) -> dict[str, Any]:
    """Returns the JSON object in a file. Raises DataError as `read_json` does, and for a list or a plain value."""
    content = read_json(path, what=what, limit=limit)
    if not isinstance(content, dict):
        raise DataError(f"{what} {path} should hold a JSON object, it holds {shown(content)}")
    return content


def parse_json(text: str | bytes, *, source: str, finite: bool = False, remedy: str = "copy or download it again") -> Any:
    """Returns the value of a JSON text. finite: NaN, infinity and numbers too large for a float are refused too. source and remedy: for
    messages.

    Raises DataError for text that is not JSON, for more than `DEPTH` levels and for numbers of more than `DIGITS` digits.
    """
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        require_shallow(decoded, source)
        constant, decimal = (_refuse_constant, _finite) if finite else (None, None)
        return json.loads(decoded, parse_int=_bounded_int, parse_constant=constant, parse_float=decimal)
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not UTF-8 text (byte {error.start})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source} cannot be read as JSON ({shown(_reason(error), 120)[1:-1]}); {remedy}") from error


def json_value(value: Any) -> Any:
    """Returns any value in JSON's types: numpy becomes numbers and lists, NaN and infinity become null, other objects become text.

    >>> json_value({"share": float("nan"), 3: (1, True)})
    {'share': None, '3': [1, True]}
    """
    if isinstance(value, Mapping):
        return {str(key): json_value(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set):
        return [json_value(each) for each in value]
    if hasattr(value, "tolist"):
        return json_value(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def to_json(value: Any, *, ascii_only: bool = True, indent: int | None = None, sort_keys: bool = False) -> str:
    """Returns a value as JSON, on one line if there is no `indent`. It has no NaN: see `json_value`."""
    return json.dumps(json_value(value), ensure_ascii=ascii_only, allow_nan=False, indent=indent, sort_keys=sort_keys)


_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\Z)', re.DOTALL)
"""A string without an end is taken to the end of the text: else the pattern would start again at every quote, in quadratic time."""
_BRACKETS = re.compile(r"[\[\]{}]")


def require_shallow(text: str, source: str) -> None:
    """Raises DataError for JSON of more than `DEPTH` levels: the parser is recursive, and so is code that reads its result."""
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > DEPTH:
            raise DataError(f"{source} is nested more than {DEPTH} levels deep; it is damaged or was made to do harm")


def _bounded_int(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number too large for a float")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


_SPEC = re.compile(r"(?:0?[1-9]?\d)?d?")


def expand(template: str, *, source: str, **fields: int | str) -> str:
    """Returns a path template of info.json with its fields filled in: a relative path that stays inside the dataset.

    Braces may contain only a name in `fields`, for whole numbers also with a width such as `:03d`. Raises DataError for anything else
    (attributes, indices, conversions, other widths) and for a result that is absolute or leaves the dataset with `..`.

    >>> expand("data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet", source="info.json", chunk_index=0, file_index=12)
    'data/chunk-000/file-012.parquet'
    """
    parts = []
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise DataError(f"{source}: the path template {shown(template, 120)} is not well-formed ({error})") from None
    for text, name, spec, conversion in pieces:
        parts.append(text)
        if name is None:
            continue
        if name not in fields or conversion or not _SPEC.fullmatch(spec or "") or (spec and isinstance(fields[name], str)):
            allowed = ", ".join(f"{{{field}}}" for field in fields)
            raise DataError(
                f"{source}: the path template {shown(template, 120)} may have {allowed} with a width such as :03d, and nothing else"
            )
        parts.append(format(fields[name], spec or ""))
    return require_inside("".join(parts), source=source)


def require_inside(relative: str, *, source: str) -> str:
    """Returns a relative path unchanged. Raises DataError if it is absolute, leaves its folder with `..`, is empty or too long."""
    path = PurePosixPath(relative)
    if not relative or path.is_absolute() or ".." in path.parts or "\0" in relative or len(relative) > 1024:
        raise DataError(f"{source}: the path {shown(relative, 120)} does not stay inside its folder")
    return relative


def real_path(path: Path) -> Path:
    """Returns the path with all links followed. `Path.resolve` would raise for a loop of links, with another error in each Python."""
    return Path(os.path.realpath(path))


def is_inside(path: Path, root: Path) -> bool:
    """Returns whether a file lies inside a folder, with all links followed."""
    return real_path(path).is_relative_to(real_path(root))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[0]
