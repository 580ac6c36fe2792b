"""The client against a real HTTP server on loopback: exact numbers, order, bounds, and everything that can go wrong on the way."""

from __future__ import annotations

import inspect
import logging
import math
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pytest

from milepost.core.errors import DataError
from milepost.testing import ChatServer, Fault, chat_server, render
from milepost.vlm import transport
from milepost.vlm.frame_parts import frame_parts, text_part
from milepost.vlm.server import UNFINISHED_TURN, ChatClient, Reply
from milepost.vlm.transport import MalformedError, NoLogprobsError, RefusedError, ServerConfig, UnreachableError, backoff_s, retry_after_s

KEY = "sk-very-secret-0123456789"
PROMPTS = [f"Is the drawer open after step {number}? The answer is:" for number in range(24)]


@pytest.fixture(autouse=True)
def no_key(monkeypatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def config(server: ChatServer, **settings) -> ServerConfig:
    return ServerConfig(server.url, "tiny", **{"timeout_s": 20.0, "backoff_s": 0.001, **settings})


@pytest.fixture
def fake() -> Iterator[ChatServer]:
    with chat_server() as server:
        yield server


def truth(server: ChatServer, prompt: str) -> dict[str, float]:
    return server.model.logprobs(render({"messages": [{"role": "user", "content": prompt}]}))


def check(server: ChatServer, scores, prompts=PROMPTS, listed: int = 20) -> int:
    """Every number is the model's own or a bound that holds. Returns how many were bounds."""
    bounds = 0
    for score, prompt in zip(scores, prompts, strict=True):
        true = truth(server, prompt)
        shown = sorted(true.values(), reverse=True)[:listed]
        for answer, found in score.items():
            if true[answer] in shown:
                assert (found.logprob, found.token, found.is_bound) == (true[answer], answer, False)
            else:
                bounds += 1
                assert math.isnan(found.logprob)
                assert found.is_bound
                assert true[answer] <= found.bound <= shown[-1]
    return bounds


def test_numbers_are_the_models_own_and_in_order(fake):
    seen: list[tuple[int, int]] = []
    with ChatClient(config(fake)) as server:
        scores = server.next_token(PROMPTS, on_progress=lambda done, total: seen.append((done, total)))
    assert 0 < check(fake, scores) < 2 * len(PROMPTS)
    assert len({truth(fake, prompt)["True"] for prompt in PROMPTS}) == len(PROMPTS)  # no two prompts can be mistaken for each other
    assert seen == [(done, len(PROMPTS)) for done in range(1, len(PROMPTS) + 1)]
    assert all(body["max_tokens"] == 1 and body["temperature"] == 0 and body["top_logprobs"] == 20 for body in fake.bodies)
    assert fake.authorizations == [None] * len(PROMPTS)


def test_the_spelling_with_a_space_only_if_asked(fake):
    with ChatClient(config(fake)) as server:
        exact = server.next_token(PROMPTS)
        likelier = server.next_token(PROMPTS, spelling="likelier")
    for prompt, one, two in zip(PROMPTS, exact, likelier, strict=True):
        true = truth(fake, prompt)
        assert one["True"].token in ("True", None)
        assert set(one["True"].spellings) <= {"True", " True"}
        if two["True"].token:
            assert two["True"].logprob == true[two["True"].token] == max(two["True"].spellings.values())


def test_an_unfinished_turn_of_the_user_with_frames(fake, rng):
    frames = np.broadcast_to(rng.integers(0, 32, (4, 1, 1, 3), dtype=np.uint8) * 8, (4, 24, 32, 3))
    content = [*frame_parts(frames, times_s=[0.0, 0.5, 1.0, 1.5]), text_part("The drawer is open. The answer is:")]
    message = {"role": "user", "content": content}
    with ChatClient(config(fake, top_logprobs=20)) as server:
        (open_turn,) = server.next_token([[message]], answers=["t1", "t2", "t3", "True"], unfinished_turn=True)
        (closed_turn,) = server.next_token([[message]], answers=["t1", "t2", "t3", "True"])
    text = render({"messages": [message], **UNFINISHED_TURN})
    assert text.endswith("The answer is:")
    assert "Frame 2, 0.50 s:[(24, 32, 3) [" in text
    for scores, seen in ((open_turn, text), (closed_turn, text + "<end><assistant>")):
        true = fake.model.logprobs(seen)
        assert all(found.is_bound or found.logprob == true[answer] for answer, found in scores.items())
        assert all(true[answer] <= found.bound for answer, found in scores.items())
    assert open_turn["True"] != closed_turn["True"]


def test_requests_are_parallel_and_bounded():
    with chat_server(rendezvous=4) as fake:  # nobody is answered before four are here
        with ChatClient(config(fake, concurrency=4)) as server:
            check(fake, server.next_token(PROMPTS))
        assert fake.most == 4
        assert fake.connections == 4  # and each connection is used again


def test_threads_share_the_bound(fake):
    found: dict[int, list[Reply]] = {}
    with ChatClient(config(fake, concurrency=2)) as server:

        def ask(number: int) -> None:
            found[number] = server.complete([f"{number}.{part}" for part in range(4)])

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.usage.answers == 20
    assert all(found[n] == [Reply(f"seen: <user>{n}.{p}<end><assistant>", "stop") for p in range(4)] for n in range(5))
    assert fake.most <= 2


def test_usage_and_cost(fake):
    with ChatClient(config(fake, price_per_million=(2.0, 10.0))) as server:
        server.next_token(PROMPTS)
        usage = server.usage
        tokens = sum(len(render(body).encode()) for body in fake.bodies)
        assert (usage.requests, usage.answers, usage.retries, usage.waited_s) == (24, 24, 0, 0.0)
        assert (usage.prompt_tokens, usage.completion_tokens, usage.unmetered) == (tokens, 24, 0)
        assert usage.cost == pytest.approx((tokens * 2 + 24 * 10) / 1e6)
        assert usage.seconds > 0
        assert "24 answers" in str(usage)
        fake.usage = False
        server.complete(["and now?"])
        assert server.usage.unmetered == 1
        assert "or more" in str(server.usage)


# What passes when tried again


def first(*faults: Fault):
    return lambda number, body: faults[number] if number < len(faults) else None


BAD = Fault(500, "out of cuda")


@pytest.mark.parametrize(
    "faults",
    [
        [BAD, BAD],
        [Fault(502), Fault(503), Fault(504)],
        [Fault(429, "slow down", {"Retry-After": "0.05"})],
        [Fault(cut=0), Fault(cut=40)],
        [Fault(raw='{"choices": [{"logp')],
    ],
)
def test_what_passes_is_tried_again(faults):
    with chat_server(script=first(*faults)) as fake, ChatClient(config(fake)) as server:
        check(fake, server.next_token(PROMPTS))
        assert server.usage.retries == len(faults)
        assert server.usage.requests == len(faults) + len(PROMPTS) == len(fake.bodies)
        assert server.usage.answers == len(PROMPTS)


def test_retry_after_is_honoured_or_too_long():
    limited = Fault(429, "slow down", {"Retry-After": "0.3"})
    with chat_server(script=first(limited)) as fake, ChatClient(config(fake)) as server:
        server.next_token(PROMPTS[:1])
        assert 0.3 <= server.usage.waited_s < 0.301
        assert server.usage.seconds >= 0.3
    limited.headers["Retry-After"] = "3600"
    with chat_server(script=first(limited)) as fake, ChatClient(config(fake)) as server:
        with pytest.raises(UnreachableError, match=r"429 .*slow down \(it asks to wait 3600 s\)"):
            server.next_token(PROMPTS[:1])
        assert len(fake.bodies) == 1


def test_retry_after_reads_seconds_dates_and_nonsense():
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert retry_after_s("7", now) == 7
    assert retry_after_s("Thu, 01 Jan 2026 12:01:30 GMT", now) == 90
    assert [retry_after_s(text, now) for text in (None, "", "soon", "nan", "-3", "Thu, 01 Jan 2026 11:00:00 GMT")] == [0] * 6


def test_back_off_doubles_and_the_generator_decides():
    plain = ServerConfig("http://x/v1", "tiny")
    waits = [backoff_s(plain, attempt, np.random.default_rng(attempt)) for attempt in range(12)]
    assert all(0.5 <= wait / min(0.5 * 2**attempt, 30) <= 1 for attempt, wait in enumerate(waits))
    assert backoff_s(plain, 0, np.random.default_rng(3), after_s=9.0) == 9.0 + backoff_s(plain, 0, np.random.default_rng(3))


def test_same_generator_same_waits(monkeypatch):
    def waits(seed: int) -> list[float]:
        waited: list[float] = []
        plain = backoff_s

        def noted(*arguments, **options) -> float:
            waited.append(plain(*arguments, **options))
            return waited[-1]

        monkeypatch.setattr(transport, "backoff_s", noted)
        failed: set[str] = set()

        def script(number, body):
            text = body["messages"][0]["content"]
            if text in failed:
                return None
            failed.add(text)
            return BAD

        with chat_server(script=script) as fake, ChatClient(config(fake, concurrency=6), rng=np.random.default_rng(seed)) as server:
            server.next_token(PROMPTS[:8])
        monkeypatch.setattr(transport, "backoff_s", plain)
        return sorted(waited)

    assert waits(1) == waits(1) != waits(2)
    assert len(set(waits(1))) == 8  # each request has its own


# What does not


def test_no_try_is_left():
    with chat_server(script=lambda number, body: BAD) as fake, ChatClient(config(fake, retries=2, concurrency=1)) as server:
        with pytest.raises(UnreachableError, match=r"500 .*out of cuda \(3 tries\)") as caught:
            server.next_token(PROMPTS)
        assert fake.url in str(caught.value)
        assert len(fake.bodies) == 3


def test_a_slow_server_is_given_up():
    never = threading.Event()
    with chat_server(script=lambda number, body: Fault(wait=never)) as fake:
        with (
            ChatClient(config(fake, timeout_s=0.1, retries=1)) as server,
            pytest.raises(UnreachableError, match=r"no answer within 0.1 s \(2 tries\)"),
        ):
            server.next_token(PROMPTS[:2])
        assert fake.disconnected.wait(5)
        never.set()


def test_nobody_there():
    with chat_server() as fake:
        there = config(fake, retries=1)
    with ChatClient(there) as server, pytest.raises(UnreachableError, match=r"chat/completions: .*\(2 tries\)"):
        server.next_token(PROMPTS[:1])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "huge"}, "404 .*The model `huge` does not exist"),
        ({"base_url": "/v2"}, "404 .*Not Found; is base_url right"),
    ],
)
def test_a_refusal_is_final(fake, settings, said):
    settings = {name: fake.url[:-3] + value if name == "base_url" else value for name, value in settings.items()}
    wrong = ServerConfig(**{"base_url": fake.url, "model": "tiny", **settings})
    with ChatClient(wrong) as server, pytest.raises(RefusedError, match=said) as caught:
        server.next_token(PROMPTS[:1])
    assert caught.value.status == 404
    assert wrong.url in str(caught.value)
    assert isinstance(caught.value, DataError)
    assert len(fake.bodies) == 1


