"""Where Ray's messages to the driver go: to standard error, one short line each.

Ray prints them to standard output from a thread of its own, where they would be among the verb's answer, such as JSON.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

_THREAD = "ray_listen_error_messages"
_MOST = 200


class _WithoutRay:
    """A standard output into which Ray's thread does not write. stream: the real one, which has everything else."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes text; that of Ray's thread goes to standard error, as `first_sentence` of it."""
        if threading.current_thread().name != _THREAD:
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
    return re.split(r"(?<=\.)\s", text.strip(), maxsplit=1)[0][:_MOST]


@contextmanager
def short_messages() -> Iterator[None]:
    """Sends Ray's messages to standard error while the block runs."""
    with redirect_stdout(_WithoutRay(sys.stdout)):
        yield
