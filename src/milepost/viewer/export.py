"""The page in one file, to send or to archive: some episodes with videos, curves and events, read-only. It opens without server or network.

It has the same modules and styles as the server's page, as data: URLs in its import map; the API's responses as JSON; videos as base64. Its
own Content-Security-Policy forbids every request. It contains no paths of this machine.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TextIO

from milepost.core import DataError, Tick, UnreadableError, atomic_path
from milepost.datasets import marked_drawing
from milepost.viewer.media import VideoCache, cameras, own_video
from milepost.viewer.review import Review

PAGE = Path(__file__).parent / "page"
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' data:; style-src 'unsafe-inline'; img-src data: blob:; media-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)
READ_ONLY = "an exported file is read-only; annotate with milepost view"
WAIT_S = 3600.0
EXPORTED = 20
"""Episodes in an exported file if none are named."""
CHUNK = 3 * 2**18
"""Bytes of a video that are encoded at once. A multiple of three: base64 of the pieces can then be joined."""

_FOLDERS = re.compile(r"(?<![\w.:/])~?/(?:[^/\s:;,'\"()]+/)+")


def export_html(
    review: Review, path: Path, *, episodes: Sequence[int], films: VideoCache, title: str = "", tick: Tick | None = None
) -> list[str]:
    """Writes the page with these episodes (indices among `review.rows.numbers`) to `path`, completely or not at all. Returns one message
    per episode or video that could not be included.

    films: the cache of H.264 copies; one is made for each episode and camera. tick(done, total) is called after every episode. If a video
    cannot be made, its episode has no images; an episode whose rows cannot be read is left out. DataError for no episode; KeyError for an
    episode that is not in the review.
    """
    if not episodes:
        raise DataError("there is no episode to export; choose some with --episodes")
    review.events(WAIT_S)
    videos = {number: _episode_videos(review, number, films) for number in episodes}
    problems: list[str] = []
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        head, tail = _page(title or f"{review.dataset.name} · milepost").split("<!-- embedded -->")
        file.write(head)
        by_index: dict[int, Any] = {}
        for count, number in enumerate(episodes, start=1):
            try:
                content = review.episode(number)
            except UnreadableError as error:
                problems.append(str(error))
                continue
            views = {camera: {**one, "source": None} for camera, one in cameras(review.dataset, number).items()}
            for camera, video in videos[number].items():
                address = f"embedded:{number}/{camera}"
                own = own_video(review.dataset, number, camera)
                views[camera] |= _embed(file, video, address, own[1] if own else views[camera]["h264"]["type"], problems)
                if "unreadable" in views[camera]:
                    views[camera]["unreadable"] = _without_folders(views[camera]["unreadable"], {review.dataset.root})
            by_index[number] = {**content, "cameras": views}
            if tick is not None:
                tick(count, len(episodes))
        if not by_index:
            raise DataError(f"none of the episodes can be read: {problems[0]}")
        embedded = {"dataset": _about(review, list(by_index)), "episodes": _columns(review.episodes(), list(by_index)), "episode": by_index}
        file.write(report_element(review))
        file.write(f'<script type="application/json" id="embedded">{_json(embedded)}</script>\n{tail}')
        file.write(marked_drawing(b"", ".html", review.dataset).decode())
    return problems


def report_element(review: Review) -> str:
    """Returns the element in which the page finds the report that it shows first, "" without one."""
    return f'<template id="report">{review.report}</template>\n' if review.report else ""


def _episode_videos(review: Review, number: int, cache: VideoCache) -> dict[str, Future[Path]]:
    """Returns the episode's videos by camera: the dataset's own file if every browser plays it and it has only this episode, else a
    copy."""
    dataset, videos = review.dataset, {}
    for camera in dataset.cameras:
        if own := own_video(dataset, number, camera):
            videos[camera] = Future[Path]()
            videos[camera].set_result(own[0])
        else:
            videos[camera] = cache.ask(dataset, review.fingerprint, number, camera)
    return videos


def _embed(file: TextIO, video: Future[Path], address: str, kind: str, problems: list[str]) -> dict[str, Any]:
    """Writes the video into the page. Returns its address for the page, or the reason why there is no video."""
    try:
        path = video.result()
    except DataError as error:
        problems.append(str(error))
        return {"h264": None, "unreadable": str(error)}
    file.write(f'<script type="text/plain" id="{html.escape(address)}">')
    for piece in _pieces(path):
        file.write(base64.b64encode(piece).decode())
    file.write("</script>\n")
    return {"h264": {"url": address, "type": kind}}


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as source:
        while piece := source.read(CHUNK):
            yield piece


def _without_folders(text: str, folders: Collection[Path]) -> str:
    """Returns the text with file names only: folders of this machine must not leave it."""
    for folder in sorted(map(str, folders), key=len, reverse=True):
        text = text.replace(f"{folder}/", "")
    return _FOLDERS.sub("", text)


def _about(review: Review, episodes: Sequence[int]) -> dict[str, Any]:
    """Returns the facts of the dataset without paths of this machine, as not editable."""
    facts = review.about()
    lengths = dict(zip(review.rows.numbers, review.rows.length.tolist(), strict=True))
    folders = {review.dataset.root, *(model.path.absolute().parent for model in review.models.values())}
    return {
        **facts,
        "frames": sum(lengths[number] for number in episodes),
        "models": [{"name": model["name"], "heads": model["heads"], "path": "", "made": {}} for model in facts["models"]],
        "weights": {"path": ""} if facts["weights"] else None,
        "problems": [_without_folders(problem, folders) for problem in facts["problems"]],
        "editable": False,
        "why_not_editable": READ_ONLY,
        "marks_file": "",
    }


def _columns(columns: Mapping[str, Any], episodes: Sequence[int]) -> dict[str, Any]:
    """Returns the list with only these episodes, in this order."""
    place = {number: at for at, number in enumerate(columns["index"])}
    places = [place[number] for number in episodes]

    def pick(column: Sequence[Any] | None) -> list[Any] | None:
        return None if column is None else [column[at] for at in places]

    def curve(head: Mapping[str, Any]) -> dict[str, Any]:
        events = head["events"]
        kinds = None if events is None else {kind: pick(counts) for kind, counts in events.items()}
        return {**{name: pick(column) for name, column in head.items() if name != "events"}, "events": kinds}

    plain = ("index", "task", "length", "success", "kind", "mark", "weight_kept", "disagreement")
    return {
        **columns,
        **{name: pick(columns[name]) for name in plain},
        "ready": True,
        "annotated": {head: pick(column) for head, column in columns["annotated"].items()},
        "note": {number: note for number, note in columns["note"].items() if int(number) in set(episodes)},
        "models": {model: {head: curve(one) for head, one in heads.items()} for model, heads in columns["models"].items()},
    }


def _json(content: Any) -> str:
    """Returns JSON that cannot end the script element around it."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _data(name: str, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode((PAGE / name).read_bytes()).decode()}"


