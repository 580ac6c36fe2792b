"""What a model of another package is held to, and how it is named when it breaks that: one message, with the package in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import entry_points, packages_distributions, version
from types import TracebackType

import numpy as np

from milepost.core.errors import DataError, ModelError, UnreadableError
from milepost.core.types import Curve

GROUP = "milepost.models"
"""The entry points by which other packages offer models."""
STAGE_SUM = 1e-2
"""Largest difference of the sum of stage probabilities from 1: half precision has an error of this size."""

ROUNDING = 1e-5
"""A signal may be this far outside its bounds, as a proportion of them, by rounding."""


def is_foreign(model: object) -> bool:
    """Returns whether a model is not from this package."""
    return type(model).__module__.partition(".")[0] != "milepost"


def title_of(model: object) -> str:
    """Returns the name of a model in messages: its class and the package that it is from."""
    return f"{type(model).__name__} (of {package_of(type(model).__module__)})"


def package_of(module: str) -> str:
    """Returns the name and version of the package that a module is from; the module's own name if no installed package has it."""
    top = module.partition(".")[0]
    for point in entry_points(group=GROUP):
        if point.module.partition(".")[0] == top and point.dist is not None:
            return f"{point.dist.name} {point.dist.version}"
    packages = packages_distributions().get(top, [])
    return f"{packages[0]} {version(packages[0])}" if packages else top


def blaming(model: object) -> AbstractContextManager[None]:
    """Returns a context in which all that a model raises gets the name of its package; milepost's own models need none."""
    return Blame(title_of(model)) if is_foreign(model) else nullcontext()


class Blame:
    """Whatever code of another package raises inside this block becomes a DataError that names it; the cause is kept.

    A ModelError passes, because the caller names the model, and so does an UnreadableError, which is about one episode.
    """

    def __init__(self, who: str) -> None:
        self.who = who

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # Foreign code may raise anything, and may even end the program; an interruption by the user is not its doing.
        if isinstance(error, Exception | SystemExit) and not isinstance(error, UnreadableError | ModelError):
            lines = str(error).strip().splitlines() or [""]
            words = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {lines[0]}"
            raise DataError(words if words.startswith(self.who) else f"{self.who}: {words}") from error


def curve_faults(head: str, curve: Curve) -> Iterator[str]:
    """Yields what cannot be true of a curve: signals outside the bounds that they have, stage probabilities that do not sum to 1."""
    for key, signal in curve.signals.items():
        values = signal.values[~np.isnan(signal.values)]
        slack = ROUNDING * max([1.0, *(abs(bound) for bound in (signal.low, signal.high) if np.isfinite(bound))])
        if len(values) and (values.min() < signal.low - slack or values.max() > signal.high + slack):
            bounds, extent = f"[{signal.low:g}, {signal.high:g}]", f"{values.min():g}..{values.max():g}"
            yield f"signal '{key}' of head '{head}' should lie in {bounds}, and its values are {extent}"
    if curve.stage is None:
        return
    probabilities = curve.stage[~np.isnan(curve.stage).any(axis=1)]
    if len(probabilities) and (probabilities.min() < -STAGE_SUM or np.abs(probabilities.sum(axis=1) - 1).max() > STAGE_SUM):
        yield f"the stage probabilities of head '{head}' should be at least 0 and sum to 1 in each frame that is known"
