"""Refuses an option where it has no effect: one that works only together with another one, or not in this mode of the verb.

Every verb with such options lists them as `Effect`s, so that none is ignored in silence.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost.core import looks_remote


@dataclass(frozen=True)
class Effect:
    """Options that have an effect only under a condition.

    options: names of fields of the verb's arguments; a group of options stands for all of its fields, "group.field" for one. is_there:
    whether the condition holds. only: when they have one, in words, such as "with --trim-idle".
    """

    options: tuple[str, ...]
    is_there: bool
    only: str


def require_effects(args: Any, effects: Sequence[Effect]) -> None:
    """Raises ValueError for the first option that is not at its default and has no effect. args: a verb's dataclass of arguments."""
    for effect in effects:
        for flag, is_changed in (each for name in effect.options for each in _flags(args, name)):
            if is_changed and not effect.is_there:
                raise ValueError(f"{flag} has an effect only {effect.only}; change that, or leave {flag} out")


def require_paths_here(args: Any) -> None:
    """Raises ValueError for the first option that takes a path and has an address, but for the Hub's, where files are read by some.

    args: a verb's dataclass of arguments.
    """
    for field in dataclasses.fields(args):
        value = getattr(args, field.name)
        if dataclasses.is_dataclass(value):
            require_paths_here(value)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, Path) and looks_remote(each) and each.parts[0] != "hf:":
                flag = f"--{field.name.replace('_', '-')}"
                raise ValueError(f"{flag} takes a path of this machine, and {each} looks like an address: only datasets are read from one")


def _flags(args: Any, name: str) -> Iterator[tuple[str, bool]]:
    """Yields each flag that a name stands for, and whether it is not at its default."""
    group, _, name_in_group = name.rpartition(".")
    owner = getattr(args, group) if group else args
    value = getattr(owner, name_in_group)
    if dataclasses.is_dataclass(value):
        for each in dataclasses.fields(value):
            yield from _flags(value, each.name)
        return
    field = next(each for each in dataclasses.fields(owner) if each.name == name_in_group)
    default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    yield f"--{name_in_group.replace('_', '-')}", value != default
