"""Who may ask: the hosts, origins, token and body sizes that the page's server accepts, and the headers of every answer.

A page on the web must neither read nor change a dataset through the user's browser: a foreign Host (DNS rebinding), a foreign Origin and
requests that another site makes are refused; what changes something has to be JSON from our own page. A server that is not bound to
loopback asks for a token, which becomes a cookie that scripts cannot read.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST = 1_000_000
"""Bytes of a request's body."""
READING = ("GET", "HEAD")
ONCE = ("host", "origin", "sec-fetch-site", "content-type", "content-length")
"""Headers that decide who asks: of two, a server and a browser may read different ones."""
BODY_S = 30.0
"""How long a request's body may take."""
_PRINTABLE = re.compile(rb"[!-~]*")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def policy(page: str = "") -> str:
    """The Content-Security-Policy of a page: our own files and nothing else, and the scripts that are written into it, by their hashes."""
    inline = re.findall(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", page, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in inline]
    rules = {
        "default-src": "'self'",
        "script-src": " ".join(["'self'", *hashes]),
        "img-src": "'self' data: blob:",
        "media-src": "'self' data: blob:",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


@dataclass(frozen=True)
class Door:
    """Where the server is bound, and the token it asks for ("" for none). A wildcard address is asked for by any of the machine's names,
    so only a token keeps others out there."""

    host: str
    port: int
    token: str = ""

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)

    @property
    def url(self) -> str:
        """To open the page with."""
        name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, f"[{self.host}]" if ":" in self.host else self.host)
        return f"http://{name}:{self.port}/" + (f"?token={self.token}" if self.token else "")

    def knows(self, host: str) -> bool:
        """Is this Host header one of our names, with our port?"""
        name, port = _host(host)
        if port != self.port:
            return False
        if self.host in ("0.0.0.0", "::"):
            return True
        return name in (LOOPBACK if self.is_loopback else (self.host.lower(),))


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _host(told: str) -> tuple[str, int]:
    """Name and port of a Host header; port 80 if it tells none, -1 if it is no Host header."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/@?#\s]+)(?::(\d{1,5}))?", told)
    return (found[1].strip("[]").lower(), int(found[2] or 80)) if found else ("", -1)


class Guard:
    """An ASGI application before another one."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self.app, self.door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"only http is served here, not {scope['type']}")
        headers = Headers(scope=scope)
        said = self._admit(scope, headers)
        if said is None:
            await self.app(scope, _bounded(receive), _dressed(send))
        else:
            status, text, extra = said
            await _answer(_dressed(send), status, text, extra)

    def _admit(self, scope: Scope, headers: Headers) -> tuple[int, str, Mapping[str, str]] | None:
        """None, or the answer that says no (or sends on without the token)."""
        host = headers.get("host", "")
        odd = [name for name, value in scope["headers"] if name in (b"host", b"origin") and not _PRINTABLE.fullmatch(value)]
        if odd or any(len(headers.getlist(name)) > 1 for name in ONCE):
            return 403, f"the headers {', '.join(ONCE)} stand in a request once, in printable letters", {}
        if "host" not in headers or not self.door.knows(host):
            return 403, f"this server does not go by the name '{host[:100]}'; open {self.door.url.split('?')[0]}", {}
        changes = scope["method"] not in READING
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and origin.lower() != f"http://{host}".lower():
            return 403, f"requests from '{origin[:100]}' are refused", {}
        opened = headers.get("sec-fetch-mode") == "navigate" and not changes
        if site in ("cross-site", "same-site") and not opened:
            return 403, "requests from another site are refused", {}
        if self.door.token and (said := self._without_token(scope, headers)) is not None:
            return said
        if changes:
            if origin is None and site != "same-origin":
                return 403, "a request that changes something has to come from this page (Origin or Sec-Fetch-Site)", {}
            if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
                return 415, "the body has to be application/json", {}
        length = headers.get("content-length", "0")
        if not re.fullmatch("[0-9]{1,9}", length) or int(length) > LARGEST:
            return 413, f"a body has at most {LARGEST} bytes", {}
        return None

    def _without_token(self, scope: Scope, headers: Headers) -> tuple[int, str, Mapping[str, str]] | None:
        cookie = f"milepost-{self.door.port}"
        if hmac.compare_digest(cookie_parser(headers.get("cookie", "")).get(cookie, "").encode(), self.door.token.encode()):
            return None
        asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(asked).get("token", "")
        if scope["method"] in READING and hmac.compare_digest(given.encode(), self.door.token.encode()):
            rest = urlencode([(name, value) for name, value in asked if name != "token"])
            there = quote("/" + scope["path"].lstrip("/\\")) + (f"?{rest}" if rest else "")
            kept = f"{cookie}={self.door.token}; Path=/; HttpOnly; SameSite=Strict"
            return 303, "go on without the token", {"location": there, "set-cookie": kept}
        return 401, "open the address that milepost view printed: it has the token", {}


def _bounded(receive: Receive) -> Receive:
    """A body is counted while it comes, whatever its length is said to be, and has to come in time."""
    count, whole, until = 0, False, time.monotonic() + BODY_S

    async def counted() -> Message:
        nonlocal count, whole
        if whole:  # what comes now is that the browser has gone
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), max(0.0, until - time.monotonic()))
        except TimeoutError:
            raise HTTPException(408, f"a body has to come within {BODY_S:g} s") from None
        whole = not message.get("more_body", False)
        count += len(message.get("body", b""))
        if count > LARGEST:
            raise HTTPException(413, f"a body has at most {LARGEST} bytes")
        return message

    return counted


def _dressed(send: Send) -> Send:
    """Every answer with the headers that keep a browser from misusing it."""

    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("content-security-policy", policy())
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return dressed


async def _answer(send: Send, status: int, text: str, extra: Mapping[str, str]) -> None:
    body = json.dumps({"error": text}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close", **extra}
    raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
