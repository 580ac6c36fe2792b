"""The server on a port: the one asked for, or the next that is free; until Ctrl-C."""

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
from milepost.viewer.guard import Door, Guard, is_loopback
from milepost.viewer.media import Films
from milepost.viewer.review import Review
from milepost.viewer.server import create_app

TRIES = 50
"""Ports after the one asked for."""
CONNECTIONS = 256
"""Open connections. A browser has six to a server."""
HEAD_S = 10.0
"""How long the head of a request may take."""


def bound(host: str, port: int) -> tuple[socket.socket, Door]:
    """A listening socket and what it is called. port: 0 for any that is free. DataError if the address is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for tried in range(port, port + TRIES) if port else (0,):
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, tried))
            found.listen(256)
        except OSError as error:
            found.close()
            if error.errno == errno.EADDRINUSE:
                continue
            raise DataError(f"the server cannot be bound to {host}:{tried}: {error.strerror or error}") from error
        token = "" if is_loopback(host) else secrets.token_urlsafe(24)
        return found, Door(host, found.getsockname()[1], token)
    raise DataError(f"ports {port} to {port + TRIES - 1} of {host} are taken; choose another with --port, or 0 for any")


class Impatient(H11Protocol):
    """HTTP that lets go of a connection whose request does not come: half-open ones would hold all that a process may have.

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
        """The clock runs from the first byte, so that a dripping request is none the better for it."""
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


class Server(uvicorn.Server):
    """Lets go of what it makes and counts as soon as it is asked to end, so that no request is waited for."""

    def __init__(self, config: uvicorn.Config, review: Review, films: Films) -> None:
        super().__init__(config)
        self._review, self._films = review, films

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._films.stop()
        self._review.stop()
        super().handle_exit(sig, frame)


def make_server(review: Review, door: Door, films: Films | None = None) -> Server:
    """Ready to run on the socket of this door."""
    films = films or Films()
    config = uvicorn.Config(
        Guard(create_app(review, films), door),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        http=Impatient,
        timeout_graceful_shutdown=3,
    )
    return Server(config, review, films)
