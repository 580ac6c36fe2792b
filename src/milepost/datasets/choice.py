"""Episodes as a user names them: a number, several, or text such as "0-9,12"."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from milepost.core import DataError
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
