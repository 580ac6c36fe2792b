"""The clients of `milepost serve`: WebSocket, asyncio, the stream that never waits; what they do when connections break."""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import numpy as np
import pytest
from test_reward_server import Faulty, images, number, serving
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from milepost.core import DataError, Step
from milepost.online import SAFETENSORS, AsyncRewardClient, Observation, RewardClient, RewardStream, pack_observations
from milepost.online.calls import _quoted
from milepost.online.transports import _refused
from milepost.online.wire import pack
from milepost.serving.calls import CALLS, ServedCall
from milepost.testing import dot_episodes, tiny_sarm


class Counting:
    """A model whose progress is the number of frames that the attempt has, so that a frame that counts twice is seen."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s, self.begun = pause_s, 0

    def begin(self, *, task: str, fps: float) -> list[int]:
        self.begun += 1
        return []

    def advance(self, attempts: Any, frames: Any, states: Any) -> list[Step]:
        time.sleep(self.pause_s)
        for attempt in attempts:
            attempt.append(1)
        return [Step(len(attempt) / 100) for attempt in attempts]


@contextmanager
def cutting(port: int, replies: int) -> Iterator[int]:
    """A door to a server that takes the whole request, lets it be answered, and closes in place of each answer, `replies` times."""
    listener = socket.create_server(("127.0.0.1", 0))
    left = [replies]

    def pump() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=carry, args=(near,), daemon=True).start()

    def carry(near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", port)) as far:
            threading.Thread(target=forward, args=(near, far), daemon=True).start()
            while data := far.recv(65536):
                if left[0] and b"results" in data:
                    left[0] -= 1
                    near.shutdown(socket.SHUT_RDWR)
                    return
                near.sendall(data)

    def forward(near: socket.socket, far: socket.socket) -> None:
        try:
            while data := near.recv(65536):
                far.sendall(data.replace(b"127.0.0.1:%d" % listener.getsockname()[1], b"127.0.0.1:%d" % port))
        except OSError:
            return

    threading.Thread(target=pump, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_a_call_whose_answer_was_lost_counts_once(scheme: str) -> None:
    """The server took the frame, and the connection broke before the answer: the call goes out again and is answered as the first time."""
    model = Counting()
    with (
        serving(model) as url,
        cutting(int(url.rsplit(":", 1)[1]), replies=2) as port,
        RewardClient(f"{scheme}://127.0.0.1:{port}") as client,
    ):
        session = client.begin(task="a", fps=1.0)
        results = [client.step(session, number(1)) for _ in range(4)]
    assert [each.frame for each in results] == [0, 1, 2, 3]
    assert [each.progress for each in results] == pytest.approx([0.01, 0.02, 0.03, 0.04])
    assert model.begun == 1


def test_asyncio_by_both_carriers() -> None:
    episode, model = dot_episodes(1)[0], tiny_sarm()

    async def drive(url: str) -> list[float]:
        async with AsyncRewardClient(url) as client:
            assert (await client.health())["model_loaded"] is True
            assert (await client.model_info())["model"] == "tiny"
            names = [await client.begin(task=episode.task, fps=episode.fps) for _ in range(3)]
            curve = []
            for frame in range(episode.length):
                steps = [client.step(name, images(episode, frame), episode.state[frame]) for name in names]
                results = await asyncio.gather(*steps)
                assert max(each.progress for each in results) - min(each.progress for each in results) < 1e-6
                curve.append(results[0].progress)
            for name in names:
                await client.end(name)
            await client.end(names[0])  # sent again
            with pytest.raises(DataError, match="404"):
                await client.end("nobody")
        return curve

    with serving(model) as url:
        for address in (url, url.replace("http", "ws")):
            np.testing.assert_allclose(asyncio.run(drive(address)), model.predict(episode).main.value, atol=1e-5)


@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_a_call_that_was_cancelled_leaves_no_answer_for_the_next(scheme: str) -> None:
    model = Faulty()

    async def drive(url: str) -> float:
        async with AsyncRewardClient(url) as client:
            session = await client.begin(task="a", fps=1.0)
            slow = asyncio.create_task(client.step(session, number(5)))
            await asyncio.sleep(0.3)
            slow.cancel()
            model.go_on.set()
            assert isinstance((await asyncio.gather(slow, return_exceptions=True))[0], asyncio.CancelledError)
            return (await client.step(session, number(4))).progress

    with serving(model) as url:
        assert asyncio.run(drive(url.replace("http", scheme))) == pytest.approx(0.4)


def test_an_attempt_that_ends_during_a_pass_stops_nobody() -> None:
    """The model is at work for one robot while another one's attempt ends: the server answers others meanwhile."""
    model = Faulty()
    with serving(model) as url, RewardClient(url) as robot, RewardClient(url) as other, ThreadPoolExecutor(2) as pool:
        sessions = [robot.begin(task="a", fps=1.0) for _ in range(2)]
        step = pool.submit(robot.step, sessions[0], number(5))
        while "milepost_waiting_frames 1" not in httpx2.get(f"{url}/metrics").text:
            time.sleep(0.01)
        end = pool.submit(other.end, sessions[1])
        time.sleep(0.2)
        try:
            assert httpx2.get(f"{url}/health", timeout=3.0).json()["status"] == "ok"
        finally:
            model.go_on.set()
        assert step.result().progress == pytest.approx(0.5)
        end.result()


