"""The site is built strictly: no broken link, no page that the menu lacks, nothing that is asked of the network when it is read."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import milepost

ROOT = Path(__file__).parents[1]
LOADED = re.compile(
    r"""<(?:script|img|source|video|iframe)[^>]+src=["']?(https?:)?//|<link[^>]+rel=["']?(?:stylesheet|icon|preconnect|preload)[^>]+//"""
)


def pages(menu: list) -> Iterator[str]:
    """Yields the pages of a menu."""
    for entry in menu:
        for page in [entry] if isinstance(entry, str) else entry.values():
            yield from [page] if isinstance(page, str) else pages(page)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the site as `make docs` does, from a copy of what it is made of."""
    root = tmp_path_factory.mktemp("site")
    for name in ("docs", "tools", "src"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("reference", "__pycache__"))
    shutil.copy(ROOT / "zensical.toml", root)
    subprocess.run([sys.executable, "tools/reference.py", "docs/reference"], cwd=root, check=True)
    built = subprocess.run([Path(sys.executable).with_name("zensical"), "build", "--strict"], cwd=root, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return root / "site"


def test_every_page_is_in_the_menu_once() -> None:
    menu = sorted(pages(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    written = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md") if "reference" not in page.parts]
    assert menu == sorted([*written, "reference/python.md", "reference/command_line.md"])


def test_nothing_is_asked_of_the_network(site: Path) -> None:
    htmls = list(site.rglob("*.html"))
    assert len(htmls) > 30
    assert [(page.name, match[0]) for page in htmls if (match := LOADED.search(page.read_text()))] == []


def test_every_public_name_has_its_docstring_there(site: Path) -> None:
    html = (site / "reference" / "python" / "index.html").read_text()
    missing = [name for name in milepost.__all__ if f'id="milepost.{name}"' not in html and not name.startswith("__")]
    rooms = ["core", "datasets", "encoders", "metrics", "progress", "online", "vlm", "models", "weights", "annotation", "figures", "sim"]
    assert set(missing) <= {*rooms, "viewer", "serving", "scale", "cli", "testing", "rewards"}


def test_every_verb_is_explained(site: Path) -> None:
    from milepost.cli.entry import VERBS

    html = (site / "reference" / "command_line" / "index.html").read_text()
    assert [verb for verb in VERBS if f"usage: milepost {verb}" not in html] == []
    assert re.sub(r"<[^>]*>", "", html).count("\nexamples:\n") == len(VERBS)
