"""One request to a chat/completions server until it is answered or refused: retries, time-outs, counters. It does not know the question.

It tries again, with exponential back-off and jitter: after statuses that pass (`replies.AGAIN`; 429 no sooner than Retry-After), in the
header or in the body of a 200; after cut connections and broken JSON; once after a time-out. It stops at once at other statuses and at
bodies that do not end. It never follows redirects: key and images go to the address that was given, or to its /v1 if that was forgotten.
The key is read from the environment, stays in the HTTP client alone, and is removed from messages.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from milepost.core import DataError, UnreadableError, refuses_unknown_options, require, require_integers
from milepost.scale import Gate, Outcome, new_gate
from milepost.vlm.proxies import client_settings
from milepost.vlm.replies import MOST_OF_ERROR, PackedError, Problem, UnboundedError, parse, problem_inside, problem_of, quoted, read_body

if TYPE_CHECKING:
    import httpx2

FINAL = (401, 402, 403, 404, 405)
"""Statuses that every request would get: no key, no money, no such model, no such place."""
TIMEOUTS = 2
"""The most tries that may time out. A server that is merely busy says so, so more would only waste time."""
BUSY = (429, 503, 529)
"""Statuses of a server that gets more than it can do."""
BODY_S = 30.0
"""The most seconds from the first letter of a reply to its last."""
COUNTABLE = 2**53
"""Token counts from here on are no counts."""


class ServerError(DataError):
    """A model server did not give what was asked for. The message has its address and never the key.

    elsewhere: another address of the same server might have answered.
    """

    def __init__(self, message: str, *, elsewhere: bool = False) -> None:
        super().__init__(message)
        self.elsewhere = elsewhere

    def __reduce__(self) -> tuple[Any, ...]:
        """Returns how the error is made again in another process, whatever its class takes."""
        return _made_again, (type(self), self.args, vars(self))

    def amend(self, message: str) -> None:
        """Replaces the message by one that repeats it and adds what was tried afterwards."""
        self.args = (message,)


def _made_again(kind: type[ServerError], args: tuple[Any, ...], attributes: dict[str, Any]) -> ServerError:
    error = kind.__new__(kind, *args)
    vars(error).update(attributes)
    return error


class UnreachableError(ServerError):
    """No answer after all retries: no connection, a cut one, a time-out, or a status that should have passed."""


class RefusedError(ServerError):
    """The server understood the request and refused it. status: HTTP's, or that in the body; words: its own; param: the field they
    blame.
    """

    too_long = False
    """Whether the size of this prompt was refused."""

    def __init__(self, message: str, *, status: int, words: str, param: str = "", elsewhere: bool = False) -> None:
        super().__init__(message, elsewhere=elsewhere)
        self.status, self.words, self.param = status, words, param


class TooLongError(RefusedError, UnreadableError):
    """This prompt does not fit the server; a shorter one may."""

    too_long = True


class MalformedError(ServerError):
    """What came is not a chat/completions reply."""


class NoLogprobsError(ServerError):
    """The reply has no log-probabilities that can be read though they were asked for."""


class UnfinishedTurnError(ServerError):
    """The server closes a message that should stay open: the number would be that of another prompt."""


class _AgainError(Exception):
    """Worth another try; `error` is what to raise when there is none left. late: it ran out of time. busy: so the server says."""

    def __init__(self, error: ServerError, *, after_s: float = 0.0, late: bool = False, busy: bool = False) -> None:
        super().__init__(str(error))
        self.error, self.after_s, self.late, self.busy = error, after_s, late, busy


@refuses_unknown_options()
@dataclass(frozen=True)
class ServerConfig:
    """Where a model is served and how it is asked. Plain values; the key is not among them.

    >>> milepost.ServerConfig("http://localhost:8000/v1", "Qwen/Qwen3-VL-8B-Instruct").concurrency
    8
    """

    base_url: str
    """Up to and with the version, as in "http://localhost:8000/v1"; `/chat/completions` is added."""
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable with the key. Not set: none is sent, as local servers like it."""
    timeout_s: float = 120.0
    """For one try, from connecting to the last byte. No try begins after five times as long."""
    retries: int = 5
    backoff_s: float = 0.5
    """The first wait; each one after it is twice as long, up to 30 s; each is cut by a random part of up to a half."""
    longest_wait_s: float = 120.0
    """A server that asks for more patience than this, for one request, is given up."""
    concurrency: int = 8
    """Requests under way at once, over all threads that use one `ChatClient`."""
    top_logprobs: int = 20
    """How many of the likeliest tokens to ask for; halved while the server refuses."""
    price_per_million: tuple[float, float] | None = None
    """What a million prompt and completion tokens cost, in any currency."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """What else goes into every request; None takes a field out, as in {"max_tokens": None, "max_completion_tokens": 1}."""

    def __post_init__(self) -> None:
        require_integers(self)
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
        """Returns the address of requests."""
        return self.base_url.rstrip("/") + "/chat/completions"

    @property
    def pooling_urls(self) -> tuple[str, str]:
        """Returns the address of vLLM's pooling, which stands beside its /v1 and not in it, and where a proxy may have put it."""
        base = self.base_url.rstrip("/")
        plain = re.sub(r"/v\d+[a-z0-9]*$", "", base)
        return f"{plain}/pooling", f"{base}/pooling" if plain != base else f"{base}/v1/pooling"

    @property
    def versioned_url(self) -> str:
        """Returns the address with a version where it was forgotten; empty if it was not."""
        if re.search(r"/v\d+[a-z0-9]*(/|$)", urlsplit(self.base_url).path):
            return ""
        return self.base_url.rstrip("/") + "/v1/chat/completions"


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
        """Returns the cost in the currency of the prices; None without prices."""
        if self.price_per_million is None:
            return None
        return (self.prompt_tokens * self.price_per_million[0] + self.completion_tokens * self.price_per_million[1]) / 1e6

    def __str__(self) -> str:
        rate = f", {self.answers / self.seconds:.1f} a second" if self.seconds else ""
        cost = "" if self.cost is None else f", cost {self.cost:.4g}" + (" or more" if self.unmetered else "")
        unmetered = f" ({self.unmetered} answers did not say)" if self.unmetered else ""
        tokens = f"{self.prompt_tokens} + {self.completion_tokens} tokens{unmetered}"
        return f"{self.answers} answers, {self.requests} requests, {self.retries} retries, {tokens}, {self.seconds:.1f} s{rate}{cost}"


