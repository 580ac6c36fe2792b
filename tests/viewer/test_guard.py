"""Who is let in: our own page on our own names, with the token where one is asked for; bounded bodies; headers on every answer."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from milepost.serving.address import BindAddress, is_loopback
from milepost.viewer.guard import LARGEST, Guard, policy

OURS = "http://127.0.0.1:8000"
JSON = {"content-type": "application/json", "origin": OURS}


async def told(request: Request) -> JSONResponse:
    return JSONResponse({"bytes": len(await request.body())})


def client(door: BindAddress | None = None, base: str = OURS) -> TestClient:
    app = Starlette(routes=[Route("/{path:path}", told, methods=["GET", "PUT"])])
    return TestClient(Guard(app, door or BindAddress("127.0.0.1", 8000)), base_url=base, raise_server_exceptions=False)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST:8000", "[::1]:8000"])
def test_our_names(host: str) -> None:
    assert client().get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8000", "127.0.0.1", "127.0.0.1:8001", "127.0.0.1:80", "localhost.evil.example:8000", "127.0.0.1:8000.evil.example",
        "evil@127.0.0.1:8000", "127.0.0.1:8000/", "127.0.0.1:8000#", "[::1]", "::1:8000", "", "127.0.0.1:08000000", "127.0.0.2:8000",
        "0:8000", "127.1:8000", "localhost.:8000", "127.0.0.1 :8000",
    ],
)  # fmt: skip
def test_other_names_are_somebody_elses_page(host: str) -> None:
    """DNS rebinding: a page of evil.example whose name now points here sends its own name."""
    answer = client().get("/", headers={"host": host})
    assert answer.status_code == 403
    assert "error" in answer.json()


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30))
def test_any_other_host_is_refused(host: str) -> None:
    known = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]") for port in ("8000", "08000")}
    assert BindAddress("127.0.0.1", 8000).knows(host) == (host.lower() in known)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1:3000", "http://localhost:8000", "https://127.0.0.1:8000", "null", ""]
)
def test_foreign_origins_neither_read_nor_write(origin: str) -> None:
    for method in ("GET", "PUT"):
        headers = {"origin": origin, "content-type": "application/json", "sec-fetch-site": "same-origin"}
        assert client().request(method, "/", headers=headers, content="{}").status_code == 403


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),  # <img src=...> on another site has no Origin
        ("GET", {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, 403),  # another port of this machine
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),  # a link to the page
        ("GET", {"sec-fetch-site": "none"}, 200),
        ("GET", {"sec-fetch-site": "same-origin", "origin": OURS}, 200),
        ("GET", {}, 200),
        ("PUT", {"content-type": "application/json"}, 403),
        ("PUT", {"content-type": "application/json", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
        ("PUT", {"content-type": "application/json", "sec-fetch-site": "none"}, 403),
        ("PUT", {"content-type": "application/json", "sec-fetch-site": "same-origin"}, 200),
        ("PUT", JSON, 200),
        ("PUT", {**JSON, "content-type": "application/json; charset=utf-8"}, 200),
        ("PUT", {**JSON, "content-type": "text/plain"}, 415),  # what a form can send without being asked about
        ("PUT", {"origin": OURS}, 415),
        ("POST", JSON, 405),
        ("DELETE", JSON, 405),
        ("OPTIONS", {"origin": "https://evil.example", "access-control-request-method": "PUT"}, 403),
    ],
)
def test_requests_of_other_sites(method: str, headers: dict[str, str], status: int) -> None:
    answer = client().request(method, "/", headers=headers)
    assert answer.status_code == status
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_bodies_are_bounded_however_they_come() -> None:
    def chunks(count: int) -> Iterator[bytes]:
        yield from (b"x" * 10_000 for _ in range(count))

    exact = client().put("/", headers=JSON, content=b"x" * LARGEST)
    assert exact.json() == {"bytes": LARGEST}
    assert client().put("/", headers=JSON, content=b"x" * (LARGEST + 1)).status_code == 413
    assert client().put("/", headers=JSON, content=chunks(100)).json() == {"bytes": LARGEST}
    assert client().put("/", headers=JSON, content=chunks(101)).status_code == 413
    for length in ("-1", "1e3", "9" * 30, "9" * 5000, "1000001"):
        assert client().put("/", headers={**JSON, "content-length": length}, content=b"x").status_code == 413


def test_every_answer_has_the_headers() -> None:
    for answer in (client().get("/"), client().get("/", headers={"host": "evil"}), client().post("/", headers=JSON)):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        rules = answer.headers["content-security-policy"]
        assert "default-src 'self'" in rules
        assert "frame-ancestors 'none'" in rules
        assert "unsafe" not in rules


def test_scripts_written_into_the_page_are_allowed_by_their_hashes() -> None:
    """The hash is W3C's example for CSP 2: alert('Hello, world.');"""
    page = "<script src='/page/a.js'></script><script type=\"importmap\">alert('Hello, world.');</script>"
    assert "script-src 'self' 'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='" in policy(page)


def test_elsewhere_a_token_is_asked_for_and_becomes_a_cookie() -> None:
    door = BindAddress("192.168.1.5", 8000, "secret")
    base = "http://192.168.1.5:8000"
    assert door.url == f"{base}/?token=secret"
    page = client(door, base)
    page.follow_redirects = False
    assert page.get("/").status_code == page.get("/?token=Secret").status_code == page.get("/?token=").status_code == 401
    assert page.get("/", headers={"cookie": "milepost-8000="}).status_code == 401
    assert page.put("/?token=secret", headers={**JSON, "origin": base}).status_code == 401  # a write has the cookie
    opened = page.get("/x/?a=b%26&token=secret&c=")
    assert opened.status_code == 303
    assert opened.headers["location"] == "/x/?a=b%26&c="
    cookie = opened.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=Strict", "Path=/"))
    assert page.get("/").status_code == 200  # the client keeps it
    assert page.put("/", headers={**JSON, "origin": base}).status_code == 200
    assert page.put("/", headers={**JSON, "origin": "http://evil.example"}).status_code == 403
    assert page.get("/", headers={"host": "127.0.0.1:8000"}).status_code == 403


def test_the_token_does_not_send_anybody_elsewhere() -> None:
    door = BindAddress("0.0.0.0", 8000, "secret")
    for path in ("//evil.example/", "/\\evil.example", "/%2f%2fevil.example", "/a%0d%0aset-cookie:x=y"):
        page = client(door)
        page.follow_redirects = False
        told = page.get(f"{OURS}{path}?token=secret").headers["location"]
        assert told.startswith("/")
        assert not told.startswith(("//", "/\\"))
        assert "\n" not in told


def test_a_wildcard_address_goes_by_any_name_and_needs_the_token() -> None:
    door = BindAddress("0.0.0.0", 8000, "secret")
    assert door.url == "http://127.0.0.1:8000/?token=secret"
    page = client(door, "http://robot.local:8000")
    assert page.get("/").status_code == 401
    assert page.get("/?token=secret").status_code == 200
    assert not page.get("/", headers={"host": "robot.local:9"}).is_success


def test_what_loopback_is() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.5", "robot.local"))
