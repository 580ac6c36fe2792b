"""The simulated tasks, defined by positions alone: the stage of a frame, the progress within that stage, and whether the task is done.

Pure numpy; no simulator here. Positions are metres in the simulator's frame: x to the right, y away from the robot, z up.
`stage` is the current stage, not the highest so far: it goes back after a drop. `way` is the proportion of a stage's distance that is
covered, 0 where the stage begins and 1 where it ends. Only its order matters for the truth (`truth.py` ranks it), so it may leave
[0, 1]; it is defined so that the scripted expert covers it at an even pace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

STAGES = ("reach the object", "move the object", "finish the task")
"""One vocabulary for all tasks, so that one annotation fits a dataset of several."""

HOME = (0.0, 0.6, 0.2)
"""Where the hand starts in most scenes."""

LIFT, PULL, WIDE = 0.02, 0.01, 0.17
"""Metres: an object is held once lifted by LIFT; a drawer, door or button moves once it is PULL away; a drawer is open at WIDE."""

RECIPE = 2
"""Version of the simulation. Raise it when equal configs give different episodes, so that an old work folder is not continued."""


@dataclass(frozen=True, eq=False)
class Trace:
    """One rollout as positions, one row a stored frame, frame 0 untouched. hand: end effector. opening: gripper, 1 open.
    thing: where the object is grasped. tip: the part of it that must arrive (nut centre, peg head, else the same point).
    goal: where `tip` must arrive."""

    hand: Float[np.ndarray, "T 3"]
    opening: Float[np.ndarray, "T"]
    thing: Float[np.ndarray, "T 3"]
    tip: Float[np.ndarray, "T 3"]
    goal: Float[np.ndarray, "3"]

    def __len__(self) -> int:
        return len(self.hand)


Vector = tuple[float, float, float]
Measure = Callable[[Trace], Float[np.ndarray, "T"]]
Predicate = Callable[[Trace], Bool[np.ndarray, "T"]]


@dataclass(frozen=True)
class Point:
    """A point of the simulator: a body, site or geom by its name in Meta-World's model, and metres from its origin."""

    kind: Literal["body", "site", "geom"]
    name: str
    offset: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Task:
    """A Meta-World task. usual: stored frames of an average successful attempt (failures draw their length from it, so that length
    tells nothing). speed: top speed of the hand (1 = 0.8 m/s) while the object moves, slow enough that every stage lasts.
    thing, tip: the points of `Trace`; thing is the object's position as Meta-World tells its script, and without a tip it is both.
    reach: metres between hand and object within which it may count as held; None for what is pulled or pushed. direction: of its first
    movement, for what is not held. hover, aligned: how far above the object the expert flies, and the horizontal distance at which it
    turns down (m). grip: effort of the closing gripper; the script's own 0.6 squeezes the stick out. touch: where the hand meets the
    object, from `thing` (m). contact: metres from `thing` within which the hand slows down for what is not held. home: where the hand
    starts. misses: directions (rad, from right towards away) in which an attempt that fails early misses the object. retreat: metres
    the hand rises before it leaves, so as not to take a door along. approach: stage 0, where it is not `reached`. marker: only a
    coloured marker shows the goal."""

    name: str
    instruction: str
    usual: int
    speed: float
    thing: Point
    reach: float | None
    hover: float
    aligned: float
    grip: float
    near: Predicate
    carried: Measure
    finishing: Measure
    done: Predicate
    tip: Point | None = None
    direction: Vector = (0.0, 0.0, 0.0)
    touch: Vector = (0.0, 0.0, 0.0)
    contact: float = 0.07
    home: Vector = HOME
    misses: tuple[tuple[float, float], ...] = ((0.0, 2 * np.pi),)
    retreat: float = 0.0
    approach: Measure | None = None
    marker: bool = False

    def is_held(self, trace: Trace) -> Bool[np.ndarray, "T"]:
        """Returns whether the object is grasped and lifted; for what is not held, whether it has moved."""
        if self.reach is None:
            return self.slid(trace.thing, trace.thing[0]) > PULL
        return (lifted(trace) > LIFT) & (distance(trace.hand, trace.thing) < self.reach)

    def slid(self, thing: Float[np.ndarray, "T 3"], start: Float[np.ndarray, "3"]) -> Float[np.ndarray, "T"]:
        """Computes metres that the object has moved from its start in its direction."""
        return (thing - start) @ np.array(self.direction)

    def stage(self, trace: Trace) -> Int[np.ndarray, "T"]:
        """Returns the stage of every frame at that moment, flicker included."""
        grasped = self.is_held(trace)
        return grasped.astype(np.int64) + (grasped & self.near(trace))

    def way(self, trace: Trace) -> Float[np.ndarray, "T K"]:
        """Returns the proportion of the distance covered, in each stage (a frame uses the column of its own stage)."""
        return np.stack([(self.approach or self.reached)(trace), self.carried(trace), self.finishing(trace)], axis=1)

    def reached(self, trace: Trace) -> Float[np.ndarray, "T"]:
        """Returns the progress in stage 0: the covered proportion of flying (over, then down), closing and lifting."""
        remaining = flight(trace.hand, trace.thing + self.touch, hover=self.hover, aligned=self.aligned)
        whole = remaining[0]
        if self.reach is not None:
            at_it = distance(trace.hand, trace.thing) < self.reach
            remaining = remaining + CLOSING * np.where(at_it, np.clip(2 * trace.opening - 1, 0, 1), 1)
            remaining = remaining + RISING * np.where(at_it, np.clip(1 - lifted(trace) / LIFT, 0, 1), 1)
            whole = whole + CLOSING + RISING
        return 1 - remaining / whole


