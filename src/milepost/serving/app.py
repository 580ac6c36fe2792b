"""The routes of the reward server. An error is {"error": text} with a status; a result is never a made-up number."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from milepost.core import DataError, parse_json
from milepost.online import NPZ, Sessions, to_json, unpack
from milepost.serving.batching import Batcher, BusyError, ModelError
from milepost.serving.requests import observations_of
from milepost.serving.statistics import Statistics


def create_app(sessions: Sessions, about: Mapping[str, Any], *, largest: int) -> Starlette:
    """Returns the application. about: what GET /model_info answers. largest: bytes of a request, packed and unpacked."""
    statistics = Statistics()
    handlers = _Handlers(sessions, about, statistics, Batcher(sessions, statistics), largest)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        handlers.batcher.start()
        yield
        await handlers.batcher.stop()

    routes = [
        Route("/health", handlers.health),
        Route("/model_info", handlers.model_info),
        Route("/metrics", handlers.metrics),
        Route("/sessions", handlers.begin, methods=["POST"]),
        Route("/sessions/{session}", handlers.end, methods=["DELETE"]),
        Route("/step", handlers.step, methods=["POST"]),
    ]
    errors: dict[Any, Callable[..., Response]] = {
        HTTPException: lambda request, error: _json({"error": error.detail}, error.status_code),
        DataError: lambda request, error: _json({"error": str(error)}, 400),
        BusyError: lambda request, error: _json({"error": str(error)}, 503),
        ModelError: lambda request, error: _json({"error": str(error)}, 500),
        Exception: lambda request, error: _json({"error": f"the server failed: {type(error).__name__}: {error}"}, 500),
    }
    return Starlette(routes=routes, exception_handlers=errors, lifespan=lifespan)


class _Handlers:
    """The handlers of the routes, with the sessions that they serve."""

    def __init__(self, sessions: Sessions, about: Mapping[str, Any], statistics: Statistics, batcher: Batcher, largest: int) -> None:
        self.sessions, self.about, self.statistics, self.batcher, self.largest = sessions, about, statistics, batcher, largest

    async def health(self, request: Request) -> Response:
        return _json({"status": "ok", "model_loaded": True, "sessions": len(self.sessions)})

    async def model_info(self, request: Request) -> Response:
        return _json(self.about)

    async def metrics(self, request: Request) -> Response:
        return PlainTextResponse(self.statistics.text(len(self.sessions)), media_type="text/plain; version=0.0.4")

    async def begin(self, request: Request) -> Response:
        fields = parse_json((await request.body()).decode("utf-8", "replace"), source="the body")
        if not isinstance(fields, dict):
            raise DataError("the body should be a JSON object with 'task' and 'fps'")
        task, fps, session = fields.get("task"), fields.get("fps"), fields.get("session")
        if not isinstance(task, str):
            raise DataError("'task' is missing: the instruction, in words")
        if not isinstance(fps, int | float) or isinstance(fps, bool):
            raise DataError("'fps' is missing: how many frames come in a second")
        if session is not None and not isinstance(session, str):
            raise DataError("'session' should be the name of one that is to begin anew, or be left out")
        return _json({"session": await run_in_threadpool(self.sessions.begin, task=task, fps=float(fps), session=session)})

    async def end(self, request: Request) -> Response:
        name = request.path_params["session"]
        if not self.sessions.end(name):
            raise HTTPException(404, f"there is no session '{name}' here")
        return _json({"ended": name})

    async def step(self, request: Request) -> Response:
        received_s = time.monotonic()
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != NPZ:
            raise HTTPException(415, f"the body should be {NPZ}, as milepost.online.pack_observations makes it")
        observations = observations_of(*unpack(await request.body(), self.largest), received_s)
        results = await self.batcher.advance(observations)
        return _json({"results": [to_json(result) for result in results]})


def _json(value: object, status: int = 200) -> Response:
    return Response(json.dumps(value, allow_nan=False), status, media_type="application/json")
