"""Callbacks (done, total) that count long work."""

from __future__ import annotations

from collections.abc import Callable

from milepost.types import OnFrames


def later(bar: Callable[[str], OnFrames], name: str) -> OnFrames:
    """Returns a callback (done, total) whose bar appears when it is first called."""
    made: list[OnFrames] = []

    def tick(done: int, total: int) -> None:
        if not made:
            made.append(bar(name))
        made[0](done, total)

    return tick