CLOSING, RISING = 0.06, 0.04
"""Closing the gripper and the first lift take as long as flying these distances (m); measured on experts."""


def distance(a: Float[np.ndarray, "T 3"], b: Float[np.ndarray, "*P 3"]) -> Float[np.ndarray, "T"]:
    """Computes metres between a path and another path, or a path and a point."""
    return np.linalg.norm(a - b, axis=-1)


def lifted(trace: Trace) -> Float[np.ndarray, "T"]:
    """Computes metres of the object above its first position."""
    return trace.thing[:, 2] - trace.thing[0, 2]


def pulled(trace: Trace) -> Float[np.ndarray, "T"]:
    """Computes metres that the drawer is open."""
    return trace.thing[0, 1] - trace.thing[:, 1]


def swung(trace: Trace) -> Float[np.ndarray, "T"]:
    """Computes metres between the object and its first position."""
    return distance(trace.thing, trace.thing[0])


def left_over(trace: Trace) -> Float[np.ndarray, "T"]:
    """Computes metres between the tip and the goal."""
    return distance(trace.tip, trace.goal)


def aside(trace: Trace) -> Float[np.ndarray, "T"]:
    """Computes horizontal metres between the tip and the goal."""
    return np.linalg.norm((trace.tip - trace.goal)[:, :2], axis=1)


def flight(hand: Float[np.ndarray, "T 3"], thing: Float[np.ndarray, "T 3"], *, hover: float, aligned: float) -> Float[np.ndarray, "T"]:
    """Computes metres that the expert must still fly: straight to a point above the object until aligned with it, then down to it."""
    above = thing + np.array([0.0, 0.0, hover])
    far = np.linalg.norm((hand - thing)[:, :2], axis=1)
    part = np.clip(1 - aligned / np.maximum(far, 1e-9), 0, 1)[:, None]
    turn = hand + part * (above - hand)
    return distance(turn, hand) + distance(turn, thing)


def _ring_carried(trace: Trace) -> Float[np.ndarray, "T"]:
    remaining = np.maximum(trace.goal[2] + 0.06 - trace.tip[:, 2], 0) + np.maximum(aside(trace) - 0.03, 0)
    return 1 - remaining / (trace.goal[2] + 0.06 - trace.tip[0, 2] - LIFT + aside(trace)[0] - 0.03)


