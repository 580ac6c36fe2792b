"""Items spread over the actors of a cluster. What ends a process, or takes too long, costs its item and never the job.

Ray Data keeps the actors: it starts as many as there is room for, starts those again that died, and gives their items to others. It knows
no limit of time for an item, and begins one that ends its process without end. So a ledger counts how often each was begun, and each actor
ends itself when an item takes too long.
"""

from __future__ import annotations

import inspect
import logging
import os
import pickle
import socket
import time
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from milepost.core import DataError, count_noun
from milepost.scale.cluster import Cluster, ClusterError
from milepost.scale.gate import waited_s

Work = Callable[[int], Any]
"""What an actor does with an item."""
FEW_AT_ONCE, MOST_AT_ONCE = 4, 16
"""Items that an actor is given at once, at most, by few actors and by many: what a lost actor has to do again. Each share costs the driver
15 to 50 ms, so many actors have larger ones."""


@dataclass(frozen=True)
class Answer:
    """What was made of an item. seconds: how long it took. actor: which process did it, as host:pid."""

    item: int
    value: Any
    seconds: float
    actor: str


@dataclass(frozen=True)
class Failure:
    """An item that was begun as often as it may be, without an answer. reason: what became of it, in words."""

    item: int
    reason: str


@dataclass
class _Ledger:
    """How often each item was begun, and what is known of those that did not end. It lives in an actor of its own."""

    tries: int
    begun: dict[int, int] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)

    def begin(self, item: int) -> str:
        """Returns why this item is not begun again, "" if it is."""
        if self.begun.get(item, 0) >= self.tries:
            fault = self.faults.get(item, "its process ended, as for want of memory")
            return f"{fault}; it was begun {count_noun(self.tries, 'time')}"
        self.begun[item] = self.begun.get(item, 0) + 1
        return ""

    def end(self, item: int) -> None:
        """Forgets an item that has its answer."""
        self.begun.pop(item, None)
        self.faults.pop(item, None)

    def spare(self, items: Sequence[int]) -> None:
        """Takes back that these items were begun: their process ends because of another one."""
        for item in items:
            self.begun[item] = max(0, self.begun.get(item, 0) - 1)

    def note(self, item: int, fault: str) -> None:
        """Notes what an item came to."""
        self.faults[item] = fault


