"""The border to reward models of other packages: whatever goes wrong in their code becomes one sentence that names the package.

Everything of a package that milepost calls is called inside `blaming`: its import, its functions, its model's methods. It is the one place
that catches every exception; each is raised again as a `PackageError`, with its cause. A model is run as `guarded` makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from milepost import progress
from milepost.core import MAIN_HEAD, DataError, ModelError, Progress, RewardModel, UnreadableError, identity_fault

METHODS = ("predict", "look", "prepare_for", "identity", "weights_hash", "close")
"""What the verbs call of a model."""


class PackageError(DataError):
    """The fault of another package. The message names it, and says what it did."""


@contextmanager
def blaming(who: str, what: str, *, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turns every exception that another package's code raises in the block into a PackageError "WHO WHAT: reason".

    passing: exceptions that the contract allows to be raised there. Ctrl-C and SIGTERM always pass.
    """
    try:
        yield
    except PackageError:
        raise
    except passing:
        raise
    except (Exception, SystemExit) as error:
        raise PackageError(f"{who} {what}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Returns on one line what another package's code ran into, and what can be done about it."""
    text = " ".join(str(error).split())
    if isinstance(error, DataError | ModelError):
        return text
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"it needs '{error.name}', which is not installed; install that, or the model's package again with all that it requires"
    if isinstance(error, SystemExit):
        return f"it would end the program ({text or 'without a word'}), where it should raise an error"
    fault = "" if isinstance(error, ValueError | OSError) else "a fault in that package; "  # those two may be the user's to mend
    return f"{type(error).__name__}{': ' if text else ''}{text} ({fault}MILEPOST_DEBUG=1 shows where)"


def guarded(model: Any, who: str, heads: Sequence[str] = (MAIN_HEAD,)) -> RewardModel:
    """Returns a model of another package as the verbs run it: its methods answer as the contract asks, or raise PackageError.

    heads: those that its curves must have; the main head may have any name. PackageError if its threshold is no number.
    """
    namespace: dict[str, Any] = {name: _method(model, who, name) for name in METHODS if callable(getattr(model, name, None))}
    namespace["predict"] = _predict(model, who, heads)
    if "close" in namespace:
        namespace["close"] = _close(model, who)
    if hasattr(model, "success_threshold"):
        namespace["success_threshold"] = _threshold(model, who)
    return type(type(model).__name__, (), {**namespace, "__module__": type(model).__module__})()


def _method(model: Any, who: str, name: str) -> Callable[..., Any]:
    def call(self: Any, *values: Any, **options: Any) -> Any:
        with blaming(who, f"fails in {name}()", passing=(UnreadableError,) if name == "look" else ()):
            answer = getattr(model, name)(*values, **options)
        if name == "identity" and (fault := identity_fault(answer)):
            raise PackageError(f"{who} breaks its contract: {fault}")
        return answer

    return call


def _predict(model: Any, who: str, heads: Sequence[str]) -> Callable[..., Progress]:
    def predict(self: Any, episode: Any, **options: Any) -> Progress:
        with blaming(who, "fails in predict()", passing=(UnreadableError,)):
            curves = progress.predicted(model, episode, options)
            progress.progress_rows(curves, 0)  # two numbers of one name, or a unit that is no text, are found here and not in the store
        if missing := [head for head in heads if head not in (MAIN_HEAD, *curves.heads)]:
            raise PackageError(f"{who} has no {missing[0]} head; it has: {', '.join(curves.heads)}")
        if episode.length > 1 and all(np.isnan(curve.value).all() for curve in curves.heads.values()):
            raise UnreadableError(f"{who} says NaN, which means unknown, of every frame; it should raise UnreadableError with the reason")
        return curves

    return predict


def _close(model: Any, who: str) -> Callable[[Any], list[str]]:
    """Returns a `close` that never raises: when it is called the work is done, so its faults are lines to read like the others."""

    def close(self: Any) -> list[str]:
        try:
            with blaming(who, "fails in close()"):
                return _lines(model.close())
        except PackageError as error:
            return [str(error)]

    return close


def _lines(answer: Any) -> list[str]:
    """Returns the lines that a `close()` returned: none, one, or several. ModelError if they are something else."""
    if answer is None:
        return []
    if isinstance(answer, str):
        return [answer]
    if hasattr(answer, "__await__"):
        if hasattr(answer, "close"):
            answer.close()  # else Python complains that nobody awaited it
        raise ModelError("close() should close the model and return lines of text; it is an async function, which nobody awaits")
    lines: list[Any] = list(answer) if isinstance(answer, Iterable) else [answer]
    if not all(isinstance(line, str) for line in lines):
        raise ModelError(f"close() should return lines of text, a list of str; it returned {type(answer).__name__}")
    return lines


def _threshold(model: Any, who: str) -> float:
    with blaming(who, "fails in success_threshold"):
        threshold = model.success_threshold
        if not isinstance(threshold, int | float | np.floating) or np.isnan(threshold):
            raise ModelError(f"it should be a number, minus infinity for none; it is {type(threshold).__name__}")
        return float(threshold)


def require_plain(who: str, what: str, values: Mapping[str, Any], reserved: Sequence[str]) -> None:
    """Raises PackageError unless these values can be written down of a run, under names that are not milepost's own."""
    if not isinstance(values, Mapping) or any(name in reserved for name in values):
        names = ", ".join(values) if isinstance(values, Mapping) else type(values).__name__
        raise PackageError(f"{who}: its {what} should be values by names that are not milepost's own ({', '.join(reserved)}); got: {names}")
    if fault := identity_fault(values):
        raise PackageError(f"{who}: its {what} cannot be written down: {fault.removeprefix('identity() ')}")
