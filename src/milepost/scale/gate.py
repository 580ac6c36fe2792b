"""How many requests a model server gets at once: a gate, in one process or before all processes of a cluster.

A server that says it is busy (429, 503) closes the gate for as long as it asks to wait, and halves the places behind it; answers bring them
back, about one for each full round (additive increase, multiplicative decrease, as in TCP). A place is lent: one that is not renewed, since
its process ended, is free again after `LEASE_S`.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from milepost.core import DataError

Outcome = Literal["answered", "busy", "failed"]
"""What came of a request: an answer, the server's word that it is busy, or anything else, which says nothing about how much it can do."""
LEASE_S = 15.0
"""Seconds after which a place of another process is free that was not renewed."""


@runtime_checkable
class Gate(Protocol):
    """What requests go through. A gate is used from one event loop."""

    async def enter(self) -> str:
        """Waits until a request may begin. Returns the ticket of its place."""
        ...

    async def leave(self, ticket: str, outcome: Outcome, pause_s: float = 0.0) -> None:
        """Gives a place back. pause_s: how long a busy server asks to wait, in seconds."""
        ...


class ServerGate:
    """The gate itself, of `most` places. lease_s: seconds after which a place that was not renewed is free; infinite in one process.

    DataError if there is no place.
    """

    def __init__(self, most: int, lease_s: float = math.inf, *, now: Callable[[], float] = time.monotonic) -> None:
        if most < 1:
            raise DataError(f"a gate has at least 1 place, got {most}")
        self.most, self.lease_s = most, lease_s
        self._places = float(most)
        """How many there are now; what is left of an integer is on its way to the next one."""
        self._leases: dict[str, float] = {}
        """Ticket -> when it was lent or renewed."""
        self._order: dict[str, int] = {}
        """Ticket -> how many were lent before it."""
        self._lent, self._halved_at = 0, 0
        self._open_at = -math.inf
        self._waiting: deque[asyncio.Future[str]] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._now = now

    @property
    def places(self) -> int:
        """Returns how many requests may be under way at once now."""
        return max(1, int(self._places))

    async def enter(self) -> str:
        """Waits until a request may begin. Returns the ticket of its place."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._lend()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                await self.leave(future.result(), "failed")
            raise

    async def leave(self, ticket: str, outcome: Outcome, pause_s: float = 0.0) -> None:
        """Gives a place back, closes the gate for `pause_s` if the server is busy, and adapts the number of places."""
        self._leases.pop(ticket, None)
        order = self._order.pop(ticket, -1)
        if outcome == "answered":
            self._places = min(self.most, self._places + 1 / self.places)
        elif outcome == "busy":
            self._open_at = max(self._open_at, self._now() + pause_s)
            if order >= self._halved_at:  # those that began before the last halving complain of the time before it
                self._places, self._halved_at = max(1.0, self._places / 2), self._lent
        self._lend()

    async def renew(self, tickets: list[str]) -> None:
        """Notes that the processes of these places are alive."""
        self._leases.update({ticket: self._now() for ticket in tickets if ticket in self._leases})

    def _lend(self) -> None:
        """Gives free places to those that wait longest; if there is none, sets an alarm for the next moment at which one may be free."""
        now = self._now()
        for ticket in [ticket for ticket, renewed in self._leases.items() if now - renewed > self.lease_s]:
            del self._leases[ticket], self._order[ticket]
        while self._waiting and now >= self._open_at and len(self._leases) < self.places:
            future = self._waiting.popleft()
            if not future.done():
                ticket = uuid.uuid4().hex
                self._leases[ticket], self._order[ticket] = now, self._lent
                self._lent += 1
                future.set_result(ticket)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        next_s = self._open_at - now if now < self._open_at else min(self._leases.values(), default=now) + self.lease_s - now
        if self._waiting and next_s < math.inf:
            self._alarm = asyncio.get_running_loop().call_later(max(next_s, 0.001), self._lend)


class JobGate:
    """The gate of a whole job, as one process of it sees it. handle: of the actor that has the `ServerGate`."""

    def __init__(self, handle: Any, lease_s: float = LEASE_S) -> None:
        self._handle, self._every_s = handle, lease_s / 3
        self._tickets: set[str] = set()
        self._renewal: asyncio.Task[None] | None = None

    async def enter(self) -> str:
        """Waits until a request of this process may begin. Returns the ticket of its place."""
        with _PROCESS.waiting():
            ticket: str = await self._handle.enter.remote()
        self._tickets.add(ticket)
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.get_running_loop().create_task(self._renew())
        return ticket

    async def leave(self, ticket: str, outcome: Outcome, pause_s: float = 0.0) -> None:
        """Gives a place back."""
        _PROCESS.pause(pause_s)
        self._tickets.discard(ticket)
        await self._handle.leave.remote(ticket, outcome, pause_s)

    async def _renew(self) -> None:
        while self._tickets:
            await asyncio.sleep(self._every_s)
            await self._handle.renew.remote(sorted(self._tickets))


class _Porter(ServerGate):
    """The actor of a job's gate. It has the server's key too, which so is in the memory of processes alone, and in no log or file."""

    def __init__(self, most: int, lease_s: float, key: str) -> None:
        super().__init__(most, lease_s)
        self._secret = key

    async def key(self) -> str:
        """Returns the server's key."""
        return self._secret


