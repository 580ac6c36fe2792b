"""HTTP whose connections end if their requests do not come."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 256
"""Most open connections."""
HEAD_S = 10.0
"""Longest time for the head of a request in seconds."""


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

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._rest()  # pings watch over a WebSocket
        super().handle_websocket_upgrade(event)

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


def quiet_config(app: ASGIApp, *, largest_message: int = 0) -> uvicorn.Config:
    """Returns how an application of ours is run: it says nothing of itself, trusts no proxy, and its connections end in time.

    largest_message: bytes of a message of a WebSocket; 0 for no WebSockets.
    """
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="websockets-sansio" if largest_message else "none",
        ws_max_size=largest_message,
        ws_per_message_deflate=False,
        http=TimeoutProtocol,
        timeout_graceful_shutdown=3,
    )
