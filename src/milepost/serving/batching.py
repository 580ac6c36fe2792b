"""Puts the observations of all requests that wait into one pass of the model.

While a pass runs, requests gather; the next pass takes them all. So one robot never waits for others that are not there, and many robots
share a pass. The model runs in one thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from milepost.core import DataError
from milepost.online import FrameProgress, Observation, Sessions, turns
from milepost.serving.errors import BusyError, ModelError, broken
from milepost.serving.later import Later
from milepost.serving.statistics import Statistics

T = TypeVar("T")
_log = logging.getLogger(__name__)
MOST_WAITING = 1024
"""Observations that may wait for the model."""
MOST_WAITING_BYTES = 1_000_000_000
"""Bytes of their images and states."""
MOST_TOGETHER = 256
"""Observations in one pass."""
TURNS = 8
"""After so many passes for robots, episodes that may come later have one."""


@dataclass(eq=False)
class _Waiting:
    observations: Sequence[Observation]
    answer: asyncio.Future[list[FrameProgress]]
    size: int = field(init=False)
    """Bytes."""

    def __post_init__(self) -> None:
        arrays = [array for each in self.observations for array in (*each.images.values(), each.state) if array is not None]
        self.size = sum(array.nbytes for array in arrays)


class Batcher:
    """Follows the attempts of `sessions` for many requests at once. `start` begins it in a running event loop; `stop` ends it.

    most_bytes: of the whole episodes that wait.
    """

    def __init__(self, sessions: Sessions, statistics: Statistics, most_bytes: int) -> None:
        self._sessions, self._statistics = sessions, statistics
        self._waiting: list[_Waiting] = []
        self._count = self._size = 0
        self._is_there = asyncio.Event()
        self._turn = 0
        self.later = Later(sessions, most_bytes, self._is_there.set, statistics.refuse)
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
        """Returns the results of these observations, in their order. BusyError if too many wait already, by number or by bytes."""
        if not observations:
            return []
        waiting = _Waiting(observations, asyncio.get_running_loop().create_future())
        if self._count + len(observations) > MOST_WAITING or (self._count and self._size + waiting.size > MOST_WAITING_BYTES):
            self._statistics.refuse()
            raise BusyError(f"{self._count} frames wait for the model already: send the newest one again later")
        self._waiting.append(waiting)
        self._count, self._size = self._count + len(observations), self._size + waiting.size
        self._statistics.wait(self._count)
        self._is_there.set()
        return await waiting.answer

    async def run(self, make: Callable[[], T]) -> T:
        """Returns what `make` returns in the model's thread, between two passes. ModelError if it fails by anything but a DataError."""
        work = asyncio.get_running_loop().run_in_executor(self._thread, make)
        await asyncio.wait([work])
        fault = work.exception()
        if fault is None or isinstance(fault, DataError):
            return work.result()
        _log.error("the model failed", exc_info=fault)
        raise broken(fault)

    async def _work(self) -> None:
        while True:
            await self._is_there.wait()
            self._turn += 1
            if self.later.has_work and (not self._waiting or self._turn % TURNS == 0):
                work = asyncio.get_running_loop().run_in_executor(self._thread, self.later.work)
                await asyncio.wait([work])
                if (fault := work.exception()) is not None:
                    _log.error("the model failed", exc_info=fault)
                self.later.settle(fault)
            else:
                await self._pass()
            if not self._waiting and not self.later.has_work:
                self._is_there.clear()

    async def _pass(self) -> None:
        """Takes the requests that wait through the model. Where it fails, the frames that it fails on have no answer, and all others do."""
        together = self._next()
        observations = [observation for each in together for observation in each.observations]
        is_alone = [len(each.observations) == 1 for each in together for _ in each.observations]
        results: list[FrameProgress | None] = [None] * len(observations)
        faults: list[ModelError | None] = [None] * len(observations)
        logged: set[str] = set()
        for turn in turns(observations):
            answers = await self._answers([observations[place] for place in turn], logged)
            for place, answer in zip(turn, answers, strict=True):
                if not isinstance(answer, ModelError):
                    results[place] = answer
                    continue
                faults[place] = answer
                if not is_alone[place]:  # before the next turn, so that the frame has its own number
                    results[place] = await self.run(partial(self._sessions.refuse, observations[place], str(answer)))
        start = 0
        for each in together:
            own = slice(start, start + len(each.observations))
            start = own.stop
            self._give(each, results[own], faults[own])
        self._count, self._size = self._count - len(observations), self._size - sum(each.size for each in together)
        self._statistics.wait(self._count)

    async def _answers(self, observations: Sequence[Observation], logged: set[str]) -> list[FrameProgress | ModelError]:
        """Returns the result of each observation, of different sessions, or what the model fails by on this one alone."""
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._sessions.advance, observations)
        await asyncio.wait([work])
        if (fault := work.exception()) is None:
            self._statistics.count(work.result())
            return list(work.result())
        if (text := str(broken(fault))) not in logged:  # of a model that fails on every frame, one traceback
            logged.add(text)
            _log.error("the model failed", exc_info=fault)
        if len(observations) == 1:
            return [broken(fault)]
        half = len(observations) // 2
        return [*await self._answers(observations[:half], logged), *await self._answers(observations[half:], logged)]

    def _give(self, request: _Waiting, results: Sequence[FrameProgress | None], faults: Sequence[ModelError | None]) -> None:
        """Gives a request its part of a pass. If the model failed on all of its frames, that is the answer; if on some, their reason."""
        if request.answer.done():  # its client has gone
            return
        first = faults[0]
        if first is not None and all(faults):
            request.answer.set_exception(first)
        else:
            request.answer.set_result([result for result in results if result is not None])

    def _next(self) -> list[_Waiting]:
        """Returns the requests of the next pass: at least one, and as many as fit."""
        together, count = [self._waiting.pop(0)], 0
        count = len(together[0].observations)
        while self._waiting and count + len(self._waiting[0].observations) <= MOST_TOGETHER:
            together.append(self._waiting.pop(0))
            count += len(together[-1].observations)
        return together
