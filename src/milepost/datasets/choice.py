"""Episodes as a user names them: a number, several, or text such as "0-9,12"; and the commands that leave some out."""

from __future__ import annotations

import operator
import shlex
from collections.abc import Sequence
from pathlib import Path

from milepost.core import DataError, ranges_to_type
from milepost.datasets.hub import Files, is_hub_id
from milepost.datasets.records import parse_episodes

EXPECTED = "episodes are numbers, such as [0, 1, 5], or text such as '0-2,5'"


def episode_numbers(episodes: Sequence[int] | int | str | None) -> list[int] | None:
    """Returns the numbers of the episodes, None for all. DataError shows the right form.

    >>> episode_numbers("0-2,5"), episode_numbers(3)
    ([0, 1, 2, 5], [3])
    """
    if episodes is None or isinstance(episodes, str):
        return parse_episodes(episodes)
    try:
        return [operator.index(number) for number in (episodes if hasattr(episodes, "__iter__") else [episodes])]
    except TypeError as error:
        raise DataError(f"{EXPECTED}; got {episodes!r}") from error


def one_number(episode_index: int) -> int:
    """Returns the number of one episode. DataError if it is no whole number."""
    try:
        return operator.index(episode_index)
    except TypeError as error:
        raise DataError(f"one episode is named by its number, such as 0; got {episode_index!r}") from error


def numbers_that_stay(there: Sequence[int], episodes: str | None, without: str | None, *, verb: str) -> list[int]:
    """Returns those of the episodes that --episodes names and --without does not, in order. DataError for one that is absent, and if none
    stays.

    >>> numbers_that_stay(range(6), "0-3", "2", verb="copy")
    [0, 1, 3]
    """
    stay = list(there)
    for flag, text in (("--episodes", episodes), ("--without", without)):
        if text is None:
            continue
        those = parse_episodes(text, flag) or []
        if absent := [number for number in those if number not in there]:
            span = f"; the first is {min(there)}, the last {max(there)}" if there else ""
            raise DataError(f"{flag} names episode {absent[0]}, and there is no such episode to {verb}{span}")
        stay = [number for number in stay if (number in those) is (flag == "--episodes")]
    if there and not stay:
        raise DataError("no episode stays; name others with --episodes or --without")
    return stay


def import_command(dataset: Files | str, without: Sequence[int] = ()) -> str:
    """Returns the command that makes a v3.0 dataset of one of an older version; one of the Hub is downloaded first.

    >>> import_command("towels", [6, 11])
    'milepost import towels --without 6,11 --output-dir NEW'
    """
    first, folder = "", (name := _name(dataset))
    if is_hub_id(name) and not Path(name).exists():
        folder = name.rpartition("/")[2]
        first = f"hf download {name} --repo-type dataset --local-dir {folder} && "
    left_out = f" --without {ranges_to_type(without)}" if without else ""
    return f"{first}milepost import {shlex.quote(folder)}{left_out} --output-dir NEW"


def leave_out_verb(version: str) -> str:
    """Returns the verb that leaves episodes out of a new dataset: copy can do so for v3.0 alone, import for what is older.

    >>> leave_out_verb("v3.0"), leave_out_verb("v2.1")
    ('milepost copy', 'milepost import')
    """
    return "milepost import" if version.startswith("v2") else "milepost copy"


def leave_out_command(dataset: Files | str, without: Sequence[int], *, version: str) -> str:
    """Returns the command that makes a dataset without these episodes, of a dataset of this version.

    >>> leave_out_command("towels", [3, 4, 7], version="v3.0")
    'milepost copy towels --without 3-4,7 --output-dir NEW'
    """
    if leave_out_verb(version) == "milepost import":
        return import_command(dataset, without)
    return f"milepost copy {shlex.quote(_name(dataset))} --without {ranges_to_type(without)} --output-dir NEW"


def _name(dataset: Files | str) -> str:
    return dataset if isinstance(dataset, str) else dataset.repo or str(dataset.root)
