"""The server on a port: the one asked for, or the next that is free; until Ctrl-C."""

from __future__ import annotations

import errno
import secrets
import socket

import uvicorn

from milepost.types import DataError
from milepost.viewer.guard import Door, Guard, is_loopback
from milepost.viewer.media import Films
from milepost.viewer.review import Review
from milepost.viewer.server import create_app

TRIES = 50
"""Ports after the one asked for."""


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


def server(review: Review, door: Door, films: Films | None = None) -> uvicorn.Server:
    """Ready to run on the socket of this door."""
    app = Guard(create_app(review, films), door)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, proxy_headers=False, ws="none", timeout_graceful_shutdown=3
    )
    return uvicorn.Server(config)
