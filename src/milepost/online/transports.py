"""Carries the calls of a client: by HTTP, a request each, or by one WebSocket, which takes less time. Both for threads and for asyncio.

A WebSocket's message is the body of POST /step or POST /relabel, or text {"method", "path", "fields"}; the answer is text
{"status", "fields"}.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack, ExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx2

from milepost.core import DataError
from milepost.online.calls import Call, LostError
from milepost.online.wire import body_type, json_text

TOKEN_ENV = "MILEPOST_TOKEN"
STREAM = "/stream"
"""Where a server takes WebSockets."""
LARGEST = "milepost-largest-message"
"""The header by which a server says, when a WebSocket opens, how many bytes a message may have."""
_TOO_BIG = 1009  # the code with which a WebSocket closes for it (RFC 6455)


def server_url(url: str) -> str:
    """Returns a server's address without a slash at its end. DataError if it is none."""
    if urlsplit(url).scheme not in ("http", "https", "ws", "wss"):
        raise DataError(f"the address of a reward server begins with http://, https://, ws:// or wss://, got '{url}'")
    return url.rstrip("/")


def _headers(token: str | None) -> dict[str, str]:
    token = (os.environ.get(TOKEN_ENV, "") if token is None else token).strip()
    if not (token.isascii() and token.isprintable()):
        raise DataError(f"the token has letters that no token has: give what milepost serve printed, by token= or {TOKEN_ENV}")
    return {"authorization": f"Bearer {token}"} if token else {}


def _options(url: str, token: str | None, timeout_s: float) -> dict[str, Any]:
    return {"base_url": url, "headers": _headers(token), "timeout": timeout_s, "trust_env": False}


def _body(call: Call) -> dict[str, Any]:
    if call.content is not None:
        return {"content": call.content, "headers": {"content-type": body_type(call.content)}}
    return {} if call.fields is None else {"content": json_text(call.fields), "headers": {"content-type": "application/json"}}


def _parsed(reply: httpx2.Response) -> tuple[int, Any]:
    try:
        return reply.status_code, reply.json()
    except ValueError:
        return reply.status_code, None


def _unreachable(url: str, error: BaseException) -> LostError:
    return LostError(f"the reward server at {url} does not answer: {type(error).__name__}: {error}")


def _late(url: str, timeout_s: float) -> DataError:
    return DataError(f"the reward server at {url} did not answer within {timeout_s:g} s")


class HttpTransport:
    """Sends a request for each call, over a connection that stays open."""

    def __init__(self, url: str, token: str | None, timeout_s: float) -> None:
        self._url, self._timeout_s = url, timeout_s
        self._client = httpx2.Client(**_options(url, token, timeout_s))

    def ask(self, call: Call) -> tuple[int, Any]:
        """Returns status and fields of the answer."""
        try:
            return _parsed(self._client.request(call.method, call.path, **_body(call)))
        except httpx2.TimeoutException as error:
            raise _late(self._url, self._timeout_s) from error
        except httpx2.HTTPError as error:
            raise _unreachable(self._url, error) from error

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()


class AsyncHttpTransport:
    """Sends a request for each call, in an event loop."""

    def __init__(self, url: str, token: str | None, timeout_s: float) -> None:
        self._url, self._timeout_s = url, timeout_s
        self._client = httpx2.AsyncClient(**_options(url, token, timeout_s))

    async def ask(self, call: Call) -> tuple[int, Any]:
        """Returns status and fields of the answer."""
        try:
            return _parsed(await self._client.request(call.method, call.path, **_body(call)))
        except httpx2.TimeoutException as error:
            raise _late(self._url, self._timeout_s) from error
        except httpx2.HTTPError as error:
            raise _unreachable(self._url, error) from error

    async def close(self) -> None:
        """Closes the connection."""
        await self._client.aclose()


def too_large(largest: int) -> str:
    """Returns what is said of a body or a message with more bytes than a server takes."""
    return f"a body has at most {largest} bytes (--max-body-mb)"


def _message(call: Call) -> str | bytes:
    return json_text({"method": call.method, "path": call.path, "fields": call.fields}) if call.content is None else call.content


def _oversize(message: str | bytes, socket: Any) -> tuple[int, Any] | None:
    """Returns the refusal of a message that is larger than the server said it takes: it would close the connection. None if it fits."""
    largest = socket.response.headers.get(LARGEST, "")
    if not largest.isdigit() or len(message) <= int(largest):  # text is ASCII, as json.dumps writes it
        return None
    return 413, {"error": too_large(int(largest))}


