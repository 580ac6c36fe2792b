"""Work in this process or in several. Results come in the order of the items, so they do not depend on the number of processes."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar, runtime_checkable

Item = TypeVar("Item")
Result = TypeVar("Result")


@runtime_checkable
class Run(Protocol):
    """Applies a function to every item and yields the results in order, as soon as they are ready."""

    def __call__(self, function: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]: ...


@contextmanager
def pool(workers: int) -> Iterator[Run]:
    """Starts worker processes (1: none, the work is done in this process). An early exit from the block drops the items that have not
    begun.

    Workers are spawned, not forked: a forked GL driver or thread pool does not survive. So a script that calls this needs the usual
    `if __name__ == "__main__":`.
    """
    if workers <= 1:
        yield map
        return
    executor = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        with _ctrl_c_ignored():
            for _ in range(workers):
                executor.submit(_start_worker)
        yield executor.map
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Processes started inside ignore Ctrl-C from their first instruction; else one that is still importing prints its traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start_worker() -> None:
    """Leaves Ctrl-C to the parent and one core to each worker; ends the worker when the parent ends for any reason."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.environ.setdefault("LP_NUM_THREADS", "1")


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    """Ends this process when the parent is gone. A killed parent does not close its pool, so its workers would wait for ever."""
    parent.join()
    os._exit(1)
