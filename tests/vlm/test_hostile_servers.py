"""Servers that mean harm, or are broken past all words: whatever bytes come, a question ends soon, in little memory, in one line.

The bytes are drawn from a seed. `MILEPOST_CHAOS=100` draws a hundred times as many (`make chaos`); a failure names its number, which
`MILEPOST_CHAOS_ONLY=NUMBER` plays alone.
"""

from __future__ import annotations

import copy
import gzip
import json
import os
import resource
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise

import numpy as np
import pytest

from milepost.annotation.reply import parse_reply
from milepost.annotation.subtasks import SubtaskList
from milepost.vlm import transport
from milepost.vlm.replies import MOST
from milepost.vlm.server import ChatClient
from milepost.vlm.transport import MalformedError, ServerConfig, ServerError, UnreachableError

ROUNDS = 40 * int(os.environ.get("MILEPOST_CHAOS", "1"))
ONLY = os.environ.get("MILEPOST_CHAOS_ONLY")
SECONDS = 20.0
"""A question may take so long, with time-outs of a fifth of a second; on an idle machine it takes one or two."""
MEGABYTES = 400
"""By so much a question may raise the peak of memory."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-0123456789")
    monkeypatch.setattr(transport, "BODY_S", 0.2)


@contextmanager
def raw_server(parts: list[bytes], *, pause_s: float = 0.0, endless: bool = False) -> Iterator[str]:
    """Reads a request to its end, sends these parts whatever was asked, again and again if `endless`, and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(10)
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            head, _, rest = request.partition(b"\r\n\r\n")
            missing = int(head.lower().split(b"content-length:")[1].split()[0]) - len(rest)
            while missing > 0:
                missing -= len(connection.recv(65536))
            for part in parts:
                connection.sendall(part)
                over.wait(pause_s)
            while endless and not over.is_set():
                connection.sendall(parts[-1])
                over.wait(pause_s)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def ask(url: str, timeout_s: float = 0.2) -> ServerError | None:
    """What comes of both kinds of question: an answer (None) or a ServerError, in time and memory, on one printable line, keys kept in."""
    settings = {"timeout_s": timeout_s, "backoff_s": 0.001, "longest_wait_s": 0.05, "retries": 2, "concurrency": 2}
    error: ServerError | None = None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    with ChatClient(ServerConfig(url, "tiny", **settings)) as server:
        with suppress(ServerError):
            server.next_token(["a"])
        try:
            (reply,) = server.complete(["a"], json_schema={"type": "object"})
            parse_reply(reply.text, cut=reply.cut)
        except ServerError as problem:
            error = problem
        str(server.usage)
    assert str(error).isprintable()
    assert len(str(error)) < 1500
    assert "very-secret" not in str(error)
    assert time.perf_counter() - begun < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES
    return error


def http(body: bytes, *, status: str = "200 OK", length: int | None = None, headers: str = "") -> bytes:
    lines = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n{headers}"
    return f"{lines}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode("latin-1") + body


GOOD = json.dumps(
    {"choices": [{"finish_reason": "stop", "message": {"content": "x"}, "logprobs": {"content": [{"token": "True", "logprob": -0.5}]}}]}
).encode()
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


def bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    piece = b" " * 2**20
    return b"".join([packer.compress(GOOD), *(packer.compress(piece) for _ in range(megabytes)), packer.flush()])


def test_a_good_answer_is_one() -> None:
    for packed, name in ((GOOD, "identity"), (gzip.compress(GOOD), "gzip"), (zlib.compress(GOOD), "deflate")):
        with raw_server([http(packed, headers=f"Content-Encoding: {name}\r\n")]) as url:
            assert ask(url) is None


def test_spaces_that_keep_a_connection_alive_are_no_body_yet() -> None:
    with raw_server([b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"\n", b"  \n", GOOD], pause_s=0.03) as url:
        assert ask(url, timeout_s=10.0) is None


@pytest.mark.parametrize("spaces", [True, False])
def test_a_body_that_never_ends_is_left(spaces: bool) -> None:
    piece = b"100000\r\n" + (b" " if spaces else b"x") * 0x100000 + b"\r\n"
    with raw_server([CHUNKED, piece], endless=True) as url:
        error = ask(url)
    assert isinstance(error, MalformedError | UnreachableError)  # by size, or by time where the machine is slow


def test_a_reply_that_unpacks_to_half_a_gigabyte_is_left() -> None:
    packed = bomb(500)
    assert len(packed) < 1_000_000
    with raw_server([http(packed, headers="Content-Encoding: gzip\r\n")]) as url:
        assert isinstance(ask(url, timeout_s=10.0), MalformedError)


def test_packings_that_nobody_asked_for_are_refused() -> None:
    for packing in ("br", "zstd", "gzip, gzip", "x" * 500):
        with raw_server([http(GOOD, headers=f"Content-Encoding: {packing}\r\n")]) as url:
            assert "packed as" in str(ask(url))


