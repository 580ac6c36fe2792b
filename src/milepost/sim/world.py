"""One simulated scene, stepped: a Meta-World environment without its observations, rewards and episode book-keeping.

Meta-World's `step` spends two thirds of its time on rewards that are not used here; the physics below is the same (five 2.5 ms steps of
MuJoCo per command). Its `reset(seed=...)` is ignored upstream, so a scene is drawn from the environment's own seeded generator.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float

from milepost.core import require
from milepost.sim.tasks import TASKS, Task

EVERY, FPS = 4, 20
"""The simulator takes 80 commands a second; every 4th moment is stored, which is 20 frames a second exactly."""


class MissingSimulatorError(ModuleNotFoundError):
    """Meta-World is not installed. The message says what to install."""


@dataclass(frozen=True, eq=False)
class SceneState:
    """The state that a behaviour sees before it acts. Positions in metres; opening: 1 open; start: the object's first position."""

    hand: Float[np.ndarray, "3"]
    opening: float
    thing: Float[np.ndarray, "3"]
    tip: Float[np.ndarray, "3"]
    start: Float[np.ndarray, "3"]
    goal: Float[np.ndarray, "3"]


Expert = Callable[[SceneState], Float[np.ndarray, "4"]]


def metaworld() -> Any:
    """Imports the metaworld package on first use. MissingSimulatorError if it is not installed."""
    require("metaworld")
    try:
        import metaworld.env_dict
        import metaworld.policies
        import metaworld.sawyer_xyz_env
    except ModuleNotFoundError as error:
        raise MissingSimulatorError(f"simulation needs '{error.name}': pip install 'milepost[sim]'", name=error.name) from error
    return metaworld


class World:
    """One task's simulator. After `reset(scene)` everything depends on the scene number and the commands alone."""

    def __init__(self, task: Task) -> None:
        import mujoco

        self.mujoco = mujoco
        self.env = metaworld().env_dict.ALL_V3_ENVIRONMENTS[task.name]()
        self.env._set_task_called = True
        self.env._freeze_rand_vec, self.env.seeded_rand_vec = False, True
        self.model, self.data = self.env.model, self.env.data
        # resets move bodies and sites of the model itself: put them back, or a scene would depend on the scene before it
        self._bodies, self._sites = self.model.body_pos.copy(), self.model.site_pos.copy()
        self._reset = metaworld().sawyer_xyz_env.SawyerMocapBase.reset  # the environment's own resets twice
        self._hand, self._right_claw, self._left_claw = (self._point("body", name) for name in ("hand", "rightclaw", "leftclaw"))
        tip = task.tip or task.thing
        self._thing, self._offset = self._point(task.thing.kind, task.thing.name), np.array(task.thing.offset)
        self._tip, self._tip_offset = self._point(tip.kind, tip.name), np.array(tip.offset)
        self.start, self.goal = np.array(task.home), np.array(task.home)

    def _point(self, kind: str, name: str) -> Float[np.ndarray, "3"]:
        """Returns a live view of the position of a body, site or geom."""
        return getattr(self.data, kind)(name).xpos

    def reset(self, scene: int) -> SceneState:
        """Starts this scene, and lets the object settle for four steps."""
        self.model.body_pos[:], self.model.site_pos[:] = self._bodies, self._sites
        self.env.seed(scene)
        self._reset(self.env)
        self.goal = np.array(self.env._target_pos, dtype=float)
        for _ in range(4):
            self.step(np.array([0.0, 0.0, 0.0, -1.0]))
        self.start = self._thing + self._offset
        return self.view()

    def step(self, action: Float[np.ndarray, "4"]) -> None:
        """Simulates 1/80 s of physics under this command: hand motion (1 = 1 cm) and gripper effort (1 closes), each in [-1, 1]."""
        self.env.set_xyz_action(action[:3])
        self.data.ctrl[:] = action[3], -action[3]
        self.mujoco.mj_step(self.model, self.data, nstep=self.env.frame_skip)
        self.mujoco.mj_kinematics(self.model, self.data)

    def view(self) -> SceneState:
        """Returns the current state of the scene."""
        opening = min(float(np.linalg.norm(self._right_claw - self._left_claw)) / 0.1, 1.0)
        thing, tip = self._thing + self._offset, self._tip + self._tip_offset
        return SceneState(self._hand.copy(), opening, thing, tip, self.start, self.goal)


@lru_cache(maxsize=8)
def world(name: str) -> World:
    """Returns this process's simulator of a task; to build one takes 0.2 s."""
    return World(TASKS[name])


@lru_cache(maxsize=8)
def scripted(name: str) -> Expert:
    """Returns Meta-World's own scripted policy for a task, as a function of the state."""
    policy = metaworld().policies.ENV_POLICY_MAP[name]()

    def act(view: SceneState) -> Float[np.ndarray, "4"]:
        observation = np.zeros(39)
        observation[:3], observation[3], observation[4:7], observation[36:] = view.hand, view.opening, view.thing, view.goal
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # every script warns that its gains saturate; they are meant to
            return np.clip(np.asarray(policy.get_action(observation), dtype=float), -1, 1)

    return act