def _ring_finishing(trace: Trace) -> Float[np.ndarray, "T"]:
    remaining = np.maximum(trace.tip[:, 2] - trace.goal[2], 0) + np.maximum(aside(trace) - 0.02, 0)
    return 1 - remaining / 0.11


def _ring_done(trace: Trace) -> Bool[np.ndarray, "T"]:
    return (aside(trace) < 0.02) & (trace.tip[:, 2] < trace.goal[2])


def _peg_near(trace: Trace) -> Bool[np.ndarray, "T"]:
    off = np.abs(trace.tip - trace.goal)
    return (off[:, 0] < 0.17) & (off[:, 1] < 0.03) & (off[:, 2] < 0.04)


def _peg_carried(trace: Trace) -> Float[np.ndarray, "T"]:
    mouth = trace.goal + np.array([0.17, 0.0, 0.0])
    return 1 - distance(trace.tip, mouth) / max(distance(trace.tip, mouth)[0], 0.05)


def _peg_left(trace: Trace) -> Float[np.ndarray, "T"]:
    return np.linalg.norm((trace.tip - trace.goal) * np.array([1.0, 2.0, 2.0]), axis=1)


def _closer_than(metres: float) -> Predicate:
    return lambda trace: left_over(trace) < metres


def _approach(trace: Trace, *, near: float) -> Float[np.ndarray, "T"]:
    return 1 - (left_over(trace) - near) / (left_over(trace)[0] - near)


def _shelf_carried(trace: Trace) -> Float[np.ndarray, "T"]:
    off = np.abs(trace.tip - trace.goal)
    across = np.maximum(off[:, 1] - 0.14, 0)
    up = np.maximum(trace.goal[2] - 0.03 - trace.tip[:, 2], 0)
    return 1 - (np.hypot(off[:, 0], up) + across) / (np.hypot(off[0, 0], up[0]) + across[0])


def _bin_carried(trace: Trace) -> Float[np.ndarray, "T"]:
    remaining = np.maximum(trace.thing[0, 2] + 0.1 - trace.tip[:, 2], 0) + np.maximum(aside(trace) - 0.05, 0)
    return 1 - remaining / (0.1 - LIFT + aside(trace)[0] - 0.05)


def _button_reached(trace: Trace) -> Float[np.ndarray, "T"]:
    """Computes stage 0: the script backs off while it aligns itself, as fast as it moves sideways and down; then it goes straight ahead."""
    off = np.abs(trace.hand - trace.thing - np.array([0.0, -0.05, -0.065]))
    remaining = 2 * np.maximum(off[:, 0], off[:, 2]) + off[:, 1]
    return 1 - remaining / remaining[0]


def _pressed(trace: Trace) -> Float[np.ndarray, "T"]:
    return trace.thing[:, 1] - trace.thing[0, 1]


TOWARDS, AWAY = (0.0, -1.0, 0.0), (0.0, 1.0, 0.0)
"""Directions as the robot sees them."""

IN_FRONT, BESIDE = ((-2.0, -1.1),), ((-0.4, 0.4), (np.pi - 0.4, np.pi + 0.4))
"""Where an attempt misses what it cannot grasp: on the robot's side of a handle; to the right or left of a button."""

SWING = 0.5
"""Metres between a door's handle when it is shut and when it is open, as the crow flies."""

