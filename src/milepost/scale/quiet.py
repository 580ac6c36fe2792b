"""Where Ray's messages to the driver go, to standard error, one short line each; and whose SIGTERM is.

Ray prints them to standard output from a thread of its own, where they would be among the verb's answer, such as JSON.
"""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

_THREAD = "ray_listen_error_messages"
_MOST = 200
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class _WithoutRay:
    """A standard output into which Ray does not write. stream: the real one, which has everything else. every: all is Ray's, whatever the
    thread is."""

    def __init__(self, stream: Any, *, every: bool = False) -> None:
        self._stream, self._every = stream, every

    def write(self, text: str) -> int:
        """Writes text; that of Ray goes to standard error, as `first_sentence` of it."""
        if not self._every and threading.current_thread().name != _THREAD:
            return int(self._stream.write(text))
        if text.strip():
            print(first_sentence(text), file=sys.stderr)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        """Returns what the real one has."""
        return getattr(self._stream, name)


def first_sentence(text: str) -> str:
    """Returns the first sentence of a message, of at most 200 characters.

    >>> first_sentence("(raylet) A worker died. To troubleshoot the problem, check the logs for the dead worker.")
    '(raylet) A worker died.'
    """
    return re.split(r"(?<=\.)\s", _COLOUR.sub("", text).strip(), maxsplit=1)[0][:_MOST]


@contextmanager
def short_messages() -> Iterator[None]:
    """Sends Ray's messages to standard error while the block runs."""
    with redirect_stdout(_WithoutRay(sys.stdout)):
        yield


@contextmanager
def only_ray() -> Iterator[None]:
    """Sends all that is printed while the block runs to standard error: Ray prints repeated messages from its shutdown."""
    with redirect_stdout(_WithoutRay(sys.stdout, every=True)):
        yield


@contextmanager
def own_sigterm() -> Iterator[None]:
    """Gives SIGTERM its handler back after a block in which Ray puts its own there, which ends the process with SIGABRT."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
