"""The page's server for `milepost view`: routes to `Review` and to videos. An error is a response {error: text}, never a traceback.

Handlers that read files run in threads. `guard` decides about access before any handler runs.
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
from milepost.viewer.export import report_element
from milepost.viewer.guard import policy
from milepost.viewer.marks import as_csv, delete_command
from milepost.viewer.media import StoppedError, VideoCache, cameras, source_file
from milepost.viewer.review import Review
from milepost.viewer.saving import FaultyError

PAGE = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".png": "image/png"}
PLACEHOLDER = "<!doctype html><title>milepost view</title><p>The page is not installed."
GONE_S = 0.5
"""Seconds between two checks whether the client still waits for a video."""
WAIT_S = 20.0
"""Longest time in seconds that `GET /api/events` waits for background jobs."""


class _EpisodeNumber(Convertor[int]):
    """Episode indices in addresses: at most as many digits as `files.RANGES` allows. A longer number is no episode and causes no work."""

    regex = "[0-9]{1,9}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("episode", _EpisodeNumber())


def create_app(review: Review, videos: VideoCache | None = None) -> Starlette:
    """Returns the application. It closes the review and the videos when it ends."""
    handlers = _Handlers(review, videos or VideoCache())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        review.close()
        await run_in_threadpool(handlers.videos.close)

    routes = [
        Route("/", handlers.index),
        Route("/page/{name}", handlers.page),
        Route("/api/dataset", handlers.dataset),
        Route("/api/episodes", handlers.episodes),
        Route("/api/events", handlers.events),
        Route("/api/episodes/{number:episode}", handlers.episode),
        Route("/api/episodes/{number:episode}/segments", handlers.save, methods=["PUT"]),
        Route("/api/marks", handlers.mark, methods=["PUT"]),
        Route("/api/marks.json", handlers.marks_json),
        Route("/api/marks.csv", handlers.marks_csv),
        Route("/media/source/{number:episode}/{camera:path}", handlers.source),
        Route("/media/h264/{number:episode}/{camera:path}", handlers.video),
    ]
    errors: dict[Any, Callable[..., Response]] = {
        HTTPException: _refused,
        DataError: _data_error,
        OSError: _os_error,
        PermissionError: _read_only,
        StoppedError: _stopped,
        Exception: _broken,
    }
    return Starlette(routes=routes, exception_handlers=errors, lifespan=lifespan)


class _Handlers:
    """The request handlers, with the review and the videos that they serve."""

    def __init__(self, review: Review, videos: VideoCache) -> None:
        self.review, self.videos = review, videos
        self._list: tuple[Any, bytes, str] | None = None

    async def index(self, request: Request) -> Response:
        return _page("index.html", report_element(self.review))

    async def page(self, request: Request) -> Response:
        return _page(request.path_params["name"])

    async def dataset(self, request: Request) -> Response:
        return _json(await run_in_threadpool(self.review.about))

    async def episodes(self, request: Request) -> Response:
        body, tag = await run_in_threadpool(self._episode_list)
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={"etag": tag})
        return Response(body, media_type="application/json", headers={"etag": tag, "cache-control": "no-cache"})

    def _episode_list(self) -> tuple[bytes, str]:
        """Returns the list as bytes; it is made again only after a change."""
        key, cached = self.review.key(), self._list
        if cached is None or cached[0] != key:
            body = json.dumps(self.review.episodes(), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
            self._list = cached = (key, body, f'"{hashlib.sha256(body).hexdigest()[:16]}"')
        return cached[1:]

    async def events(self, request: Request) -> Response:
        return _json(await run_in_threadpool(self.review.events, WAIT_S))

    async def episode(self, request: Request) -> Response:
        return _json(await run_in_threadpool(self._episode, request.path_params["number"]))

    def _episode(self, number: int) -> dict[str, Any]:
        with _not_found(number):
            content = self.review.episode(number)
            return {**content, "cameras": cameras(self.review.dataset, number)}

    async def save(self, request: Request) -> Response:
        number, body = request.path_params["number"], await _object(request)
        return await run_in_threadpool(self._save, number, body)

    def _save(self, number: int, body: dict[str, Any]) -> Response:
        try:
            with _not_found(number):
                return _json(self.review.save(number, body))
        except FaultyError as error:
            return _json({"error": str(error), "faults": list(error.faults)}, 422)
        except (ChangedError, BusyError) as error:
            return _json({"error": str(error), **self.review.stored_annotation(number, body["head"])}, 409)
        except DataError as error:
            return _json({"error": str(error), "faults": [str(error)]}, 422)

    async def mark(self, request: Request) -> Response:
        body = await _object(request)
        with _not_found(body.get("episode")):
            return _json(await run_in_threadpool(self.review.mark, body))

    async def marks_json(self, request: Request) -> Response:
        content = await run_in_threadpool(self._marked)
        name = f"{_file_name(self.review.dataset.name)}.marks.json"
        return _json(content, headers={"content-disposition": f'attachment; filename="{name}"'})

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
        number, camera = self._episode_and_camera(request)
        return await run_in_threadpool(self._source, request, number, camera)

    def _source(self, request: Request, number: int, camera: str) -> Response:
        path = source_file(self.review.dataset, number, camera)
        if path is None:
            raise HTTPException(404, f"episode {number} has no mp4 of camera '{camera}' that a browser can play")
        return _video_response(request, path)

    async def video(self, request: Request) -> Response:
        number, camera = self._episode_and_camera(request)
        dataset, fingerprint = await run_in_threadpool(lambda: self.review.dataset), self.review.fingerprint
        video = asyncio.wrap_future(self.videos.ask(dataset, fingerprint, number, camera))
        video.add_done_callback(
            lambda future: future.cancelled() or future.exception()
        )  # reads the exception, so asyncio does not warn when no client waits any more
        while not (await asyncio.wait([video], timeout=GONE_S))[0]:
            if await request.is_disconnected():
                self.videos.leave(fingerprint, number, camera)
                return Response(status_code=499)
        if video.cancelled():
            raise StoppedError
        return await run_in_threadpool(_video_response, request, video.result())

    def _episode_and_camera(self, request: Request) -> tuple[int, str]:
        number, camera = request.path_params["number"], request.path_params["camera"]
        with _not_found(number):
            self.review.require(number)
        try:
            require_cameras([camera], self.review.dataset.cameras)
        except DataError as error:
            raise HTTPException(404, str(error)) from error
        return number, camera


def _page(name: str, report: str = "") -> Response:
    """Returns a file of the page, by its name in the package; index.html with the element of the report."""
    files = {path.name: path for path in PAGE.iterdir() if path.is_file()} if PAGE.is_dir() else {}
    if name == "index.html" and name not in files:
        return Response(PLACEHOLDER, media_type="text/html")
    if name not in files or files[name].suffix not in TYPES:
        raise HTTPException(404, f"the page has no file '{name}'")
    content = files[name].read_bytes()
    headers = {"cache-control": "no-cache"}
    if name == "index.html":
        content = content.replace(b"</body>", report.encode() + b"</body>")
        headers["content-security-policy"] = policy(content.decode())
    return Response(content, media_type=TYPES[files[name].suffix], headers=headers)


def _video_response(request: Request, path: Path) -> Response:
    """Returns the byte ranges of a file that the browser asks for; status 304 if it has this very file."""
    status = path.stat()
    response = FileResponse(path, media_type="video/mp4", stat_result=status, headers={"cache-control": "private, no-cache"})
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
def _not_found(number: Any) -> Iterator[None]:
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
    return _json({"error": f"{type(error).__name__} in milepost view: this is a bug in milepost; the terminal shows where"}, 500)


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)