@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_a_server_that_comes_back(scheme: str) -> None:
    """The connection is made anew without a word; the attempt that the server lost has a reason; another one can begin."""
    episode = dot_episodes(1)[0]
    with serving(tiny_sarm()) as url:
        port = int(url.rsplit(":", 1)[1])
        client = RewardClient(f"{scheme}://127.0.0.1:{port}", reconnect_s=0.1)
        session = client.begin(task=episode.task, fps=episode.fps)
        client.step(session, images(episode, 0), episode.state[0])
    with pytest.raises(DataError, match="does not answer"):
        client.step(session, images(episode, 1), episode.state[1])
    with serving(tiny_sarm(), port=port):
        assert "the server began anew" in client.step(session, images(episode, 1), episode.state[1]).reason
        session = client.begin(task=episode.task, fps=episode.fps)
        assert client.step(session, images(episode, 0), episode.state[0]).reason == ""
    client.close()


def test_the_stream_drops_to_the_newest_frame_and_says_so() -> None:
    model = Counting(pause_s=0.05)
    with serving(model) as url, RewardStream(url.replace("http", "ws"), task="a", fps=30.0) as stream:
        assert math.isnan(stream.latest.progress)
        assert stream.latest.reason == "no frame was answered yet"
        begun = time.monotonic()
        last = [stream.show(number(1)) for _ in range(50)][-1]
        assert time.monotonic() - begun < 1.0
        stream.show(number(1), is_terminal=True)
        with pytest.raises(DataError, match="ended with its terminal frame"):
            stream.show(number(1))
        dropped = stream.dropped
        stream.begin(task="b")
        assert stream.latest.frame == -1
        assert stream.dropped == 0
        assert stream.show(number(1)) == 0
        result = stream.wait(0)
        assert (result.frame, result.progress) == (0, pytest.approx(0.01))
        assert result.age_s > 0.05
    assert last == 49
    assert 45 <= dropped <= 51
    assert stream.dropped == 0
    assert model.begun == 2


@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_the_stream_says_at_once_that_the_server_is_gone(scheme: str) -> None:
    """Long before it gives up; the age of an answer grows until then, and when the server is back in time nothing is left to do."""
    with serving(Counting()) as url:
        port = int(url.rsplit(":", 1)[1])
        stream = RewardStream(url.replace("http", scheme), task="a", fps=30.0, timeout_s=30.0)
        assert math.isnan(stream.latest.age_s)
        assert stream.wait(stream.show(number(1))).reason == ""
        time.sleep(0.1)
        assert 0.1 < stream.latest.age_s < 10.0
    begun_s = time.monotonic()
    stream.show(number(1))
    while not stream.latest.reason:
        assert time.monotonic() - begun_s < 5.0
        time.sleep(0.01)
    assert math.isnan(stream.latest.progress)
    assert "does not answer" in stream.latest.reason
    stream.begin(task="b", fps=10.0)
    assert stream.latest.reason == "no frame was answered yet"
    with pytest.raises(DataError, match=r"not answered within 1.5 s: the reward server at .* does not answer"):
        stream.wait(stream.show(number(1)), timeout_s=1.5)
    stream.begin(task="b")
    with serving(Counting(), port=port):
        first = stream.show(number(1))
        while stream.latest.reason:
            assert time.monotonic() - begun_s < 20.0
            time.sleep(0.01)
        assert stream.latest.frame == first
        stream.close()
    with pytest.raises(DataError, match="fps must be above 0"):
        stream.begin(task="b", fps=0.0)


