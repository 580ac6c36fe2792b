"""One request to a chat/completions server until it is answered or refused: retries, time-outs, counters. It does not know what is asked.

Tried again, with exponential back-off and jitter: 429 (no sooner than Retry-After), 500, 502, 503, 504, cut connections, time-outs, broken
JSON. Refused at once: every other status. The key is read from the environment, sits in the HTTP client alone, and is cut out of messages.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from milepost.types import DataError
from milepost.versions import require

if TYPE_CHECKING:
    import httpx2

AGAIN = (429, 500, 502, 503, 504)


class ServerError(DataError):
    """A model server did not give what was asked for. The message has its address and never the key."""


class UnreachableError(ServerError):
    """No answer after all retries: no connection, a cut one, a time-out, or a status that should have passed."""


class RefusedError(ServerError):
    """The server understood and said no. status: HTTP; said: its own words."""

    def __init__(self, message: str, *, status: int, said: str) -> None:
        super().__init__(message)
        self.status, self.said = status, said


class MalformedError(ServerError):
    """What came is not a chat/completions reply."""


class NoLogprobsError(ServerError):
    """The reply has no log-probabilities though they were asked for."""


class UnfinishedTurnError(ServerError):
    """The server closes a turn that was to be left open: the number would be that of another prompt."""


class _AgainError(Exception):
    """Worth another try; `error` is what to raise when there is none left."""

    def __init__(self, error: ServerError, *, after_s: float = 0.0) -> None:
        super().__init__(str(error))
        self.error, self.after_s = error, after_s


@dataclass(frozen=True)
class ServerConfig:
    """Where a model is served and how it is asked. Plain values; the key is not among them."""

    base_url: str
    """Up to and with the version, as in "http://localhost:8000/v1"; `/chat/completions` is added."""
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable with the key. Not set: none is sent, as local servers like it."""
    timeout_s: float = 120.0
    """For one try, from connecting to the last byte."""
    retries: int = 5
    backoff_s: float = 0.5
    """The first wait; each one after it is twice as long, up to 30 s; each is cut by a random part of up to a half."""
    longest_wait_s: float = 120.0
    """A server that asks for more patience than this is given up."""
    concurrency: int = 8
    """Requests under way at once, over all threads that use one `Server`."""
    top_logprobs: int = 20
    """How many of the likeliest tokens to ask for; halved while the server refuses."""
    price_per_million: tuple[float, float] | None = None
    """What a million prompt and completion tokens cost, in any currency."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """What else goes into every request; None takes a field out, as in {"max_tokens": None, "max_completion_tokens": 1}."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DataError("base_url should be like 'http://localhost:8000/v1': http or https, and a host")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise DataError("base_url should hold no user, password, query or fragment; put the key into an environment variable")
        if not self.model:
            raise DataError("a server needs the name of a model")
        if min(self.concurrency, self.top_logprobs) < 1 or self.retries < 0:
            raise DataError("concurrency and top_logprobs should be at least 1, retries at least 0")
        if not all(0 < seconds < math.inf for seconds in (self.timeout_s, self.backoff_s, self.longest_wait_s)):
            raise DataError("timeout_s, backoff_s and longest_wait_s should be above 0 and finite")

    @property
    def url(self) -> str:
        """Where requests go."""
        return self.base_url.rstrip("/") + "/chat/completions"


@dataclass(frozen=True)
class Usage:
    """What a server was asked and what it took, so far. `str(usage)` is one line for a person."""

    requests: int = 0
    """Sent, retries among them."""
    answers: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unmetered: int = 0
    """Answers that did not say how many tokens they took: tokens and cost are then too low."""
    waited_s: float = 0.0
    """Back-off, summed over requests."""
    seconds: float = 0.0
    """Of the clock, with at least one request under way or waiting."""
    price_per_million: tuple[float, float] | None = None

    @property
    def cost(self) -> float | None:
        """In the currency of the prices; None without prices."""
        if self.price_per_million is None:
            return None
        return (self.prompt_tokens * self.price_per_million[0] + self.completion_tokens * self.price_per_million[1]) / 1e6

    def __str__(self) -> str:
        rate = f", {self.answers / self.seconds:.1f} a second" if self.seconds else ""
        cost = "" if self.cost is None else f", cost {self.cost:.4g}" + (" or more" if self.unmetered else "")
        unmetered = f" ({self.unmetered} answers did not say)" if self.unmetered else ""
        tokens = f"{self.prompt_tokens} + {self.completion_tokens} tokens{unmetered}"
        return f"{self.answers} answers, {self.requests} requests, {self.retries} retries, {tokens}, {self.seconds:.1f} s{rate}{cost}"


def backoff_s(config: ServerConfig, attempt: int, rng: np.random.Generator, *, after_s: float = 0.0) -> float:
    """How long to wait after this failed attempt (from 0): at least `after_s`, plus a jittered, doubling back-off of at most 30 s."""
    return after_s + min(config.backoff_s * 2.0**attempt, 30.0) * float(rng.uniform(0.5, 1.0))


def retry_after_s(header: str | None, now: datetime) -> float:
    """`Retry-After`, seconds or a date, as seconds from now; 0 if there is none or it cannot be read."""
    if not header:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            then = parsedate_to_datetime(header)
        except ValueError:
            return 0.0
        seconds = ((then if then.tzinfo else then.replace(tzinfo=UTC)) - now).total_seconds()
    return max(seconds, 0.0) if not math.isnan(seconds) else 0.0


