"""Access to the reward server: a program with the token may call it, a web page may not."""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Scope

from milepost.core import shown
from milepost.online import too_large
from milepost.serving.address import BindAddress
from milepost.serving.bodies import Gate, Refusal

ONCE = ("host", "authorization", "content-length", "content-type")
BODY_S = 30.0
"""Longest time for a request's body in seconds."""
OPEN = ("/health",)
"""What answers without the token: whether the server is there."""


class Access(Gate):
    """Admits programs with the token, and no web page.

    A browser sends Origin with every request that a page of another site makes, so a request with one is refused, and so is a Host that is
    not this server's (DNS rebinding). Beyond loopback every request has the token: "Authorization: Bearer TOKEN".
    """

    def __init__(self, app: ASGIApp, address: BindAddress, largest: int) -> None:
        super().__init__(app, address)
        self.largest = largest

    def limits(self) -> tuple[int, float]:
        """Returns the most bytes of a body, and the longest time in seconds for it to arrive."""
        return self.largest, BODY_S

    def refusal(self, scope: Scope, headers: Headers) -> Refusal | None:
        """Returns None for an accepted request, else the answer to it."""
        if any(len(headers.getlist(name)) > 1 for name in ONCE):
            return 400, f"each of the headers {', '.join(ONCE)} must appear at most once", {}
        host = headers.get("host", "")
        if not self.address.is_reached_as(host):
            return 403, f"this server does not have the name {shown(host, 100)}: call it by localhost, or begin it with --host 0.0.0.0", {}
        if "origin" in headers or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return 403, "a web page may not use this server: call it from a program", {}
        if self.address.token and scope["path"] not in OPEN:
            kind, _, token = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), self.address.token.encode()):
                return 401, "send the token that milepost serve printed: Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"}
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit() and len(length) <= 12) or int(length) > self.largest:
            return 413, too_large(self.largest), {}
        return None
