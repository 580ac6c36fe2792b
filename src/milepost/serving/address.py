"""The address that a server of ours is bound to, and the names that it answers to."""

from __future__ import annotations

import errno
import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass

from milepost.core import DataError

TRIES = 50
"""Number of ports to try, from the user's port on."""
LAST_PORT = 65535
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class BindAddress:
    """The address that the server is bound to, and its token ("" for none). At a wildcard address every name of the machine is accepted, so
    only a token keeps others out."""

    host: str
    port: int
    token: str = ""

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)

    @property
    def url(self) -> str:
        """Returns the address to open the page with."""
        name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, f"[{self.host}]" if ":" in self.host else self.host)
        return f"http://{name}:{self.port}/" + (f"?token={self.token}" if self.token else "")

    def knows(self, host: str) -> bool:
        """Returns whether this Host header is one of our names, with our port."""
        name, port = _host(host)
        if port != self.port:
            return False
        if self.host in ("0.0.0.0", "::"):
            return True
        return name in (LOOPBACK if self.is_loopback else (self.host.lower(),))

    def is_reached_as(self, host: str) -> bool:
        """Returns whether a program may name us so in its Host header: as `knows`, or by a loopback name, with any port: behind a tunnel
        (`ssh -L 9000:localhost:7340`) the port is the tunnel's. What makes DNS rebinding is the name.
        """
        name, port = _host(host)
        return port >= 0 and (self.host in ("0.0.0.0", "::") or name in (*LOOPBACK, self.host.lower()))


def is_loopback(host: str) -> bool:
    """Returns whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _host(header: str) -> tuple[str, int]:
    """Returns name and port of a Host header; port 80 if it has none, -1 if it is not a Host header."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/@?#\s]+)(?::(\d{1,5}))?", header)
    return (match[1].strip("[]").lower(), int(match[2] or 80)) if match else ("", -1)


def bind(host: str, port: int) -> tuple[socket.socket, BindAddress]:
    """Returns a listening socket and its address. port: 0 for any free one. DataError if the address is not this machine's, or no port is
    free. ValueError for a port that is none."""
    if not 0 <= port <= LAST_PORT:
        raise ValueError(f"port must be 0 to {LAST_PORT}, got {port}")
    last = min(port + TRIES - 1, LAST_PORT)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, last + 1) if port else (0,):
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # without it asyncio sets no TCP_NODELAY: 40 ms a request
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
    raise DataError(f"ports {port} to {last} of {host} are taken; choose another with --port, or 0 for any")
