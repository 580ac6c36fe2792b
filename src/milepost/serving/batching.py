"""Puts the observations of all requests that wait into one pass of the model.

While a pass runs, requests gather; the next pass takes them all. So one robot never waits for others that are not there, and many robots
share a pass. The model runs in one thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from milepost.online import FrameProgress, Observation, Sessions
from milepost.serving.statistics import Statistics

_log = logging.getLogger(__name__)
MOST_WAITING = 1024
"""Observations that may wait for the model."""
MOST_TOGETHER = 256
"""Observations in one pass."""


class BusyError(Exception):
    """More observations wait than the server accepts."""


class ModelError(Exception):
    """The model broke on these frames; its traceback is in the log."""


@dataclass(eq=False)
class _Waiting:
    observations: Sequence[Observation]
    answer: asyncio.Future[list[FrameProgress]]


class Batcher:
    """Follows the attempts of `sessions` for many requests at once. `start` begins it in a running event loop; `stop` ends it."""

    def __init__(self, sessions: Sessions, statistics: Statistics) -> None:
        self._sessions, self._statistics = sessions, statistics
        self._waiting: list[_Waiting] = []
        self._count = 0
        self._is_there = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "milepost-model")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to work in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Ends the work. What waits is answered with an error."""
        if self._task is not None:
            self._task.cancel()
        for each in self._waiting:
            if not each.answer.done():
                each.answer.set_exception(BusyError("the server is ending"))
        self._waiting = []
        self._thread.shutdown(wait=True)

    async def advance(self, observations: Sequence[Observation]) -> list[FrameProgress]:
        """Returns the results of these observations, in their order. BusyError if too many wait already."""
        if self._count + len(observations) > MOST_WAITING:
            self._statistics.refuse()
            raise BusyError(f"{self._count} frames wait for the model already: send the newest one again later")
        waiting = _Waiting(observations, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._count += len(observations)
        self._statistics.wait(self._count)
        self._is_there.set()
        return await waiting.answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._is_there.wait()
            together = self._next()
            observations = [observation for each in together for observation in each.observations]
            work = loop.run_in_executor(self._thread, self._sessions.advance, observations)
            await asyncio.wait([work])
            self._give(together, work)
            self._count -= len(observations)
            self._statistics.wait(self._count)

    def _give(self, together: Sequence[_Waiting], work: asyncio.Future[list[FrameProgress]]) -> None:
        """Gives each request its part of a pass. A fault of the model is the answer of these requests, and not the end of the work."""
        fault = work.exception()
        results = iter(() if fault else work.result())
        if fault is None:
            self._statistics.count(work.result())
        if fault is not None:
            _log.error("the model failed", exc_info=fault)
        for each in together:
            own = [] if fault else [next(results) for _ in each.observations]
            if each.answer.done():  # its client has gone
                continue
            if fault is None:
                each.answer.set_result(own)
            else:
                each.answer.set_exception(ModelError(f"the model failed: {type(fault).__name__}: {fault}"))

    def _next(self) -> list[_Waiting]:
        """Returns the requests of the next pass: at least one, and as many as fit."""
        together, count = [self._waiting.pop(0)], 0
        count = len(together[0].observations)
        while self._waiting and count + len(self._waiting[0].observations) <= MOST_TOGETHER:
            together.append(self._waiting.pop(0))
            count += len(together[-1].observations)
        if not self._waiting:
            self._is_there.clear()
        return together
