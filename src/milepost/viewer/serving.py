"""The server on a port, until Ctrl-C: the user's port, or the next free one."""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from milepost.core import DataError
from milepost.viewer.guard import BindAddress, Guard, is_loopback
from milepost.viewer.media import VideoCache
from milepost.viewer.review import Review
from milepost.viewer.server import create_app

TRIES = 50
"""Number of ports to try, from the user's port on."""
CONNECTIONS = 256
"""Most open connections. A browser opens up to six to one server."""
HEAD_S = 10.0
"""Longest time for the head of a request in seconds."""


def bind(host: str, port: int) -> tuple[socket.socket, BindAddress]:
    """Returns a listening socket and its address. port: 0 for any free one. DataError if the address is not this machine's, or no port is
    free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, port + TRIES) if port else (0,):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(256)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                continue
            raise DataError(f"the server cannot be bound to {host}:{candidate}: {error.strerror or error}") from error
        token = "" if is_loopback(host) else secrets.token_urlsafe(24)
        return listener, BindAddress(host, listener.getsockname()[1], token)
    raise DataError(f"ports {port} to {port + TRIES - 1} of {host} are taken; choose another with --port, or 0 for any")


class TimeoutProtocol(H11Protocol):
    """HTTP that closes a connection if its request does not arrive: half-open connections could use up all file descriptors of the process.

    Beyond `CONNECTIONS` a new connection is closed at once, so that no accept ever fails.
    """

    _ending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
            return
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Starts the timer at the first byte and does not restart it, so that a slow request gets no more time."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._rest()
        elif self._ending is None:
            self._ending = self.loop.call_later(HEAD_S, self._give_up)

    def _rest(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    def _give_up(self) -> None:
        self._ending = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class ReviewServer(uvicorn.Server):
    """A server that gives up background work as soon as it is asked to end, so that no request delays the end."""

    def __init__(self, config: uvicorn.Config, review: Review, videos: VideoCache) -> None:
        super().__init__(config)
        self._review, self._videos = review, videos

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._videos.stop()
        self._review.stop()
        super().handle_exit(sig, frame)


def make_server(review: Review, address: BindAddress, videos: VideoCache | None = None) -> ReviewServer:
    """Returns a server that is ready to run on the socket of this address."""
    videos = videos or VideoCache()
    config = uvicorn.Config(
        Guard(create_app(review, videos), address),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        http=TimeoutProtocol,
        timeout_graceful_shutdown=3,
    )
    return ReviewServer(config, review, videos)
