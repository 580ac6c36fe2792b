"""The first mistakes in a call from Python, each answered with one sentence: unknown options, one name where several are expected."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from milepost.core.errors import DataError, DataWarning

T = TypeVar("T")
_BETWEEN = ("milepost", "jaxtyping", "beartype")
"""Packages whose frames are not the user's: ours, and those that check our types in the tests."""


def refuses_unknown_options(reasons: Mapping[str, str] | None = None) -> Callable[[type[T]], type[T]]:
    """Returns a decorator of a dataclass: an unknown keyword raises TypeError with the nearest field and all fields.

    reasons: option of an earlier version -> the sentence that says what became of it.

    >>> @refuses_unknown_options({"quick": "quick was removed."})
    ... @dataclasses.dataclass
    ... class Options:
    ...     steps: int = 1
    >>> Options(step=2)
    Traceback (most recent call last):
    TypeError: Options has no option 'step'; did you mean 'steps'? It has: steps
    >>> Options(quick=True)
    Traceback (most recent call last):
    TypeError: quick was removed.
    """

    def decorate(cls: type[T]) -> type[T]:
        plain = cls.__init__

        @functools.wraps(plain)
        def init(self: T, *args: Any, **options: Any) -> None:
            names = [each.name for each in dataclasses.fields(cls) if each.init]  # type: ignore[arg-type]
            for name in options:
                if name not in names:
                    raise TypeError((reasons or {}).get(name) or f"{cls.__name__} has no option {_nearest(name, names)}")
            plain(self, *args, **options)

        cls.__init__ = init  # type: ignore[assignment]
        return cls

    return decorate


def _nearest(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"'{name}'{f'; did you mean {near[0]!r}?' if near else '.'} It has: {', '.join(names)}"


def names_of(names: str | Iterable[str]) -> tuple[str, ...]:
    """Returns the names as a tuple: one name may stand alone, and is not a list of letters.

    >>> names_of("sparse"), names_of(["sparse", "dense"])
    (('sparse',), ('sparse', 'dense'))
    """
    return (names,) if isinstance(names, str) else tuple(names)


def require_one_of(value: object, choices: Collection[str], what: str) -> None:
    """Raises DataError, which lists the choices, if a value is none of them. what: its name in the message."""
    if value not in choices:
        raise DataError(f"{what} must be {' or '.join(map(repr, choices))}, got {value!r}")


def warn_user(message: str, category: type[Warning] = DataWarning) -> None:
    """Warns at the line of the user's own code that called this package. In a thread of ours, and under a verb, it is our line."""
    depth, frame = 1, sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.startswith("milepost.cli"):
            break
        if name.partition(".")[0] not in _BETWEEN:
            depth = depth if not name.startswith(("threading", "concurrent.")) else 1
            break
        depth += 1
        if frame.f_back is None:
            depth = 1
            break
        frame = frame.f_back
    warnings.warn(message, category, stacklevel=depth + 1)