def test_one_refusal_ends_the_call():
    with chat_server(script=first(Fault(400, "the prompt is too long"))) as fake, ChatClient(config(fake, concurrency=1)) as server:
        with pytest.raises(RefusedError, match=r"400 .*the prompt is too long"):
            server.next_token(PROMPTS)
        assert len(fake.bodies) == 1
        check(fake, server.next_token(PROMPTS))  # and the server can be asked again


@pytest.mark.parametrize(
    ("fault", "error", "tries"),
    [
        (Fault(raw="<html>Welcome</html>", content_type="text/html"), MalformedError, 1),
        (Fault(raw='{"choices": [{'), MalformedError, 2),
        (Fault(raw="[1, 2]"), MalformedError, 1),
        (Fault(raw='{"error": "no"}'), RefusedError, 1),
        (Fault(raw='{"choices": []}'), MalformedError, 1),
        (Fault(raw='{"choices": [{"message": {"content": "True"}}]}'), NoLogprobsError, 1),
        (Fault(raw='{"choices": [{"logprobs": {"content": [{"token": "True"}]}}]}'), MalformedError, 1),
        (Fault(raw='{"choices": [{"logprobs": {"content": [{"token": "True", "logprob": NaN}]}}]}'), MalformedError, 1),
        (Fault(raw='{"choices": [{"logprobs": [1]}]}'), MalformedError, 1),
    ],
)
def test_what_is_no_answer_has_a_name(fault, error, tries):
    with chat_server(script=lambda number, body: fault) as fake, ChatClient(config(fake, retries=1)) as server:
        with pytest.raises(error, match=r"127\.0\.0\.1"):
            server.next_token(PROMPTS[:1])
        assert len(fake.bodies) == tries


