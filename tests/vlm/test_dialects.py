"""Servers that call themselves OpenAI-compatible and are not quite: what each of them says, in the words that its users reported."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from milepost.core.errors import DataError, UnreadableError
from milepost.testing import ChatServer, Fault, chat_server
from milepost.vlm.proxies import client_settings, proxy_of
from milepost.vlm.replies import quoted
from milepost.vlm.server import ChatClient, Reply
from milepost.vlm.transport import MalformedError, NoLogprobsError, RefusedError, ServerConfig, ServerError, TooLongError, UnreachableError


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


def config(server: ChatServer, **settings) -> ServerConfig:
    return ServerConfig(server.url, "tiny", **{"timeout_s": 20.0, "backoff_s": 0.001, **settings})


def body(message: dict, finish: str = "stop") -> Fault:
    return Fault(raw=json.dumps({"choices": [{"finish_reason": finish, "message": {"role": "assistant", **message}}]}))


def error(content: object, status: int = 200) -> Fault:
    return Fault(status, raw=json.dumps(content))


# Fields that are not taken


def openai(param: str, words: str) -> object:
    return {"error": {"message": words, "type": "invalid_request_error", "param": param, "code": "unsupported_parameter"}}


def pydantic(name: str) -> object:
    return {"detail": [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted", "input": 0}]}


REFUSALS: dict[str, Callable[[str], tuple[object, int]]] = {
    "by param": lambda name: (openai(name, f"Unsupported value: '{name}' does not support 0.0 with this model."), 400),
    "by words": lambda name: ({"error": {"message": f"Unrecognized request argument supplied: {name}", "param": None}}, 400),
    "by place": lambda name: (pydantic(name), 422),
    "in a 200": lambda name: ({"error": {"message": f"{name} is not supported by this model", "code": 400}}, 200),
    "in a 500": lambda name: ({"error": {"message": f"UnsupportedParamsError: unsupported parameters: {{'{name}': 0}}"}}, 500),
}


@pytest.mark.parametrize("kind", REFUSALS)
@pytest.mark.parametrize("name", ["temperature", "seed", "max_tokens"])
def test_a_field_that_the_error_names_is_not_sent_again(kind: str, name: str) -> None:
    with chat_server(script=lambda number, sent: error(*REFUSALS[kind](name)) if name in sent else None) as fake:
        with ChatClient(config(fake, concurrency=1)) as server:
            assert len(server.complete(["a", "b", "c"], seed=3, json_schema={"type": "object"})) == 3
            assert name in str(server.dialect)
            assert server.takes_schema  # it was not blamed for another field
        assert [name in sent for sent in fake.bodies] == [True, False, False, False]
        kept = {"temperature", "seed", "max_tokens"} - {name}
        assert all(kept <= set(sent) for sent in fake.bodies)
        assert all(sent.get("max_completion_tokens") == (2048 if name == "max_tokens" else None) for sent in fake.bodies[1:])


def test_one_server_may_refuse_all_of_them_and_many_requests_learn_it_together() -> None:
    """The rules of OpenAI's reasoning models, one refusal at a time; eight questions are under way when the first one comes."""

    def rules(number: int, sent: dict) -> Fault | None:
        for name in ("max_tokens", "temperature", "seed"):
            if name in sent:
                return error(openai(name, f"Unsupported parameter: '{name}'. Use 'max_completion_tokens' instead."), 400)
        return None

    with chat_server(script=rules) as fake, ChatClient(config(fake)) as server:
        assert len(server.complete([str(n) for n in range(8)], seed=1)) == 8
        server.complete(["x"], seed=1)
        assert fake.bodies[-1].keys() == {"model", "messages", "max_completion_tokens"}
        assert len(fake.bodies) <= 8 * 4 + 1
        assert "'max_completion_tokens' instead of 'max_tokens'" in server.notes[-1]


def test_a_server_that_blames_one_field_for_ever_is_given_up() -> None:
    refusal = error(openai("temperature", "temperature is not supported"), 400)
    with chat_server(script=lambda number, sent: refusal) as fake, ChatClient(config(fake)) as server:
        with pytest.raises(RefusedError, match="temperature is not supported"):
            server.complete(["a"])
        assert len(fake.bodies) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("messages", "messages: image_url is not supported"),
        ("model", "model 'tiny' is not supported"),
        ("max_tokens", "max_tokens is too large: 2048. This model supports at most 1024 completion tokens"),
        ("max_tokens", "This model's maximum context length is 4096 tokens; you requested 5000 (max_tokens is 2048)"),
        ("top_k", "top_k is not permitted"),
    ],
)
def test_what_is_asked_and_what_the_caller_put_in_is_never_left_out(name: str, words: str) -> None:
    with chat_server(script=lambda number, sent: error(openai(name, words), 400)) as fake:
        with ChatClient(config(fake, extra_body={"top_k": 1})) as server, pytest.raises(RefusedError):
            server.complete(["a"])
        assert len(fake.bodies) == 1


