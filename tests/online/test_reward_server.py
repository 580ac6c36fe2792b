"""`milepost serve` through the whole stack: client, HTTP, batching, model. What it says equals what `predict` says; faults are answered."""

from __future__ import annotations

import io
import json
import math
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from milepost.core import DataError, Episode, Step
from milepost.online import Observation, RewardClient, SessionConfig, SessionLimits, Sessions, pack_observations, unpack
from milepost.online.wire import NPZ, SAFETENSORS, body_type, pack
from milepost.serving import BindAddress, ServerConfig, bind, make_reward_server
from milepost.testing import dot_episodes, tiny_sarm
from test_cli import assert_refused, milepost

TOP = "observation.images.top"


@contextmanager
def serving(
    model: Any,
    config: SessionConfig | None = None,
    *,
    token: str = "",
    largest: int = 8_000_000,
    port: int = 0,
    cameras: tuple[str, ...] = (),
    most_waiting: int = 2_000_000_000,
) -> Iterator[str]:
    listener, address = bind("127.0.0.1", port)
    address = BindAddress(address.host, address.port, token)
    server = make_reward_server(
        Sessions(model, config), address, {"model": "tiny"}, ServerConfig(largest, cameras, most_waiting=most_waiting)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{address.port}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(tiny_sarm()) as address:
        yield address


@pytest.fixture(params=["http", "ws"])
def address(request: pytest.FixtureRequest, url: str) -> str:
    """The same server by HTTP and by a WebSocket."""
    return url.replace("http", request.param)


def images(episode: Episode, frame: int) -> dict[str, np.ndarray]:
    return {camera: episode.camera(camera)[np.array([frame])][0] for camera in episode.cameras}


def test_the_curve_online_is_the_curve_offline(address: str) -> None:
    """Sixteen robots, each by a client of its own, at once: to 1e-5 what `predict` says of the recorded episodes."""
    episodes, model = dot_episodes(16), tiny_sarm()

    def drive(episode: Episode) -> list[float]:
        with RewardClient(address) as client:
            session = client.begin(task=episode.task, fps=episode.fps)
            results = [client.step(session, images(episode, n), episode.state[n]) for n in range(episode.length)]
            client.end(session)
        assert [each.frame for each in results] == list(range(episode.length))
        assert all(0 <= each.age_s < 60 for each in results)
        return [each.progress for each in results]

    with ThreadPoolExecutor(16) as pool:
        for episode, curve in zip(episodes, pool.map(drive, episodes), strict=True):
            np.testing.assert_allclose(curve, model.predict(episode).main.value, atol=1e-5)


def test_many_robots_in_one_request(address: str) -> None:
    episodes, model = dot_episodes(3), tiny_sarm()
    with RewardClient(address) as client:
        names = [client.begin(task=each.task, fps=each.fps) for each in episodes]
        for frame in range(8):
            observations = [
                Observation(name, images(each, frame), each.state[frame], frame) for name, each in zip(names, episodes, strict=True)
            ]
            for result, episode in zip(client.step_all(observations), episodes, strict=True):
                assert result.progress == pytest.approx(float(model.predict(episode).main.value[frame]), abs=1e-5)
        for name in names:
            client.end(name)


def test_pictures_as_png_and_jpeg(address: str) -> None:
    episode = dot_episodes(1)[0]
    (image,) = images(episode, 0).values()

    def packed(kind: str, **options: Any) -> bytes:
        file = io.BytesIO()
        Image.fromarray(image).save(file, kind, **options)
        return file.getvalue()

    with RewardClient(address) as client:
        session = client.begin(task=episode.task, fps=episode.fps)
        exact = client.step(session, {TOP: image}, episode.state[0]).progress
        for content, tolerance in ((packed("PNG"), 1e-6), (packed("JPEG", quality=95), 0.2)):
            client.begin(task=episode.task, fps=episode.fps, session=session)
            assert client.step(session, {TOP: content}, episode.state[0]).progress == pytest.approx(exact, abs=tolerance)
        client.end(session)


def test_what_is_unknown_is_null_and_has_a_reason(url: str) -> None:
    episode = dot_episodes(1)[0]
    with RewardClient(url) as client:
        session = client.begin(task=episode.task, fps=episode.fps)
        wrong = client.step(session, {"elsewhere": np.zeros((8, 8, 3), np.uint8)}, episode.state[0])
        lost = client.step("nobody", images(episode, 0), episode.state[0])
        late = [client.step(session, images(episode, 0), episode.state[0], frame=frame) for frame in (5, 4)]
        client.end(session)
    for result, words in ((wrong, TOP), (lost, "there is no session 'nobody'"), (late[1], "frame 4 came after frame 5")):
        assert words in result.reason
        assert math.isnan(result.progress)
    assert late[0].frame == 5
    assert late[0].reason == ""
    body = pack_observations([Observation("nobody", {})])
    (raw,) = httpx2.post(f"{url}/step", content=body, headers={"content-type": NPZ}).json()["results"]
    assert raw["progress"] is None
    assert raw["reward"] is None


def test_no_answer_waits_for_an_acknowledgement() -> None:
    """asyncio sets TCP_NODELAY on connections of a listener that says it is TCP; else each answer is 40 ms late."""
    listener, _ = bind("127.0.0.1", 0)
    assert listener.proto == socket.IPPROTO_TCP
    listener.close()


def test_health_model_and_metrics(url: str) -> None:
    with RewardClient(url) as client:
        assert client.health()["status"] == "ok"
        assert client.health()["model_loaded"] is True
        assert client.model_info() == {"model": "tiny"}
    rows = dict(line.rsplit(" ", 1) for line in httpx2.get(f"{url}/metrics").text.splitlines() if not line.startswith("#"))
    assert int(rows["milepost_results_total"]) >= int(rows["milepost_passes_total"])
    assert rows["milepost_latency_seconds_count"] == rows["milepost_results_total"] == rows['milepost_latency_seconds_bucket{le="+Inf"}']


def zip_of(**entries: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def request(**fields: Any) -> dict[str, Any]:
    return {"observations": [{"session": "x", "cameras": [TOP], **fields}]}


def npy_with(header: str) -> bytes:
    """Returns an .npy with this header and no data."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


IMAGE = np.zeros((8, 8, 3), np.uint8)
HEADERS = {
    "header open": "(((",
    "header of no words": "{1: 2, 'shape': (1,), 'descr': '|u1'}",
    "header of lists": "{[]: 1}",
    "header of a type": "{'descr': (), 'fortran_order': False, 'shape': (1,)}",
    "header too large": f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**30},)}}",
}
BODIES = {
    "not a zip": (b"hello", "no .npz"),
    "cut": (pack(request(), {f"0/{TOP}": IMAGE})[:200], "no .npz"),
    "no request": (zip_of(other=npy(IMAGE)), "no entry 'request'"),
    "no json": (zip_of(request=npy(np.frombuffer(b"{", np.uint8))), "the entry 'request'"),
    "pickle": (zip_of(request=npy(np.array([{"a": 1}], dtype=object), allow_pickle=True)), "cannot be read"),
    "bomb": (zip_of(request=npy(np.zeros(40_000_000, np.uint8))), "needs more than 8000000 bytes"),
    "no observations": (pack({"observations": {}}, {}), "has 'observations', a list"),
    "a list": (zip_of(request=npy(np.frombuffer(b"[1]", np.uint8))), "should be a JSON object"),
    **{name: (zip_of(request=npy_with(header)), "the array 'request.npy' of the .npz cannot be read") for name, header in HEADERS.items()},
}


@pytest.mark.parametrize("name", BODIES)
def test_malformed_frames_are_refused_with_a_word(name: str, url: str) -> None:
    body, words = BODIES[name]
    reply = httpx2.post(f"{url}/step", content=body, headers={"content-type": NPZ})
    assert reply.status_code == 400, reply.text
    assert words in reply.json()["error"]


REQUEST = np.frombuffer(b'{"a": 1}', np.uint8)
FORMS = {"npz": zip_of(request=npy(REQUEST), x=npy(np.arange(60))), "safetensors": save({"request": REQUEST, "x": np.arange(60)})}


@pytest.mark.parametrize("form", FORMS)
def test_a_body_with_any_damaged_byte_is_read_or_refused(form: str) -> None:
    """No byte of a body, set to its opposite or to 0, makes `unpack` fail by anything but a DataError."""
    whole, refused = FORMS[form], 0
    for place in range(len(whole)):
        for value in (whole[place] ^ 255, 0):
            try:
                _, arrays = unpack(whole[:place] + bytes([value]) + whole[place + 1 :], 8_000_000)
                arrays.require("x")
            except DataError:
                refused += 1
    assert refused > (len(whole) if form == "npz" else 100)  # numbers of a .safetensors have no check sum


def safetensors_of(data: bytes = b"", **entries: Any) -> bytes:
    """Returns a .safetensors with these entries of its header."""
    header = json.dumps(
        {name: dict(zip(("dtype", "shape", "data_offsets"), entry, strict=True)) for name, entry in entries.items()}
    ).encode()
    return len(header).to_bytes(8, "little") + header + data


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no .safetensors"), (b"\0" * 8, "no .safetensors"), ((10**18).to_bytes(8, "little") + b"{}", "no .safetensors"),
        (safetensors_of(b"ab", x=("BF16", [1], [0, 2])), "of NumPy's types"),
        (safetensors_of(b"a", x=("F8_E4M3", [1], [0, 1])), "of NumPy's types"),
        (safetensors_of(b"aaaa", x=("F32", [2**40, 2**40], [0, 4])), "no .safetensors"), (safetensors_of(), "no entry 'request'"),
        (safetensors_of(b"aaaa", request=("F32", [], [0, 4])), "no entry 'request'"), (save({"request": REQUEST})[:-1], "no .safetensors"),
        (save({"request": REQUEST} | {str(place): REQUEST for place in range(5000)}), "more than 4096 arrays"),
    ],
)  # fmt: skip
def test_no_safetensors(body: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        unpack(body, 8_000_000)


ARRAYS = {
    "image": np.arange(60, dtype=np.uint8).reshape(5, 4, 3)[:, ::2],
    "big": np.arange(3, dtype=">f4"),
    "none": np.zeros((0, 3)),
    "one": np.float64(2),
}


@pytest.mark.parametrize("dtype", ["bool", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8", "c8", "U3", "M8[s]", "V4"])
def test_what_is_packed_is_unpacked(dtype: str) -> None:
    """Arrays of every type, in any order of bytes or memory, of no rows or no axes. Only an .npz has all types."""
    arrays = {name: np.asarray(array) for name, array in ARRAYS.items()} | {"typed": np.array([0, 1, 1]).astype(dtype)}
    body = pack({"a": 1}, arrays)
    request, packed = unpack(body, 8_000_000)
    assert request == {"a": 1}
    for name, array in arrays.items():
        np.testing.assert_array_equal(packed.require(name), array, strict=True)
        assert packed.require(name).flags.writeable
    plain = {name: array for name, array in arrays.items() if name not in ("big", "typed")}
    assert body_type(body) == NPZ
    assert body_type(pack({}, plain)) == SAFETENSORS
    assert (body_type(pack({}, plain | {"typed": arrays["typed"]})) == SAFETENSORS) == (np.dtype(dtype).kind in "biuf")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{", "the body"), ("[]", "a JSON object with 'task'"), ('{"fps": 3}', "'task' is missing"), ('{"task": "a"}', "'fps' is missing"),
        ('{"task": "a", "fps": true}', "'fps' should be a number, got True"), ('{"task": "a", "fps": 0}', "fps must be above 0"),
        ('{"task": "a", "fps": 3, "session": 4}', "'session' should be"), ('{"task": "a", "fps": 3, "session": "b"}', "no session 'b'"),
    ],
)  # fmt: skip
def test_sessions_that_cannot_begin(body: str, words: str, url: str) -> None:
    reply = httpx2.post(f"{url}/sessions", content=body)
    assert reply.status_code == 400, reply.text
    assert words in reply.json()["error"]


def test_web_pages_other_names_and_large_bodies_are_refused(url: str) -> None:
    assert httpx2.get(f"{url}/health", headers={"origin": "http://evil.example"}).status_code == 403
    for name in ("evil.example", "evil.example:9000", "localhost.evil.example", "localhost:9000/", ""):
        assert "call it by localhost" in httpx2.get(f"{url}/health", headers={"host": name}).json()["error"]
    for name in ("localhost:9000", "127.0.0.1:9000", "[::1]:9000", "localhost", "LOCALHOST:1"):  # behind a tunnel
        assert httpx2.get(f"{url}/health", headers={"host": name}).status_code == 200
    assert httpx2.get(f"{url}/health", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    headers = {"content-type": NPZ}
    assert httpx2.post(f"{url}/step", content=b"x" * 8_000_001, headers=headers).status_code == 413
    assert httpx2.post(f"{url}/step", content=(b"x" * 1_000_000 for _ in range(9)), headers=headers).status_code == 413
    assert httpx2.post(f"{url}/step", json={}).status_code == 415
    assert httpx2.get(f"{url}/nothing").status_code == 404
    assert httpx2.delete(f"{url}/sessions/nobody").json() == {"error": "there is no session 'nobody' here"}


def test_beyond_loopback_a_token_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MILEPOST_TOKEN", raising=False)
    with serving(tiny_sarm(), token="secret") as url:
        assert httpx2.get(f"{url}/health").status_code == 200
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}, {"authorization": "Basic secret"}):
            assert httpx2.get(f"{url}/model_info", headers=headers).status_code == 401
        with RewardClient(url) as client, pytest.raises(DataError, match="Authorization: Bearer"):
            client.begin(task="a", fps=1.0)
        with RewardClient(url, token="secret") as client:
            assert client.model_info() == {"model": "tiny"}
        monkeypatch.setenv("MILEPOST_TOKEN", "secret")
        with RewardClient(url) as client:
            assert client.model_info() == {"model": "tiny"}


class Blank:
    """An attempt of which nothing is remembered."""

    def snapshot(self) -> None:
        return None

    def restore(self, snapshot: None) -> None:
        return None


class Faulty:
    """A model that breaks on the frame 3, and waits on the frame 5."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def begin(self, *, task: str, fps: float) -> Blank:
        return Blank()

    def advance(self, attempts: Any, frames: Any, states: Any) -> list[Step]:
        values = [float(next(iter(each.values())).flat[0]) for each in frames]
        if 3.0 in values:
            raise RuntimeError("a kernel failed")
        if 5.0 in values:
            self.go_on.wait(30)
        return [Step(value / 10) for value in values]


def number(value: int) -> dict[str, np.ndarray]:
    return {"camera": np.full((8, 8, 3), value, np.uint8)}


def test_a_model_that_fails_is_an_answer_and_not_the_end() -> None:
    with serving(Faulty()) as url, RewardClient(url) as client:
        session = client.begin(task="a", fps=1.0)
        with pytest.raises(DataError, match=r"refused \(500\): the model failed: RuntimeError: a kernel failed"):
            client.step(session, number(3))
        assert client.step(session, number(4)).progress == pytest.approx(0.4)


def test_a_client_that_leaves_takes_nobody_along(capfd: pytest.CaptureFixture) -> None:
    """Half a request, and a client that is gone before its answer: the others are answered, and nothing is reported as a fault."""
    model = Faulty()
    with serving(model) as url, RewardClient(url) as client:
        session = client.begin(task="a", fps=1.0)
        host, port = url.removeprefix("http://").split(":")
        body = pack_observations([Observation(session, number(5))])
        head = f"POST /step HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: {NPZ}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        for sent in (head + body, head + body[:20]):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(sent)
        model.go_on.set()
        assert client.step(session, number(4)).progress == pytest.approx(0.4)
    assert "Traceback" not in capfd.readouterr().err


def test_more_frames_than_may_wait_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milepost.serving.batching.MOST_WAITING", 4)
    model = Faulty()
    with serving(model) as url, RewardClient(url) as client, ThreadPoolExecutor(1) as pool:
        session = client.begin(task="a", fps=1.0)

        def slow() -> float:
            with RewardClient(url) as other:
                return other.step(session, number(5)).progress

        answer = pool.submit(slow)
        while "milepost_waiting_frames 1" not in httpx2.get(f"{url}/metrics").text:
            time.sleep(0.01)
        with pytest.raises(DataError, match=r"refused \(503\): 1 frames wait for the model already"):
            client.step_all([Observation(session, number(1))] * 4)
        model.go_on.set()
        assert answer.result() == pytest.approx(0.5)


def test_a_server_that_begins_anew_has_lost_its_sessions() -> None:
    episode = dot_episodes(1)[0]
    with serving(tiny_sarm()) as url, RewardClient(url) as client:
        session = client.begin(task=episode.task, fps=episode.fps)
        client.step(session, images(episode, 0), episode.state[0])
    with RewardClient(url) as client, pytest.raises(DataError, match="does not answer"):
        client.step(session, images(episode, 1), episode.state[1])
    with serving(tiny_sarm()) as url, RewardClient(url) as client:
        assert "the server began anew" in client.step(session, images(episode, 1), episode.state[1]).reason


def test_limits_of_sessions_reach_the_client() -> None:
    with serving(tiny_sarm(), SessionConfig(limits=SessionLimits(sessions=1))) as url, RewardClient(url) as client:
        client.begin(task="visit", fps=1.0)
        with pytest.raises(DataError, match=r"refused \(400\): at most 1 attempts|one attempt at a time"):
            client.begin(task="visit", fps=1.0)


def test_the_command(tmp_path: Path) -> None:
    """From a shell: it says its address, serves, and ends with Ctrl-C."""
    tiny_sarm().save_pretrained(tmp_path / "sarm")
    words = [sys.executable, "-m", "milepost", "serve", "--model", str(tmp_path / "sarm"), "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout is not None
    first = process.stdout.readline()
    url = next(word for word in first.split() if word.startswith("http://")).rstrip("/")
    with RewardClient(url) as client:
        assert client.model_info()["type"] == "SARMModel"
        assert len(client.model_info()["weights_sha256"]) == 64
        assert json.dumps(client.model_info()["config"])
    process.send_signal(2)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert "ended" in out
    assert "Traceback" not in error


def test_models_that_cannot_follow_are_refused_by_name(tmp_path: Path) -> None:
    centred = tiny_sarm(window="centred")
    centred.save_pretrained(tmp_path / "centred")
    assert_refused(milepost("serve", "--model", tmp_path / "centred", "--port", 0), "centred cannot follow", "centred window")
    assert_refused(milepost("serve", "--model", "elapsed", "--port", 0), "cannot follow an attempt frame by frame")


OPTIONS = {
    "--port": (99999, -1), "--success-threshold": (2, -1, "nan"), "--success-release": (1.1,), "--success-hold": (0,), "--gamma": (0, 1.1),
    "--threads": (0,), "--max-sessions": (0,), "--max-frames": (0,), "--idle-s": (0, "inf"), "--max-body-mb": (0,),
    "--max-waiting-mb": (0,), "--video-fps": (0, "inf", "nan"),
}  # fmt: skip


@pytest.mark.parametrize("flag", OPTIONS)
def test_options_outside_their_range_are_refused_before_anything_is_loaded(flag: str) -> None:
    for value in OPTIONS[flag]:
        result = milepost("serve", "--model", "nothing", f"{flag}={value}")
        assert_refused(result, f"{flag} must be")
        assert result.stdout == ""


def test_a_success_that_cannot_be_is_refused(tmp_path: Path) -> None:
    tiny_sarm().save_pretrained(tmp_path / "sarm")
    result = milepost("serve", "--model", tmp_path / "sarm", "--success-threshold", 0.5, "--success-release", 0.6, "--port", 0)
    assert_refused(result, "--success-release must not be above --success-threshold")
    with pytest.raises(ValueError, match="port must be 0 to 65535"):
        bind("127.0.0.1", 65536)
