"""Behaviours of simulated attempts: the scripted expert, and ways to do worse. Each kind is a generator: it gets states and yields
commands.

A behaviour does not know progress or success; `rollout.py` stops it and checks that the outcome is that of its kind. Times are steps of
1/80 s, speeds are relative to the top speed (0.8 m/s), distances are in metres.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from milepost.sim.tasks import LIFT, PULL, TASKS, Task
from milepost.sim.world import EVERY, Expert, SceneState

Action = Float[np.ndarray, "4"]
CommandScript = Generator[Action, SceneState, SceneState]
Behaviour = Callable[[Task, Expert, SceneState, np.random.Generator], CommandScript]

OPEN, STAY = -1.0, np.zeros(3)
TREMOR = 0.05
"""Standard deviation of the noise on every command; it makes a second try in a scene different from the first."""


def moving(task: Task, view: SceneState) -> bool:
    """Returns whether the object is held; for what cannot be held, whether it has moved."""
    if task.reach is None:
        return bool(task.slid(view.thing[None], view.start)[0] > PULL)
    return bool(view.thing[2] > view.start[2] + LIFT and np.linalg.norm(view.hand - view.thing) < task.reach)


def beside(task: Task, view: SceneState) -> bool:
    """Returns whether the hand is at the object, about to grasp or grasping, but not holding it yet. Nothing should disturb that moment."""
    near = np.linalg.norm((view.hand - view.thing)[:2]) < 0.06 and view.hand[2] - view.thing[2] < 0.2
    return bool(near) and task.reach is not None and not moving(task, view)


def command(motion: Float[np.ndarray, "3"], grip: float, speed: float = 1.0) -> Action:
    """Returns a command along `motion` at no more than this speed."""
    return np.append(motion * min(1.0, speed / max(float(np.linalg.norm(motion)), 1e-9)), grip)


def paced(task: Task, expert: Expert) -> Expert:
    """Returns the expert with a slower pace while the object moves: at full speed Meta-World's scripts finish within a few frames."""

    def act(view: SceneState) -> Action:
        action = expert(view)
        at_handle = task.reach is None and np.linalg.norm(view.hand - view.thing) < task.contact
        grip = task.grip if action[3] > 0 else action[3]
        return command(action[:3], grip, task.speed if at_handle or moving(task, view) else 1.0)

    return act


def going(target: Float[np.ndarray, "3"], view: SceneState, *, grip: float, speed: float, steps: int) -> CommandScript:
    """Goes to a point; ends there, or after so many steps."""
    for _ in range(steps):
        if np.linalg.norm(target - view.hand) < 0.02:
            break
        view = yield command(10 * (target - view.hand), grip, speed)
    return view


def pausing(view: SceneState, *, grip: float, steps: int) -> CommandScript:
    """Stands still."""
    for _ in range(steps):
        view = yield np.append(STAY, grip)
    return view


def backing_off(view: SceneState) -> CommandScript:
    """Opens the gripper and rises: every script grasps only from well above, with an open gripper."""
    view = yield from pausing(view, grip=OPEN, steps=6)
    return (yield from going(np.array([*view.hand[:2], view.thing[2] + 0.25]), view, grip=OPEN, speed=1.0, steps=40))


def rising(task: Task, view: SceneState) -> CommandScript:
    """Rises by the task's `retreat`, so that what hangs on a handle is not taken along."""
    if task.retreat:
        view = yield from going(view.hand + np.array([0, 0, task.retreat]), view, grip=OPEN, speed=1.0, steps=20)
    return view


def persisting(task: Task, expert: Expert, view: SceneState, steps: int) -> CommandScript:
    """Follows the expert for so many steps, and starts again when a grasp has failed for a second (60 steps of closing without lifting)."""
    vain = 0
    for _ in range(steps):
        vain = vain + 1 if beside(task, view) and view.opening < 0.95 else 0
        if vain > 60:
            view, vain = (yield from backing_off(view)), 0
        view = yield expert(view)
    return view


FOREVER = 10_000


def diligent(task: Task, expert: Expert, view: SceneState, rng: np.random.Generator) -> CommandScript:
    """Follows the expert without a fault."""
    return (yield from persisting(task, expert, view, FOREVER))


def _waits(task: Task, rng: np.random.Generator, count: int) -> list[int]:
    """Steps to wait before each of `count` events spread over an attempt, a few frames apart at least."""
    at = np.sort(rng.uniform(0.08, 0.85, count)) * EVERY * task.usual
    return [max(8, int(gap)) for gap in np.diff(at, prepend=0)]


def hesitating(task: Task, expert: Expert, view: SceneState, rng: np.random.Generator) -> CommandScript:
    """Stops two or three times for 0.2 to 0.4 s and does nothing."""
    for wait in _waits(task, rng, int(rng.integers(2, 4))):
        view = yield from persisting(task, expert, view, wait)
        while beside(task, view):
            view = yield from persisting(task, expert, view, 4)
        grip = task.grip if moving(task, view) else OPEN
        view = yield from pausing(view, grip=grip, steps=int(rng.integers(16, 33)))
    return (yield from persisting(task, expert, view, FOREVER))


def slow(task: Task, expert: Expert, view: SceneState, rng: np.random.Generator) -> CommandScript:
    """Follows the expert at 0.3 to 0.5 of the top speed, but grasps at full speed: slower, the scripts close on air."""
    pace = float(rng.uniform(0.3, 0.5))
    for _ in range(FOREVER):
        action = expert(view)
        top = max(pace * task.speed, min(task.speed, 0.25)) if moving(task, view) else 1.0 if beside(task, view) else pace
        view = yield command(action[:3], action[3], top)
    return view


