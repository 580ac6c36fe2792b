"""What the terminal shows: progress bars with rate and estimate, tables. Bars go to standard error, tables to standard output.

Names of tasks, files and a server's words are somebody else's text: all of it goes through `plain`, so that it commands no terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

Tick = Callable[[int, int], None]

_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_VISIBLE = {n: f"\\x{n:02x}" for n in (*range(32), *range(127, 160)) if chr(n) not in "\n\t"} | {ord(c): f"\\u{ord(c):04x}" for c in _BIDI}


def plain(text: object) -> str:
    """Returns text that commands no terminal: control characters and marks that turn the writing direction are written out, as in \\x1b."""
    return str(text).translate(_VISIBLE)


class RateColumn(ProgressColumn):
    """Items a second, once known."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f}/s" if speed else "", style="cyan")


@contextmanager
def bars() -> Iterator[Callable[[str], Tick]]:
    """`bar(name)` gives a callback (done, total) that draws one bar. Without a terminal, one line is printed when a bar is full."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<32}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def bar(name: str) -> Tick:
            task = progress.add_task(escape(plain(name)), total=None)
            full = False

            def tick(done: int, total: int) -> None:
                nonlocal full
                progress.update(task, completed=done, total=total)
                if done == total and not full:
                    full = True
                    elapsed = progress.tasks[task].elapsed or 0.0
                    if not console.is_terminal:
                        console.print(plain(f"{name}: {total} in {elapsed:.1f} s"), highlight=False, markup=False)

            return tick

        yield bar


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A small table on standard output; the first column is left-aligned, the others right."""
    grid = Table(title=Text(plain(title)), title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    for place, name in enumerate(columns):
        grid.add_column(Text(plain(name)), justify="left" if place == 0 else "right", overflow="fold")
    for row in rows:
        grid.add_row(*[Text(plain(cell)) for cell in row])
    Console(soft_wrap=False).print(grid)


def say(text: str, *, style: str = "") -> None:
    """A line on standard output."""
    Console(soft_wrap=True).print(plain(text), style=style, highlight=False, markup=False)


def warn(text: str) -> None:
    """A line on standard error."""
    Console(stderr=True, soft_wrap=True).print(plain(text), style="yellow", highlight=False, markup=False)