@dataclass(frozen=True)
class Door:
    """Where the processes of a job find its gate, and the key of the server behind it. It can be sent to them. handle: of the actor."""

    handle: Any
    lease_s: float = LEASE_S

    @classmethod
    def opened(cls, ray: Any, most: int, key: str = "", lease_s: float = LEASE_S) -> Door:
        """Starts the gate. ray: the package, joined to a cluster. most: requests at once, over the whole job. key: "" for none."""
        actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Porter)
        return cls(actor.remote(most, lease_s, key), lease_s)

    def gate(self) -> JobGate:
        """Returns the gate for this process."""
        return JobGate(self.handle, self.lease_s)

    def key(self) -> str:
        """Returns the server's key, "" if there is none."""
        import ray

        return str(ray.get(self.handle.key.remote()))


class _Process:
    """What makes the gates of this process's clients, None where each has one of its own; and how long requests waited at a job's gate."""

    def __init__(self) -> None:
        self.make: Callable[[], Gate] | None = None
        self._lock = threading.Lock()
        self._waiting, self._since, self._waited_s = 0, 0.0, 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time of a block, once if several requests wait at the same time."""
        with self._lock:
            self._since = self._since if self._waiting else time.monotonic()
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                self._waited_s += 0.0 if self._waiting else time.monotonic() - self._since

    def pause(self, seconds: float) -> None:
        """Counts the time that a busy server asks this process to wait."""
        with self._lock:
            self._waited_s += seconds

    @property
    def waited_s(self) -> float:
        """Returns the seconds in which requests waited, so far."""
        with self._lock:
            return self._waited_s + (time.monotonic() - self._since if self._waiting else 0.0)

    def use(self, make: Callable[[], Gate] | None) -> None:
        """Sets what makes them."""
        self.make = make


_PROCESS = _Process()


def pass_through(make: Callable[[], Gate] | None) -> None:
    """Lets all clients that this process opens from now on send their requests through gates that `make` returns, such as those of a job of
    many processes. None: each has a gate of its own again.
    """
    _PROCESS.use(make)


def new_gate(most: int) -> Gate:
    """Returns a gate for a new client: that of this process's job, else one of its own, with so many places."""
    return ServerGate(most) if _PROCESS.make is None else _PROCESS.make()


def waited_s() -> float:
    """Returns the seconds in which requests of this process waited at the gate of their job."""
    return _PROCESS.waited_s
