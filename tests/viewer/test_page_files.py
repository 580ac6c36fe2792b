"""The page's files by themselves: nothing missing from the import map, nothing from elsewhere, the house's sizes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import milepost.viewer

PAGE = Path(milepost.viewer.__file__).parent / "page"
MODULES = sorted(PAGE.glob("*.js"))
NAMED = json.loads(re.search(r'<script type="importmap">(.*?)</script>', (PAGE / "index.html").read_text(), re.DOTALL)[1])["imports"]


def test_the_import_map_is_complete() -> None:
    assert {f"milepost/{path.stem}": f"/page/{path.name}" for path in MODULES} == NAMED
    for path in MODULES:
        imported = re.findall(r'from "([^"]+)"|import\("([^"]+)"\)', path.read_text())
        assert {name or other for name, other in imported} <= set(NAMED), path.name


def test_every_style_is_linked() -> None:
    linked = re.findall(r'href="/page/(\w+\.css)"', (PAGE / "index.html").read_text())
    assert sorted(linked) == sorted(path.name for path in PAGE.glob("*.css"))


def test_nothing_comes_from_elsewhere() -> None:
    for path in PAGE.iterdir():
        addresses = set(re.findall(r"(?:https?:)?//[\w.]+\.\w+[^\s'\"]*", path.read_text()))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path.name


def test_files_fit_in_a_head_and_say_what_they_are() -> None:
    for path in [*MODULES, *PAGE.glob("*.css")]:
        text = path.read_text()
        assert text.startswith(("// ", "/* ")), path.name
        assert len(text.splitlines()) <= 450, path.name
        assert path.suffix == ".css" or max(map(len, text.splitlines())) <= 140, path.name


def test_nothing_of_a_dataset_becomes_html() -> None:
    for path in MODULES:
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", path.read_text()), path.name
