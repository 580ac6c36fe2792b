"""The page's server under attack: half-open and dripping connections, doubled headers, long numbers, odd names, two servers of one file."""

import asyncio
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import uvicorn

from milepost.core.errors import DataError
from milepost.core.outputs import output_lock
from milepost.datasets.reader import open_dataset
from milepost.serving import protocol
from milepost.serving.address import BindAddress
from milepost.viewer import guard
from milepost.viewer.export import export_html
from milepost.viewer.guard import Guard
from milepost.viewer.marks import Mark, Marks
from milepost.viewer.media import VideoCache
from reviewed import annotated_dataset, page_of, review_of
from test_cli import FIXTURE

JSON = {"content-type": "application/json"}


async def hello(scope: dict, receive: object, send: object) -> None:
    """An application that reads the whole body and says hello."""
    more = scope["method"] == "PUT"
    while more:
        more = (await receive()).get("more_body", False)  # type: ignore[operator]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": b"hi"})  # type: ignore[operator]


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A guarded server with our protocol, little patience and room for 40 connections."""
    monkeypatch.setattr(protocol, "HEAD_S", 0.5)
    monkeypatch.setattr(protocol, "CONNECTIONS", 40)
    monkeypatch.setattr(guard, "BODY_S", 0.5)
    listening = socket.create_server(("127.0.0.1", 0))
    number = listening.getsockname()[1]
    app = Guard(hello, BindAddress("127.0.0.1", number))  # type: ignore[arg-type]
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", http=protocol.TimeoutProtocol, lifespan="off", ws="none"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield number
    server.should_exit = True
    thread.join(10)
    listening.close()


def ask(port: int, text: str = "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n", wait_s: float = 5.0) -> bytes:
    """Everything the server answers to these bytes; empty if it only closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait_s) as connection:
        connection.sendall(text.format(port=port).encode())
        answer = b""
        try:
            while piece := connection.recv(4096):
                answer += piece
        except ConnectionResetError:
            pass
        return answer


def test_half_open_connections_do_not_starve_the_others(port: int) -> None:
    half = []
    for number in range(120):
        connection = socket.create_connection(("127.0.0.1", port), timeout=5)
        if number % 2:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: 127")
        half.append(connection)
    time.sleep(1.5)
    assert ask(port).startswith(b"HTTP/1.1 200")
    gone = 0
    for connection in half:
        connection.settimeout(2)
        try:
            gone += connection.recv(1) == b""
        except ConnectionResetError:
            gone += 1
        connection.close()
    assert gone == len(half)


def test_a_dripping_head_and_a_body_that_never_comes_are_given_up(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        begin = time.monotonic()
        try:
            for letter in b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" * 20:
                connection.sendall(bytes([letter]))
                time.sleep(0.02)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert time.monotonic() - begin < 5
    lines = ("PUT / HTTP/1.1", "Host: 127.0.0.1:{port}", "Origin: http://127.0.0.1:{port}", "Content-Type: application/json")
    head = "\r\n".join((*lines, "Content-Length: 100", "", ""))
    begin = time.monotonic()
    ask(port, head + "half")
    assert time.monotonic() - begin < 4
    assert ask(port).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "headers",
    [
        "Host: 127.0.0.1:{port}\r\nHost: evil.example",
        "Host: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\nOrigin: https://evil.example",
        "Host: 127.0.0.1:{port}\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site",
        "Host: 127.0.0.1\t:{port}",
        "Host: 127.0.0.1:{port}\t.evil.example",
        "Host: evil.example",
        "Host:",
        "Host: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\tx",
    ],
)
def test_doubled_and_odd_headers_are_refused(port: int, headers: str) -> None:
    status = ask(port, f"GET / HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n").split(b"\r\n")[0]
    assert status.split()[1:2] in ([b"403"], [b"400"]), status


