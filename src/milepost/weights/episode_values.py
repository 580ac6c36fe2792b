"""A value for each episode, of which few differ: a million episodes with one of nine tasks and outcomes are two arrays and nine objects."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Bool, Int

V = TypeVar("V", bound=Hashable)


class ByEpisode(Mapping[int, V], Generic[V]):
    """Episode index -> its value. number (E,): the indices, rising. code (E,): which of `values` each has."""

    def __init__(self, number: Int[np.ndarray, "E"], code: Int[np.ndarray, "E"], values: tuple[V, ...]) -> None:
        self.number, self.code, self.values_once = number, code, values

    @classmethod
    def of(cls, mapping: Mapping[int, V]) -> ByEpisode[V]:
        """Returns a mapping in this form."""
        if isinstance(mapping, ByEpisode):
            return mapping
        numbers, values = sorted(mapping), dict[V, int]()
        code = np.array([values.setdefault(mapping[number], len(values)) for number in numbers], np.int64)
        return cls(np.array(numbers, np.int64), code, tuple(values))

    def __len__(self) -> int:
        return len(self.number)

    def __iter__(self) -> Iterator[int]:
        return map(int, self.number)

    def __getitem__(self, number: int) -> V:
        code = int(self.codes(np.array([number]))[0])
        if code < 0:
            raise KeyError(number)
        return self.values_once[code]

    def codes(self, numbers: Int[np.ndarray, "N"]) -> Int[np.ndarray, "N"]:
        """Returns which of `values_once` these episodes have; -1 for an episode without one."""
        if not len(self.number):
            return np.full(len(numbers), -1)
        place = np.minimum(np.searchsorted(self.number, numbers), len(self.number) - 1)
        return np.where(self.number[place] == numbers, self.code[place], -1)

    def each(self, function: Callable[[V], Any]) -> ByEpisode[Any]:
        """Returns the results of a function, which is called once for each value that differs."""
        results: dict[Any, int] = {}
        code = np.array([results.setdefault(function(value), len(results)) for value in self.values_once], np.int64)
        return ByEpisode(self.number, code[self.code], tuple(results))

    def where(self, function: Callable[[V], bool]) -> Bool[np.ndarray, "E"]:
        """Returns for which episodes a function of the value is true."""
        return np.array([function(value) for value in self.values_once], bool)[self.code]