def total_usage(usages: Sequence[Usage], *, seconds: float) -> Usage:
    """Returns what several processes asked, as one. seconds: of the clock, since they asked at the same time."""
    names = ("requests", "answers", "retries", "prompt_tokens", "completion_tokens", "unmetered", "waited_s")
    sums = {name: sum(getattr(each, name) for each in usages) for name in names}
    return Usage(**sums, seconds=seconds, price_per_million=next((each.price_per_million for each in usages), None))


def backoff_s(config: ServerConfig, attempt: int, rng: np.random.Generator, *, after_s: float = 0.0) -> float:
    """Returns the seconds to wait after this failed attempt (from 0): `after_s` plus a jittered, doubling back-off of at most 30 s."""
    return after_s + min(config.backoff_s * 2.0**attempt, 30.0) * float(rng.uniform(0.5, 1.0))


def retry_after_s(header: str | None, now: datetime) -> float:
    """Returns `Retry-After`, in seconds or a date, as seconds from now; 0 if there is none or it cannot be read."""
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
    """An HTTP client with its pool of connections, used from one event loop.

    addresses: where requests go, and where they go if nobody answers there; None: those of chat/completions. gate: what each try goes
    through; None: the one that this process uses (`scale.pass_through`), else one of its own with `config.concurrency` places.
    """

    def __init__(self, config: ServerConfig, *, addresses: tuple[str, str] | None = None, gate: Gate | None = None) -> None:
        require("httpx2")
        import httpx2

        key = _key(config)
        self.config = config
        self._gate = gate or new_gate(config.concurrency)
        self.url, self._other = addresses or (config.url, config.versioned_url)
        """Where requests go, as far as is known, and the other address that may be meant."""
        self.moved = ""
        """Why they do not go to the address given, empty if they do."""
        self._http = httpx2.AsyncClient(
            headers={"Accept-Encoding": "gzip", **({"Authorization": f"Bearer {key}"} if key else {})},
            limits=httpx2.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency),
            timeout=None,  # one clock for the whole try, in _once: httpx2's own starts anew with every byte
            follow_redirects=False,
            **client_settings(config.url),
        )
        self._usage = Usage(price_per_million=config.price_per_million)
        self._busy, self._since = 0, 0.0

    @property
    def usage(self) -> Usage:
        """Returns the counters as they are now."""
        running = time.perf_counter() - self._since if self._busy else 0.0
        return replace(self._usage, seconds=self._usage.seconds + running)

    async def close(self) -> None:
        await self._http.aclose()

    async def post(self, body: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Returns the reply to this request, as JSON. ServerError if it is refused or no try is left."""
        content = json.dumps(body, allow_nan=False).encode()
        if not self._busy:
            self._since = time.perf_counter()
        self._busy += 1
        try:
            return await self._addressed(content, rng)
        finally:
            self._busy -= 1
            if not self._busy:
                self._count(seconds=time.perf_counter() - self._since)

    async def _addressed(self, content: bytes, rng: np.random.Generator) -> dict[str, Any]:
        """Asks the given address. If nobody answers there, asks the other, such as its /v1, and keeps to it from then on."""
        url, versioned = self.url, self._other
        try:
            return await self._patiently(url, content, rng)
        except ServerError as error:
            if not error.elsewhere or not versioned or url == versioned:
                raise
            first = error
        try:
            reply = await self._patiently(versioned, content, rng)
        except ServerError as error:
            if error.elsewhere:
                first.amend(f"{first}; {versioned} was tried too")
                raise first from first.__cause__
            error.amend(f"{error}; it was asked since {first}")
            raise
        self.url, self.moved = versioned, f"asked at {versioned}, since {first}"
        return reply

    async def _patiently(self, url: str, content: bytes, rng: np.random.Generator) -> dict[str, Any]:
        # A server that answers slowly and badly would otherwise hold a run for `retries` time-outs.
        late, waited, until = 0, 0.0, time.monotonic() + 5 * self.config.timeout_s
        for attempt in range(self.config.retries + 1):
            came = time.monotonic()
            ticket = await self._gate.enter()
            until += time.monotonic() - came  # that others are ahead of it, or were told to wait, is no fault of this request
            try:
                return await self._in_place(ticket, url, content)
            except _AgainError as problem:
                late += problem.late
                last = attempt == self.config.retries or late == TIMEOUTS or time.monotonic() > until
                if last or waited + problem.after_s > self.config.longest_wait_s:
                    patience = f"{attempt + 1} tries" if last else f"it asks to wait {problem.after_s:.0f} s"
                    problem.error.amend(f"{problem.error} ({patience})")
                    raise problem.error from problem.__cause__
                wait = backoff_s(self.config, attempt, rng, after_s=problem.after_s)
                waited += problem.after_s
            self._count(retries=1, waited_s=wait)
            await asyncio.sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _in_place(self, ticket: str, url: str, content: bytes) -> dict[str, Any]:
        """Makes one try in a place of the gate, and gives it back. A server that asks for more patience than there is closes no gate."""
        outcome: Outcome = "failed"
        pause_s = 0.0
        try:
            reply = await self._once(url, content)
            outcome = "answered"
            return reply
        except _AgainError as problem:
            if problem.busy:
                outcome, pause_s = "busy", problem.after_s if problem.after_s <= self.config.longest_wait_s else 0.0
            raise
        finally:
            await self._gate.leave(ticket, outcome, pause_s)

    async def _once(self, url: str, content: bytes) -> dict[str, Any]:
        import httpx2

        self._count(requests=1)
        try:
            async with asyncio.timeout(self.config.timeout_s) as clock:

                def started() -> None:
                    clock.reschedule(min(clock.when() or math.inf, asyncio.get_running_loop().time() + BODY_S))

                async with self._http.stream("POST", url, content=content, headers={"Content-Type": "application/json"}) as response:
                    fine = 200 <= response.status_code < 300
                    read = await read_body(response, started=started) if fine else await read_body(
                        response, most=MOST_OF_ERROR, whole=False, started=started
                    )  # fmt: skip
        except TimeoutError as error:
            raise _AgainError(UnreachableError(f"{url}: no answer within {self.config.timeout_s:g} s"), late=True) from error
        except UnboundedError as error:
            raise MalformedError(f"{url} sent a reply that does not end: {error}") from error
        except PackedError as error:
            raise _AgainError(MalformedError(f"{url} sent a reply that cannot be unpacked: {error}")) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            reason = str(error) or type(error).__name__
            raise _AgainError(UnreachableError(f"{url}: {quoted(self._clean(reason))}")) from error
        if not fine:
            raise self._refusal(url, response, problem_of(response.status_code, read))
        return self._reply(url, response, read)

    def _reply(self, url: str, response: httpx2.Response, content: bytes) -> dict[str, Any]:
        try:
            reply = parse(content)
        except ValueError as error:  # broken JSON or broken UTF-8
            start = quoted(self._clean(content[:4000].decode("utf-8", "replace")), 80)
            words = f"{url} answered with something that is not JSON; it begins '{start}'{self._hint()}"
            if "json" in response.headers.get("Content-Type", ""):
                raise _AgainError(MalformedError(words)) from error  # cut on the way
            raise MalformedError(words, elsewhere=True) from error
        if (inside := problem_inside(reply)) is not None:
            raise self._refusal(url, response, inside)
        if not isinstance(reply, dict):
            raise MalformedError(f"{url} answered with a JSON {type(reply).__name__}, not an object")
        usage = reply.get("usage")
        counts = [usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")]
        valid = [count for count in counts if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < COUNTABLE]
        prompt, completion = valid if len(valid) == 2 else (0, 0)
        self._count(answers=1, prompt_tokens=prompt, completion_tokens=completion, unmetered=0 if len(valid) == 2 else 1)
        return reply

    def _refusal(self, url: str, response: httpx2.Response, problem: Problem) -> RefusedError | _AgainError:
        status, in_body = problem.status, 200 <= response.status_code < 300
        words = quoted(self._clean(problem.words))
        where = f"{response.status_code} with an error in it" + (f" (code {status})" if status != response.status_code else "")
        message = f"{url} answered {where if in_body else f'{status} {quoted(response.reason_phrase, 60)}'}: {words}"
        if problem.passes:
            after_s = retry_after_s(response.headers.get("Retry-After"), datetime.now(UTC))
            return _AgainError(UnreachableError(message), after_s=after_s, busy=status in BUSY or after_s > 0)
        wrong_place = status in (404, 405) or (
            in_body and status == 200 and re.search(r"endpoint|route|path|not found|method", words, re.IGNORECASE)
        )
        if status in (401, 403):
            state = "which is set" if os.environ.get(self.config.api_key_env) else "which is not set"
            message += f"; the key is read from ${self.config.api_key_env}, {state}"
        if status == 404:
            message += f"; is base_url right (it usually ends in /v1), and does the server have the model '{self.config.model}'?"
        elif wrong_place:
            message += self._hint()
        if 300 <= status < 400:
            to = quoted(self._clean(response.headers.get("Location", "")), 200)
            message += f"; it points to '{to}', which is not followed: if it is right, give it as base_url"
        kind = TooLongError if problem.too_long else RefusedError
        return kind(message, status=status, words=words, param=problem.param, elsewhere=bool(wrong_place))

    def _hint(self) -> str:
        return "; is base_url right? It usually ends in /v1" if self._other else ""

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
