"""For the page's tests: a browser, a dataset of numbered pictures, servers and watched pages. Tests skip where there is no browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from browser import CHROME, WHY_NOT, Opener, Server, Watched, serving
from numbered import write_numbered


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROME is None:
        pytest.skip(WHY_NOT)
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROME, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """H.264, to be copied by tests that change it."""
    return write_numbered(tmp_path_factory.mktemp("made") / "cubes")


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "cubes"))


@pytest.fixture
def serve() -> Iterator[Server]:
    """serve(root) -> the address of `milepost view` on this dataset, until the pages are closed."""
    with ExitStack() as stack:
        yield lambda root: stack.enter_context(serving(root))


@pytest.fixture
def opened(browser: Any, serve: Server) -> Iterator[Opener]:
    """opened(address, view, **context) -> a watched page there; what went wrong on it fails the test at its end."""
    watched, contexts = [], []

    def open_page(home: str, where: str = "", **options: Any) -> Watched:
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True, **options))
        contexts[-1].set_default_timeout(8000)
        watched.append(Watched(contexts[-1].new_page(), home))
        watched[-1].open(where)
        return watched[-1]

    yield open_page
    for context in contexts:
        context.close()
    for one in watched:
        one.close()


@pytest.fixture
def page(root: Path, serve: Server, opened: Opener) -> Watched:
    """Episode 1: it begins in the middle of its file."""
    return opened(serve(root), "#/episode/1")