# What a server does not take


def test_fewer_log_probabilities_are_asked_for_and_remembered():
    with chat_server(max_logprobs=5) as fake, ChatClient(config(fake, concurrency=6)) as server:
        bounds = check(fake, server.next_token(PROMPTS), listed=5)
        assert server.top_logprobs == 5
        assert bounds > 0
        before = len(fake.bodies)
        server.next_token(PROMPTS)
        assert len(fake.bodies) == before + len(PROMPTS)


def test_a_server_without_log_probabilities():
    refusal = Fault(400, "logprobs are not supported")
    with chat_server(script=lambda number, body: refusal) as fake, ChatClient(config(fake)) as server:
        with pytest.raises(RefusedError, match="logprobs are not supported"):
            server.next_token(PROMPTS[:1])
        assert [body["top_logprobs"] for body in fake.bodies] == [20, 10, 5, 2, 1]


SCHEMA = {"type": "object", "properties": {"stage": {"enum": ["reach", "pull"]}}}


@pytest.mark.parametrize("takes", [True, False])
def test_a_schema_is_sent_until_it_is_refused(fake, takes):
    fake.takes_schema = takes
    with ChatClient(config(fake, concurrency=1)) as server:
        replies = server.complete(["a", "b", "c"], json_schema=SCHEMA, seed=3)
        assert server.takes_schema is takes
    assert [reply.text for reply in replies] == [f"seen: <user>{word}<end><assistant>" for word in "abc"]
    assert ["response_format" in body for body in fake.bodies] == ([True] * 3 if takes else [True, False, False, False])
    if takes:
        assert fake.bodies[0]["response_format"]["json_schema"]["schema"] == SCHEMA
        assert fake.bodies[0]["seed"] == 3


