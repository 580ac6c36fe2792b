"""The page in one file, to send or to keep: chosen episodes with films, curves and events, read-only. Opens without server or network.

The same modules and styles as the server's page, as data: URLs in its import map; what the API would answer as JSON; films as base64.
Its own policy forbids every request. Paths of this machine stay out.
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
from milepost.viewer.media import Films, cameras, own_film
from milepost.viewer.review import Review

PAGE = Path(__file__).parent / "page"
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' data:; style-src 'unsafe-inline'; img-src data: blob:; media-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)
READ_ONLY = "an exported file is read-only; annotate with milepost view"
WAIT_S = 3600.0
CHUNK = 3 * 2**18
"""Bytes of a film that are encoded at once: a multiple of three, so that the pieces join."""

_FOLDERS = re.compile(r"(?<![\w.:/])~?/(?:[^/\s:;,'\"()]+/)+")


def export_html(
    review: Review, path: Path, *, episodes: Sequence[int], films: Films, report: str = "", title: str = "", tick: Tick | None = None
) -> list[str]:
    """Write the page with these episodes (numbers among `review.rows.numbers`) to `path`, whole or not at all.

    films: where H.264 copies are kept; one is made for each episode and camera. report: an HTML fragment, taken as it is, that the page
    shows first. tick(done, total) is called after every episode. Answers what could not be put into it, in words: films that cannot be
    made, whose episodes are there without pictures; episodes whose rows cannot be read, which are not there. DataError for no episode;
    KeyError for an episode that is not in the review.
    """
    if not episodes:
        raise DataError("there is no episode to export; choose some with --episodes")
    review.events(WAIT_S)
    made = {number: _films(review, number, films) for number in episodes}
    problems: list[str] = []
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        head, tail = _page(title or f"{review.dataset.name} · milepost").split("<!-- embedded -->")
        file.write(head)
        told: dict[int, Any] = {}
        for done, number in enumerate(episodes, start=1):
            try:
                found = review.episode(number)
            except UnreadableError as error:
                problems.append(str(error))
                continue
            shown = {camera: {**one, "source": None} for camera, one in cameras(review.dataset, number).items()}
            for camera, film in made[number].items():
                address = f"embedded:{number}/{camera}"
                own = own_film(review.dataset, number, camera)
                shown[camera] |= _embed(file, film, address, own[1] if own else shown[camera]["h264"]["type"], problems)
                if "unreadable" in shown[camera]:
                    shown[camera]["unreadable"] = _without_folders(shown[camera]["unreadable"], {review.dataset.root})
            told[number] = {**found, "cameras": shown}
            if tick is not None:
                tick(done, len(episodes))
        if not told:
            raise DataError(f"none of the episodes can be read: {problems[0]}")
        embedded = {"dataset": _about(review, list(told)), "episodes": _columns(review.episodes(), list(told)), "episode": told}
        if report:
            file.write(f'<template id="report">{report}</template>\n')
        file.write(f'<script type="application/json" id="embedded">{_json(embedded)}</script>\n{tail}')
    return problems


def _films(review: Review, number: int, films: Films) -> dict[str, Future[Path]]:
    """The episode's films by camera: the dataset's own where every browser plays it and it is this episode's alone, else copies of it."""
    dataset, made = review.dataset, {}
    for camera in dataset.cameras:
        if own := own_film(dataset, number, camera):
            made[camera] = Future[Path]()
            made[camera].set_result(own[0])
        else:
            made[camera] = films.ask(dataset, review.fingerprint, number, camera)
    return made


def _embed(file: TextIO, film: Future[Path], address: str, kind: str, problems: list[str]) -> dict[str, Any]:
    """The film into the page; what the page is to ask for, or why there is no film."""
    try:
        path = film.result()
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
    """The text with files by their names alone: where they are on this machine is nobody else's business."""
    for folder in sorted(map(str, folders), key=len, reverse=True):
        text = text.replace(f"{folder}/", "")
    return _FOLDERS.sub("", text)


def _about(review: Review, episodes: Sequence[int]) -> dict[str, Any]:
    """The dataset without paths of this machine, and not to be edited."""
    told = review.about()
    lengths = dict(zip(review.rows.numbers, review.rows.length.tolist(), strict=True))
    folders = {review.dataset.root, *(model.path.absolute().parent for model in review.models.values())}
    return {
        **told,
        "frames": sum(lengths[number] for number in episodes),
        "models": [{"name": model["name"], "heads": model["heads"], "path": "", "made": {}} for model in told["models"]],
        "weights": {"path": ""} if told["weights"] else None,
        "problems": [_without_folders(problem, folders) for problem in told["problems"]],
        "editable": False,
        "why_not_editable": READ_ONLY,
        "marks_file": "",
    }


def _columns(columns: Mapping[str, Any], episodes: Sequence[int]) -> dict[str, Any]:
    """The list with these episodes alone, in this order."""
    place = {number: at for at, number in enumerate(columns["index"])}
    chosen = [place[number] for number in episodes]

    def pick(column: Sequence[Any] | None) -> list[Any] | None:
        return None if column is None else [column[at] for at in chosen]

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
    """JSON that cannot end the script it stands in."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _data(name: str, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode((PAGE / name).read_bytes()).decode()}"


def _page(title: str) -> str:
    """index.html with modules, styles and sign inside, and `<!-- embedded -->` where the data go."""
    page = (PAGE / "index.html").read_text(encoding="utf-8")

    def once(pattern: str, made: Callable[[re.Match[str]], str]) -> None:
        nonlocal page
        page, found = re.subn(pattern, made, page, flags=re.DOTALL)
        assert found, f"index.html has no {pattern}"

    def style(found: re.Match[str]) -> str:
        return f"<style>\n{(PAGE / found[1]).read_text(encoding='utf-8')}</style>"

    def modules(found: re.Match[str]) -> str:
        named = json.loads(found[1])["imports"]
        held = {name: _data(Path(address).name, "text/javascript") for name, address in named.items()}
        return f'<script type="importmap">{json.dumps({"imports": held})}</script>'

    once(r"<title>.*?</title>", lambda _: f"<title>{html.escape(title)}</title>")
    once(r'(<meta charset="utf-8">)', lambda found: f'{found[1]}\n<meta http-equiv="Content-Security-Policy" content="{POLICY}">')
    once(r'href="/page/icon\.svg"', lambda _: f'href="{_data("icon.svg", "image/svg+xml")}"')
    once(r'<link rel="stylesheet" href="/page/(\w+\.css)">', style)
    once(r'<script type="importmap">(.*?)</script>', modules)
    once(r'<script type="module" src="/page/main\.js"></script>', lambda _: '<script type="module">import "milepost/main";</script>')
    once(r"</body>", lambda _: "<!-- embedded --></body>")
    return page