def _reply(text: str | bytes) -> tuple[int, Any]:
    try:
        reply = json.loads(text)
        return int(reply["status"]), reply["fields"]
    except (ValueError, KeyError, TypeError):
        return 0, None


def _refused(error: BaseException) -> tuple[int, Any] | None:
    """Returns the answer of a server that did not open a WebSocket, or closed it for a message too large; None if it gave none."""
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    if isinstance(error, ConnectionClosed) and error.rcvd is not None and error.rcvd.code == _TOO_BIG:
        return 413, {"error": "the message has more bytes than the server takes (--max-body-mb)"}
    if not isinstance(error, InvalidStatus):
        return None
    try:
        return error.response.status_code, json.loads(error.response.body or b"")
    except ValueError:
        return error.response.status_code, None


class SocketTransport:
    """Sends all calls through one WebSocket, which it opens with the first, and again after a loss."""

    def __init__(self, url: str, token: str | None, timeout_s: float) -> None:
        self._url, self._timeout_s, self._headers = url, timeout_s, _headers(token)
        self._socket: Any = None
        self._open = ExitStack()

    def ask(self, call: Call) -> tuple[int, Any]:
        """Returns status and fields of the answer."""
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        try:
            if self._socket is None:
                self._socket = self._open.enter_context(connect(
                    self._url + STREAM, additional_headers=self._headers, compression=None, proxy=None, max_size=None,
                    open_timeout=self._timeout_s, close_timeout=1,
                ))  # fmt: skip
            message = _message(call)
            if refusal := _oversize(message, self._socket):
                return refusal
            self._socket.send(message)
            return _reply(self._socket.recv(timeout=self._timeout_s))
        except TimeoutError as error:
            self.close()  # the late answer would be taken for that of the next call
            raise _late(self._url, self._timeout_s) from error
        except (WebSocketException, OSError) as error:
            self.close()
            if refusal := _refused(error):
                return refusal
            raise _unreachable(self._url, error) from error

    def close(self) -> None:
        """Closes the connection."""
        self._socket = None
        self._open.close()


class AsyncSocketTransport:
    """Sends all calls through one WebSocket, in an event loop, one after the other."""

    def __init__(self, url: str, token: str | None, timeout_s: float) -> None:
        self._url, self._timeout_s, self._headers = url, timeout_s, _headers(token)
        self._socket: Any = None
        self._open = AsyncExitStack()
        self._turn = asyncio.Lock()

    async def ask(self, call: Call) -> tuple[int, Any]:
        """Returns status and fields of the answer."""
        async with self._turn:
            return await self._ask(call)

    async def _ask(self, call: Call) -> tuple[int, Any]:
        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException

        is_answered = False
        try:
            async with asyncio.timeout(self._timeout_s):
                if self._socket is None:
                    self._socket = await self._open.enter_async_context(connect(
                        self._url + STREAM, additional_headers=self._headers, compression=None, proxy=None, max_size=None,
                        close_timeout=1,
                    ))  # fmt: skip
                message = _message(call)
                reply = _oversize(message, self._socket)
                if reply is None:
                    await self._socket.send(message)
                    reply = _reply(await self._socket.recv())
            is_answered = True
            return reply
        except TimeoutError as error:
            raise _late(self._url, self._timeout_s) from error
        except (WebSocketException, OSError) as error:
            if refusal := _refused(error):
                return refusal
            raise _unreachable(self._url, error) from error
        finally:
            if not is_answered:  # also where a task was cancelled: the late answer would be taken for that of the next call
                await self.close()

    async def close(self) -> None:
        """Closes the connection."""
        self._socket = None
        await self._open.aclose()


def open_transport(url: str, token: str | None, timeout_s: float) -> HttpTransport | SocketTransport:
    """Returns what carries calls to this address: HTTP, or a WebSocket for ws:// and wss://."""
    return SocketTransport(url, token, timeout_s) if url.startswith("ws") else HttpTransport(url, token, timeout_s)


def open_async_transport(url: str, token: str | None, timeout_s: float) -> AsyncHttpTransport | AsyncSocketTransport:
    """Returns the same for asyncio."""
    return AsyncSocketTransport(url, token, timeout_s) if url.startswith("ws") else AsyncHttpTransport(url, token, timeout_s)
