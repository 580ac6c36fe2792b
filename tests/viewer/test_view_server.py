"""The routes: what they send, in ranges and whole, from one process and over a real port, while others save; no error with a traceback."""

import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette import testclient
from starlette.requests import Request
from starlette.testclient import TestClient

import milepost.viewer.media as media
import milepost.viewer.server as server_module
from builders import TOP, WRIST, moving
from milepost.annotation.sources import read_annotations
from milepost.cli.entry import main
from milepost.core.errors import DataError
from milepost.core.types import Segment
from milepost.datasets.video import encode_video
from milepost.serving.address import BindAddress, bind
from milepost.viewer.marks import Marks
from milepost.viewer.media import VideoCache
from reviewed import LENGTHS, ORIGIN, annotated_dataset, page_of, review_of, served


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return annotated_dataset(tmp_path / "towels", cameras={TOP: "libx264", WRIST: "libsvtav1"})


def test_everything_the_page_asks_for(root: Path, tmp_path: Path) -> None:
    with page_of(review_of(root), VideoCache(tmp_path / "films")) as page:
        assert page.get("/").headers["content-type"].startswith("text/html")
        about = page.get("/api/dataset").json()
        assert about["cameras"] == [TOP, WRIST]
        assert about["truth"] is False
        assert len(about["palette"]) == 8
        assert page.get("/api/events").json()["ready"]
        listed = page.get("/api/episodes")
        assert listed.json()["ready"]
        same = page.get("/api/episodes", headers={"if-none-match": listed.headers["etag"]})
        assert (same.status_code, same.content) == (304, b"")
        for number, length in enumerate(LENGTHS):
            found = page.get(f"/api/episodes/{number}").json()
            assert found["length"] == length
            for told in found["cameras"].values():
                source = page.get(told["source"]["url"])
                assert (source.status_code, source.headers["content-type"]) == (200, "video/mp4")
                film = page.get(told["h264"]["url"])
                assert film.content[4:8] == b"ftyp"
                assert b"moov" in film.content[: film.content.index(b"mdat")]  # the index in front: it plays before it is all there


@pytest.mark.parametrize(
    "path",
    [
        "/api/episodes/9", "/api/episodes/x", "/api/episodes/1/2", "/media/source/0/nothing", "/media/source/9/" + TOP, "/media/h264/0/",
        "/media/h264/0/../../etc/passwd", "/media/source/0/..%2f..%2fetc%2fpasswd", "/media/source/0/%2e%2e/%2e%2e/meta/info.json",
        "/media/source/..%2f0/" + TOP, "/page/..%2fserver.py", "/page/%2e%2e%2fguard.py", "/page/server.py", "/page/%00", "/page/",
        "/page//etc/passwd", "/meta/info.json", "/api", "/%2e%2e/", "/media/source/0/" + TOP + "%00", "/media/source/0/" + TOP + "/..",
    ],
)  # fmt: skip
def test_what_there_is_not(root: Path, path: str) -> None:
    with page_of(review_of(root)) as page:
        answer = page.send(testclient.httpx.Request("GET", ORIGIN + path, headers={"origin": ORIGIN}))
        assert answer.status_code == 404
        assert set(answer.json()) == {"error"}


def test_an_episode_that_cannot_be_read_says_why(root: Path, tmp_path: Path) -> None:
    path = root / f"videos/{TOP}/chunk-000/file-000.mp4"
    path.write_bytes(path.read_bytes()[:900])
    with page_of(review_of(root), VideoCache(tmp_path / "films")) as page:
        found = page.get("/api/episodes/0").json()["cameras"][TOP]
        assert found["source"] is None
        assert page.get(f"/media/source/0/{TOP}").status_code == 404
        answer = page.get(found["h264"]["url"])
        assert answer.status_code == 422
        assert "file-000.mp4" in answer.json()["error"]
        (root / "data/chunk-000/file-000.parquet").unlink()
        answer = page.get("/api/episodes/1")  # of episode 0 the rows are still held
        assert answer.status_code == 422
        assert "file-000.parquet" in answer.json()["error"]
        assert page.get("/api/episodes/3").status_code == 200
    assert not [each for each in (tmp_path / "films").rglob("*") if each.is_file()]