def test_a_refusal_for_another_reason_does_not_blame_the_schema():
    with chat_server(script=lambda number, body: Fault(400, "too long")) as fake, ChatClient(config(fake)) as server:
        with pytest.raises(RefusedError, match="too long"):
            server.complete(["a"], json_schema=SCHEMA)
        assert server.takes_schema


def test_replies_that_are_cut_or_refused():
    raw = '{"choices": [{"finish_reason": "%s", "message": {"content": %s, "refusal": %s}}]}'
    faults = [
        Fault(raw=raw % ("length", '"{\\"a"', "null")),
        Fault(raw=raw % ("stop", "null", '"I will not"')),
        Fault(raw=raw % ("", "7", "7")),
    ]
    with chat_server(script=first(*faults)) as fake, ChatClient(config(fake, concurrency=1)) as server:
        assert server.complete(["a", "b"]) == [Reply('{"a', "length"), Reply("", "stop", "I will not")]
        with pytest.raises(MalformedError, match="message in words"):
            server.complete(["c"])


def test_extra_fields_are_added_and_taken_out(fake):
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "max_tokens": None, "max_completion_tokens": 1}
    with ChatClient(config(fake, extra_body=extra)) as server:
        server.next_token(PROMPTS[:1])
    (body,) = fake.bodies
    assert "max_tokens" not in body
    assert (body["max_completion_tokens"], body["chat_template_kwargs"]) == (1, {"enable_thinking": False})


# The key


