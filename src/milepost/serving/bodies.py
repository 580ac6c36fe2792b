"""What stands before an application: each request is admitted or refused, and its body keeps to limits."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from milepost.serving.address import BindAddress

Refusal = tuple[int, str, Mapping[str, str]]
"""Status, text and headers of the answer to a request that is not admitted."""


class Gate:
    """An ASGI application that checks each request before another application gets it. A subclass says which are refused."""

    def __init__(self, app: ASGIApp, address: BindAddress) -> None:
        self.app, self.address = app, address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refusal = self.refusal(scope, Headers(scope=scope))
        if scope["type"] == "websocket":
            if refusal is None:
                await self.app(scope, receive, send)
            else:
                await answer(send, *refusal, of="websocket.http")
                await _until_gone(receive)
        elif refusal is None:
            try:
                await self.app(scope, limited(receive, *self.limits()), self.sender(send))
            except ClientDisconnect:  # it went in the middle of its body: nobody is there to be answered
                return
        else:
            await answer(self.sender(send), *refusal)

    def refusal(self, scope: Scope, headers: Headers) -> Refusal | None:
        """Returns None for an accepted request, else the answer to it."""
        raise NotImplementedError

    def limits(self) -> tuple[int, float]:
        """Returns the most bytes of a body, and the longest time in seconds for it to arrive."""
        raise NotImplementedError

    def sender(self, send: Send) -> Send:
        """Returns what sends the answers."""
        return send


async def _until_gone(receive: Receive) -> None:
    """Waits until a refused WebSocket has gone, at most a second: uvicorn reports one whose application returns before as an error."""
    try:
        async with asyncio.timeout(1.0):
            for _ in range(3):  # that it wants to open, that it is refused, that it has gone
                await receive()
    except TimeoutError:
        return


def limited(receive: Receive, largest: int, seconds: float) -> Receive:
    """Limits a body's size and time while it arrives, because its content-length header may be wrong."""
    count, whole, until = 0, False, time.monotonic() + seconds

    async def measured_receive() -> Message:
        nonlocal count, whole
        if whole:  # the body is complete; the next message is the disconnect
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), max(0.0, until - time.monotonic()))
        except TimeoutError:
            raise HTTPException(408, f"a body must arrive within {seconds:g} s") from None
        whole = not message.get("more_body", False)
        count += len(message.get("body", b""))
        if count > largest:
            raise HTTPException(413, f"a body has at most {largest} bytes")
        return message

    return measured_receive


async def answer(send: Send, status: int, text: str, extra: Mapping[str, str], of: str = "http") -> None:
    """Sends a refusal. of: "http", or "websocket.http" in place of a WebSocket that was to open."""
    body = json.dumps({"error": text}, allow_nan=False).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close", **extra}
    raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": f"{of}.response.start", "status": status, "headers": raw})
    await send({"type": f"{of}.response.body", "body": body})