def test_no_answer_has_a_traceback(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    review = review_of(root)
    for error, status in ((ZeroDivisionError("x"), 500), (OSError(28, "No space left on device", "f"), 500), (DataError("torn"), 422)):

        def fails(error: Exception = error) -> Any:
            raise error

        monkeypatch.setattr(review, "about", fails)
        with page_of(review) as page:
            answer = page.get("/api/dataset")
        assert answer.status_code == status
        assert set(answer.json()) == {"error"}
        assert "Traceback" not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"


# Ranges


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranges") / "file.mp4"
    path.write_bytes(random.Random(0).randbytes(200_000))
    return path


class Sends:
    """The answer of one file to a range, without a server around it."""

    def __init__(self, path: Path) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await server_module._video_response(Request(scope), path)(scope, receive, send)

        self.client = TestClient(app)


EDGES = st.integers(0, 200_500) | st.sampled_from([0, 1, 65_535, 65_536, 65_537, 199_999, 200_000, 200_001, 10**30])


@settings(deadline=None, max_examples=150)
@given(start=st.none() | EDGES, stop=st.none() | EDGES)
def test_a_range_is_those_bytes(file: Path, start: int | None, stop: int | None) -> None:
    """RFC 9110, 14.1.2: first-last (inclusive), first-, -suffix; what lies outside is 416, or cut where a part lies inside."""
    content = file.read_bytes()
    told = f"bytes={'' if start is None else start}-{'' if stop is None else stop}"
    answer = Sends(file).client.get("/", headers={"range": told})
    if start is None:
        first, last = (None, None) if stop is None else (max(0, len(content) - stop), len(content) - 1)
        fits = bool(stop)
    else:
        first, last = start, len(content) - 1 if stop is None else min(stop, len(content) - 1)
        fits = first < len(content) and first <= last and (stop is None or stop >= start)
    if fits:
        assert answer.status_code == 206
        assert answer.content == content[first : last + 1]
        assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(content)}"
        assert int(answer.headers["content-length"]) == len(answer.content)
    else:
        assert answer.status_code in (400, 416)


