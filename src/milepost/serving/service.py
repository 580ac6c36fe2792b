"""What the reward server does for a call, whatever carries it.

An error is {"error": text} with a status; a result is never a made-up number.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException

from milepost.core import DataError
from milepost.online import Sessions, to_json, unpack
from milepost.serving.batching import Batcher, BusyError, ModelError
from milepost.serving.requests import observations_of
from milepost.serving.statistics import Statistics

MOST_KEYS = 1024
"""Answers that are remembered for calls that are sent again."""
Answer = tuple[int, dict[str, Any]]
"""Status and fields."""


class Service:
    """The sessions of a model, for calls from outside.

    about: what GET /model_info answers. largest: bytes of a call, packed and unpacked.
    """

    def __init__(self, sessions: Sessions, about: Mapping[str, Any], *, largest: int) -> None:
        self.sessions, self.about, self.largest, self.statistics = sessions, about, largest, Statistics()
        self.batcher = Batcher(sessions, self.statistics)
        self._remembered: OrderedDict[str, asyncio.Future[dict[str, Any]]] = OrderedDict()

    def health(self) -> dict[str, Any]:
        """Returns whether it works."""
        return {"status": "ok", "model_loaded": True, "sessions": len(self.sessions)}

    async def begin(self, fields: Any) -> dict[str, Any]:
        """Begins an attempt. DataError if the fields do not fit."""
        if not isinstance(fields, dict):
            raise DataError("the body should be a JSON object with 'task' and 'fps'")
        task, fps, session = fields.get("task"), fields.get("fps"), fields.get("session")
        if not isinstance(task, str):
            raise DataError("'task' is missing: the instruction, in words")
        if not isinstance(fps, int | float) or isinstance(fps, bool):
            raise DataError("'fps' is missing: how many frames come in a second")
        if session is not None and not isinstance(session, str):
            raise DataError("'session' should be the name of one that is to begin anew, or be left out")

        async def begin() -> dict[str, Any]:
            return {"session": await self.batcher.run(lambda: self.sessions.begin(task=task, fps=float(fps), session=session))}

        return await self._once(fields.get("key"), begin)

    def end(self, name: str) -> dict[str, Any]:
        """Ends an attempt. HTTPException if there is none of this name."""
        if not self.sessions.end(name):
            raise HTTPException(404, f"there is no session '{name}' here")
        return {"ended": name}

    async def step(self, body: bytes, received_s: float) -> dict[str, Any]:
        """Shows the newest frames. DataError if the body is not made as `pack_observations` makes it."""
        request, arrays = unpack(body, self.largest)
        observations = observations_of(request, arrays, received_s)

        async def step() -> dict[str, Any]:
            return {"results": [to_json(result) for result in await self.batcher.advance(observations)]}

        return await self._once(request.get("key"), step)

    async def message(self, message: Mapping[str, Any]) -> Answer:
        """Returns the answer to a message of a WebSocket: bytes are those of POST /step, an object names its call."""
        received_s = time.monotonic()
        content = message.get("bytes")
        if content is not None:
            return 200, await self.step(content, received_s)
        call = message.get("call")
        if not isinstance(call, dict) or not isinstance(call.get("path"), str):
            raise DataError('a message is the .npz of POST /step, or {"method", "path", "fields"}')
        method, path = call.get("method"), call["path"]
        if (method, path) == ("POST", "/sessions"):
            return 200, await self.begin(call.get("fields"))
        if method == "DELETE" and path.startswith("/sessions/"):
            return 200, self.end(path.removeprefix("/sessions/"))
        if (method, path) == ("GET", "/health"):
            return 200, self.health()
        if (method, path) == ("GET", "/model_info"):
            return 200, dict(self.about)
        raise HTTPException(404, f"there is no {method} {path} in a WebSocket")

    async def _once(self, key: Any, make: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """Returns what `make` returns, and for a key that was there before what it returned then: a call may be sent again after a loss."""
        if not isinstance(key, str) or not key:
            return await make()
        before = self._remembered.get(key)
        if before is None:
            before = asyncio.ensure_future(make())
            self._remembered[key] = before
            while len(self._remembered) > MOST_KEYS:
                self._remembered.popitem(last=False)
        try:
            return await asyncio.shield(before)
        except (DataError, BusyError, ModelError):
            self._remembered.pop(key, None)
            raise