class _Actor:
    """One process of the cluster, which makes its work ready once and does it for each item.

    make: returns the work. ledger: a handle of the job's ledger. versions: package -> the version that the job was started with. threads:
    items at once.
    """

    def __init__(self, make: Callable[[], Work], ledger: Any, timeout_s: float, versions: Mapping[str, str], threads: int = 1) -> None:
        self.ledger, self.timeout_s = ledger, timeout_s
        self.under_way = set[int]()
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.fault, self.work, self.pool = "", None, ThreadPoolExecutor(threads)
        begun = self.pool.submit(_begun, make, versions)
        if (error := begun.exception()) is None:
            self.work = begun.result()
        else:  # an actor that raises here is made again without end
            self.fault = f"the worker {self.name} cannot begin: {error if isinstance(error, DataError) else in_words(error)}"

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Returns a row for each item of the batch."""
        items = [int(item) for item in batch["item"]]
        return {"item": items, "answer": [pickle.dumps(self._answer(item)) for item in items]}

    def _answer(self, item: int) -> Answer | Failure | ClusterError:
        import ray

        if self.work is None:
            return ClusterError(self.fault)
        while True:
            if reason := ray.get(self.ledger.begin.remote(item)):
                return Failure(item, reason)
            begun = time.monotonic()
            self.under_way.add(item)
            try:
                error = self._ended(future := self.pool.submit(self.work, item), begun)
            except TimeoutError:  # a thread that hangs cannot be stopped; Ray starts another process
                fault = f"it took more than {self.timeout_s:g} s (--episode-timeout-s)"
                others = [other for other in self.under_way if other != item]
                ray.get([self.ledger.note.remote(item, fault), self.ledger.spare.remote(others)], timeout=10)
                os._exit(1)
            self.under_way.discard(item)
            if error is not None:
                ray.get(self.ledger.note.remote(item, f"{in_words(error)} on {self.name}"))
                continue
            self.ledger.end.remote(item)
            return Answer(item, future.result(), time.monotonic() - begun, self.name)

    def _ended(self, future: Future[Any], begun: float) -> BaseException | None:
        """Waits for the end of an item, and returns what it raised. TimeoutError after the time limit, without that spent at a gate."""
        before = waited_s()
        while True:
            left = begun + self.timeout_s + waited_s() - before - time.monotonic()
            if left <= 0:
                raise TimeoutError
            with suppress(TimeoutError):  # others may have waited in the meantime
                return future.exception(left)


def _begun(make: Callable[[], Work], versions: Mapping[str, str]) -> Work:
    _require_same(versions)
    return make()


def in_words(error: BaseException) -> str:
    """Returns what an item raised, and where.

    >>> in_words(KeyError("state"))
    "KeyError: 'state'"
    """
    where = traceback.extract_tb(error.__traceback__)[-1:]
    return f"{type(error).__name__}: {error}" + "".join(f" ({Path(each.filename).name}:{each.lineno})" for each in where)


def spread(
    cluster: Cluster, make: Callable[[], Work], items: Sequence[int], *, threads: int = 0
) -> Generator[Answer | Failure, None, None]:
    """Yields an answer, or a failure, for each item, in the order in which they end.

    make: returns the work; it is called once in each process. Items should be unique. threads: how many items a process works on at once,
    from as many threads, where each item's answer should come back as soon as it is there; 0: one after another, some in a batch.
    ClusterError if the cluster cannot be used, or an actor cannot begin.
    """
    if not items:
        return
    with cluster.joined() as ray:
        data = ray.data
        most = min(cluster.most_actors(ray), len(items))
        at_once = 1 if threads else batch_size(len(items), most)
        ledger = ray.remote(num_cpus=0, max_restarts=-1)(_Ledger).remote(cluster.tries)
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # it logs each step of each job
        rows = data.from_arrow([pa.table({"item": items[start : start + at_once]}) for start in range(0, len(items), at_once)])
        answers = rows.map_batches(
            _Actor,
            fn_constructor_kwargs={
                "make": make,
                "ledger": ledger,
                "timeout_s": cluster.timeout_s,
                "versions": _versions(),
                "threads": max(1, threads),
            },
            batch_size=at_once,
            **_pool(data, min(cluster.actors[0], most), most, threads),
            num_cpus=cluster.cpus,
            num_gpus=cluster.gpus or None,
        )
        try:
            for row in answers.iter_rows():
                answer = pickle.loads(row["answer"])
                if isinstance(answer, ClusterError):
                    raise answer
                yield answer
        except ray.exceptions.RayError as error:
            raise ClusterError(f"the cluster cannot do the work: {_reason(error)}") from error


def batch_size(items: int, actors: int) -> int:
    """Returns how many items an actor is given at once: no more than a quarter of its part, so that the last actors end together.

    >>> batch_size(200, 2), batch_size(10, 2), batch_size(100_000, 64), batch_size(100_000, 1000)
    (4, 1, 8, 16)
    """
    most = min(MOST_AT_ONCE, max(FEW_AT_ONCE, actors // 8))
    return max(1, min(most, items // (4 * actors)))


def _pool(data: Any, least: int, most: int, threads: int) -> dict[str, Any]:
    """Returns what `map_batches` is told of the actors. threads: items that each works on at once; 0: its batches one after another."""
    sizes = {"min_size": least, "max_size": most}
    if not threads:
        return {"compute": data.ActorPoolStrategy(**sizes)}
    settings = {**sizes, "enable_true_multi_threading": True, "max_tasks_in_flight_per_actor": threads}
    if "max_concurrent_calls_per_actor" in inspect.signature(data.ActorPoolStrategy.__init__).parameters:
        return {"compute": data.ActorPoolStrategy(**settings, max_concurrent_calls_per_actor=threads)}
    return {"compute": data.ActorPoolStrategy(**settings), "max_concurrency": threads}  # until Ray 2.5x


def once(cluster: Cluster, work: Callable[[], Any]) -> Any:
    """Returns what one process of the cluster makes of the work, with the cores and cards of an actor. DataError as the work raises it."""
    with cluster.joined() as ray:
        task = ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=cluster.tries)(_carried)
        try:
            value = ray.get(task.remote(work, _versions()))
        except ray.exceptions.RayError as error:
            raise ClusterError(f"the cluster cannot do the work: {_reason(error)}") from error
    if isinstance(value, DataError):
        raise value
    return value


def _carried(work: Callable[[], Any], versions: Mapping[str, str]) -> Any:
    """Returns what the work returns, or the DataError that it raises, which Ray would otherwise wrap into its own."""
    try:
        _require_same(versions)
        return work()
    except DataError as error:
        return error


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("milepost", "torch", "numpy", "pyarrow")}


def _require_same(versions: Mapping[str, str]) -> None:
    """Raises DataError if this node has another version of a package than the node that the job was started on."""
    for name, release in versions.items():
        if version(name) != release:
            raise DataError(f"it has {name} {version(name)}, and the job was started with {release}; install the same on every node")


def _reason(error: Exception) -> str:
    """Returns the last line of an error of Ray, which is the one that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