def clumsy(task: Task, expert: Expert, view: SceneState, rng: np.random.Generator) -> CommandScript:
    """Slips once or twice: opens the gripper while holding, or jerks in a wrong direction; then recovers."""
    for wait in _waits(task, rng, 1 + int(rng.random() < 0.3)):
        view = yield from persisting(task, expert, view, wait)
        if moving(task, view) and task.reach is not None and rng.random() < 0.5:
            view = yield from backing_off(view)
            continue
        wrong = rng.normal(size=3) * np.array([1.0, 1.0, 0.5])
        grip = task.grip if moving(task, view) else OPEN
        for _ in range(int(rng.integers(6, 13))):
            view = yield command(100 * wrong, grip, 0.8)
        if beside(task, view):
            view = yield from backing_off(view)
    return (yield from persisting(task, expert, view, FOREVER))


def backtracking(task: Task, expert: Expert, view: SceneState, rng: np.random.Generator) -> CommandScript:
    """Undoes what was done (carries back and puts down, pushes the drawer in, lets the button out, or flies home), then does it again."""
    if rng.random() < 0.3:
        view = yield from persisting(task, expert, view, int(rng.uniform(0.1, 0.25) * EVERY * task.usual))
        view = yield from rising(task, view)
        view = yield from going(np.array(task.home), view, grip=OPEN, speed=0.7, steps=40)
        return (yield from persisting(task, expert, view, FOREVER))
    while not moving(task, view):
        view = yield from persisting(task, expert, view, 2)
    view = yield from persisting(task, expert, view, int(rng.uniform(0.1, 0.3) * EVERY * task.usual))
    if task.reach is None:
        for _ in range(80):
            if not moving(task, view):
                break
            view = yield command(0.0 - np.array(task.direction), task.grip, 0.4)
    else:
        view = yield from going(view.start + (view.hand - view.thing) + [0, 0, 0.02], view, grip=task.grip, speed=task.speed, steps=60)
        view = yield from backing_off(view)
    return (yield from persisting(task, expert, view, FOREVER))


def leaving(task: Task, view: SceneState, rng: np.random.Generator) -> CommandScript:
    """Lets go, drifts home and stays."""
    view = yield from pausing(view, grip=OPEN, steps=6)
    home = np.array(task.home) + rng.normal(0, 0.02, 3)
    view = yield from rising(task, view)
    view = yield from going(home, view, grip=OPEN, speed=0.3, steps=FOREVER)
    return (yield from pausing(view, grip=OPEN, steps=FOREVER))


def giving_up(task: Task, expert: Expert, view: SceneState, rng: np.random.Generator) -> CommandScript:
    """Stops trying somewhere on the way, lets go, drifts home and stays."""
    view = yield from persisting(task, expert, view, int(rng.uniform(0.1, 0.6) * EVERY * task.usual))
    return (yield from leaving(task, view, rng))


def dropping(task: Task, expert: Expert, view: SceneState, rng: np.random.Generator) -> CommandScript:
    """Lets go in mid-carry, drifts home and stays."""
    while not moving(task, view):
        view = yield from persisting(task, expert, view, 2)
    view = yield from persisting(task, expert, view, int(rng.uniform(0.05, 0.3) * EVERY * task.usual))
    return (yield from leaving(task, view, rng))


def failing_early(task: Task, expert: Expert, view: SceneState, rng: np.random.Generator) -> CommandScript:
    """Grasps, pulls or presses 6 to 10 cm beside the object and goes through all the motions as if it had it."""
    angle = rng.uniform(*task.misses[rng.integers(len(task.misses))])
    shift = rng.uniform(0.06, 0.1) * np.array([np.cos(angle), np.sin(angle), 0.0])
    believed, grasp = view.thing + shift, None
    for _ in range(FOREVER):
        if grasp is not None:
            carried = view.hand + grasp
            believed = carried if task.reach is not None else np.where(task.direction, carried, believed)
        action = expert(replace(view, thing=believed))
        if grasp is None and _takes_hold(task, view, believed, action):
            grasp = believed - view.hand
        view = yield action
    return view


def _takes_hold(task: Task, view: SceneState, believed: Float[np.ndarray, "3"], action: Action) -> bool:
    """Returns whether an object at this position would be grasped from now on: the hand is there, closed, and about to lift (at a handle:
    low enough)."""
    near = np.linalg.norm((view.hand - believed)[:2]) < 0.06 and view.hand[2] - believed[2] < 0.055
    return bool(near and (task.reach is None or (action[3] > 0 and action[2] > 0.2)))


SUCCESSES: dict[str, Behaviour] = {
    "expert": diligent,
    "hesitating": hesitating,
    "clumsy": clumsy,
    "backtracking": backtracking,
}
FAILURES: dict[str, Behaviour] = {"giving_up": giving_up, "failing_early": failing_early, "dropping": dropping}
KINDS = {**SUCCESSES, "slow": slow, **FAILURES}
"""kind -> behaviour. An attempt that is no failure is kept only if it succeeds, a failure only if it never did. `slow` is in no
dataset that does not ask for it."""

INSTEAD = {("dropping", name): "giving_up" for name, task in TASKS.items() if task.reach is None}
"""(kind, task) that cannot be, because nothing is held, and the kind that is made in its place."""


def episodes_by_kind(successes: int, failures: int) -> dict[str, int]:
    """Returns the episodes of each kind: so many successful and failed ones, divided over the kinds of each as evenly as possible."""
    counts: dict[str, int] = {}
    for total, kinds in ((successes, list(SUCCESSES)), (failures, list(FAILURES))):
        counts |= {kind: total // len(kinds) + (place < total % len(kinds)) for place, kind in enumerate(kinds)}
    return counts
