"""A real HTTP server on loopback that speaks OpenAI's chat/completions: a tiny random model's true log-probabilities, faults on demand.

The prompt is rendered as a chat template would, images and all, and the model reads every byte of it: one wrong byte, and no number fits.
It opens a port on 127.0.0.1 that the system chooses, and no other.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, runtime_checkable

import numpy as np
import PIL.Image

VOCABULARY = ["True", " True", "False", " False", "Yes", " yes", "No", *[f"t{number}" for number in range(57)]]


@runtime_checkable
class Model(Protocol):
    """What stands behind a server."""

    def answer(self, body: Mapping[str, Any]) -> tuple[list[tuple[str, float]], int]:
        """Returns every token with its log-probability in nats, and how many tokens the prompt has. body: the request, as it came."""
        ...


class TinyModel:
    """A model with random weights over bytes and their places. The same seed gives the same numbers, in double precision."""

    def __init__(self, seed: int = 0, width: int = 24) -> None:
        rng = np.random.default_rng(seed)
        self.embed = rng.normal(size=(256, width))
        self.turn = rng.uniform(0.1, 3.0, size=width)
        self.head = rng.normal(size=(width, len(VOCABULARY)))

    def logprobs(self, text: str) -> dict[str, float]:
        """Returns the log-probability in nats, behind this text, of every token in VOCABULARY."""
        letters = np.frombuffer(text.encode(), np.uint8)
        places = np.cos(np.arange(len(letters))[:, None] * self.turn)
        logits = np.tanh((self.embed[letters] * places).sum(0)) @ self.head
        logits -= logits.max()
        return dict(zip(VOCABULARY, (logits - np.log(np.exp(logits).sum())).tolist(), strict=True))

    def answer(self, body: Mapping[str, Any]) -> tuple[list[tuple[str, float]], int]:
        """Returns what `Model.answer` says: of the rendered prompt, whose tokens are its bytes."""
        text = render(body)
        return list(self.logprobs(text).items()), len(text.encode())


def render(body: Mapping[str, Any]) -> str:
    """Returns the prompt as the model sees it. An image is its size and its mean colour, to 8 levels: JPEG may not change more.

    ValueError for a request that both continues the final message and adds a generation prompt.
    """
    text = ""
    for message in body["messages"]:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text += f"<{message['role']}>" + "".join(_part(part) for part in parts) + "<end>"
    if body.get("continue_final_message"):
        if body.get("add_generation_prompt", True):
            raise ValueError("cannot continue the final message and add a generation prompt")
        return text.removesuffix("<end>")
    return text + ("<assistant>" if body.get("add_generation_prompt", True) else "")


def _part(part: Mapping[str, Any]) -> str:
    if part["type"] == "text":
        return str(part["text"])
    with PIL.Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].split(",", 1)[1]))) as image:
        pixels = np.asarray(image.convert("RGB"))
    return f"[{pixels.shape} {np.round(pixels.mean((0, 1)) / 8).astype(int).tolist()}]"


@dataclass
class Fault:
    """What goes wrong with one request.

    status, message: an HTTP error and its words. headers: sent with the reply. raw: sent as the whole body. cut: so many bytes of the true
    reply are sent, then the line is dead. wait: the reply waits for this event, or until the client hangs up.
    """

    status: int = 200
    message: str = "something went wrong"
    headers: dict[str, str] = field(default_factory=dict)
    raw: str | None = None
    content_type: str = "application/json"
    cut: int | None = None
    wait: threading.Event | None = None


Script = Callable[[int, dict[str, Any]], Fault | None]
"""(number of the request from 0, its body) -> what goes wrong, or None."""


class ChatServer(ThreadingHTTPServer):
    """The server that `chat_server` runs. `bodies` has every request so far, `authorizations` its keys, `most` how many were here at once.

    model: what stands behind it. script: which requests go wrong. max_logprobs: more than these are refused. key: any other is refused.
    rendezvous: no request is answered before so many are here. `text` may be set to a function: the request -> what is answered in words;
    `lists` to another: the request -> every token of the answer, each as the list of (token, log-probability) that the server knows.
    `pooling` to a third: the request to vLLM's `/pooling` -> its rows of numbers and its tokens; while it is None there is no such place.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, *, model: Model | None = None, script: Script | None = None, max_logprobs: int = 20, key: str = "", rendezvous: int = 0
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model, self.script, self.max_logprobs, self.key = model or TinyModel(), script, max_logprobs, key
        self.text: Callable[[dict[str, Any]], str] = lambda body: "seen: " + render(body)
        self.lists: Callable[[dict[str, Any]], list[list[tuple[str, float]]]] | None = None
        self.pooling: Callable[[dict[str, Any]], tuple[list[Any], int]] | None = None
        self.usage = True
        self.takes_schema = True
        self.meet = threading.Barrier(rendezvous) if rendezvous else None
        self.lock = threading.Lock()
        self.bodies: list[dict[str, Any]] = []
        self.authorizations: list[str | None] = []
        self.connections, self.now, self.most = 0, 0, 0
        self.disconnected = threading.Event()
        """Set when a client hung up on a waiting request."""

    @property
    def url(self) -> str:
        """Returns the address that `--base-url` takes."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def connected(self) -> None:
        """Counts a connection."""
        with self.lock:
            self.connections += 1

    def begin(self, body: dict[str, Any], key: str | None) -> int:
        """Notes a request. Returns its number, from 0."""
        with self.lock:
            self.bodies.append(body)
            self.authorizations.append(key)
            self.now += 1
            self.most = max(self.most, self.now)
            return len(self.bodies) - 1

    def end(self) -> None:
        """Notes that a request is answered."""
        with self.lock:
            self.now -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores the error: a client that closes the connection is a normal case here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ChatServer

    def setup(self) -> None:
        super().setup()
        self.server.connected()

    def log_message(self, *words: Any) -> None:
        """Logs nothing."""

    def do_POST(self) -> None:
        """Answers one request, or does what the script says."""
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = server.begin(body, self.headers.get("Authorization"))
        try:
            if server.meet is not None:
                server.meet.wait(timeout=20)
            fault = server.script(number, body) if server.script else None
            if fault and fault.wait and not self._wait(fault.wait):
                return
            status, reply = self._answer(body)
        finally:
            server.end()
        self._send(status, reply, fault or Fault())

    def _wait(self, event: threading.Event) -> bool:
        """Waits for the event. Returns False if the client hung up before it."""
        self.connection.settimeout(0.02)
        while not event.is_set():
            try:
                if not self.connection.recv(1):
                    self.server.disconnected.set()
                    self.close_connection = True
                    return False
            except TimeoutError:
                continue
            except ConnectionError:
                self.server.disconnected.set()
                self.close_connection = True
                return False
        self.connection.settimeout(None)
        return True

    def _answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        server = self.server
        if server.key and self.headers.get("Authorization") != f"Bearer {server.key}":
            return 401, {"error": {"message": f"Incorrect API key provided: {self.headers.get('Authorization')}", "type": "auth"}}
        if self.path == "/pooling" and server.pooling is not None and body["model"] == "tiny":
            rows, length = server.pooling(body)
            usage = {"usage": {"prompt_tokens": length, "total_tokens": length, "completion_tokens": 0}} if server.usage else {}
            return 200, {"object": "list", "model": "tiny", "data": [{"index": 0, "object": "pooling", "data": rows}], **usage}
        if self.path != "/v1/chat/completions":
            return 404, {"detail": "Not Found"}
        if body["model"] != "tiny":
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        if body.get("top_logprobs", 0) > server.max_logprobs:
            return 400, {"message": f"Requested sample logprobs of {body['top_logprobs']}, greater than max allowed: {server.max_logprobs}"}
        if "response_format" in body and not server.takes_schema:
            return 400, {"error": {"message": "response_format json_schema is not supported"}}
        tokens, length = server.model.answer(body)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": server.text(body)}}
        if body.get("logprobs"):
            content: list[dict[str, Any]] = []
            for each in server.lists(body) if server.lists else [tokens]:
                ranked = sorted(each, key=lambda entry: -entry[1])
                listed = [{"token": token, "logprob": logprob} for token, logprob in ranked[: body["top_logprobs"]]]
                content.append({**listed[0], "top_logprobs": listed})
            choice |= {"finish_reason": "length", "logprobs": {"content": content}}
            choice["message"]["content"] = "".join(each["token"] for each in content)
        usage = {"usage": {"prompt_tokens": length, "completion_tokens": 1}} if server.usage else {}
        return 200, {"object": "chat.completion", "model": "tiny", "choices": [choice], **usage}

    def _send(self, status: int, reply: dict[str, Any], fault: Fault) -> None:
        if fault.status != 200:
            status, reply = fault.status, {"error": {"message": fault.message}}
        content = (json.dumps(reply) if fault.raw is None else fault.raw).encode()
        self.send_response(status)
        self.send_header("Content-Type", fault.content_type)
        self.send_header("Content-Length", str(len(content)))
        for name, value in fault.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: fault.cut])
        self.wfile.flush()
        if fault.cut is not None:
            self.close_connection = True


@contextmanager
def chat_server(**settings: Any) -> Iterator[ChatServer]:
    """Runs a server for the time of a `with` block. settings: those of `ChatServer`.

    >>> with chat_server(script=lambda number, body: Fault(503) if number == 0 else None) as server:
    ...     server.url.startswith("http://127.0.0.1:")
    True
    """
    server = ChatServer(**settings)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
