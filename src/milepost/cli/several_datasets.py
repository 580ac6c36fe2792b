"""Several datasets in one command: their names, their places in a folder of outputs, and one after the other.

A dataset that cannot be used costs no other: it is named with its reason, and the exit code says so. A disk without space ends the
command, because the next dataset would meet it too.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeAlias, runtime_checkable

import tyro

from milepost import datasets
from milepost.cli.console import say, warn
from milepost.cli.entry import explain
from milepost.core import DataError, count_noun, real_path, to_json

FLAG = "--datasets-file"
MoreDatasets: TypeAlias = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[DATASET ...]")]
DatasetsFile: TypeAlias = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
"""The option itself does nothing: `with_listed` has put its datasets in front of the arguments."""
Answer: TypeAlias = "Callable[[dict[str, Any]], None]"
"""Takes what `--json` prints of one dataset."""


@runtime_checkable
class OfSeveral(Protocol):
    """The options of a verb that takes several datasets."""

    @property
    def dataset(self) -> str | None: ...

    @property
    def more_datasets(self) -> tuple[str, ...]: ...

    @property
    def datasets_file(self) -> Path | None: ...

    @property
    def json(self) -> bool: ...


def print_json(values: dict[str, Any]) -> None:
    """Prints what there is to say of a single dataset."""
    say(to_json(values))


def with_listed(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with the datasets of `--datasets-file` in front, where the parser looks for them."""
    words = [word.partition("=")[0].replace("_", "-") for word in arguments]
    if FLAG not in words:
        return list(arguments)
    place = words.index(FLAG)
    _, equals, value = arguments[place].partition("=")
    path = value if equals else "".join(arguments[place + 1 : place + 2])
    if not path or (not equals and path.startswith("--")):
        return list(arguments)  # the parser says that the name is missing
    return [*listed(path), *arguments]


def listed(path: str) -> list[str]:
    """Returns the datasets of a list file, one a line; "-" is standard input. What follows a "#" at the start of a line or after a space
    is a comment.

    A folder is looked for beside the file, those of standard input in the working folder. A Hub id or an address stays as it is, but for
    the %20 of a file:// address. DataError if there is no such file, or it names no dataset, or one twice.
    """
    try:
        text = sys.stdin.read() if path == "-" else Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise DataError(f"{FLAG} {path} cannot be read: {reason}; give a text file with one dataset a line") from error
    lines = [f" {line}".split(" #")[0].strip() for line in text.splitlines()]
    folder, names, places = Path() if path == "-" else Path(path).expanduser().parent, list[str](), dict[object, int]()
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        names.append(_beside(line, folder))
        first = places.setdefault(_place(names[-1]), number)
        if first != number:
            raise DataError(
                f"{FLAG} {path} names a dataset twice: {lines[first - 1]} on line {first}, {line} on line {number}; leave one out"
            )
    if not names:
        raise DataError(f"{FLAG} {path} names no dataset; give one a line")
    return names


def _place(name: str) -> object:
    """Returns what two names of one dataset have in common: its folder, if it is here, else the name."""
    path = Path(name).expanduser()
    return real_path(path) if path.exists() else name


def _beside(name: str, folder: Path) -> str:
    """Returns a name of a list file as it is given on the command line."""
    path = Path(name).expanduser()
    if path.is_absolute() or ":/" in name:
        return str(path) if path.is_absolute() else datasets.plain_address(name)
    if datasets.is_hub_id(name) and not (folder / path).exists():
        return name
    return str(folder.absolute() / path)


def are_several(args: OfSeveral) -> bool:
    """Returns whether a command is one for several datasets, and reports as such: a list may have a single name in it."""
    return bool(args.more_datasets) or args.datasets_file is not None


def names_of(args: OfSeveral) -> list[str]:
    """Returns the datasets of a command. DataError if one is given twice."""
    names, places = [*([args.dataset] if args.dataset is not None else []), *args.more_datasets], dict[object, str]()
    for name in names:
        place = _place(name)
        if place in places:
            same = "" if places[place] == name else f", as {places[place]} and as {name}"
            raise DataError(f"the dataset {name} is given twice{same}; leave one out")
        places[place] = name
    return names


def subfolder(dataset: datasets.LeRobotDataset) -> Path:
    """Returns where the outputs of a dataset lie in a folder for several: under its Hub id, or the name of its folder."""
    return Path(dataset.name.rstrip("/").rpartition("/")[2] if "://" in dataset.name else dataset.name)


def require_places(places: Mapping[str, Path], folder: Path) -> None:
    """Raises DataError if two datasets would write into one place, or if the folder of the outputs is a file. places: by dataset."""
    if folder.is_file() or folder.suffix == ".parquet":
        raise DataError(f"{folder} is the name of a file, and each dataset gets a file of its own; --output-path takes a folder then")
    owners = dict[Path, str]()
    for name, place in places.items():
        if place in owners:
            raise DataError(
                f"{owners[place]} and {name} would both write into {folder / place}; give one of them in a command of its own, with another"
                " --output-path"
            )
        owners[place] = name


def reason_of(error: Exception) -> str:
    """Returns why a dataset cannot be used. Raises the error itself if other datasets would meet it too: no space is left."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise error
    return explain(error)


def each_dataset(
    args: OfSeveral, names: Sequence[str], work: Callable[[str, Answer], int], left_out: Mapping[str, str], *, ascii_only: bool = True
) -> int:
    """Runs the work of each dataset and reports. left_out: dataset -> why a check has left it out.

    Returns 0 if all went well, 2 if no dataset could be used, else 1 if one could not, or if the work of one says so.
    """
    reasons, rows, codes = dict(left_out), list[dict[str, Any]](), [0]
    for place, name in enumerate(names, start=1):
        answers = list[dict[str, Any]]()
        if not args.json:
            say(f"{'' if place == 1 else chr(10)}dataset {place} of {len(names)}: {name}", style="bold")
        if name not in reasons:
            try:
                codes.append(work(name, answers.append))
            except (DataError, OSError) as error:
                reasons[name] = reason_of(error)
                warn(f"{name} is left out: {reasons[name]}")
        if name in reasons:
            answers.append({"error": reasons[name]})
        rows += [{"dataset": name} | each for each in answers]
    if args.json:
        say(to_json({"datasets": rows}, ascii_only=ascii_only))
    if reasons:
        warn(f"{len(reasons)} of {count_noun(len(names), 'dataset')} left out: {', '.join(reasons)}")
    return 2 if len(reasons) == len(names) else max(*codes, 1 if reasons else 0)
