"""Writes the reference pages of the site: every public name, and every verb's help.

    python tools/reference.py docs/reference

`make docs` calls it before the site is built. The names are those of `milepost/__init__.pyi`, room by room; the site's builder reads their
docstrings. The help is what `milepost VERB --help` prints.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from milepost.cli.entry import VERBS, main

STUB = Path(__file__).parents[1] / "src" / "milepost" / "__init__.pyi"
ROOMS = {
    "core": "Episodes, stages, progress",
    "datasets": "Datasets",
    "models": "Reward models and training",
    "progress": "Labels, evaluation, audit",
    "weights": "Weights",
    "annotation": "Annotation",
    "metrics": "Metrics",
    "figures": "Pictures",
    "viewer": "The review page",
    "online": "While the robot moves",
    "vlm": "Vision-language models behind a server",
}
"""Room -> its heading, in the order of the page."""
WIDTH = "110"


def names_of_rooms() -> dict[str, list[str]]:
    """Returns room -> its public names that `milepost` itself has. ValueError for a room without a heading."""
    names: dict[str, list[str]] = {room: [] for room in ROOMS}
    for room, name in re.findall(r"^from \.(\w+) import (\w+) as \2$", STUB.read_text(), re.MULTILINE):
        if room not in names:
            raise ValueError(f"the room {room} has no heading in {Path(__file__).name}")
        names[room].append(name)
    return {room: own for room, own in names.items() if own}


def python_page() -> Iterator[str]:
    """Yields the lines of the page of the names."""
    yield "# Python\n\nEverything below is imported from `milepost`. Each example runs as a test.\n"
    for room, names in names_of_rooms().items():
        yield f"\n## {ROOMS[room]}\n"
        yield from (f"\n::: milepost.{name}\n" for name in names)


def command_page() -> Iterator[str]:
    """Yields the lines of the page of the command line."""
    yield "# Command line\n\nEach verb, as `milepost VERB --help` explains it.\n"
    for verb, what in VERBS.items():
        yield f"\n## milepost {verb}\n\n{what[0].upper()}{what[1:]}.\n\n```text\n{help_of(verb)}\n```\n"


def help_of(verb: str) -> str:
    """Returns what `milepost VERB --help` prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([verb, "--help"])
    return printed.getvalue().strip()


if __name__ == "__main__":
    os.environ |= {"COLUMNS": WIDTH, "NO_COLOR": "1"}
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "python.md").write_text("".join(python_page()))
    (folder / "command_line.md").write_text("".join(command_page()))
