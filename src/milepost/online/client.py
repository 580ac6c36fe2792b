"""Asks a reward server while a robot moves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from milepost.online.calls import (
    HEALTH,
    MODEL_INFO,
    Call,
    LostError,
    answer_of,
    begin_call,
    end_call,
    episode_results_of,
    pauses,
    relabel_call,
    relabelled_call,
    results_of,
    step_call,
)
from milepost.online.sessions import FrameProgress, Observation
from milepost.online.transports import open_async_transport, open_transport, server_url


class RewardClient:
    """A connection to `milepost serve`. It may be used by one thread; `AsyncRewardClient` is the same for asyncio.

    url: such as "http://127.0.0.1:7340"; "ws://127.0.0.1:7340" keeps one WebSocket open, which takes less time for a frame. token: beyond
    loopback, what the server printed; None: the environment variable MILEPOST_TOKEN. timeout_s: of one answer. reconnect_s: for how long a
    call whose connection broke is tried again; the first try is at once, and nothing is counted twice. on_lost: is called with the error
    while such a call waits for its next try. DataError if the server cannot be reached, or refuses; a frame that it cannot use gets a
    reason.

    >>> client = milepost.RewardClient("http://127.0.0.1:9", reconnect_s=0.0)
    >>> client.health()  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    milepost.online.calls.LostError: the reward server at http://127.0.0.1:9 does not answer: ...
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_s: float = 10.0,
        reconnect_s: float = 1.0,
        on_lost: Callable[[LostError], None] | None = None,
    ) -> None:
        self.url = server_url(url)
        self._reconnect_s, self._on_lost = reconnect_s, on_lost
        self._transport = open_transport(self.url, token, timeout_s)

    def begin(self, *, task: str, fps: float, session: str | None = None) -> str:
        """Begins an attempt at `task`, whose frames come at `fps`, and returns its name. session: one that begins anew."""
        return str(self._ask(begin_call(task, fps, session))["session"])

    def step(
        self,
        session: str,
        images: Mapping[str, Shaped[np.ndarray, "..."] | bytes],
        state: Float[np.ndarray, "S"] | None = None,
        *,
        frame: int | None = None,
        is_terminal: bool = False,
    ) -> FrameProgress:
        """Returns the result of the next frame. images: camera name -> (H, W, 3) or (3, H, W), or the bytes of a JPEG or PNG."""
        return self.step_all([Observation(session, images, state, frame, is_terminal)])[0]

    def step_all(self, observations: Sequence[Observation]) -> list[FrameProgress]:
        """Returns the results of many robots' frames, in their order, from one request."""
        return results_of(self._ask(step_call(observations)))

    def relabel(
        self,
        images: Mapping[str, Shaped[np.ndarray, "..."] | Sequence[bytes]],
        state: Float[np.ndarray, "_ _"] | None = None,
        *,
        task: str,
        fps: float,
        is_terminal: bool = False,
    ) -> str:
        """Hands in a whole episode, whose results may come later, and returns its ticket. The server follows it when no robot waits.

        images: camera name -> (T, H, W, 3), or the bytes of a JPEG or PNG for each frame. is_terminal: the task ended with the last frame.
        """
        return str(self._ask(relabel_call(images, state, task, fps, is_terminal))["ticket"])

    def relabelled(self, ticket: str) -> list[FrameProgress] | None:
        """Returns the result of each frame of an episode, or None while it waits. DataError if it failed, or the ticket is not known."""
        return episode_results_of(self._ask(relabelled_call(ticket)))

    def end(self, session: str) -> None:
        """Ends an attempt. DataError if there is none of this name."""
        self._ask(end_call(session))

    def health(self) -> dict[str, Any]:
        """Returns what the server says of itself."""
        return self._ask(HEALTH)

    def model_info(self) -> dict[str, Any]:
        """Returns what the server says of its model."""
        return self._ask(MODEL_INFO)

    def close(self) -> None:
        """Closes the connection; the sessions stay."""
        self._transport.close()

    def __enter__(self) -> RewardClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _ask(self, call: Call) -> dict[str, Any]:
        waits = pauses(self._reconnect_s)
        while True:
            try:
                return answer_of(self.url, call, *self._transport.ask(call))
            except LostError as error:
                pause = next(waits, None)
                if pause is None:
                    raise
                if pause and self._on_lost is not None:
                    self._on_lost(error)
                time.sleep(pause)


class AsyncRewardClient:
    """A connection to `milepost serve` for asyncio: the methods of `RewardClient`, to be awaited. Several tasks may share one.

    >>> import asyncio
    >>> client = milepost.AsyncRewardClient("ws://127.0.0.1:9", reconnect_s=0.0)
    >>> asyncio.run(client.health())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    milepost.online.calls.LostError: the reward server at ws://127.0.0.1:9 does not answer: ...
    """

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 10.0, reconnect_s: float = 1.0) -> None:
        self.url = server_url(url)
        self._reconnect_s = reconnect_s
        self._transport = open_async_transport(self.url, token, timeout_s)

    async def begin(self, *, task: str, fps: float, session: str | None = None) -> str:
        """Begins an attempt and returns its name, as `RewardClient.begin`."""
        return str((await self._ask(begin_call(task, fps, session)))["session"])

    async def step(
        self,
        session: str,
        images: Mapping[str, Shaped[np.ndarray, "..."] | bytes],
        state: Float[np.ndarray, "S"] | None = None,
        *,
        frame: int | None = None,
        is_terminal: bool = False,
    ) -> FrameProgress:
        """Returns the result of the next frame, as `RewardClient.step`."""
        return (await self.step_all([Observation(session, images, state, frame, is_terminal)]))[0]

    async def step_all(self, observations: Sequence[Observation]) -> list[FrameProgress]:
        """Returns the results of many robots' frames, in their order, from one request."""
        return results_of(await self._ask(step_call(observations)))

    async def relabel(
        self,
        images: Mapping[str, Shaped[np.ndarray, "..."] | Sequence[bytes]],
        state: Float[np.ndarray, "_ _"] | None = None,
        *,
        task: str,
        fps: float,
        is_terminal: bool = False,
    ) -> str:
        """Hands in a whole episode and returns its ticket, as `RewardClient.relabel`."""
        return str((await self._ask(relabel_call(images, state, task, fps, is_terminal)))["ticket"])

    async def relabelled(self, ticket: str) -> list[FrameProgress] | None:
        """Returns the result of each frame of an episode, or None while it waits, as `RewardClient.relabelled`."""
        return episode_results_of(await self._ask(relabelled_call(ticket)))

    async def end(self, session: str) -> None:
        """Ends an attempt. DataError if there is none of this name."""
        await self._ask(end_call(session))

    async def health(self) -> dict[str, Any]:
        """Returns what the server says of itself."""
        return await self._ask(HEALTH)

    async def model_info(self) -> dict[str, Any]:
        """Returns what the server says of its model."""
        return await self._ask(MODEL_INFO)

    async def close(self) -> None:
        """Closes the connection; the sessions stay."""
        await self._transport.close()

    async def __aenter__(self) -> AsyncRewardClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _ask(self, call: Call) -> dict[str, Any]:
        waits = pauses(self._reconnect_s)
        while True:
            try:
                return answer_of(self.url, call, *await self._transport.ask(call))
            except LostError:
                pause = next(waits, None)
                if pause is None:
                    raise
                await asyncio.sleep(pause)
