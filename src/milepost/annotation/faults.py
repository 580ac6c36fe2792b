"""What can be wrong with an answer, in words for the model and for the record; and what was repaired without asking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "no JSON",
    "cut off",
    "wrong shape",
    "unreadable time",
    "unknown name",
    "order",
    "repeated",
    "missing",
    "reversed",
    "too short",
    "past the end",
    "coverage",
    "gap",
    "overlap",
    "whole seconds",
]


@dataclass(frozen=True)
class Fault:
    """message: one sentence, for the model and for the user. fatal: the answer gave no annotation; if false, it gave one, though another
    answer may be better. advice: what only the user can do about it.
    """

    kind: Kind
    message: str
    fatal: bool = True
    advice: str = ""


@dataclass(frozen=True)
class Repair:
    """A small fault that a rule repaired. moved_s: how far it moved a boundary, in seconds."""

    kind: Kind
    message: str
    moved_s: float = 0.0


def reask(faults: Sequence[Fault]) -> str:
    """Returns the next message to a model whose last answer, which stands before it in the conversation, has these faults."""
    if not faults:
        raise ValueError("an answer without faults needs no second question")
    named = "\n".join(f"- {fault.message}" for fault in faults)
    return (
        f"That answer cannot be used as it is:\n{named}\n"
        "Look at the frames again and answer anew, with the whole list and with JSON alone: no text before it or after it."
    )


def quoted(text: object, most: int = 60) -> str:
    """Returns words of a model for a message: on one line, in quotes, cut if they are long."""
    line = " ".join(str(text).split())
    return f"'{line}'" if len(line) <= most else f"'{line[: most - 3]}...'"