class Transport:
    """An HTTP client with its pool of connections, used from one event loop."""

    def __init__(self, config: ServerConfig) -> None:
        require("httpx2")
        import httpx2

        key = _key(config)
        self.config = config
        self._http = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx2.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency),
            timeout=None,  # one clock for the whole try, in _once: httpx2's own starts anew with every byte
        )
        self._usage = Usage(price_per_million=config.price_per_million)
        self._busy, self._since = 0, 0.0

    @property
    def usage(self) -> Usage:
        """The counters as they are now."""
        running = time.perf_counter() - self._since if self._busy else 0.0
        return replace(self._usage, seconds=self._usage.seconds + running)

    async def close(self) -> None:
        await self._http.aclose()

    async def post(self, body: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The reply to this request, as JSON. ServerError when it is refused or no try is left."""
        content = json.dumps(body).encode()
        if not self._busy:
            self._since = time.perf_counter()
        self._busy += 1
        try:
            return await self._patiently(content, rng)
        finally:
            self._busy -= 1
            if not self._busy:
                self._count(seconds=time.perf_counter() - self._since)

    async def _patiently(self, content: bytes, rng: np.random.Generator) -> dict[str, Any]:
        for attempt in range(self.config.retries + 1):
            try:
                return await self._once(content)
            except _AgainError as problem:
                if attempt == self.config.retries or problem.after_s > self.config.longest_wait_s:
                    patience = f"it asks to wait {problem.after_s:.0f} s" if attempt < self.config.retries else f"{attempt + 1} tries"
                    problem.error.args = (f"{problem.error} ({patience})",)
                    raise problem.error from problem.__cause__
                wait = backoff_s(self.config, attempt, rng, after_s=problem.after_s)
            self._count(retries=1, waited_s=wait)
            await asyncio.sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _once(self, content: bytes) -> dict[str, Any]:
        import httpx2

        self._count(requests=1)
        try:
            async with asyncio.timeout(self.config.timeout_s):
                response = await self._http.post(self.config.url, content=content, headers={"Content-Type": "application/json"})
        except TimeoutError as error:
            raise _AgainError(UnreachableError(f"{self.config.url}: no answer within {self.config.timeout_s:g} s")) from error
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            reason = str(error) or type(error).__name__
            raise _AgainError(UnreachableError(f"{self.config.url}: {self._clean(reason)}")) from error
        if response.status_code != 200:
            raise self._refusal(response)
        return self._reply(response)

    def _reply(self, response: httpx2.Response) -> dict[str, Any]:
        try:
            reply = json.loads(response.content)
        except ValueError as error:  # broken JSON or broken UTF-8
            start = self._clean(response.text)[:80]
            problem = MalformedError(f"{self.config.url} answered with something that is not JSON; it begins {start!r}")
            if "json" in response.headers.get("Content-Type", ""):
                raise _AgainError(problem) from error  # cut on the way
            raise problem from error
        if not isinstance(reply, dict):
            raise MalformedError(f"{self.config.url} answered with a JSON {type(reply).__name__}, not an object")
        usage = reply.get("usage")
        counts = [usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")]
        prompt, completion = (count if isinstance(count, int) else 0 for count in counts)
        metered = all(isinstance(count, int) for count in counts)
        self._count(answers=1, prompt_tokens=prompt, completion_tokens=completion, unmetered=0 if metered else 1)
        return reply

    def _refusal(self, response: httpx2.Response) -> RefusedError | _AgainError:
        status, said = response.status_code, self._clean(_said(response))[:500]
        message = f"{self.config.url} answered {status} {response.reason_phrase}: {said}"
        if status in AGAIN:
            after_s = retry_after_s(response.headers.get("Retry-After"), datetime.now(UTC))
            return _AgainError(UnreachableError(message), after_s=after_s)
        if status in (401, 403):
            state = "which is set" if os.environ.get(self.config.api_key_env) else "which is not set"
            message += f"; the key is read from ${self.config.api_key_env}, {state}"
        if status == 404:
            message += f"; is base_url right (it usually ends in /v1), and does the server have the model '{self.config.model}'?"
        return RefusedError(message, status=status, said=said)

    def _clean(self, text: str) -> str:
        key = self._http.headers.get("Authorization", "").removeprefix("Bearer ")
        return text.replace(key, "***") if key else text  # before anything is cut short, or half of the key would stay

    def _count(self, **steps: int | float) -> None:
        self._usage = replace(self._usage, **{name: getattr(self._usage, name) + step for name, step in steps.items()})


def _key(config: ServerConfig) -> str:
    key = os.environ.get(config.api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise DataError(f"the key in ${config.api_key_env} has characters that no HTTP header can hold")
    return key


def _said(response: httpx2.Response) -> str:
    """The server's own words, wherever this kind of server puts them."""
    try:
        body = json.loads(response.content)
    except ValueError:
        body = None
    for path in (("error", "message"), ("message",), ("detail",), ("error",)):
        found = body
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        if found:
            return found if isinstance(found, str) else json.dumps(found)
    return response.text.strip() or "(nothing)"