TASKS = {
    task.name: task
    for task in (
        Task(
            "assembly-v3",
            "put the ring on the peg",
            usual=34,
            speed=0.75,
            thing=Point("site", "RoundNut-8"),
            tip=Point("site", "RoundNut"),
            reach=0.1,
            hover=0.1,
            aligned=0.02,
            grip=0.6,
            near=lambda trace: aside(trace) < 0.03,
            carried=_ring_carried,
            finishing=_ring_finishing,
            done=_ring_done,
        ),
        Task(
            "bin-picking-v3",
            "move the cube into the other bin",
            usual=44,
            speed=0.45,
            thing=Point("body", "obj"),
            reach=0.08,
            hover=0.14,
            aligned=0.02,
            touch=(0.0, 0.0, 0.04),
            grip=0.6,
            misses=BESIDE,
            near=lambda trace: aside(trace) < 0.05,
            carried=_bin_carried,
            finishing=lambda trace: 1 - (left_over(trace) - 0.05) / 0.1,
            done=lambda trace: left_over(trace) <= 0.05,
        ),
        Task(
            "button-press-v3",
            "press the button",
            usual=36,
            speed=0.18,
            thing=Point("body", "button", (0.0, -0.193, 0.0)),
            reach=None,
            direction=AWAY,
            hover=0.0,
            aligned=0.02,
            contact=0.14,
            home=(0.0, 0.4, 0.2),
            grip=0.0,
            misses=BESIDE,
            approach=_button_reached,
            near=lambda trace: _pressed(trace) > 0.05,
            carried=lambda trace: _pressed(trace) / 0.05,
            finishing=lambda trace: (_pressed(trace) - 0.05) / 0.023,
            done=lambda trace: np.abs(trace.tip[:, 1] - trace.goal[1]) <= 0.02,
        ),
        Task(
            "door-open-v3",
            "open the door",
            usual=48,
            speed=0.5,
            thing=Point("geom", "handle"),
            reach=None,
            direction=TOWARDS,
            hover=0.2,
            aligned=0.12,
            touch=(0.01, 0.02, 0.0),
            grip=1.0,
            misses=IN_FRONT,
            retreat=0.15,
            near=lambda trace: swung(trace) > SWING / 2,
            carried=lambda trace: swung(trace) / (SWING / 2),
            finishing=lambda trace: 2 * swung(trace) / SWING - 1,
            done=lambda trace: np.abs(trace.tip[:, 0] - trace.goal[0]) <= 0.08,
        ),
        Task(
            "drawer-open-v3",
            "pull the drawer open",
            usual=43,
            speed=0.22,
            thing=Point("body", "drawer_link", (0.0, -0.16, 0.0)),
            reach=None,
            direction=TOWARDS,
            misses=IN_FRONT,
            hover=0.3,
            aligned=0.045,
            touch=(0.0, -0.02, -0.03),
            grip=-1.0,
            near=lambda trace: pulled(trace) > WIDE / 2,
            carried=lambda trace: pulled(trace) / (WIDE / 2),
            finishing=lambda trace: 2 * pulled(trace) / WIDE - 1,
            done=lambda trace: left_over(trace) <= 0.03,
        ),
        Task(
            "peg-insert-side-v3",
            "insert the stick into the hole in the side of the box",
            usual=36,
            speed=0.45,
            thing=Point("site", "pegGrasp"),
            tip=Point("site", "pegHead"),
            reach=0.08,
            hover=0.3,
            aligned=0.04,
            grip=0.5,
            near=_peg_near,
            carried=_peg_carried,
            finishing=lambda trace: 1 - (_peg_left(trace) - 0.07) / 0.1,
            done=lambda trace: _peg_left(trace) <= 0.07,
        ),
        Task(
            "pick-place-v3",
            "bring the puck to the floating mark",
            usual=36,
            speed=0.2,
            thing=Point("body", "obj"),
            reach=0.08,
            hover=0.1,
            aligned=0.02,
            grip=1.0,
            near=_closer_than(0.105),
            carried=lambda trace: _approach(trace, near=0.105),
            finishing=lambda trace: 1 - (left_over(trace) - 0.07) / 0.035,
            done=lambda trace: left_over(trace) <= 0.07,
            marker=True,
        ),
        Task(
            "shelf-place-v3",
            "place the block on the shelf",
            usual=36,
            speed=0.6,
            thing=Point("body", "obj"),
            reach=0.08,
            hover=0.3,
            aligned=0.04,
            grip=0.7,
            near=_closer_than(0.15),
            carried=_shelf_carried,
            finishing=lambda trace: 1 - (left_over(trace) - 0.07) / 0.08,
            done=lambda trace: left_over(trace) <= 0.07,
        ),
    )
}