@pytest.mark.parametrize("parts", [[CHUNKED, b"1\r\nx\r\n"], [b"H", b"T"], [b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"]])
def test_one_that_drips_is_given_up_after_two_tries(parts: list[bytes]) -> None:
    with raw_server(parts, pause_s=0.05, endless=True) as url:
        error = ask(url)
    assert isinstance(error, UnreachableError | MalformedError)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"choices": ' + b"[" * 90 + b"]" * 90 + b"}",
        b'\\"' * 200_000,
        b'{"choices": [{"message": {"content": ' + b"1" * 100_000 + b"}}]}",
        b'{"usage": {"prompt_tokens": ' + b"9" * 4000 + b', "completion_tokens": 1}, ' + GOOD[1:],
        b'{"usage": {"prompt_tokens": -7, "completion_tokens": 1e308}, ' + GOOD[1:],
        b'{"error": ' + b'{"error": ' * 40 + b"1" + b"}" * 41,
        b'{"error": {"message": "' + b"x" * 3_000_000 + b'"}}',
        b"x" * (MOST + 1),
        b"\xff\xfe\x00",
        b"",
        b"null",
    ],
    ids=lambda content: str(content[:12]),
)
def test_json_made_to_do_harm(content: bytes) -> None:
    with raw_server([http(content)]) as url:
        ask(url)


def test_an_answer_of_brackets_and_a_thousand_stages_is_read_or_refused() -> None:
    stages = json.dumps({"subtasks": [{"name": f"s{n}", "start": n, "end": n + 1} for n in range(5000)]})
    for words in ("[" * 50_000, '{"subtasks": [' * 3000, stages, "\x1b[2J" * 1000, '\\"' * 50_000):
        begun = time.perf_counter()
        reading = parse_reply(words)
        assert reading.labels or reading.faults[0].message.isprintable()
        assert time.perf_counter() - begun < SECONDS
    assert SubtaskList.from_flag("a")


# Seeded


def mutated(rng: np.random.Generator) -> tuple[list[bytes], dict]:
    """A reply that was good, and what became of it on the way; how it is sent."""
    body = bytearray(GOOD)
    kind = rng.choice(["flip", "cut", "swap", "values", "headers", "status", "lengths", "chunks", "packed", "error"])
    whole = None
    if kind == "flip":
        for place in rng.integers(0, len(body), rng.integers(1, 20)):
            body[place] = rng.integers(256)
    elif kind == "cut":
        whole = http(bytes(body))[: rng.integers(0, 200)]
    elif kind == "swap":
        a, b = sorted(rng.integers(0, len(body), 2))
        body = body[b:] + body[a:b] + body[:a]
    elif kind == "values":
        odd = [None, True, -1, 1e308, "x" * 1000, [], {}, [[[]]], "\x1b[31m", -9999, {"a": {"b": []}}, [{"token": 3}], "NaN"]
        tree = json.loads(GOOD)
        for _ in range(rng.integers(1, 4)):
            node, keys = tree, list(tree)
            while keys:
                key = keys[rng.integers(len(keys))]
                child = node[key]
                if isinstance(child, dict | list) and child and rng.random() < 0.8:
                    node, keys = child, list(child) if isinstance(child, dict) else list(range(len(child)))
                    continue
                node[key] = copy.deepcopy(odd[rng.integers(len(odd))])
                break
        body = bytearray(json.dumps(tree).encode())
    elif kind == "headers":
        odd_headers = [
            "Content-Length: 5\r\n", "Content-Length: -1\r\n", "Transfer-Encoding: chunked\r\n", "Content-Encoding: gzip\r\n", ": \r\n",
            "Retry-After: 1e300\r\n", "Retry-After: nan\r\n", f"X: {'y' * 70_000}\r\n", "Location: http://a.invalid/\r\n", "X: b\r\n" * 300,
        ]  # fmt: skip
        whole = http(bytes(body), headers="".join(rng.choice(odd_headers, rng.integers(1, 3))))
    elif kind == "status":
        statuses = ["999 x", "100 Continue", "204 No", "206 Part", "304 Same", "401 \x07", "429 busy", "500 \xff", "-1 x", "200", "0 0"]
        status = rng.choice(statuses)
        whole = http(bytes(body), status=str(status), headers="Retry-After: 99999\r\n" if rng.random() < 0.5 else "")
    elif kind == "lengths":
        whole = http(bytes(body), length=int(rng.choice([0, 1, len(body) - 1, len(body) + 1, 2**31, 2**63])))
    elif kind == "chunks":
        sizes = [b"0", b"fffffffffffffffff", b"-1", b"zz", b"5;x=y", b"10000000"]
        whole = CHUNKED + b"".join(sizes[n] + b"\r\n" + bytes(body[:8]) + b"\r\n" for n in rng.integers(len(sizes), size=3))
    elif kind == "packed":
        packed = bytearray(gzip.compress(GOOD))
        packed[rng.integers(len(packed))] ^= 1 << rng.integers(8)
        whole = http(bytes(packed), headers="Content-Encoding: gzip\r\n")
    else:
        codes = [429, "429", "rate_limit", 400, None, [], {}, 1e9, "\x1b[2J", -5]
        message = ["x", "\x07", None, {"a": 1}, 7][rng.integers(5)]
        content = {"error": {"message": message, "code": codes[rng.integers(len(codes))], "param": "seed"}}
        body = bytearray(json.dumps([content] if rng.random() < 0.3 else content).encode())
    sent = http(bytes(body)) if whole is None else whole
    cuts = sorted(rng.integers(0, len(sent) + 1, 2)) if rng.random() < 0.3 else []
    places = [0, *cuts, len(sent)]
    return [sent[a:b] for a, b in pairwise(places)], {"pause_s": float(rng.choice([0.0, 0.001]))}


@pytest.mark.parametrize("number", [int(ONLY)] if ONLY else range(ROUNDS))
def test_whatever_comes_the_question_ends(number: int) -> None:
    parts, manner = mutated(np.random.default_rng((20260719, number)))
    with raw_server(parts, **manner) as url:
        ask(url)
