"""From a trace to its stages and its moment of success, without flicker."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Shaped

from milepost.sim.tasks import STAGES, TASKS, Trace

FLICKER = 3
"""Runs shorter than this many frames are not runs."""


def runs(values: Shaped[np.ndarray, "T"]) -> list[tuple[int, int]]:
    """[start, stop) of every run of equal values (T,)."""
    cuts = (np.flatnonzero(np.diff(values)) + 1).tolist()
    return list(zip([0, *cuts], [*cuts, len(values)], strict=True)) if len(values) else []


def debounced(values: Shaped[np.ndarray, "T"], shortest: int = FLICKER) -> Shaped[np.ndarray, "T"]:
    """The values (T,) with every run shorter than `shortest` given to the run before it (the first one to the run after)."""
    values = values.copy()
    while True:
        short = next(((a, b) for a, b in runs(values) if b - a < shortest and b - a < len(values)), None)
        if short is None:
            return values
        start, stop = short
        values[start:stop] = values[start - 1] if start else values[stop]


def finish(task: str, trace: Trace) -> int | None:
    """The first frame of lasting success (at least FLICKER frames, or up to the end of the rollout), or None."""
    done = TASKS[task].done(trace)
    return next((a for a, b in runs(done) if done[a] and (b - a >= FLICKER or b == len(done))), None)


def stages_of(task: str, trace: Trace) -> Int[np.ndarray, "T"]:
    """The stage of every frame without flicker; the last one from success on."""
    end = finish(task, trace)
    stage = TASKS[task].stage(trace)
    stage[:end] = debounced(stage[:end])
    if end is not None:
        stage[end:] = len(STAGES) - 1
    return stage
