"""Asks a reward server while a robot moves."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx2
import numpy as np
from jaxtyping import Float, Shaped

from milepost.core import DataError
from milepost.online.sessions import FrameProgress, Observation
from milepost.online.wire import NPZ, from_json, pack_observations

TOKEN_ENV = "MILEPOST_TOKEN"


class RewardClient:
    """A connection to `milepost serve`. It may be used by one thread.

    url: such as "http://127.0.0.1:7340". token: beyond loopback, what the server printed; None: the environment variable MILEPOST_TOKEN.
    timeout_s: of one answer. DataError if the server cannot be reached, or refuses; a frame that it cannot use gets a reason.

    >>> client = milepost.RewardClient("http://127.0.0.1:9")
    >>> client.health()  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    milepost.core.errors.DataError: the reward server at http://127.0.0.1:9 does not answer: ...
    """

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 10.0) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise DataError(f"the address of a reward server begins with http:// or https://, got '{url}'")
        token = os.environ.get(TOKEN_ENV, "") if token is None else token
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.url = url.rstrip("/")
        self._client = httpx2.Client(base_url=self.url, headers=headers, timeout=timeout_s, trust_env=False)

    def begin(self, *, task: str, fps: float, session: str | None = None) -> str:
        """Begins an attempt at `task`, whose frames come at `fps`, and returns its name. session: one that begins anew."""
        return str(self._ask("POST", "/sessions", json={"task": task, "fps": fps, "session": session})["session"])

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
        reply = self._ask("POST", "/step", content=pack_observations(observations), headers={"content-type": NPZ})
        return [from_json(each) for each in reply["results"]]

    def end(self, session: str) -> None:
        """Ends an attempt. DataError if there is none of this name."""
        self._ask("DELETE", f"/sessions/{session}")

    def health(self) -> dict[str, Any]:
        """Returns what the server says of itself."""
        return self._ask("GET", "/health")

    def model_info(self) -> dict[str, Any]:
        """Returns what the server says of its model."""
        return self._ask("GET", "/model_info")

    def close(self) -> None:
        """Closes the connection; the sessions stay."""
        self._client.close()

    def __enter__(self) -> RewardClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _ask(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        try:
            reply = self._client.request(method, path, **body)
        except httpx2.HTTPError as error:
            raise DataError(f"the reward server at {self.url} does not answer: {type(error).__name__}: {error}") from error
        try:
            fields = reply.json()
        except ValueError as error:
            raise DataError(f"{self.url}{path} answered no JSON (status {reply.status_code}): is it a milepost server?") from error
        if not isinstance(fields, dict):
            raise DataError(f"{self.url}{path} answered {type(fields).__name__} in place of an object")
        if reply.status_code != 200:
            raise DataError(f"the reward server refused ({reply.status_code}): {fields.get('error', 'it does not say why')}")
        return fields
