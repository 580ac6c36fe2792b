"""Terminal output: progress bars with rate and remaining time, tables. Bars go to standard error, tables to standard output.

Names of tasks, files and a server's messages are foreign text: all of it goes through `plain`, so that it cannot send commands to the
terminal.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

from rich.cells import cell_len
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

from milepost.core import Closes, RewardModel, Tick, bare_reason, count_noun, shortlist

FIRST = 5
"""Episodes whose reasons are printed one by one; of further ones the numbers are printed."""
EVERY_S = 60.0
"""Seconds between two lines about long work, if there is no terminal for a bar."""

WIDEST = 10_000
"""Width of the output that is no terminal: nothing is wrapped."""
GAP, FEWEST_CELLS = 2, 24
"""Cells of a terminal between two columns, and those of a first column in which sentences can still be read."""

_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_VISIBLE = {n: f"\\x{n:02x}" for n in (*range(32), *range(127, 160)) if chr(n) not in "\n\t"} | {ord(c): f"\\u{ord(c):04x}" for c in _BIDI}


def plain(text: object) -> str:
    """Returns text without terminal commands: control characters and marks that change the writing direction are written out, as in
    \\x1b."""
    return str(text).translate(_VISIBLE)


class RateColumn(ProgressColumn):
    """A column with items per second, as soon as they are known."""

    def render(self, task: Task) -> Text:
        """Returns the rate as text."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f}/s" if speed else "", style="cyan")


def unlisted(reasons: Mapping[int, str]) -> list[str]:
    """Returns a line for each of the first `FIRST` episodes that are left out, and one for all others. reasons: episode index -> why.

    >>> unlisted({3: "episode 3: its video is cut off"})
    ['episode 3 is left out: its video is cut off']
    """
    numbers = sorted(reasons)
    lines = [f"episode {number} is left out: {bare_reason(reasons[number], number)}" for number in numbers[:FIRST]]
    if others := numbers[FIRST:]:
        lines.append(f"{count_noun(len(others), 'more episode')} {'is' if len(others) == 1 else 'are'} left out: {shortlist(others)}")
    return lines


@contextmanager
def closed_after(model: RewardModel) -> Iterator[None]:
    """Closes the model's open resources in any case, and shows its final messages, such as what a server was asked and how long it took."""
    try:
        yield
    finally:
        for line in model.close() if isinstance(model, Closes) else ():
            warn(line)


@contextmanager
def bars() -> Iterator[Callable[[str], Tick]]:
    """Yields `bar`: `bar(name)` returns a callback (done, total) that draws one bar. Without a terminal, a line is printed when a bar is
    full, and every `EVERY_S` seconds before that."""
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
            full, printed_at = False, time.monotonic()

            def tick(count: int, total: int) -> None:
                nonlocal full, printed_at
                progress.update(task, completed=count, total=total)
                if not console.is_terminal and count < total and time.monotonic() - printed_at > EVERY_S:
                    printed_at = time.monotonic()
                    console.print(plain(f"{name}: {count} of {total}"), highlight=False, markup=False)
                if count == total and not full:
                    full = True
                    elapsed = progress.tasks[task].elapsed or 0.0
                    if not console.is_terminal:
                        console.print(plain(f"{name}: {total} in {elapsed:.1f} s"), highlight=False, markup=False)

            return tick

        yield bar


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, sentences: bool = False) -> None:
    """Prints a small table on standard output; the first column is left-aligned, and the others too if they hold sentences.

    In a terminal that is too narrow for it, words of the first column and of the header go on in the next line, or all sentences. A
    number never does: columns for which there is still no room follow below, beside the first column again. Without a terminal nothing is
    wrapped.
    """
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=WIDEST)
    console.print(Text(plain(title), style="bold"))
    names, cells = [plain(name) for name in columns], [[plain(cell) for cell in row] for row in rows]
    for places in [list(range(len(names)))] if sentences else _blocks(names, cells, console.width):
        grid = Table(header_style="dim", box=None, pad_edge=False)
        columns_here = [[names[place], *(row[place] for row in cells)] for place in places]
        tight = sum(map(_width, columns_here)) + GAP * (len(places) - 1) > console.width
        for place, (name, *column) in enumerate(columns_here):
            header = _folded(name, column) if tight and place else name
            whole = not sentences and place > 0 and _width(column) + _narrowest(names, cells) + GAP <= console.width
            justify: Literal["left", "right"] = "left" if sentences or place == 0 else "right"
            widest = max(FEWEST_CELLS, console.width * 2 // 5) if sentences and place < len(places) - 1 else None
            grid.add_column(Text(header), justify=justify, overflow="fold", no_wrap=whole, max_width=widest)
        for row in cells:
            grid.add_row(*(Text(row[place]) for place in places))
        console.print(grid)


def _blocks(names: Sequence[str], cells: Sequence[Sequence[str]], room: int) -> list[list[int]]:
    """Returns the places of the columns that fit beside each other, as often as needed; the first column is in each block.

    >>> _blocks(["", "model", "clock"], [["error", "0.11 [0.09, 0.12]", "0.20 [0.10, 0.30]"]], 30)
    [[0, 1], [0, 2]]
    """
    blocks, used = [[0]], _narrowest(names, cells)
    for place in range(1, len(names)):
        column = [row[place] for row in cells]
        width = GAP + _width([*_folded(names[place], column).split("\n"), *column])
        if used + width > room and len(blocks[-1]) > 1:
            blocks.append([0])
            used = _narrowest(names, cells)
        blocks[-1].append(place)
        used += width
    return blocks


def _narrowest(names: Sequence[str], cells: Sequence[Sequence[str]]) -> int:
    """Returns how narrow the first column may become: no word of it is broken, and it still reads as a line."""
    texts = [names[0], *(row[0] for row in cells)]
    return max(min(_width(texts), FEWEST_CELLS), _width([word for text in texts for word in text.split()]))


def _folded(name: str, column: Sequence[str]) -> str:
    """Returns a header in lines that are about as wide as the cells below it."""
    return "\n".join(textwrap.wrap(name, max(8, _width(column)), break_long_words=False)) or name


def _width(texts: Iterable[str]) -> int:
    """Returns how many cells of a terminal the widest of the texts takes."""
    return max(map(cell_len, texts), default=0)


def say(text: str, *, style: str = "") -> None:
    """Prints a line on standard output."""
    Console(soft_wrap=True).print(plain(text), style=style, highlight=False, markup=False)


def warn(text: str) -> None:
    """Prints a line on standard error."""
    Console(stderr=True, soft_wrap=True).print(plain(text), style="yellow", highlight=False, markup=False)


def warn_all(texts: Iterable[str]) -> None:
    """Prints warnings, one after another, on standard error."""
    for text in texts:
        warn(text)
