"""Callbacks (done, total) that show how far long work has got."""

from __future__ import annotations

from collections.abc import Callable

from milepost.core.types import Tick


def quiet(done: int, total: int) -> None:
    """Shows nothing: the callback of work that nobody watches."""


def quiet_stage(name: str) -> Tick:
    """Returns a callback that shows nothing, whatever part of the work it is for."""
    return quiet


def later(bar: Callable[[str], Tick], name: str) -> Tick:
    """Returns a callback (done, total) whose bar appears when it is first called."""
    bars: list[Tick] = []

    def tick(done: int, total: int) -> None:
        if not bars:
            bars.append(bar(name))
        bars[0](done, total)

    return tick


class Ticks:
    """A progress callback (name, done, total) that opens a bar for each new name."""

    def __init__(self, on_stage: Callable[[str], Tick]) -> None:
        self.on_stage = on_stage
        self.bars: dict[str, Tick] = {}

    def __call__(self, name: str, done: int, total: int) -> None:
        if name not in self.bars:
            self.bars[name] = self.on_stage(name)
        self.bars[name](done, total)
