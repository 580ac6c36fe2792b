"""The first mistakes in a call from Python, each answered with one sentence: unknown options, one name where several are expected."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from numbers import Integral, Real
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from milepost.core.errors import DataError, DataWarning

T = TypeVar("T")
_BETWEEN = ("milepost", "jaxtyping", "beartype", "contextlib")
"""Packages whose frames are not the user's: ours, what enters our context managers, and those that check our types in the tests."""


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


def is_whole(value: object) -> bool:
    """Returns whether a value is a whole number: an integer, or a float without a fraction; True and False are none.

    >>> is_whole(3), is_whole(3.0), is_whole(3.7), is_whole("3")
    (True, True, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool) and float(value).is_integer()


def require_whole(values: Iterable[object], what: str) -> None:
    """Raises DataError for the first value that is no whole number. what: the name of the values in the message."""
    for value in values:
        if not is_whole(value):
            raise DataError(f"{what} must be whole numbers, got {value!r}")


def require_integers(config: object) -> None:
    """Raises ValueError if an integer field of a config, a dataclass, is no int: 2.5, 2.0, "2" and True are refused.

    >>> @dataclasses.dataclass
    ... class Options:
    ...     steps: int | None = 1
    >>> require_integers(Options(2.5))
    Traceback (most recent call last):
    ValueError: steps must be a whole number, an int; got 2.5
    """
    group: Any = type(config)
    for name, kind in _hints(group).items():
        value = getattr(config, name)
        members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        if int not in members or float in members or (value is None and type(None) in members):
            continue
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise ValueError(  # noqa: TRY004 - as for every other value of a config
                f"{name} must be a whole number, an int; got {value!r}"
            )


@functools.cache
def _hints(config: Any) -> dict[str, Any]:
    return {name: hint for name, hint in get_type_hints(config).items() if name in {each.name for each in dataclasses.fields(config)}}


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
