"""The numbers of all episodes of a dataset as arrays, one entry per episode: a few dozen bytes each, and no Python object.

`Numbers` is a tuple of episode numbers in an array. `EpisodeArrays` has what every verb asks of all episodes. Nothing is read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from jaxtyping import Float, Int

_BLOCK = 65_536
"""Numbers that are turned into Python's at a time."""


class Numbers(Sequence[int]):
    """Episode numbers in an array (E,): read like a tuple of them, and equal to it, at eight bytes each."""

    def __init__(self, values: Int[np.ndarray, "E"]) -> None:
        self.array = values
        self._rises = bool((np.diff(values) > 0).all())

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Numbers: ...
    def __getitem__(self, index: int | slice) -> int | Numbers:
        return Numbers(self.array[index]) if isinstance(index, slice) else int(self.array[index])

    def __iter__(self) -> Iterator[int]:
        for start in range(0, len(self.array), _BLOCK):
            yield from self.array[start : start + _BLOCK].tolist()

    def __contains__(self, number: object) -> bool:
        if not isinstance(number, int | np.integer):
            return False
        return position(self.array, int(number)) >= 0 if self._rises else bool((self.array == number).any())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Numbers):
            return np.array_equal(self.array, other.array)
        return isinstance(other, tuple) and len(other) == len(self) and all(one == two for one, two in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(self.array.tobytes())

    def __repr__(self) -> str:
        return f"({', '.join(map(str, self[:9]))}{', ...' if len(self) > 9 else ',' if len(self) == 1 else ''})"


def as_array(numbers: Sequence[int]) -> Int[np.ndarray, "E"]:
    """Returns episode numbers as an array."""
    return numbers.array if isinstance(numbers, Numbers) else np.array(numbers, dtype=np.int64)


def position(rising: Int[np.ndarray, "E"], number: int) -> int:
    """Returns where a number is among rising ones, -1 if it is not."""
    if not len(rising):
        return -1
    place = number - int(rising[0])
    if 0 <= place < len(rising) and rising[place] == number:  # they are nearly always 0, 1, 2, ...
        return place
    place = int(np.searchsorted(rising, number))
    return place if place < len(rising) and rising[place] == number else -1


@dataclass(frozen=True, eq=False)
class VideoArrays:
    """The parts that episodes have of one camera's mp4s. file (E,): which of `names`. start_s, stop_s (E,): seconds; NaN if meta/ has no
    end."""

    file: Int[np.ndarray, "E"]
    names: tuple[str, ...]
    start_s: Float[np.ndarray, "E"]
    stop_s: Float[np.ndarray, "E"]


@dataclass(frozen=True, eq=False)
class EpisodeArrays:
    """What every verb asks of all episodes. number (E,): episode_index, rising. row (E,): dataset row of frame 0. length (E,): frames.

    file (E,): which of `names` has the rows; "" is a name where meta/ names none. task (E,): which of `tasks`, each the words of one
    episode. videos: camera -> its parts; None where only the records say it, because an episode may lack its place.
    """

    number: Int[np.ndarray, "E"]
    row: Int[np.ndarray, "E"]
    length: Int[np.ndarray, "E"]
    file: Int[np.ndarray, "E"]
    names: tuple[str, ...]
    task: Int[np.ndarray, "E"]
    tasks: tuple[tuple[str, ...], ...]
    videos: Mapping[str, VideoArrays] | None = None

    def places(self, numbers: Sequence[int]) -> Int[np.ndarray, "N"]:
        """Returns where these episodes are in the arrays. KeyError for one that is not here."""
        requested = as_array(numbers)
        places = np.minimum(np.searchsorted(self.number, requested), max(0, len(self.number) - 1))
        if len(requested) and (not len(self.number) or (self.number[places] != requested).any()):
            raise KeyError("an episode that is not in this dataset")
        return places

    def by_file(self) -> Iterator[tuple[str, Int[np.ndarray, "N"]]]:
        """Yields each data file that meta/ names, and where its episodes are in the arrays."""
        yield from grouped(self.file, self.names)


def grouped(code: Int[np.ndarray, "E"], names: Sequence[str]) -> Iterator[tuple[str, Int[np.ndarray, "N"]]]:
    """Yields each name that some entry has, in the order of `names`, and the places of those entries, rising."""
    order = np.argsort(code, kind="stable")
    edges = np.searchsorted(code[order], np.arange(len(names) + 1))
    for place, name in enumerate(names):
        if edges[place] < edges[place + 1]:
            yield name, order[edges[place] : edges[place + 1]]
