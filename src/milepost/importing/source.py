"""What every format gives, and nothing else: a Source is a list of episodes, and each is read as a Recording when its turn comes.

A format has one file and one function, which opens a path and returns a Source. It looks at the sizes of everything first, so most faults
are found before anything is written. Images come from generators, a few at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from milepost.core import DataError, has_words, ranges_to_type
from milepost.datasets import Recording, episode_numbers, numbers_that_stay

T = TypeVar("T")

CHUNK = 32
"""Images that are read at once."""
FAULTS = 5
"""Damaged episodes that a refusal describes; it has the numbers of all."""


@dataclass(frozen=True)
class Choices:
    """What a user says of a source that its files do not say, or in place of the usual choice."""

    fps: int | None = None
    """Frames per second, where the source does not say it. Videos of another rate are sampled at it."""
    task: str = ""
    """Instruction of the episodes that have none of their own, such as "fold the towel"."""
    image_keys: tuple[str, ...] | None = None
    """Arrays that become cameras. Default: all that look like images."""
    state_keys: tuple[str, ...] | None = None
    """Arrays that become observation.state, side by side. Default: what the format's own trainers take."""
    action_keys: tuple[str, ...] | None = None
    """Arrays that become action, side by side. Default: the format's own."""
    episodes: str | None = None
    """Episodes to import, such as 0-9,12 or 0 1 2; default: all. They are counted from 0 in the order of the source, and numbered from 0
    in the new dataset."""
    without: str | None = None
    """Leave out these episodes, such as 3,7: damaged ones, as milepost info or a refusal of this command names them."""
    swap_red_blue: bool = False
    """Exchange red and blue of all images: for recordings whose colours come out exchanged."""

    def __post_init__(self) -> None:
        if self.fps is not None and self.fps < 1:
            raise DataError(f"--fps must be a whole number of at least 1, got {self.fps}")

    def rate(self, own: float | int | None, *, who: str, hint: str) -> int:
        """Returns the frames per second: what the user says, else the source's own. DataError if neither is a whole number.

        who: the source, for the message. hint: what is usual there.
        """
        if self.fps is not None:
            return self.fps
        if own is None or own != int(own) or own < 1:
            reason = "does not say its frame rate" if own is None else f"has {own:g} frames per second, and LeRobot needs a whole number"
            raise DataError(f"{who} {reason}: name it with --fps{hint}")
        return int(own)

    def words(self, own: str, *, who: str) -> str:
        """Returns the instruction of an episode: its own, else what the user says. DataError if there is neither."""
        task = own if has_words(own) else self.task
        if not has_words(task):
            raise DataError(f'{who} has no instruction in words: name it with --task, such as --task "fold the towel"')
        return task.strip()

    def numbers(self, there: Sequence[int]) -> list[int]:
        """Returns the episodes to import, of those that are there. DataError for one that is named and is not there."""
        return numbers_that_stay(there, self.episodes, self.without, verb="import")

    def each(self, numbers: Iterable[int], read: Callable[[int], T]) -> dict[int, T]:
        """Returns what `read` gives for each of these episodes. DataError names those for which it fails, and how to leave them out."""
        out: dict[int, T] = {}
        faults: dict[int, str] = {}
        for number in numbers:
            try:
                out[number] = read(number)
            except DataError as error:
                faults[number] = str(error)
        if faults:
            raise DataError(self._refusal(faults, is_all=not out))
        return out

    def _refusal(self, faults: Mapping[int, str], *, is_all: bool) -> str:
        """Returns what is wrong with these episodes, in words. is_all: no episode is without a fault, so none can be left out."""
        each = [fault if fault.startswith(f"episode {number}") else f"episode {number}: {fault}" for number, fault in faults.items()]
        if is_all:
            return next(iter(faults.values())) + ("; no other episode can be imported either" if len(faults) > 1 else "")
        more = f"; and {len(each) - FAULTS} more" if len(each) > FAULTS else ""
        numbers = sorted({*(episode_numbers(self.without) or ()), *faults})
        what = "it" if len(each) == 1 else "them"
        return f"{'; '.join(each[:FAULTS])}{more}; leave {what} out with --without {ranges_to_type(numbers)}"


@dataclass(frozen=True, eq=False)
class Entry:
    """An episode of a source. number: its place there, from 0. name: what it is called there. length: frames. read: returns it; it is
    called twice, to look at it and to write it.
    """

    number: int
    name: str
    length: int
    read: Callable[[], Recording]


@dataclass(frozen=True, eq=False)
class Source:
    """Recordings in another layout, opened. kind: the layout in words. cameras: their full keys.

    notes: what was taken and what was left out, in sentences. proportions: head -> stage -> proportion, where
    the source has stages. choices: those that it was opened with.
    """

    kind: str
    path: Path
    fps: int
    cameras: Sequence[str]
    entries: Sequence[Entry]
    notes: Sequence[str] = ()
    robot_type: str | None = None
    proportions: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    choices: Choices = field(default_factory=Choices)
