"""The page's server: routes to `Review` and to films, for `milepost view`. Answers errors as {error: text}, never with a traceback.

Handlers that read files run in threads. What may ask at all is decided by `guard` before anything here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from milepost.core import DataError, parse_json, require_cameras, shown
from milepost.datasets import BusyError, ChangedError
from milepost.viewer.guard import policy
from milepost.viewer.marks import as_csv, delete_command
from milepost.viewer.media import Films, StoppedError, cameras, source_file
from milepost.viewer.review import Review
from milepost.viewer.saving import FaultyError

PAGE = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".png": "image/png"}
PLACEHOLDER = "<!doctype html><title>milepost view</title><p>The page is not installed."
GONE_S = 0.5
"""How often is looked whether somebody still waits for a film."""
WAIT_S = 20.0
"""How long `GET /api/events` waits for what is being counted."""


class _EpisodeNumber(Convertor[int]):
    """Episode numbers in addresses: as many digits as `files.RANGES` allows. Longer ones are of no episode, and no work."""

    regex = "[0-9]{1,9}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("episode", _EpisodeNumber())


def create_app(review: Review, films: Films | None = None) -> Starlette:
    """The application. It closes the review and the films when it ends."""
    served = _Served(review, films or Films())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        review.close()
        await run_in_threadpool(served.films.close)

    routes = [
        Route("/", served.index),
        Route("/page/{name}", served.page),
        Route("/api/dataset", served.dataset),
        Route("/api/episodes", served.episodes),
        Route("/api/events", served.events),
        Route("/api/episodes/{number:episode}", served.episode),
        Route("/api/episodes/{number:episode}/segments", served.save, methods=["PUT"]),
        Route("/api/marks", served.mark, methods=["PUT"]),
        Route("/api/marks.json", served.marks_json),
        Route("/api/marks.csv", served.marks_csv),
        Route("/media/source/{number:episode}/{camera:path}", served.source),
        Route("/media/h264/{number:episode}/{camera:path}", served.film),
    ]
    handlers: dict[Any, Callable[..., Response]] = {
        HTTPException: _refused,
        DataError: _data_error,
        OSError: _os_error,
        PermissionError: _read_only,
        StoppedError: _stopped,
        Exception: _broken,
    }
    return Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)


class _Served:
    """The handlers, and what they serve."""

    def __init__(self, review: Review, films: Films) -> None:
        self.review, self.films = review, films
        self._list: tuple[Any, bytes, str] | None = None

    async def index(self, request: Request) -> Response:
        return _page("index.html")

    async def page(self, request: Request) -> Response:
        return _page(request.path_params["name"])

    async def dataset(self, request: Request) -> Response:
        return _json(await run_in_threadpool(self.review.about))

    async def episodes(self, request: Request) -> Response:
        body, tag = await run_in_threadpool(self._listed)
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={"etag": tag})
        return Response(body, media_type="application/json", headers={"etag": tag, "cache-control": "no-cache"})

    def _listed(self) -> tuple[bytes, str]:
        """The list as bytes, made again only after a change."""
        key, held = self.review.key(), self._list
        if held is None or held[0] != key:
            body = json.dumps(self.review.episodes(), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
            self._list = held = (key, body, f'"{hashlib.sha256(body).hexdigest()[:16]}"')
        return held[1:]

    async def events(self, request: Request) -> Response:
        return _json(await run_in_threadpool(self.review.events, WAIT_S))

    async def episode(self, request: Request) -> Response:
        return _json(await run_in_threadpool(self._episode, request.path_params["number"]))

    def _episode(self, number: int) -> dict[str, Any]:
        with _known(number):
            found = self.review.episode(number)
            return {**found, "cameras": cameras(self.review.dataset, number)}

    async def save(self, request: Request) -> Response:
        number, body = request.path_params["number"], await _object(request)
        return await run_in_threadpool(self._save, number, body)

    def _save(self, number: int, body: dict[str, Any]) -> Response:
        try:
            with _known(number):
                return _json(self.review.save(number, body))
        except FaultyError as error:
            return _json({"error": str(error), "faults": list(error.faults)}, 422)
        except (ChangedError, BusyError) as error:
            return _json({"error": str(error), **self.review.held(number, body["head"])}, 409)
        except DataError as error:
            return _json({"error": str(error), "faults": [str(error)]}, 422)

    async def mark(self, request: Request) -> Response:
        body = await _object(request)
        with _known(body.get("episode")):
            return _json(await run_in_threadpool(self.review.mark, body))

    async def marks_json(self, request: Request) -> Response:
        told = await run_in_threadpool(self._marked)
        name = f"{_file_name(self.review.dataset.name)}.marks.json"
        return _json(told, headers={"content-disposition": f'attachment; filename="{name}"'})

    def _marked(self) -> dict[str, Any]:
        rows, dataset = self.review.marked(), self.review.dataset
        dropped = [row["episode"] for row in rows if row["mark"] == "drop"]
        command = delete_command(dataset, dropped)
        return {"dataset": dataset.name, "marks": rows, "lerobot_delete_command": command}

    async def marks_csv(self, request: Request) -> Response:
        text = as_csv(await run_in_threadpool(self.review.marked))
        name = f"{_file_name(self.review.dataset.name)}.marks.csv"
        headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
        return Response(text, media_type="text/csv", headers=headers)

    async def source(self, request: Request) -> Response:
        number, camera = self._asked(request)
        return await run_in_threadpool(self._source, request, number, camera)

    def _source(self, request: Request, number: int, camera: str) -> Response:
        path = source_file(self.review.dataset, number, camera)
        if path is None:
            raise HTTPException(404, f"episode {number} has no mp4 of camera '{camera}' that a browser could know")
        return _film(request, path)

    async def film(self, request: Request) -> Response:
        number, camera = self._asked(request)
        dataset, fingerprint = await run_in_threadpool(lambda: self.review.dataset), self.review.fingerprint
        made = asyncio.wrap_future(self.films.ask(dataset, fingerprint, number, camera))
        made.add_done_callback(lambda done: done.cancelled() or done.exception())  # heard, even if nobody waits any more
        while not (await asyncio.wait([made], timeout=GONE_S))[0]:
            if await request.is_disconnected():
                self.films.leave(fingerprint, number, camera)
                return Response(status_code=499)
        if made.cancelled():
            raise StoppedError
        return await run_in_threadpool(_film, request, made.result())

    def _asked(self, request: Request) -> tuple[int, str]:
        number, camera = request.path_params["number"], request.path_params["camera"]
        with _known(number):
            self.review.require(number)
        try:
            require_cameras([camera], self.review.dataset.cameras)
        except DataError as error:
            raise HTTPException(404, str(error)) from error
        return number, camera


def _page(name: str) -> Response:
    """A file of the page, by its name in the package."""
    files = {path.name: path for path in PAGE.iterdir() if path.is_file()} if PAGE.is_dir() else {}
    if name == "index.html" and name not in files:
        return Response(PLACEHOLDER, media_type="text/html")
    if name not in files or files[name].suffix not in TYPES:
        raise HTTPException(404, f"the page has no file '{name}'")
    content = files[name].read_bytes()
    headers = {"cache-control": "no-cache"}
    if name == "index.html":
        headers["content-security-policy"] = policy(content.decode())
    return Response(content, media_type=TYPES[files[name].suffix], headers=headers)


def _film(request: Request, path: Path) -> Response:
    """A file in the ranges that the browser asks for; nothing, if it has this very file."""
    found = path.stat()
    response = FileResponse(path, media_type="video/mp4", stat_result=found, headers={"cache-control": "private, no-cache"})
    tag = response.headers["etag"]
    if "range" not in request.headers and tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"etag": tag})
    return response


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    body = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(body, status, headers={"cache-control": "no-store", **(headers or {})}, media_type="application/json")


async def _object(request: Request) -> dict[str, Any]:
    try:
        body = parse_json(await request.body(), source="the body")
    except DataError as error:
        raise HTTPException(400, str(error)) from error
    if not isinstance(body, dict):
        raise HTTPException(400, "the body should be a JSON object")
    return body


@contextmanager
def _known(number: Any) -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise HTTPException(404, f"there is no episode {shown(number)} here") from error


def _refused(request: Request, error: HTTPException) -> Response:
    return _json({"error": str(error.detail)}, error.status_code, dict(error.headers or {}))


def _data_error(request: Request, error: DataError) -> Response:
    return _json({"error": str(error)}, 422)


def _read_only(request: Request, error: PermissionError) -> Response:
    return _json({"error": str(error)}, 403)


def _os_error(request: Request, error: OSError) -> Response:
    return _json({"error": f"{error.strerror or type(error).__name__}: {error.filename or ''}"}, 500)


def _stopped(request: Request, error: StoppedError) -> Response:
    return _json({"error": "the server is ending"}, 503)


def _broken(request: Request, error: Exception) -> Response:
    return _json({"error": f"{type(error).__name__} in milepost view: this is a fault of ours; the terminal shows where"}, 500)


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)