def test_a_stream_begins_with_another_rate() -> None:
    rates = []

    class Rates(Counting):
        def begin(self, *, task: str, fps: float) -> list[int]:
            rates.append(fps)
            return super().begin(task=task, fps=fps)

    with serving(Rates()) as url, RewardStream(url, task="a", fps=30.0) as stream:
        for fps in (None, 10.0, None):
            stream.begin(task="a", fps=fps)
            stream.wait(stream.show(number(1)))
    assert rates == [30.0, 30.0, 10.0, 10.0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_of_another_kind_ends_the_stream_aloud(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(client: RewardClient, observations: Sequence[Observation]) -> list[Any]:
        raise RuntimeError("unforeseen")

    with serving(Counting()) as url, RewardStream(url, task="a", fps=30.0) as stream:
        monkeypatch.setattr(RewardClient, "step_all", fail)
        with pytest.raises(DataError, match="the stream ended by an error: RuntimeError: unforeseen"):
            stream.wait(stream.show(number(1)))
        with pytest.raises(DataError, match="the stream ended by an error"):
            stream.show(number(2))


def test_the_stream_says_why_it_knows_nothing() -> None:
    episode = dot_episodes(1)[0]
    with serving(tiny_sarm()) as url:
        port = int(url.rsplit(":", 1)[1])
        stream = RewardStream(url, task=episode.task, fps=episode.fps, timeout_s=0.3)
        assert stream.wait(stream.show(images(episode, 0), episode.state[0])).reason == ""
        assert "robot state" in stream.wait(stream.show(images(episode, 1))).reason
    lost = stream.wait(stream.show(images(episode, 1), episode.state[1]))
    assert math.isnan(lost.progress)
    assert "does not answer" in lost.reason
    with serving(tiny_sarm(), port=port):
        assert "the server began anew" in stream.wait(stream.show(images(episode, 2), episode.state[2])).reason
        stream.begin(task=episode.task)
        assert stream.wait(stream.show(images(episode, 0), episode.state[0])).reason == ""
        stream.close()
        with pytest.raises(DataError, match="closed"):
            stream.show(images(episode, 0), episode.state[0])


MESSAGES = [
    (b"no zip", 400, "no .npz"),
    ("{", 400, "the message"),
    ("[]", 400, "a message is the body of POST /step"),
    ('{"method": "POST", "path": "/nothing"}', 404, "no POST /nothing"),
    ('{"method": "POST", "path": "/sessions", "fields": {"task": 3}}', 400, "'task' should be a text"),
    ('{"method": "DELETE", "path": "/sessions/nobody"}', 404, "no session 'nobody'"),
]


def test_messages_that_do_not_fit_are_answered_and_the_connection_goes_on() -> None:
    with serving(tiny_sarm()) as url, connect(url.replace("http", "ws") + "/stream", proxy=None) as connection:
        for message, status, words in MESSAGES:
            connection.send(message)
            reply = json.loads(connection.recv(10))
            assert reply["status"] == status
            assert words in reply["fields"]["error"]
        connection.send('{"method": "GET", "path": "/health"}')
        assert json.loads(connection.recv(10))["status"] == 200


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.method} {call.path}")
def test_a_message_is_answered_as_the_request_is(call: ServedCall) -> None:
    """Every call of the table, by both carriers, with a body that fits none of them: the same status and fields, or a 404 by a message."""
    path, body = call.path.partition("{")[0] + "nobody" * ("{" in call.path), pack({"call": call.path.removeprefix("/")}, {})
    with serving(tiny_sarm()) as url, connect(url.replace("http", "ws") + "/stream", proxy=None) as connection:
        packed = {"content": body, "headers": {"content-type": SAFETENSORS}} if call.body == "arrays" else {}
        reply = httpx2.request(call.method, url + path, **(packed or ({"json": 3} if call.body == "json" else {})))
        connection.send(body if packed else json.dumps({"method": call.method, "path": path, "fields": 3}))
        answer = json.loads(connection.recv(10))
    if call.in_message:
        assert answer == {"status": reply.status_code, "fields": reply.json()}
    else:
        assert answer == {"status": 404, "fields": {"error": f"there is no {call.method} {path} in a WebSocket"}}


def test_a_websocket_is_admitted_as_a_request_is(capfd: pytest.CaptureFixture) -> None:
    with serving(tiny_sarm(), token="secret") as url:
        ws = url.replace("http", "ws")
        for headers, status in (({}, 401), ({"authorization": "Bearer wrong"}, 401), ({"origin": "http://evil.example"}, 403)):
            with pytest.raises(InvalidStatus) as fault:
                connect(ws + "/stream", additional_headers=headers, proxy=None)
            assert fault.value.response.status_code == status
        with RewardClient(ws, token="wrong") as client, pytest.raises(DataError, match=r"refused \(401\): send the token"):
            client.health()
        with RewardClient(ws, token="secret") as client:
            assert client.health()["status"] == "ok"
        for address in (url, ws):
            with pytest.raises(DataError, match="letters that no token has"):
                RewardClient(address, token="geheim\u00fc")
    assert "handshake" not in capfd.readouterr().err


def test_a_frame_that_is_too_large_is_refused_once_and_in_the_same_words(capfd: pytest.CaptureFixture) -> None:
    """By HTTP, by a WebSocket and by asyncio; what would close the WebSocket is not sent at all, and the connection goes on."""
    words, large = "refused (413): a body has at most 100000 bytes (--max-body-mb)", {"a": np.zeros((300, 300, 3), np.uint8)}

    async def ask(url: str) -> str:
        async with AsyncRewardClient(url) as client:
            await client.health()
            with pytest.raises(DataError) as fault:
                await client.step("nobody", large)
            assert (await client.health())["status"] == "ok"
        return str(fault.value)

    with serving(tiny_sarm(), largest=100_000) as url:
        for address in (url, url.replace("http", "ws")):
            with RewardClient(address) as client:
                with pytest.raises(DataError) as fault:
                    client.step("nobody", large)
                assert words in str(fault.value)
                assert client.health()["sessions"] == 0
            assert words in asyncio.run(ask(address))
        with connect(url.replace("http", "ws") + "/stream", proxy=None) as connection:  # a client that does not look at the limit
            connection.send(b"x" * 100_001)
            with pytest.raises(ConnectionClosed) as closed:
                connection.recv(10)
        assert _refused(closed.value) == (413, {"error": "the message has more bytes than the server takes (--max-body-mb)"})
    assert "Traceback" not in capfd.readouterr().err


def test_a_model_that_fails_when_an_attempt_begins() -> None:
    class Broken(Faulty):
        def begin(self, *, task: str, fps: float) -> list[int]:
            raise RuntimeError("no memory left")

    with serving(Broken()) as url:
        for address in (url, url.replace("http", "ws")):
            with RewardClient(address) as client, pytest.raises(DataError, match=r"refused \(500\): the model failed: RuntimeError"):
                client.begin(task="a", fps=1.0)


def test_bytes_that_wait_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milepost.serving.batching.MOST_WAITING_BYTES", 100_000)
    model = Faulty()
    with serving(model) as url, RewardClient(url) as client:
        session = client.begin(task="a", fps=1.0)
        body = pack_observations([Observation(session, number(5))])
        slow = threading.Thread(
            target=httpx2.post, args=(f"{url}/step",), kwargs={"content": body, "headers": {"content-type": SAFETENSORS}}
        )
        slow.start()
        while "milepost_waiting_frames 1" not in httpx2.get(f"{url}/metrics").text:
            time.sleep(0.01)
        with pytest.raises(DataError, match=r"refused \(503\)"):
            client.step(session, {"camera": np.zeros((200, 200, 3), np.uint8)})
        model.go_on.set()
        slow.join()
        session = client.begin(task="a", fps=1.0)
        assert client.step(session, {"camera": np.zeros((200, 200, 3), np.uint8)}).reason == ""


def test_addresses_that_are_none() -> None:
    for url in ("127.0.0.1:7340", "ftp://host", ""):
        with pytest.raises(DataError, match="begins with http://"):
            RewardClient(url)


@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_names_that_no_server_gives(scheme: str) -> None:
    with serving(tiny_sarm()) as url, RewardClient(url.replace("http", scheme)) as client:
        for ask, kind in ((client.end, "session"), (client.relabelled, "ticket")):
            with pytest.raises(DataError, match=f"a {kind} is the text that the server answered with, got ''"):
                ask("")
        with pytest.raises(DataError, match="a ticket is the text that the server answered with, got 5"):
            _quoted(5, "ticket")
        with pytest.raises(DataError, match=r"got '\.\.'"):
            client.end("..")
        for name in ("a/../b", "a b", "\u00fc", "a%2Fb", "?x=1#y"):
            with pytest.raises(DataError, match=re.escape(f"there is no session '{name}' here")):
                client.end(name)
            with pytest.raises(DataError, match=re.escape(f"there is no ticket '{name}' here")):
                client.relabelled(name)
        for ask in (client.end, client.relabelled):
            with pytest.raises(DataError) as fault:
                ask("x" * 10_000)
            assert len(str(fault.value)) < 400
        with pytest.raises(DataError) as fault:
            client.begin(task="a", fps=1.0, session="x" * 1_000_000)
        assert len(str(fault.value)) < 400


def test_what_is_said_of_calls_that_do_not_fit() -> None:
    with serving(tiny_sarm()) as url:
        for body, words in (
            ('{"task": "a", "fps": "20"}', "'fps' should be a number, got '20'"),
            ('{"task": "  ", "fps": 20}', "begin with task=, the instruction in words"),
            ("{", "send one JSON text"),
        ):
            assert words in httpx2.post(f"{url}/sessions", content=body).json()["error"]
        assert httpx2.get(f"{url}/nothing").json() == {"error": "there is no GET /nothing here"}
        assert httpx2.get(f"{url}/step").json() == {"error": "there is no GET /step here: the path takes another method"}
