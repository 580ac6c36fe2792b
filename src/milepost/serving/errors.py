"""Why the server has no answer."""

from __future__ import annotations


class BusyError(Exception):
    """More waits than the server accepts."""


class ModelError(Exception):
    """The model broke on these frames; its traceback is in the log."""


def broken(fault: BaseException) -> ModelError:
    """Returns what a client is told of a fault of the model."""
    return ModelError(f"the model failed: {type(fault).__name__}: {fault}")
