"""Tells a person that the cluster is gone: Ray itself says nothing that names it, and ends the process after a minute."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY_S = 5.0
"""Seconds between two looks, and until an answer must be there."""
SILENT = (
    "the Ray cluster at {address} does not answer any more. Ray waits a minute for it and then ends this command; "
    "what came back is on disk, and the same command goes on"
)


@contextmanager
def watched(address: str, say: Callable[[str], None], every_s: float = EVERY_S) -> Iterator[None]:
    """Looks for the head of a cluster while the block runs, and says once that it is gone. address: HOST:PORT of the head."""
    is_over = threading.Event()
    thread = threading.Thread(target=_watch, args=(address, say, every_s, is_over), name="milepost-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(2 * every_s)


def _watch(address: str, say: Callable[[str], None], every_s: float, is_over: threading.Event) -> None:
    host, _, port = address.rpartition(":")
    misses = 0
    while misses < 2 and not is_over.wait(every_s):
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=every_s).close()
            misses = 0
        except OSError:
            misses += 1
    if misses and not is_over.is_set():
        say(SILENT.format(address=address))
