"""beartype for jaxtyping's import hook: each function of milepost is checked in its first calls of each test, and no more.

What comes after the first calls of one test is the same kind of call again, and checking it costs more than the test (test_audit.py has 1.4
million calls). pyproject.toml names this module beside `--jaxtyping-packages`; conftest.py calls `check_again` before each test.
"""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections import Counter
from collections.abc import Callable
from typing import Any

import beartype as library

ENOUGH = 32
"""Checks of one function in one test. jaxtyping makes two for a call: of the parameters, and of these with the result."""
_checks: Counter[tuple[str, str]] = Counter()
_resting: list[Callable[..., Any]] = []


def beartype(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function with its types checked, which lets milepost's function of this name rest after `ENOUGH` checks."""
    check, name = library.beartype(function), (function.__module__, function.__qualname__)

    @functools.wraps(check)
    def counted(*args: Any, **kwargs: Any) -> Any:
        _checks[name] += 1
        if _checks[name] == ENOUGH and (mine := _find(*name)) is not None:
            _resting.append(typing.no_type_check(mine))
        return check(*args, **kwargs)

    return counted


def check_again() -> None:
    """Lets all functions be checked again."""
    for function in _resting:
        del function.__no_type_check__
    _resting.clear()
    _checks.clear()


def _find(module: str, qualname: str) -> Callable[..., Any] | None:
    """Returns the function that jaxtyping put in the place of milepost's; None where it cannot be reached by its name."""
    place: Any = sys.modules.get(module)
    for name in qualname.split("."):
        place = inspect.getattr_static(place, name, None)
    if isinstance(place, property):
        place = place.fget
    elif isinstance(place, (classmethod, staticmethod)):
        place = place.__func__
    return place if inspect.isfunction(place) else None
