"""What a client asks of a reward server, whatever carries it: the calls, and what their answers mean."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Shaped

from milepost.core import DataError, shown
from milepost.online.sessions import FrameProgress, Observation
from milepost.online.wire import from_json, json_text, pack_episode, pack_observations

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0


@dataclass(frozen=True, eq=False)
class Call:
    """One request. fields: what travels as JSON, None for nothing. content: what travels with arrays, in place of fields."""

    method: str
    path: str
    fields: Mapping[str, Any] | None = None
    content: bytes | None = None


HEALTH, MODEL_INFO = Call("GET", "/health"), Call("GET", "/model_info")


class LostError(DataError):
    """The connection to the server broke, or there was none. The call may be sent again."""


def begin_call(task: str, fps: float, session: str | None) -> Call:
    """Returns the call that begins an attempt."""
    fields = {"task": task, "fps": fps, "session": session, "key": secrets.token_hex(8)}
    json_text(fields)  # before a connection is made, so that what cannot be sent is named by its field
    return Call("POST", "/sessions", fields)


def end_call(session: str) -> Call:
    """Returns the call that ends an attempt."""
    return Call("DELETE", f"/sessions/{_quoted(session, 'session')}")


def step_call(observations: Sequence[Observation]) -> Call:
    """Returns the call that shows the newest frames."""
    return Call("POST", "/step", content=pack_observations(observations, secrets.token_hex(8)))


def relabel_call(
    images: Mapping[str, Shaped[np.ndarray, "..."] | Sequence[bytes]],
    state: Shaped[np.ndarray, "..."] | None,
    task: str,
    fps: float,
    is_terminal: bool,
) -> Call:
    """Returns the call that hands in a whole episode, as `pack_episode` packs it."""
    body = pack_episode(images, state, task=task, fps=fps, is_terminal=is_terminal, key=secrets.token_hex(8))
    return Call("POST", "/relabel", content=body)


def relabelled_call(ticket: str) -> Call:
    """Returns the call that looks for the results of an episode."""
    return Call("GET", f"/relabel/{_quoted(ticket, 'ticket')}")


def _quoted(name: Any, kind: str) -> str:
    """Returns a name as a part of a path. DataError if it is none that a server gives."""
    if not isinstance(name, str) or name in ("", ".", ".."):
        raise DataError(f"a {kind} is the text that the server answered with, got {shown(name)}")
    return quote(name, safe="")


def results_of(fields: Mapping[str, Any]) -> list[FrameProgress]:
    """Returns the results in the answer to a `step_call`."""
    return [from_json(each) for each in fields["results"]]


def episode_results_of(fields: Mapping[str, Any]) -> list[FrameProgress] | None:
    """Returns the results in the answer to a `relabelled_call`; None while the episode waits."""
    return results_of(fields) if fields["status"] == "done" else None


def answer_of(url: str, call: Call, status: int, fields: Any) -> dict[str, Any]:
    """Returns the fields of an answer. DataError if it is a refusal, or not what a milepost server answers."""
    if not isinstance(fields, dict):
        raise DataError(f"{url}{call.path} answered no JSON object (status {status}): is it a milepost server?")
    if status not in (200, 202):
        raise DataError(f"the reward server refused ({status}): {fields.get('error', 'it does not say why')}")
    return fields


def pauses(reconnect_s: float) -> Iterator[float]:
    """Yields how long to wait before each new try of a call whose connection broke: at once, and then for so many seconds in all."""
    until, pause = time.monotonic() + reconnect_s, _FIRST_PAUSE_S
    yield 0.0
    while time.monotonic() < until:
        yield min(pause, max(0.0, until - time.monotonic()))
        pause = min(2 * pause, _LONGEST_PAUSE_S)
