"""The stages and the moment of success of a trace, without flicker."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Shaped

from milepost.sim.tasks import STAGES, TASKS, Trace

FLICKER = 3
"""A run of fewer frames counts as flicker."""


def runs(values: Shaped[np.ndarray, "T"]) -> list[tuple[int, int]]:
    """Returns [start, stop) of every run of equal values (T,)."""
    changes = (np.flatnonzero(np.diff(values)) + 1).tolist()
    return list(zip([0, *changes], [*changes, len(values)], strict=True)) if len(values) else []


def debounced(values: Shaped[np.ndarray, "T"], shortest: int = FLICKER) -> Shaped[np.ndarray, "T"]:
    """Returns the values (T,) with every run shorter than `shortest` merged into the run before it (the first one into the run after
    it)."""
    values = values.copy()
    while True:
        short = next(((a, b) for a, b in runs(values) if b - a < shortest and b - a < len(values)), None)
        if short is None:
            return values
        start, stop = short
        values[start:stop] = values[start - 1] if start else values[stop]


def finish(task: str, trace: Trace) -> int | None:
    """Returns the first frame of lasting success (at least FLICKER frames, or up to the end of the rollout), or None."""
    success = TASKS[task].done(trace)
    return next((a for a, b in runs(success) if success[a] and (b - a >= FLICKER or b == len(success))), None)


def stages_of(task: str, trace: Trace) -> Int[np.ndarray, "T"]:
    """Returns the stage of every frame without flicker; the last stage from success on."""
    end = finish(task, trace)
    stage = TASKS[task].stage(trace)
    stage[:end] = debounced(stage[:end])
    if end is not None:
        stage[end:] = len(STAGES) - 1
    return stage