def _page(title: str) -> str:
    """Returns index.html with modules, styles and icon inside, and `<!-- embedded -->` at the place of the data."""
    page = (PAGE / "index.html").read_text(encoding="utf-8")

    def once(pattern: str, replacement: Callable[[re.Match[str]], str]) -> None:
        nonlocal page
        page, count = re.subn(pattern, replacement, page, flags=re.DOTALL)
        assert count, f"index.html has no {pattern}"

    def style(match: re.Match[str]) -> str:
        return f"<style>\n{(PAGE / match[1]).read_text(encoding='utf-8')}</style>"

    def modules(match: re.Match[str]) -> str:
        addresses = json.loads(match[1])["imports"]
        data_urls = {name: _data(Path(address).name, "text/javascript") for name, address in addresses.items()}
        return f'<script type="importmap">{json.dumps({"imports": data_urls})}</script>'

    once(r"<title>.*?</title>", lambda _: f"<title>{html.escape(title)}</title>")
    once(r'(<meta charset="utf-8">)', lambda match: f'{match[1]}\n<meta http-equiv="Content-Security-Policy" content="{POLICY}">')
    once(r'href="/page/icon\.svg"', lambda _: f'href="{_data("icon.svg", "image/svg+xml")}"')
    once(r'<link rel="stylesheet" href="/page/(\w+\.css)">', style)
    once(r'<script type="importmap">(.*?)</script>', modules)
    once(r'<script type="module" src="/page/main\.js"></script>', lambda _: '<script type="module">import "milepost/main";</script>')
    once(r"</body>", lambda _: "<!-- embedded --></body>")
    return page
