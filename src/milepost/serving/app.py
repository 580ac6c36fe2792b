"""Carries the calls of the reward server, by HTTP and by WebSockets. The calls themselves are in `calls.py`."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from milepost.core import DataError, parse_json, shown
from milepost.online import LARGEST, NPZ, SAFETENSORS, STREAM, unpack
from milepost.serving.calls import CALLS, REMEDY, Incoming, ServedCall, answer_message
from milepost.serving.errors import BusyError, ModelError
from milepost.serving.robometer import MOST_SAMPLES, samples_of_form
from milepost.serving.service import Answer, Service

FAULTS = (HTTPException, DataError, BusyError, ModelError)
"""What a call may fail by, each with its status."""


def create_app(service: Service) -> Starlette:
    """Returns the application that carries calls to a service, by HTTP and by WebSockets."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        await service.batcher.stop()

    routes = [*(_route(service, call) for call in CALLS), WebSocketRoute(STREAM, _stream(service))]
    errors: dict[Any, Callable[..., Response]] = {
        kind: lambda request, error: _response(*refusal_of(error)) for kind in (*FAULTS, Exception)
    }
    errors[HTTPException] = _refusal_by_route
    return Starlette(routes=routes, exception_handlers=errors, lifespan=lifespan)


def _route(service: Service, call: ServedCall) -> Route:
    async def endpoint(request: Request) -> Response:
        received_s = time.monotonic()
        body = await _body(request, call, service.config.largest)
        return _response(call.status, await call.answer(service, Incoming("".join(request.path_params.values()), body, received_s)))

    return Route(call.path, endpoint, methods=[call.method])


def _stream(service: Service) -> Callable[[WebSocket], Awaitable[None]]:
    async def stream(connection: WebSocket) -> None:
        """Answers the messages of one WebSocket in their order, until it closes. Its sessions stay: a robot may come back."""
        await connection.accept(headers=[(LARGEST.encode(), str(service.config.largest).encode())])
        try:
            while True:
                message = await connection.receive()
                if message["type"] == "websocket.disconnect":
                    return
                status, fields = await _answer(service, message)
                await connection.send_text(json.dumps({"status": status, "fields": fields}, allow_nan=False))
        except WebSocketDisconnect:  # it went while its answer was on the way
            return

    return stream


async def _answer(service: Service, message: Mapping[str, Any]) -> Answer:
    text = message.get("text")
    try:
        return await answer_message(service, message.get("bytes") or b"" if text is None else text)
    except FAULTS as error:
        return refusal_of(error)


async def _body(request: Request, call: ServedCall, largest: int) -> Any:
    """Returns what came with a request, as its call takes it. A form's files are in memory, or in temporary files, until they are read."""
    if call.body == "json":
        return parse_json((await request.body()).decode("utf-8", "replace"), source="the body", remedy=REMEDY)
    if call.body == "arrays":
        if request.headers.get("content-type", "").split(";")[0].strip().lower() not in (SAFETENSORS, NPZ):
            raise HTTPException(415, f"the body should be {SAFETENSORS} or {NPZ}, as milepost.online.{call.packer} makes it")
        return unpack(await request.body(), largest)
    if call.body == "form":
        async with request.form(max_files=MOST_SAMPLES, max_fields=2 * MOST_SAMPLES) as form:
            return await samples_of_form(form)
    return None


def refusal_of(error: Exception) -> Answer:
    """Returns the answer to a call that failed."""
    if isinstance(error, HTTPException):
        return error.status_code, {"error": error.detail}
    if isinstance(error, ModelError):
        return 500, {"error": str(error)}
    if isinstance(error, DataError | BusyError):
        return 400 if isinstance(error, DataError) else 503, {"error": str(error)}
    return 500, {"error": f"the server failed: {type(error).__name__}: {error}"}


def _refusal_by_route(request: Request, error: Exception) -> Response:
    """Returns the answer to a call that is refused with a status, and says what was called where nothing is there to be."""
    status, fields = refusal_of(error)
    unnamed = {"Not Found": "there is no {} {} here", "Method Not Allowed": "there is no {} {} here: the path takes another method"}
    if fields["error"] in unnamed:
        return _response(status, {"error": unnamed[fields["error"]].format(request.method, shown(request.url.path, 100)[1:-1])})
    return _response(status, fields)


def _response(status: int, value: object) -> Response:
    if isinstance(value, str):
        return PlainTextResponse(value, status, media_type="text/plain; version=0.0.4")  # Prometheus's format
    return Response(json.dumps(value, allow_nan=False), status, media_type="application/json")
