"""What every format gives, and nothing else: a Source is a list of episodes, and each is read as a Recording when its turn comes.

A format has one file and one function, which opens a path and returns a Source. It looks at the sizes of everything first, so most faults
are found before anything is written. Images come from generators, a few at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from milepost.core import DataError, has_words
from milepost.datasets import Recording

CHUNK = 32
"""Images that are read at once."""


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


@dataclass(frozen=True, eq=False)
class Entry:
    """An episode of a source. name: what it is called there. length: frames. read: returns it; called once, when its turn comes."""

    name: str
    length: int
    read: Callable[[], Recording]


@dataclass(frozen=True, eq=False)
class Source:
    """Recordings in another layout, opened. kind: the layout in words. cameras: their full keys.

    notes: what was taken and what was left out, in sentences. proportions: head -> stage -> proportion, where
    the source has stages.
    """

    kind: str
    path: Path
    fps: int
    cameras: Sequence[str]
    entries: Sequence[Entry]
    notes: Sequence[str] = ()
    robot_type: str | None = None
    proportions: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
