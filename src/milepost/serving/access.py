"""Access to the reward server: a program with the token may call it, a web page may not."""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from milepost.serving.address import BindAddress
from milepost.serving.bodies import answer, limited

ONCE = ("host", "authorization", "content-length", "content-type")
BODY_S = 30.0
"""Longest time for a request's body in seconds."""
OPEN = ("/health",)
"""What answers without the token: whether the server is there."""


class Access:
    """An ASGI application that checks each request before another application gets it.

    A browser sends Origin with every request that a page of another site makes, so a request with one is refused, and so is a Host that is
    not this server's (DNS rebinding). Beyond loopback every request has the token: "Authorization: Bearer TOKEN".
    """

    def __init__(self, app: ASGIApp, address: BindAddress, largest: int) -> None:
        self.app, self.address, self.largest = app, address, largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"only http is served here, not {scope['type']}")
        refusal = self._refusal(scope, Headers(scope=scope))
        if refusal is None:
            await self.app(scope, limited(receive, self.largest, BODY_S), send)
        else:
            await answer(send, *refusal, {"www-authenticate": "Bearer"} if refusal[0] == 401 else {})

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """Returns status and text of a refusal, None for an accepted request."""
        if any(len(headers.getlist(name)) > 1 for name in ONCE):
            return 400, f"each of the headers {', '.join(ONCE)} must appear at most once"
        host = headers.get("host", "")
        if not self.address.knows(host):
            return 403, f"this server does not have the name '{host[:100]}'"
        if "origin" in headers or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return 403, "a web page may not use this server: call it from a program"
        if self.address.token and scope["path"] not in OPEN:
            kind, _, token = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), self.address.token.encode()):
                return 401, "send the token that milepost serve printed: Authorization: Bearer TOKEN"
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit() and len(length) <= 12) or int(length) > self.largest:
            return 413, f"a body has at most {self.largest} bytes (--max-body-mb)"
        return None