# Errors in the body of a 200


@pytest.mark.parametrize(
    "content",
    [
        {"error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": "rate-limited upstream"}}, "user_id": "u"},
        {"error": {"message": "overloaded", "code": "503"}},
        {"error": {"message": "slow down", "type": "rate_limit_error"}},
        {"error": {"message": "x", "status": "RESOURCE_EXHAUSTED"}},
        [{"error": {"code": 502, "message": "Bad gateway"}}],
        {"error": "The model is overloaded. Please try again later."},
        {"object": "error", "message": "worker died", "code": 500},
        {"choices": [{"finish_reason": "error", "error": {"code": 524, "message": "timed out"}, "message": {"content": ""}}]},
    ],
)
def test_an_error_in_a_200_that_passes_is_tried_again(content: object) -> None:
    with chat_server(script=lambda number, sent: error(content) if number < 2 else None) as fake, ChatClient(config(fake)) as server:
        assert server.complete(["a"])[0].text.startswith("seen")
        assert (server.usage.retries, server.usage.answers) == (2, 1)


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        ({"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": '{"m": "no images"}'}}}, 400, "no images"),
        ({"error": {"message": "No auth", "code": 401}}, 401, "No auth.*OPENAI_API_KEY, which is not set"),
        ({"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}, 402, "current quota"),
        ({"error": {"message": "cannot"}}, 200, "200 with an error in it: cannot"),
    ],
)
def test_one_that_does_not_pass_is_said_in_the_servers_words(content: object, status: int, said: str) -> None:
    with chat_server(script=lambda number, sent: error(content)) as fake, ChatClient(config(fake)) as server:
        with pytest.raises(RefusedError, match=said) as caught:
            server.complete(["a"])
        assert (caught.value.status, len(fake.bodies)) == (status, 1)


def test_one_that_stays_is_given_up_with_its_words() -> None:
    content = {"error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": "come back tomorrow"}}}
    with (
        chat_server(script=lambda number, sent: error(content)) as fake,
        ChatClient(config(fake, retries=2)) as server,
        pytest.raises(UnreachableError, match=r"code 429\): Provider returned error: come back tomorrow \(3 tries\)"),
    ):
        server.complete(["a"])


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 524, 529, 530])
def test_every_status_that_passes_is_tried_again(status: int) -> None:
    with chat_server(script=lambda number, sent: Fault(status) if number == 0 else None) as fake, ChatClient(config(fake)) as server:
        server.complete(["a"])
        assert server.usage.retries == 1


@pytest.mark.parametrize(
    ("status", "said"),
    [(429, "insufficient_quota: check your plan"), (400, "no"), (402, "pay"), (418, "teapot"), (451, "not here"), (501, "not made")],
)
def test_every_other_one_is_not(status: int, said: str) -> None:
    with chat_server(script=lambda number, sent: Fault(status, said)) as fake, ChatClient(config(fake)) as server:
        with pytest.raises(RefusedError, match=said):
            server.complete(["a"])
        assert len(fake.bodies) == 1


# A prompt that does not fit


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "The decoder prompt (length 5120) is longer than the maximum model length of 4096. Make sure that `max_model_len` is"),
        (400, "This model's maximum context length is 4096 tokens. However, your request has 5120 input tokens."),
        (400, "The input (5120 tokens) is longer than the model's context length (4096 tokens)."),
        (400, "the request exceeds the available context size, try increasing it"),
        (500, "input is too large to process. increase the physical batch size"),
        (422, "Input validation error: `inputs` must have less than 4096 tokens. Given: 5120"),
        (400, "At most 8 image(s) may be provided in one prompt."),
        (400, "prompt is too long: 208310 tokens > 200000 maximum"),
        (400, "The input token count (5120) exceeds the maximum number of tokens allowed (4096)."),
        (400, "Trying to keep the first 5120 tokens when context the overflows. However, the model is loaded with 4096"),
        (413, "Request Entity Too Large"),
    ],
)
def test_a_prompt_that_is_too_long_is_known_by_the_servers_words(status: int, words: str) -> None:
    with chat_server(script=lambda number, sent: Fault(status, words)) as fake, ChatClient(config(fake)) as server:
        with pytest.raises(TooLongError) as caught:
            server.complete(["a"], json_schema={"type": "object"}, seed=1)
        assert isinstance(caught.value, UnreadableError)
        assert isinstance(caught.value, RefusedError)
        assert len(fake.bodies) == 1