def test_numbers_of_any_length_are_answered(tmp_path: Path) -> None:
    with page_of(review_of(annotated_dataset(tmp_path / "towels"))) as page:
        for digits in ("9" * 9, "9" * 10, "9" * 46, "9" * 4500, "0" * 20):
            assert page.get(f"/api/episodes/{digits}").status_code == 404
            assert page.get(f"/media/h264/{digits}/top").status_code == 404
            body = f'{{"episode": {digits.lstrip("0") or 7}, "mark": "drop"}}'
            assert page.put("/api/marks", content=body, headers=JSON).status_code in (400, 404)
        for body in ("[" * 50_000 + "]" * 50_000, b"\xff", "", "[]"):
            assert page.put("/api/marks", content=body, headers=JSON).status_code == 400
        for body in ('{"episode": NaN}', '{"episode": 1e999}', '{"episode": [1]}', '{"episode": {}}'):
            assert page.put("/api/marks", content=body, headers=JSON).status_code == 404


def test_an_exported_page_has_no_folder_of_this_machine(tmp_path: Path) -> None:
    """Two files of one name, a damaged one elsewhere, and problems that name files."""
    root = annotated_dataset(tmp_path / "private" / "towels")
    for name in ("first run", "second"):
        (tmp_path / "private" / name).mkdir()
        shutil.copy(root / "sarm_progress.parquet", tmp_path / "private" / name / "sarm_progress.parquet")
    (tmp_path / "private" / "broken_progress.parquet").write_bytes(b"PAR1")
    files = [tmp_path / "private" / name for name in ("first run/sarm_progress.parquet", "second/sarm_progress.parquet")]
    review = review_of(root, progress=tuple(files))
    review.problems.append(f"{tmp_path / 'private' / 'broken_progress.parquet'}: cannot be read, see {Path.home() / 'x' / 'y.log'}")
    out = tmp_path / "page.html"
    export_html(review, out, episodes=[0], films=VideoCache(tmp_path / "films"))
    review.close()
    text = out.read_text()
    assert "private" not in text
    assert str(Path.home() / "x") not in text
    assert "first run/sarm" in text
    assert "broken_progress.parquet: cannot be read, see y.log" in text


def test_marks_of_two_servers_are_all_kept(tmp_path: Path) -> None:
    dataset = open_dataset(FIXTURE)
    path = tmp_path / "review.json"
    servers = [Marks(path, dataset) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: servers[n % 4].set(n, Mark("drop", f"note {n}")), range(60)))
    kept = Marks(path, dataset).all()
    assert sorted(kept) == list(range(60))
    assert all(kept[n].note == f"note {n}" for n in kept)
    assert [p.name for p in tmp_path.iterdir()] == ["review.json"]


@pytest.mark.parametrize("odd", ["Infinity", "1e999", "9" * 40, '"three"', "null", "[1]", "-1", "1.5", "NaN"])
def test_odd_episode_numbers_in_a_file_of_marks_are_refused(tmp_path: Path, odd: str) -> None:
    dataset = open_dataset(FIXTURE)
    path = tmp_path / "review.json"
    Marks(path, dataset).set(1, Mark("keep"))
    content = json.loads(path.read_text())
    content["marks"][0]["episode"] = "HERE"
    path.write_text(json.dumps(content).replace('"HERE"', odd))
    before = path.read_bytes()
    with pytest.raises(DataError, match="not a file of marks"):
        Marks(path, dataset)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "'dataset_footage' is missing"),
        ("[1]", "a part of it has another form"),
        ('{"dataset_footage": "", "marks": [{"episode": 1, "mark": "keep"}]}', "'note' is missing"),
        ('{"dataset_footage": "", "marks": 3}', "a part of it has another form"),
    ],
)
def test_a_damaged_file_of_marks_is_refused_without_words_of_python(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "review.json"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"review.json is not a file of marks \({words}\); move it away"):
        Marks(path, open_dataset(FIXTURE))


def test_a_mark_waits_for_another_server(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "review.json", open_dataset(FIXTURE))
    entered = threading.Event()

    def hold() -> None:
        with output_lock(tmp_path / "review.json"):
            entered.set()
            time.sleep(0.3)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    marks.set(2, Mark("keep"))
    thread.join()
    assert list(marks.all()) == [2]
