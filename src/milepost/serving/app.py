"""The routes of the reward server."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from milepost.core import DataError, parse_json
from milepost.online import NPZ, STREAM
from milepost.serving.errors import BusyError, ModelError
from milepost.serving.robometer import MOST_SAMPLES, samples_of_form, samples_of_json
from milepost.serving.service import Answer, Service

FAULTS = (HTTPException, DataError, BusyError, ModelError)
"""What a call may fail by, each with its status."""


def create_app(service: Service) -> Starlette:
    """Returns the application that carries calls to a service, by HTTP and by WebSockets."""
    handlers = _Handlers(service)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        await service.batcher.stop()

    routes = [
        Route("/health", handlers.health),
        Route("/model_info", handlers.model_info),
        Route("/metrics", handlers.metrics),
        Route("/sessions", handlers.begin, methods=["POST"]),
        Route("/sessions/{session}", handlers.end, methods=["DELETE"]),
        Route("/step", handlers.step, methods=["POST"]),
        Route("/relabel", handlers.relabel, methods=["POST"]),
        Route("/relabel/{ticket}", handlers.relabelled),
        Route("/evaluate_batch", handlers.evaluate_batch, methods=["POST"]),
        Route("/evaluate_batch_npy", handlers.evaluate_batch_npy, methods=["POST"]),
        Route("/gpu_status", handlers.health),
        WebSocketRoute(STREAM, handlers.stream),
    ]
    errors: dict[Any, Callable[..., Response]] = {kind: lambda request, error: _json(*refusal_of(error)) for kind in (*FAULTS, Exception)}
    return Starlette(routes=routes, exception_handlers=errors, lifespan=lifespan)


class _Handlers:
    """The handlers of the routes."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def health(self, request: Request) -> Response:
        return _json(200, self.service.health())

    async def model_info(self, request: Request) -> Response:
        return _json(200, self.service.about)

    async def metrics(self, request: Request) -> Response:
        text = self.service.statistics.text(len(self.service.sessions))
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def begin(self, request: Request) -> Response:
        return _json(200, await self.service.begin(await _fields(request)))

    async def end(self, request: Request) -> Response:
        return _json(200, self.service.end(request.path_params["session"]))

    async def step(self, request: Request) -> Response:
        received_s = time.monotonic()
        return _json(200, await self.service.step(await _npz(request, "pack_observations"), received_s))

    async def relabel(self, request: Request) -> Response:
        return _json(202, await self.service.relabel(await _npz(request, "pack_episode")))

    async def relabelled(self, request: Request) -> Response:
        return _json(200, self.service.relabelled(request.path_params["ticket"]))

    async def evaluate_batch(self, request: Request) -> Response:
        return _json(200, await self.service.evaluate(samples_of_json(await _fields(request))))

    async def evaluate_batch_npy(self, request: Request) -> Response:
        """Answers a form. Its files are kept in memory, or in a temporary file if they are large, until the answer."""
        async with request.form(max_files=MOST_SAMPLES, max_fields=2 * MOST_SAMPLES) as form:
            return _json(200, await self.service.evaluate(await samples_of_form(form)))

    async def stream(self, connection: WebSocket) -> None:
        """Answers the messages of one WebSocket in their order, until it closes. Its sessions stay: a robot may come back."""
        await connection.accept()
        try:
            while True:
                message = await connection.receive()
                if message["type"] == "websocket.disconnect":
                    return
                status, fields = await self._answer(message)
                await connection.send_text(json.dumps({"status": status, "fields": fields}, allow_nan=False))
        except WebSocketDisconnect:  # it went while its answer was on the way
            return

    async def _answer(self, message: Any) -> Answer:
        try:
            if message.get("text") is not None:
                message = {"call": parse_json(message["text"], source="the message")}
            return await self.service.message(message)
        except FAULTS as error:
            return refusal_of(error)


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


async def _npz(request: Request, maker: str) -> bytes:
    if _kind(request) != NPZ:
        raise HTTPException(415, f"the body should be {NPZ}, as milepost.online.{maker} makes it")
    return await request.body()


async def _fields(request: Request) -> Any:
    return parse_json((await request.body()).decode("utf-8", "replace"), source="the body")


def refusal_of(error: Exception) -> Answer:
    """Returns the answer to a call that failed."""
    if isinstance(error, HTTPException):
        return error.status_code, {"error": error.detail}
    if isinstance(error, ModelError):
        return 500, {"error": str(error)}
    if isinstance(error, DataError | BusyError):
        return 400 if isinstance(error, DataError) else 503, {"error": str(error)}
    return 500, {"error": f"the server failed: {type(error).__name__}: {error}"}


def _json(status: int, value: object) -> Response:
    return Response(json.dumps(value, allow_nan=False), status, media_type="application/json")