@pytest.mark.parametrize(("status", "words"), [(400, "image 3 cannot be decoded"), (429, "Request too large"), (500, "CUDA")])
def test_other_words_are_no_length(status: int, words: str) -> None:
    with chat_server(script=lambda number, sent: Fault(status, words)) as fake, ChatClient(config(fake, retries=0)) as server:
        with pytest.raises(ServerError) as caught:
            server.complete(["a"])
        assert not isinstance(caught.value, TooLongError)


# Words in other places


@pytest.mark.parametrize(
    ("message", "finish", "reply"),
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "stop", Reply("ab", "stop")),
        ({"content": [{"type": "thinking", "thinking": [{"text": "hm"}]}, {"type": "text", "text": "b"}]}, "stop", Reply("b", "stop")),
        ({"content": {"type": "text", "text": "a"}}, "stop", Reply("a", "stop")),
        ({"content": ["a", "b"]}, "stop", Reply("ab", "stop")),
        ({"content": None, "reasoning_content": 'so {"a": 1}'}, "stop", Reply('so {"a": 1}', "stop", "", 'so {"a": 1}')),
        ({"content": "", "reasoning": "```json\n[1]\n```\n"}, "stop", Reply("```json\n[1]\n```\n", "stop", "", "```json\n[1]\n```\n")),
        ({"content": "", "reasoning": '{"a": 1} but no'}, "stop", Reply("", "stop", "", '{"a": 1} but no')),  # a draft
        ({"content": None, "reasoning": '{"a": 1}'}, "length", Reply("", "length", "", '{"a": 1}')),
        ({"content": "x", "reasoning": '{"a": 1}'}, "stop", Reply("x", "stop", "", '{"a": 1}')),
        ({}, "stop", Reply("", "stop")),
    ],
)
def test_words_are_read_wherever_they_are(message: dict, finish: str, reply: Reply) -> None:
    with chat_server(script=lambda number, sent: body(message, finish)) as fake, ChatClient(config(fake)) as server:
        assert server.complete(["a"]) == [reply]


@pytest.mark.parametrize("finish", ["length", "LENGTH", "max_tokens", "content_filter"])
def test_what_ended_early_is_cut(finish: str) -> None:
    assert Reply("", finish).cut
    assert not Reply("", "stop").cut


# Log-probabilities in other forms


def tokens(*entries: tuple) -> Fault:
    listed = [dict(zip(("token", "logprob", "bytes"), entry, strict=False)) for entry in entries]
    logprobs = {"content": [{**listed[0], "top_logprobs": listed}]}
    return Fault(raw=json.dumps({"choices": [{"message": {"content": "x"}, "logprobs": logprobs}]}))


def test_a_null_and_a_floor_are_no_number_and_no_absurd_odds() -> None:
    for mark in (None, -9999.0):
        fault = tokens(("True", 0.0), ("False", mark))
        with chat_server(script=lambda number, sent, fault=fault: fault) as fake, ChatClient(config(fake)) as server:
            (scores,) = server.next_token(["a"])
        assert scores["True"].logprob == 0.0
        assert math.isnan(scores["False"].logprob)
        assert scores["False"].bound < -10


def test_numbers_for_tokens_are_read_by_their_bytes_or_refused_by_name() -> None:
    whole = tokens(("token_id:1", -0.5, list(b"True")), ("token_id:2", -1.0, [32]))
    with chat_server(script=lambda number, sent: whole) as fake, ChatClient(config(fake)) as server:
        assert server.next_token(["a"])[0]["True"].logprob == -0.5
    with (
        chat_server(script=lambda number, sent: tokens(("token_id:1", -0.5, None))) as fake,
        ChatClient(config(fake)) as server,
        pytest.raises(NoLogprobsError, match=r"token_id:1.*--return-tokens-as-token-ids"),
    ):
        server.next_token(["a"])


# The address


