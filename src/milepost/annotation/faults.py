"""What can be wrong with an answer, in words that go back to the model and into the record; and what was put right without asking."""

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
    """message: one sentence, for the model and for the user. fatal: no annotation came out; else one did, though another may be better.
    advice: what the user alone can do about it."""

    kind: Kind
    message: str
    fatal: bool = True
    advice: str = ""


@dataclass(frozen=True)
class Repair:
    """A small fault put right by rule. moved_s: how far that moved a border, in seconds."""

    kind: Kind
    message: str
    moved_s: float = 0.0


def reask(faults: Sequence[Fault]) -> str:
    """What to say to the model after an answer with these faults, its own answer before it in the conversation."""
    if not faults:
        raise ValueError("an answer without faults needs no second question")
    named = "\n".join(f"- {fault.message}" for fault in faults)
    return (
        f"That answer cannot be used as it is:\n{named}\n"
        "Look at the frames again and answer anew, with the whole list and with JSON alone: no text before it or after it."
    )


def quoted(text: object, most: int = 60) -> str:
    """Something a model wrote, for a message: on one line, in quotes, cut if it is long."""
    line = " ".join(str(text).split())
    return f"'{line}'" if len(line) <= most else f"'{line[: most - 3]}...'"
