"""Bodies of requests within limits, and the answer to a request that is refused before any handler sees it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Send


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


async def answer(send: Send, status: int, text: str, extra: Mapping[str, str]) -> None:
    body = json.dumps({"error": text}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close", **extra}
    raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
