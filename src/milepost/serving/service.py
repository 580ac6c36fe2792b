"""What the reward server does for a call, whatever carries it.

An error is {"error": text} with a status; a result is never a made-up number.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped
from starlette.exceptions import HTTPException

from milepost.core import DataError, shown
from milepost.online import PackedArrays, Sessions, to_json
from milepost.serving import robometer
from milepost.serving.batching import Batcher
from milepost.serving.errors import BusyError, ModelError
from milepost.serving.requests import MOST_LETTERS, episode_of, observations_of, task_and_rate
from milepost.serving.statistics import Statistics

MOST_KEYS = 1024
"""Answers that are remembered for calls that are sent again."""
Samples = Sequence[tuple[Mapping[str, Any], Shaped[np.ndarray, "..."]]]
Answer = tuple[int, dict[str, Any]]
"""Status and fields."""


@dataclass(frozen=True)
class ServerConfig:
    """What a server accepts. largest: bytes of a call, packed and unpacked; 64 MB are about 70 images of 480 x 640.

    cameras: what the model looks at, for the routes that bring a video without the name of its camera. video_fps: frames a second of such
    a video, which does not say it. most_waiting: bytes of the whole episodes that wait for the model. ValueError unless all numbers are
    above 0.
    """

    largest: int = 64_000_000
    cameras: tuple[str, ...] = ()
    video_fps: float = 1.0
    most_waiting: int = 2_000_000_000

    def __post_init__(self) -> None:
        for name in ("largest", "most_waiting"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.video_fps < math.inf:
            raise ValueError(f"video_fps must be above 0 and finite, got {self.video_fps:g}")


class Service:
    """The sessions of a model, for calls from outside.

    about: what GET /model_info answers.
    """

    def __init__(self, sessions: Sessions, about: Mapping[str, Any], config: ServerConfig) -> None:
        self.sessions, self.about, self.config, self.statistics = sessions, about, config, Statistics()
        self.batcher = Batcher(sessions, self.statistics, config.most_waiting)
        self._remembered: OrderedDict[tuple[str, str], asyncio.Future[dict[str, Any]]] = OrderedDict()

    async def health(self) -> dict[str, Any]:
        """Returns whether it works. Of "GPUs", Robometer's word for copies of the model, there is one."""
        return {"status": "ok", "model_loaded": True, "sessions": len(self.sessions), "available_gpus": 1, "total_gpus": 1}

    async def model_info(self) -> dict[str, Any]:
        """Returns what the server says of its model."""
        return dict(self.about)

    async def metrics(self) -> str:
        """Returns the counters, as Prometheus reads them."""
        return self.statistics.text(len(self.sessions))

    async def begin(self, fields: Any) -> dict[str, Any]:
        """Begins an attempt. DataError if the fields do not fit."""
        if not isinstance(fields, dict):
            raise DataError("the body should be a JSON object with 'task' and 'fps'")
        (task, fps), session = task_and_rate(fields), fields.get("session")
        if session is not None and not isinstance(session, str):
            raise DataError("'session' should be the name of one that is to begin anew, or be left out")

        async def begin() -> dict[str, Any]:
            return {"session": await self.batcher.run(lambda: self.sessions.begin(task=task, fps=fps, session=session))}

        return await self._once("begin", fields.get("key"), begin)

    async def end(self, name: str) -> dict[str, Any]:
        """Ends an attempt. HTTPException if there is none of this name. An end that is sent again is answered as before: no name comes
        twice.
        """

        async def end() -> dict[str, Any]:
            if not await self.batcher.run(lambda: self.sessions.end(name)):  # it waits for a pass, which the event loop must not do
                raise HTTPException(404, f"there is no session {shown(name, 100)} here")
            return {"ended": name}

        return await self._once("end", name if len(name) <= MOST_LETTERS else None, end)

    async def step(self, request: Mapping[str, Any], arrays: PackedArrays, *, received_s: float) -> dict[str, Any]:
        """Shows the newest frames. DataError if the request is not made as `pack_observations` makes it."""
        observations = observations_of(request, arrays, received_s)

        async def step() -> dict[str, Any]:
            return {"results": [to_json(result) for result in await self.batcher.advance(observations)]}

        return await self._once("step", request.get("key"), step)

    async def relabel(self, request: Mapping[str, Any], arrays: PackedArrays) -> dict[str, Any]:
        """Takes an episode, and answers with its ticket. DataError if the request is not made as `pack_episode` makes it."""

        async def put() -> dict[str, Any]:
            return {"ticket": self.batcher.later.put(episode_of(request, arrays))}

        return await self._once("relabel", request.get("key"), put)

    async def relabelled(self, ticket: str) -> dict[str, Any]:
        """Returns how far an episode is, and its results once all are there. HTTPException for an unknown ticket."""
        try:
            results, count, length = self.batcher.later.look(ticket)
        except KeyError:
            raise HTTPException(
                404, f"there is no ticket {shown(ticket, 100)} here: the server began anew, or newer ones took its place"
            ) from None
        done = {} if results is None else {"results": [to_json(result) for result in results]}
        return {"status": "working" if results is None else "done", "frames_done": count, "frames": length, **done}

    async def evaluate(self, samples: Samples) -> dict[str, Any]:
        """Answers Robometer's clients. DataError for samples that do not fit."""
        episodes = robometer.episodes_of(samples, self.config.cameras, self.config.video_fps)
        tickets = [self.batcher.later.put(episode) for episode in episodes]
        return robometer.answer_of([await self.batcher.later.results(ticket) for ticket in tickets])

    async def _once(self, call: str, key: Any, make: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """Returns what `make` returns, and for a key that was there before what it returned then: a call may be sent again after a loss."""
        if not isinstance(key, str) or not key:
            return await make()
        if len(key) > MOST_LETTERS:
            raise DataError(f"'key' has at most {MOST_LETTERS} letters, this one has {len(key)}")
        before = self._remembered.get((call, key))
        if before is None:
            before = asyncio.ensure_future(make())
            self._remembered[call, key] = before
            while len(self._remembered) > MOST_KEYS:
                self._remembered.popitem(last=False)
        try:
            return await asyncio.shield(before)
        except (DataError, BusyError, ModelError, HTTPException):
            self._remembered.pop((call, key), None)
            raise
