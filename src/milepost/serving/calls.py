"""The calls of the reward server in one table, from which its HTTP routes and its answers to the messages of a WebSocket come.

A new call is a row of `CALLS` and a method of `Service`. A message that is no such call is refused.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote

from starlette.exceptions import HTTPException

from milepost.core import DataError, parse_json, shown
from milepost.online import unpack
from milepost.serving.robometer import samples_of_json
from milepost.serving.service import Answer, Service

REMEDY = "send one JSON text"
"""What to do about a body that is no JSON."""
Body = Literal["none", "json", "arrays", "form"]


@dataclass(frozen=True, eq=False)
class Incoming:
    """What comes with a call. name: the end of its path, "" where the path has none. received_s: when, in seconds of `time.monotonic`.

    body: of "json" its value, of "arrays" its request and its arrays, of "form" the samples of Robometer's clients, of "none" None.
    """

    name: str = ""
    body: Any = None
    received_s: float = 0.0


@dataclass(frozen=True)
class ServedCall:
    """One call. path: it may end with a name in braces. answer: returns what JSON holds, or a text as it is. body: what comes with it.

    packer: the function of `milepost.online` that makes "arrays". in_message: whether a message of a WebSocket can be this call.
    """

    method: str
    path: str
    answer: Callable[[Service, Incoming], Awaitable[Any]]
    body: Body = "none"
    status: int = 200
    packer: str = ""
    in_message: bool = True


_STEP = ServedCall(
    "POST",
    "/step",
    lambda service, incoming: service.step(*incoming.body, received_s=incoming.received_s),
    "arrays",
    packer="pack_observations",
)
CALLS = (
    ServedCall("POST", "/sessions", lambda service, incoming: service.begin(incoming.body), "json"),
    _STEP,
    ServedCall("DELETE", "/sessions/{session:path}", lambda service, incoming: service.end(incoming.name)),
    ServedCall("POST", "/relabel", lambda service, incoming: service.relabel(*incoming.body), "arrays", status=202, packer="pack_episode"),
    ServedCall("GET", "/relabel/{ticket:path}", lambda service, incoming: service.relabelled(incoming.name)),
    ServedCall("GET", "/health", lambda service, incoming: service.health()),
    ServedCall("GET", "/model_info", lambda service, incoming: service.model_info()),
    ServedCall("GET", "/metrics", lambda service, incoming: service.metrics(), in_message=False),
    ServedCall(
        "POST", "/evaluate_batch", lambda service, incoming: service.evaluate(samples_of_json(incoming.body)), "json", in_message=False
    ),
    ServedCall("POST", "/evaluate_batch_npy", lambda service, incoming: service.evaluate(incoming.body), "form", in_message=False),
    ServedCall("GET", "/gpu_status", lambda service, incoming: service.health(), in_message=False),
)


async def answer_message(service: Service, content: str | bytes) -> Answer:
    """Returns the answer to a message: bytes are arrays, whose request may name its call (else it is a step), and text names its call.

    DataError for a message that is neither, HTTPException for a call that a message cannot be, and what the call itself fails by.
    """
    received_s = time.monotonic()
    if isinstance(content, bytes):
        request, arrays = unpack(content, service.config.largest)
        call = _packed_call(request.get("call"))
        return call.status, await call.answer(service, Incoming(body=(request, arrays), received_s=received_s))
    message = parse_json(content, source="the message", remedy=REMEDY)
    if not isinstance(message, dict) or not isinstance(message.get("path"), str):
        raise DataError('a message is the body of POST /step, or {"method", "path", "fields"}')
    call, name = _text_call(message.get("method"), message["path"])
    return call.status, await call.answer(service, Incoming(name, message.get("fields"), received_s))


def _packed_call(name: Any) -> ServedCall:
    """Returns the call that a request with arrays names; a step if it names none."""
    return next((call for call in CALLS if call.body == "arrays" and call.path == f"/{name}"), _STEP)


def _text_call(method: Any, path: str) -> tuple[ServedCall, str]:
    """Returns a call and the name at the end of its path. HTTPException if text cannot be this call."""
    for call in CALLS:
        stem, has_name, _ = call.path.partition("{")
        fits = path.startswith(stem) if has_name else path == stem
        if fits and call.method == method and call.in_message and call.body != "arrays":
            return call, unquote(path.removeprefix(stem))
    raise HTTPException(404, f"there is no {shown(method)[1:-1]} {shown(path, 100)[1:-1]} in a WebSocket")