@settings(deadline=None, max_examples=100)
@given(told=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_any_range_header_is_answered(file: Path, told: str) -> None:
    answer = Sends(file).client.get("/", headers={"range": told})
    assert answer.status_code in (200, 206, 400, 416)
    assert answer.status_code != 200 or answer.content == file.read_bytes()


def test_several_ranges_conditions_and_heads(file: Path) -> None:
    content, client = file.read_bytes(), Sends(file).client
    whole = client.get("/")
    tag = whole.headers["etag"]
    assert (whole.content, whole.headers["accept-ranges"]) == (content, "bytes")
    assert client.get("/", headers={"if-none-match": tag}).status_code == 304
    assert client.get("/", headers={"if-none-match": '"other"'}).status_code == 200
    assert client.get("/", headers={"range": "bytes=0-9", "if-range": tag}).content == content[:10]
    assert client.get("/", headers={"range": "bytes=0-9", "if-range": '"other"'}).content == content
    several = client.get("/", headers={"range": "bytes=0-9,100-109"})
    assert several.status_code == 206
    assert content[:10] in several.content
    assert content[100:110] in several.content
    head = client.head("/")
    assert (head.content, head.headers["content-length"]) == (b"", str(len(content)))
    assert client.get("/", headers={"range": "bytes=" + ",".join(f"{i}-{i}" for i in range(2000))}).content == content


# Over a port


def test_200_ranges_at_once_while_pages_save_and_mark(root: Path, tmp_path: Path) -> None:
    """Every byte is compared; every save and mark that was answered with yes is on disk."""
    big = root / f"videos/{TOP}/chunk-000/file-000.mp4"
    encode_video(big, moving(600, height=240, width=320), 20, codec="libx264")  # a larger file; as many frames as are needed and more
    content = big.read_bytes()
    review, failed = review_of(root, review_file=tmp_path / "marks.json"), []
    with served(review, VideoCache(tmp_path / "films")) as url:
        headers = {"origin": url}
        together = threading.Barrier(204)

        def read(seed: int) -> None:
            rng = random.Random(seed)
            together.wait()
            with httpx2.Client(headers=headers, timeout=60) as client:
                for _ in range(3):
                    start = rng.randrange(len(content))
                    stop = min(len(content), start + rng.randrange(1, 200_000))
                    answer = client.get(f"{url}/media/source/0/{TOP}", headers={"range": f"bytes={start}-{stop - 1}"})
                    if answer.status_code != 206 or answer.content != content[start:stop]:
                        failed.append((seed, answer.status_code))

        def save(number: int) -> tuple[Segment, ...]:
            together.wait()
            with httpx2.Client(headers=headers, timeout=60) as client:
                version = client.get(f"{url}/api/episodes/{number}").json()["heads"]["sparse"]["version"]
                for border in range(5, 20):
                    segments = [{"name": "reach", "start": 0, "stop": border}, {"name": "push", "start": border, "stop": LENGTHS[number]}]
                    body = {"head": "sparse", "segments": segments, "version": version}
                    answer = client.put(f"{url}/api/episodes/{number}/segments", json=body)
                    if answer.status_code != 200:
                        failed.append((number, border, answer.status_code))
                    version = answer.json()["version"]
                    on_disk = read_annotations(root)[number]["sparse"]
                    if on_disk != (Segment("reach", 0, border), Segment("push", border, LENGTHS[number])):
                        failed.append((number, border, on_disk))
                    if client.put(f"{url}/api/marks", json={"episode": number, "mark": "keep", "note": str(border)}).status_code != 200:
                        failed.append((number, border))
            return on_disk

        with ThreadPoolExecutor(204) as pool:
            readers = [pool.submit(read, seed) for seed in range(200)]
            savers = [pool.submit(save, number) for number in range(4)]
            for each in readers:
                each.result()
            last = [each.result() for each in savers]
    assert failed == []
    assert [read_annotations(root)[n]["sparse"] for n in range(4)] == last
    assert {n: mark.note for n, mark in Marks(tmp_path / "marks.json", review.dataset).all().items()} == dict.fromkeys(range(4), "19")


def test_a_client_that_goes_leaves_no_half_film(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A film that is begun is finished; one that waits for it is not begun any more. Both are there when they are asked for again."""
    go, real = threading.Event(), media.camera_frames
    monkeypatch.setattr(media, "camera_frames", lambda *asked: go.wait(30) and real(*asked))
    films = VideoCache(tmp_path / "films", workers=1)
    with served(review_of(root, review_file=tmp_path / "m.json"), films) as url:
        for number in (0, 1):
            with pytest.raises(httpx2.TimeoutException):
                httpx2.get(f"{url}/media/h264/{number}/{TOP}", timeout=0.2)
        until = time.monotonic() + 20
        while len(films._making) > 1 and time.monotonic() < until:
            time.sleep(0.02)
        go.set()
        while films._making and time.monotonic() < until:
            time.sleep(0.02)
        assert [path.name[-10:] for path in (tmp_path / "films").rglob("*") if path.is_file()] == ["000000.mp4"]
        for number in (0, 1):
            answer = httpx2.get(f"{url}/media/h264/{number}/{TOP}", headers={"range": "bytes=0-99"}, timeout=60)
            assert (answer.status_code, len(answer.content)) == (206, 100)


def test_raw_requests(root: Path) -> None:
    """What no client library would send."""
    with served(review_of(root)) as url:
        host, port = url.removeprefix("http://").split(":")

        def sent(text: bytes) -> bytes:
            with socket.create_connection((host, int(port)), timeout=10) as plug:
                plug.sendall(text)
                out = b""
                while part := plug.recv(65536):
                    out += part
                    length = out.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
                    if b"\r\n\r\n" in out and length and len(out.partition(b"\r\n\r\n")[2]) >= int(length):
                        break
                return out.split(b"\r\n")[0]

        ours = f"Host: {host}:{port}\r\nOrigin: {url}\r\nContent-Type: application/json\r\n".encode()
        assert b" 200 " in sent(b"GET /api/dataset HTTP/1.1\r\n" + ours + b"\r\n")
        assert b" 404 " in sent(b"GET /../../../../etc/passwd HTTP/1.1\r\n" + ours + b"\r\n")
        assert b" 400 " in sent(b"GET / HTTP/1.1\r\n\r\n") or b" 403 " in sent(b"GET / HTTP/1.1\r\n\r\n")
        two = b"GET / HTTP/1.1\r\n" + ours + b"Host: evil.example\r\n\r\n"
        assert b" 200 " not in sent(two)
        assert b" 403 " in sent(b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        body = b"PUT /api/marks HTTP/1.1\r\n" + ours
        assert b" 413 " in sent(body + b"Content-Length: 100000000\r\n\r\n")  # refused before it is sent
        chunk = b"%x\r\n" % 600_000 + b"x" * 600_000 + b"\r\n"
        assert b" 413 " in sent(body + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + chunk)
        assert b" 400 " in sent(body + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd")
        assert b" 200 " in sent(b"GET /api/dataset HTTP/1.1\r\n" + ours + b"\r\n")


def test_the_next_port_is_taken() -> None:
    first, door = bind("127.0.0.1", 0)
    try:
        second, next_door = bind("127.0.0.1", door.port)
        second.close()
        assert door.port < next_door.port < door.port + 50
        assert next_door.token == ""
    finally:
        first.close()
    wide, door = bind("0.0.0.0", 0)
    wide.close()
    assert len(door.token) >= 32
    with pytest.raises(DataError, match="cannot be bound"):
        bind("203.0.113.7", 0)
    assert isinstance(door, BindAddress)


# The command


def running(root: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "milepost", "view", str(root), "--port", "0", *options]
    path = os.pathsep.join(sys.path)
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path, **environment}
    )


def test_the_command_serves_until_ctrl_c(root: Path, tmp_path: Path) -> None:
    process = running(root, "--review-file", str(tmp_path / "marks.json"), MILEPOST_CACHE=str(tmp_path / "cache"))
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("towels: 4 episodes, http://127.0.0.1:")
    url = line.split(", ")[1].split()[0].rstrip("/")
    listed = httpx2.get(f"{url}/api/episodes").json()
    assert listed["index"] == [0, 1, 2, 3]
    assert httpx2.get(f"{url}/media/h264/0/{TOP}", timeout=60).status_code == 200
    assert list((tmp_path / "cache" / "films").glob("*/*.mp4"))
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out == "milepost view: ended\n"
    assert error == ""
    assert not (tmp_path / "marks.json").exists()  # nothing was marked


def test_ctrl_c_while_a_film_is_made_and_a_page_waits(root: Path, tmp_path: Path) -> None:
    """The film has no end here: it is given up, whoever waits is told, and nothing half made stays."""
    script = f"""
import sys, time
import milepost.viewer.media as media
from milepost.cli.entry import main
real = media.read_planes
def slow(frames):
    while True:
        time.sleep(0.01)
        yield from real(frames)
media.read_planes = slow
sys.exit(main(["view", {str(root)!r}, "--port", "0"]))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MILEPOST_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    url = process.stdout.readline().split(", ")[1].split()[0].rstrip("/")
    with pytest.raises(httpx2.TimeoutException):
        httpx2.get(f"{url}/media/h264/0/{TOP}", timeout=0.3)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(httpx2.get, f"{url}/media/h264/0/{TOP}", timeout=30)
        time.sleep(0.5)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
        assert waiting.result().status_code == 503
    assert time.monotonic() - begun < 8
    assert (process.returncode, error) == (0, "")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_what_the_command_refuses(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "marks.json").write_text("{")
    for options, word in (
        (["--port", "70000"], "--port"),
        (["--episodes", "77"], "no episode 77"),
        (["--episodes", "x"], "--episodes takes"),
        (["--weights", "none.parquet"], "no such file"),
        (["--review-file", str(tmp_path / "marks.json")], "marks.json"),
        (["--host", "203.0.113.7", "--port", "0"], "cannot be bound"),
    ):
        assert main(["view", str(root), *options]) == 2
        assert word in capsys.readouterr().err
    assert main(["view", str(tmp_path)]) == 2


def test_a_damaged_progress_file_is_said_on_the_terminal_too(root: Path) -> None:
    (root / "torn_progress.parquet").write_bytes(b"PAR1")
    process = running(root)
    assert process.stdout is not None
    url = process.stdout.readline().split(", ")[1].split()[0].rstrip("/")
    about = httpx2.get(f"{url}/api/dataset").json()
    assert "torn_progress" in json.dumps(about["problems"])
    assert [model["name"] for model in about["models"]] == ["sarm"]
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert "torn_progress" in error


logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