class Elsewhere(ThreadingHTTPServer):
    """Answers at one path; at others as it is told to. Counts what arrives."""

    daemon_threads = True

    def __init__(self, path: str, other: tuple[int, dict[str, str], bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.path, self.other, self.seen = path, other, []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Elsewhere

    def log_message(self, *words: object) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        content = b'{"choices": [{"finish_reason": "stop", "message": {"content": "here"}}]}'
        status, headers, content = (200, {}, content) if self.path == self.server.path else self.server.other
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


NOWHERE = [
    (200, {}, b'{"error": "Unexpected endpoint or method. (POST /chat/completions)"}'),
    (404, {}, b'{"detail": "Not Found"}'),
    (405, {}, b""),
    (200, {"Content-Type": "text/html"}, b"<!doctype html><title>Open WebUI</title>"),
]


@pytest.mark.parametrize("other", NOWHERE)
def test_a_forgotten_version_is_tried_and_remembered(other: tuple) -> None:
    there = Elsewhere("/v1/chat/completions", other)
    with ChatClient(ServerConfig(there.url, "tiny", concurrency=1)) as server:
        assert [reply.text for reply in server.complete(["a", "b"])] == ["here", "here"]
        assert server.notes[0].startswith(f"asked at {there.url}/v1/chat/completions, since {there.url}/chat/completions")
    assert [path for path, _ in there.seen] == ["/chat/completions", "/v1/chat/completions", "/v1/chat/completions"]
    there.stop()


@pytest.mark.parametrize("other", NOWHERE)
@pytest.mark.parametrize("base", ["", "/v1", "/v1beta/openai"])
def test_a_wrong_address_is_said_with_the_servers_words(other: tuple, base: str) -> None:
    there = Elsewhere("/nowhere", other)
    words = {200: "Unexpected endpoint|doctype", 404: "Not Found", 405: "405"}[other[0]]
    with ChatClient(ServerConfig(there.url + base, "tiny")) as server, pytest.raises(ServerError, match=words) as caught:
        server.complete(["a"])
    assert ("/v1/chat/completions was tried too" in str(caught.value)) == (base == "")
    assert len(there.seen) == (2 if base == "" else 1)
    there.stop()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    other = Elsewhere("/v1/chat/completions", NOWHERE[1])
    there = Elsewhere("/nowhere", (status, {"Location": f"{other.url}/v1/chat/completions"}, b""))
    with (
        ChatClient(ServerConfig(f"{there.url}/v1", "tiny")) as server,
        pytest.raises(RefusedError, match=f"{other.server_port}.*not followed"),
    ):
        server.complete(["a"])
    assert (len(there.seen), other.seen) == (1, [])
    there.stop()
    other.stop()


# Proxies


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "model.localhost", "10.1.2.3:8000", "inner.example"])
def test_no_proxy_where_none_is_needed(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,inner.example")
    monkeypatch.delenv("no_proxy", raising=False)
    assert proxy_of(f"http://{host}/v1") is None
    assert "proxy" not in client_settings(f"http://{host}/v1")


def test_a_proxy_that_is_needed_is_used_or_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    assert client_settings("https://api.example/v1")["proxy"] == "http://proxy.example:3128"
    monkeypatch.setenv("HTTPS_PROXY", "ftp://ada:secret@proxy.example:3128")
    with pytest.raises(DataError, match=r"ftp://proxy\.example for api\.example") as caught:
        client_settings("https://api.example/v1")
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("HTTPS_PROXY", "socks5h://ada:secret@proxy.example:1080")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install socksio") as caught:
        client_settings("https://api.example/v1")
    assert "secret" not in str(caught.value)


def test_a_server_here_is_reached_whatever_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with chat_server() as fake, ChatClient(config(fake)) as server:
        assert server.complete(["a"])


# Their words


def test_words_of_others_command_no_terminal() -> None:
    words = "no\x1b]0;owned\x07 \x1b[31mred\r\nsecond \u202eline\x00" + "x" * 5000
    with (
        chat_server(script=lambda number, sent: Fault(400, words)) as fake,
        ChatClient(config(fake)) as server,
        pytest.raises(RefusedError) as caught,
    ):
        server.complete(["a"])
    assert str(caught.value).isprintable()
    assert "no ]0;owned [31mred second line" in str(caught.value)
    assert len(str(caught.value)) < 700
    assert quoted("a\tb\n c") == "a b c"


def test_a_server_that_lists_no_numbers_is_malformed() -> None:
    with (
        chat_server(script=lambda number, sent: tokens(("True", "high"))) as fake,
        ChatClient(config(fake)) as server,
        pytest.raises(MalformedError, match="cannot be read: tokens with numbers up to 0") as caught,
    ):
        server.next_token(["a"])
    assert "could not convert" not in str(caught.value)


def test_nobody_is_behind_this_port() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nobody = ServerConfig(f"http://127.0.0.1:{port}", "tiny", retries=1, backoff_s=0.001)
    with ChatClient(nobody) as server, pytest.raises(UnreachableError, match=r"\(2 tries\)"):
        server.complete(["a"])
