"""A real Chromium for the page's tests, and its server in a thread. Every page is watched: errors and requests that leave are kept."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import numbered
from milepost.cli.view import Args, open_review
from milepost.datasets.reader import open_dataset
from milepost.serving.address import bind
from milepost.viewer.media import VideoCache
from milepost.viewer.serving import make_server

CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WHY_NOT = "no browser: looked for chromium, chromium-browser and google-chrome on the PATH"


@contextmanager
def serving(root: Path, **options: Any) -> Iterator[str]:
    """The address of `milepost view` on this dataset."""
    review = open_review(Args(dataset=str(root), **options))
    socket, door = bind("127.0.0.1", 0)
    running = make_server(review, door, VideoCache(root.parent / "films"))
    thread = threading.Thread(target=lambda: running.run(sockets=[socket]))
    thread.start()
    try:
        yield door.url
    finally:
        running.should_exit = True
        thread.join()
        review.close()
        socket.close()


@dataclass
class Watched:
    """A page and what went wrong on it. expected: parts of console errors that a test provokes."""

    page: Any
    home: str
    errors: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.errors.append(said.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda asked: self._stranger(asked.url))

    def _stranger(self, url: str) -> None:
        if not url.startswith((self.home, "data:", "blob:")):
            self.strangers.append(url)

    def open(self, where: str = "") -> None:
        """The view at this address (#/...), once it is there with its pictures."""
        self.page.goto(f"{self.home}{where}")
        self.page.wait_for_selector("main")

    def close(self) -> None:
        """AssertionError for an unexpected error, or a request to anywhere else."""
        wrong = [error for error in self.errors if not any(part in error for part in self.expected)]
        assert not wrong, wrong
        assert not self.strangers, self.strangers

    # What is done and what the page shows

    def go(self, frame: int) -> None:
        """Type a frame's number."""
        self.page.fill(".readout input", str(frame))
        self.page.press(".readout input", "Enter")
        self.blur()

    def blur(self) -> None:
        """Leave whatever has the focus, so that keys are the page's."""
        self.page.evaluate("document.activeElement.blur()")

    def frame(self) -> int:
        return int(self.page.input_value(".readout input"))

    def pictures(self) -> list[dict[str, int]]:
        """What each picture on the screen says it is."""
        return self.page.evaluate(f"() => [...document.querySelectorAll('video')].map({numbered.READ})")

    def settle(self, frame: int) -> None:
        """Wait until the playhead and all pictures are at this frame; TimeoutError if they never are."""
        self.page.wait_for_function(
            f"""(frame) => Number(document.querySelector('.readout input')?.value) === frame
                && [...document.querySelectorAll('video')].every((video) =>
                  video.readyState >= 2 && !video.seeking && ({numbered.READ})(video).frame === frame)""",
            arg=frame,
            timeout=8000,
        )

    def segments(self) -> list[list[Any]]:
        """[name, start, stop] of the annotation on the screen."""
        return self.page.evaluate(
            """() => [...document.querySelectorAll('.segment')].map((s) => {
                 const [, name, start, stop] = s.getAttribute('aria-label').match(/^(.*), frames (\\d+) to (\\d+)$/);
                 return [name, Number(start), Number(stop)];
               })"""
        )

    def x_of(self, place: float, length: int) -> float:
        """Where a place on the time axis is on the screen."""
        box = self.page.locator(".ruler").bounding_box()
        return box["x"] + box["width"] * place / length

    def drag(self, handle: int, to: float, length: int, *, drop: bool = True) -> None:
        """Take a border by its handle to another place."""
        box = self.page.locator(".handle").nth(handle).bounding_box()
        y = box["y"] + box["height"] / 2
        self.page.mouse.move(box["x"] + box["width"] / 2, y)
        self.page.mouse.down()
        self.page.mouse.move(self.x_of(to, length), y, steps=5)
        if drop:
            self.page.mouse.up()

    def column(self, number: int) -> list[str]:
        """The words in one column of the rows in view, in their order on the screen."""
        return self.page.evaluate(
            """(n) => [...document.querySelectorAll('.row')].sort((a, b) => a.ariaRowIndex - b.ariaRowIndex)
                 .map((row) => row.children[n].textContent)""",
            number,
        )

    def shown(self) -> list[int]:
        return [int(text) for text in self.column(0)]


Opener = Callable[..., Watched]
"""(address, view, **context) -> a watched page."""
Server = Callable[[Path], str]
"""(dataset) -> the address of its page."""


def on_disk(root: Path, number: int = 1) -> list[list[Any]]:
    """[name, start, stop] of an episode's sparse annotation as the dataset has it."""
    return [[s.name, s.start, s.stop] for s in open_dataset(root).episode(number).segments.get("sparse", ())]


def expect(page: Watched, where: str) -> Any:
    """Playwright's expectation of what a selector finds."""
    return pytest.importorskip("playwright.sync_api").expect(page.page.locator(where))
