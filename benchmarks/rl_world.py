"""Meta-World tasks as environments for reinforcement learning, for `rl_study.py`: ten decisions a second, states in, sparse success out.

The physics, the start scenes, the cameras, the stages and the moment of success are those of the simulated demonstrations (`milepost.sim`),
so that progress means here what it means in their labels. An episode ends at success; a time limit is a truncation and no end of the task.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float, UInt8

from milepost.core import Stages, progress
from milepost.sim.closed_loop import observations
from milepost.sim.rollout import Rollout, SimConfig, roll_out, trace_of
from milepost.sim.scene import CAMERAS, painter
from milepost.sim.stagewise import finish, stages_of
from milepost.sim.tasks import TASKS, Trace
from milepost.sim.truth import Ranking, truth_of_rollouts
from milepost.sim.world import SceneState, World

RATE, COMMANDS = 10, 8
"""Decisions a second, and the commands of 1/80 s for which each is repeated."""
LIMIT = 40
"""Decisions of an episode."""
CAMERA, SIZE = next(iter(CAMERAS)), 64
EXPERTS = SimConfig(tasks=("button-press-v3",), episodes={"expert": 24}, seed=301)
"""The attempts that true progress ranks against, of whichever task; their scenes are nobody else's."""
TRAINING, EVALUATION = 1_000_000_000, 900_000_000
"""Where the start scenes of each kind begin; those of demonstrations are below both."""


@lru_cache(maxsize=8)
def ranking(task: str) -> tuple[Ranking, Stages]:
    """Returns the experts' frames of a task, in order of progress, and the stages with their shares. It takes seconds."""
    config = SimConfig(tasks=(task,), episodes=EXPERTS.episodes, seed=EXPERTS.seed)
    rollouts = roll_out(config)
    _, stages = truth_of_rollouts(rollouts)
    return Ranking(task, [rollout.trace for rollout in rollouts]), stages


def true_progress(task: str, first: SceneState, now: SceneState) -> float:
    """Returns the progress in [0, 1] that the labels of a demonstration would have in this state, of an attempt that began in `first`."""
    trace = trace_of([first, now, now, now])  # as long as a state must last to be no flicker
    return 1.0 if finish(task, trace) is not None else float(true_curve(task, trace)[-1])


def true_curve(task: str, trace: Trace) -> Float[np.ndarray, "T"]:
    """Returns the true progress of every frame of an attempt without success."""
    by, stages = ranking(task)
    return progress(stages_of(task, trace), by.tau(trace), stages)


class RobotEnv(gymnasium.Env):
    """One task. Observation (29,): Meta-World's own quantities, goal included. Action (4,): hand motion and gripper effort, in [-1, 1].

    The reward is 1 where the task is done, which ends the episode, else 0. dense: Meta-World's own reward of the task is added, scaled to
    [-1, 0], so that it never pays to put off the end. A scene is drawn from the environment's own generator, or is `options["scene"]`.
    """

    metadata = {"render_modes": [], "render_fps": RATE}  # noqa: RUF012

    def __init__(self, task: str, *, dense: bool = False, limit: int = LIMIT) -> None:
        self.task, self.instruction, self.dense, self.limit = task, TASKS[task].instruction, dense, limit
        self.observation_space = gymnasium.spaces.Box(-5, 5, (29,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
        self.world = World(TASKS[task])
        self._views: list[SceneState] = []
        self._first, self._decisions = self.world.view(), 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an attempt in a fresh start scene."""
        super().reset(seed=seed)
        scene = TRAINING + int(self.np_random.integers(10**9)) if options is None else options["scene"]
        self._first, self._decisions = self.world.reset(scene), 0
        self._views = [self._first]
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Repeats a command for a tenth of a second."""
        command = np.clip(np.asarray(action, dtype=float), -1, 1)
        for _ in range(COMMANDS):
            self.world.step(command)
        self._views = [self._views[-1], self.world.view()]
        self._decisions += 1
        is_done = bool(TASKS[self.task].done(trace_of(self._views[-1:]))[0])
        reward = float(is_done) + (self._dense_reward(command) / 10 - 1 if self.dense else 0.0)
        return self._observation(), reward, is_done, self._decisions >= self.limit, {"is_success": is_done}

    def progress(self) -> float:
        """Returns the true progress of the current state."""
        return true_progress(self.task, self._first, self._views[-1])

    def image(self) -> UInt8[np.ndarray, "H W 3"]:
        """Renders the current state as the demonstrations were rendered."""
        model, joints = self.world.model, self.world.data.qpos.copy()[None]
        trace = trace_of(self._views[-1:])
        bodies, sites = model.body_pos.copy(), model.site_pos.copy()
        moment = Rollout(self.task, "live", 0, False, 0, trace, np.zeros((1, 4), np.float32), joints, bodies, sites)
        return next(painter(self.task, SIZE).frames(moment, CAMERA))

    def hand(self) -> Float[np.ndarray, "4"]:
        """Returns the robot's state as the demonstrations have it: hand position in metres, and gripper opening."""
        view = self._views[-1]
        return np.array([*view.hand, view.opening], dtype=np.float32)

    def _observation(self) -> Float[np.ndarray, "29"]:
        return np.clip(observations(trace_of(self._views[-2:]))[-1], -5, 5)

    def _dense_reward(self, command: Float[np.ndarray, "4"]) -> float:
        """Returns Meta-World's reward of the current state, in [0, 10]."""
        env = self.world.env
        reward, _ = env.evaluate_state(env._get_obs(), command.astype(np.float32))
        return float(reward)
