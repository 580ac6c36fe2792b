"""What every verb that runs on a cluster does in its processes: absolute paths, items as numbers, and warnings that are carried back."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from milepost.core import DataWarning, warn_user


def absolute(name: str) -> str:
    """Returns the name of a file or folder as a process needs it that runs in another folder; any other name as it is."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


@contextmanager
def warnings_of() -> Iterator[Callable[[], list[str]]]:
    """Keeps the warnings of a block, which nobody would see in a process of the cluster. Yields a function that returns them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        yield lambda: [str(each.message) for each in caught if issubclass(each.category, DataWarning)]


class Unsaid:
    """The warnings of a process that have not been carried back. Threads may ask at once, so they are of the whole process.

    messages: returns all of them so far.
    """

    def __init__(self, messages: Callable[[], list[str]]) -> None:
        self._messages, self._count, self._lock = messages, 0, threading.Lock()

    def take(self) -> list[str]:
        """Returns those that came since the last call."""
        with self._lock:
            fresh = self._messages()[self._count :]
            self._count += len(fresh)
            return fresh


def say_once(messages: Iterable[str], warned: set[str]) -> None:
    """Warns of what the processes warned of, each once."""
    for message in messages:
        if message not in warned:
            warned.add(message)
            warn_user(message)


def item_of(position: int, lacking: Sequence[int], count: int) -> int:
    """Returns a number for a position and the models that lack its curve, of `count` models.

    >>> parts_of_item(item_of(5, [0, 2], 3), 3)
    (5, [0, 2])
    """
    return (position << count) | sum(1 << place for place in lacking)


def parts_of_item(item: int, count: int) -> tuple[int, list[int]]:
    """Returns the position and the models of a number that `item_of` made."""
    return item >> count, [place for place in range(count) if item >> place & 1]
