"""A policy in closed loop: its observations, the effect of its commands, its success. The policy is any function; no network is needed
here.

An observation has what Meta-World gives its own policies (hand, opening, object, the part of it that must arrive, now and one stored frame
ago, and the goal), and two differences: from hand to object and from that part to the goal. A command is repeated for a whole stored frame
(1/20 s), as in the demonstrations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from milepost.sim.rollout import trace_of
from milepost.sim.stagewise import FLICKER
from milepost.sim.tasks import TASKS, Trace
from milepost.sim.world import EVERY, SceneState, world

Act = Callable[[Float[np.ndarray, "O"]], Float[np.ndarray, "H 4"]]
LIMIT = 2.0
"""Time limit in frames, as a multiple of the task's usual attempt."""


def observations(trace: Trace) -> Float[np.ndarray, "T 29"]:
    """Returns the policy's observation of every frame of a demonstration, float32."""
    now = np.column_stack([trace.hand, trace.opening, trace.thing, trace.tip])
    before = np.concatenate([now[:1], now[:-1]])
    gaps = (trace.thing - trace.hand, trace.goal - trace.tip)
    return np.column_stack([now, before, np.broadcast_to(trace.goal, (len(now), 3)), *gaps]).astype(np.float32)


def succeeds(task: str, act: Act, scene: int, *, execute: int, limit: float = LIMIT) -> bool:
    """Returns whether the policy succeeds in this scene. `act` is called every `execute` frames, and its first `execute` commands are
    executed.

    Success means done for FLICKER frames in a row, within `limit` times the task's usual length.
    """
    place, definition = world(task), TASKS[task]
    views: list[SceneState] = [place.reset(scene)]
    streak, commands = 0, np.zeros((0, 4), dtype=np.float32)
    for frame in range(int(limit * definition.usual)):
        if frame % execute == 0:
            commands = np.clip(act(observations(trace_of(views[-2:]))[-1]), -1, 1)
        for _ in range(EVERY):
            place.step(commands[frame % execute])
        views.append(place.view())
        streak = streak + 1 if definition.done(trace_of(views[-1:]))[0] else 0
        if streak == FLICKER:
            return True
    return False


def success_of(task: str, act: Act, scenes: Sequence[int], *, execute: int, limit: float = LIMIT) -> Bool[np.ndarray, "N"]:
    """Returns `succeeds` for each of these scenes. A scene number is a start state; scene numbers of demonstrations are below 1e6 (1 +
    their seed)."""
    return np.array([succeeds(task, act, scene, execute=execute, limit=limit) for scene in scenes])
