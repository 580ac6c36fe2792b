"""Access control: the hosts, origins, token and body sizes that the page's server accepts, and the headers of every response.

A web page must neither read nor change a dataset through the user's browser. So a foreign Host (DNS rebinding), a foreign Origin and
requests from another site are refused, and a request that changes something must be JSON from our own page. A server that is not bound to
loopback needs a token, which becomes a cookie that scripts cannot read.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import Message, Scope, Send

from milepost.serving import Gate, Refusal

LARGEST = 1_000_000
"""Largest body of a request in bytes."""
SAFE_METHODS = ("GET", "HEAD")
ONCE = ("host", "origin", "sec-fetch-site", "content-type", "content-length")
"""Headers that decide access. Each may appear once: if there are two, a server and a browser may read different ones."""
BODY_S = 30.0
"""Longest time for a request's body in seconds."""
_PRINTABLE = re.compile(rb"[!-~]*")
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def policy(page: str = "") -> str:
    """Returns the Content-Security-Policy of a page: only our own files, and the page's inline scripts by their hashes."""
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


class Guard(Gate):
    """Admits our own page, and with the token those who may see it."""

    def limits(self) -> tuple[int, float]:
        """Returns the most bytes of a body, and the longest time in seconds for it to arrive."""
        return LARGEST, BODY_S

    def sender(self, send: Send) -> Send:
        """Returns what sends the answers, with the headers that keep a browser from misusing them."""
        return _with_headers(send)

    def refusal(self, scope: Scope, headers: Headers) -> Refusal | None:
        """Returns None for an accepted request, else the answer to it: a refusal, or a redirect without the token."""
        host = headers.get("host", "")
        odd = [name for name, value in scope["headers"] if name in (b"host", b"origin") and not _PRINTABLE.fullmatch(value)]
        if odd or any(len(headers.getlist(name)) > 1 for name in ONCE):
            return 403, f"each of the headers {', '.join(ONCE)} must appear at most once, in printable letters", {}
        if "host" not in headers or not self.address.knows(host):
            return 403, f"this server does not have the name '{host[:100]}'; open {self.address.url.split('?')[0]}", {}
        changes = scope["method"] not in SAFE_METHODS
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and origin.lower() != f"http://{host}".lower():
            return 403, f"requests from '{origin[:100]}' are refused", {}
        is_link = headers.get("sec-fetch-mode") == "navigate" and not changes
        if site in ("cross-site", "same-site") and not is_link:
            return 403, "requests from another site are refused", {}
        if self.address.token and (refusal := self._without_token(scope, headers)) is not None:
            return refusal
        if changes:
            if origin is None and site != "same-origin":
                return 403, "a request that changes something must come from this page (Origin or Sec-Fetch-Site)", {}
            if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
                return 415, "the body must be application/json", {}
        length = headers.get("content-length", "0")
        if not re.fullmatch("[0-9]{1,9}", length) or int(length) > LARGEST:
            return 413, f"a body has at most {LARGEST} bytes", {}
        return None

    def _without_token(self, scope: Scope, headers: Headers) -> Refusal | None:
        cookie = f"milepost-{self.address.port}"
        if hmac.compare_digest(cookie_parser(headers.get("cookie", "")).get(cookie, "").encode(), self.address.token.encode()):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        token = dict(query).get("token", "")
        if scope["method"] in SAFE_METHODS and hmac.compare_digest(token.encode(), self.address.token.encode()):
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            there = quote("/" + scope["path"].lstrip("/\\")) + (f"?{rest}" if rest else "")
            set_cookie = f"{cookie}={self.address.token}; Path=/; HttpOnly; SameSite=Strict"
            return 303, "continue without the token", {"location": there, "set-cookie": set_cookie}
        return 401, "open the address that milepost view printed: it contains the token", {}


def _with_headers(send: Send) -> Send:
    """Adds the headers that keep a browser from misusing a response."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("content-security-policy", policy())
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return send_with_headers