def test_the_key_is_sent_and_told_to_nobody(monkeypatch, caplog, capfd):
    monkeypatch.setenv("MY_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with chat_server(key=KEY) as fake:
        with ChatClient(config(fake, api_key_env="MY_KEY")) as server:
            check(fake, server.next_token(PROMPTS[:2]), PROMPTS[:2])
            told = [repr(server), repr(server.config), str(server.usage), repr(vars(server._transport))]
        fake.key = "another"  # this one quotes what it was sent
        with ChatClient(config(fake, api_key_env="MY_KEY")) as server, pytest.raises(RefusedError) as caught:
            server.next_token(PROMPTS[:1])
        assert fake.authorizations == [f"Bearer {KEY}"] * 3
    told += ["".join(traceback.format_exception(caught.value)), repr(caught.value), caplog.text, *capfd.readouterr()]
    assert not [text for text in told if KEY in text]
    assert "401" in str(caught.value)
    assert "Incorrect API key provided: Bearer ***; the key is read from $MY_KEY, which is set" in str(caught.value)
    assert caught.value.status == 401


@pytest.mark.parametrize("status", [200, 400, 503])
def test_a_key_is_cut_out_before_a_message_is_cut_short(monkeypatch, status):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for said in ("x" * 70 + KEY, "x" * 490 + KEY):
        fault = Fault(status, raw=said, content_type="text/plain")
        with chat_server(script=lambda number, body, fault=fault: fault) as fake, ChatClient(config(fake, retries=0)) as server:
            monkeypatch.setenv("OPENAI_API_KEY", "another by now")
            with pytest.raises(DataError) as caught:
                server.complete(["a"])
            monkeypatch.setenv("OPENAI_API_KEY", KEY)
        assert KEY[:6] not in str(caught.value)


def test_no_key_is_said(fake):
    fake.key = KEY
    with ChatClient(config(fake)) as server, pytest.raises(RefusedError, match=r"\$OPENAI_API_KEY, which is not set"):
        server.next_token(PROMPTS[:1])


def test_a_key_no_header_can_hold_is_refused_without_showing_it(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "se\ncret")
    with pytest.raises(DataError, match="OPENAI_API_KEY") as caught:
        ChatClient(ServerConfig("http://127.0.0.1:1/v1", "tiny"))
    assert "cret" not in str(caught.value)


# Being stopped


def test_ctrl_c_ends_what_is_under_way():
    never = threading.Event()
    with (
        chat_server(script=lambda number, body: Fault(wait=never)) as fake,
        ChatClient(config(fake, timeout_s=60.0, concurrency=3)) as server,
    ):

        def press() -> None:
            while fake.now < 3:
                never.wait(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=press).start()
        with pytest.raises(KeyboardInterrupt):
            server.next_token(PROMPTS)
        assert fake.disconnected.wait(5)  # the server was hung up on, long before the time-out
        assert len(fake.bodies) == 3
        never.set()


def test_a_report_that_fails_ends_the_call(fake):
    def report(done: int, total: int) -> None:
        raise RuntimeError("the screen is gone")

    with ChatClient(config(fake)) as server, pytest.raises(RuntimeError, match="the screen is gone"):
        server.next_token(PROMPTS, on_progress=report)


def test_closing():
    with chat_server() as fake:
        server = ChatClient(config(fake))
        assert server.next_token([]) == []
        server.close()
        server.close()
        with pytest.raises(DataError, match="closed"):
            server.next_token(PROMPTS)
        assert not server._thread.is_alive()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"base_url": "localhost:8000"}, "http or https"),
        ({"base_url": "http://ada:secret@host/v1"}, "no user, password"),
        ({"model": ""}, "name of a model"),
        ({"concurrency": 0}, "at least 1"),
        ({"timeout_s": 0.0}, "above 0"),
    ],
)
def test_settings_that_cannot_work(settings, said):
    with pytest.raises(DataError, match=said) as caught:
        ServerConfig(**{"base_url": "http://x/v1", "model": "tiny", **settings})
    assert "secret" not in str(caught.value)


def test_questions_that_make_no_sense(fake):
    with ChatClient(config(fake)) as server:
        for answers in ([], ["True", "True"], [""]):
            with pytest.raises(ValueError, match="answers"):
                server.next_token(PROMPTS, answers=answers)
        for one in ("a prompt", [{"role": "user", "content": "a prompt"}]):
            with pytest.raises(ValueError, match="put it into a list"):
                inspect.unwrap(ChatClient._all)(server, one, None, None)  # the types would refuse the second first
    assert not fake.bodies
