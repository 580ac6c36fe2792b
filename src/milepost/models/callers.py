"""Who called: a warning of this room is attributed to the line outside it that asked for the model."""

from __future__ import annotations

import sys

ROOM = __name__.rpartition(".")[0]


def outside() -> int:
    """Returns the `stacklevel` that attributes a warning of the function that asks to the first caller outside this room."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and f"{frame.f_globals.get('__name__', '')}.".startswith(f"{ROOM}."):
        frame, level = frame.f_back, level + 1
    return level
