"""Environments whose episodes are the recorded ones of the world of dots, so that the offline curve says what the wrappers must say."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from milepost.testing import dot_episodes

TASK = "visit the places with dot 0"
CAMERA = "observation.images.top"
EPISODES = dot_episodes(4)


class DotsEnv(gymnasium.Env):
    """Replays recorded attempts, the first of them at the first reset. The reward is the action, the last frame is the end.

    first: the number of the first attempt. limit: frames after which it is truncated. ends: whether the last frame is terminal; else it is
    a time limit.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space = gymnasium.spaces.Dict({
        "pixels": gymnasium.spaces.Dict({"top": gymnasium.spaces.Box(0, 255, (32, 32, 3), np.uint8)}),
        "state": gymnasium.spaces.Box(-100, 100, (2,), np.float32),
    })  # fmt: skip
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, first: int = 0, *, limit: int = 10**6, ends: bool = True, render_mode: str | None = "rgb_array") -> None:
        self.number, self.limit, self.ends, self.render_mode, self.frame = first - 1, limit, ends, render_mode, 0

    @property
    def episode(self) -> Any:
        return EPISODES[self.number % len(EPISODES)]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.number, self.frame = self.number + 1, 0
        return self.observation(), {"instruction": TASK}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.frame += 1
        is_last = self.frame == self.episode.length - 1
        return self.observation(), float(np.sum(action)), is_last and self.ends, self.frame >= self.limit or (is_last and not self.ends), {}

    def observation(self) -> dict[str, Any]:
        return {"pixels": {"top": self.render()}, "state": self.episode.state[self.frame]}

    def render(self) -> np.ndarray:
        return self.episode.camera(CAMERA)[np.array([self.frame])][0]


class FlatDotsEnv(gymnasium.ObservationWrapper):
    """The same with a flat dictionary of observations, as Stable-Baselines3 takes it. times: how many times larger its images are."""

    def __init__(self, env: gymnasium.Env, times: int = 1) -> None:
        super().__init__(env)
        self.times = times
        self.observation_space = gymnasium.spaces.Dict({
            "top": gymnasium.spaces.Box(0, 255, (32 * times, 32 * times, 3), np.uint8),
            "state": gymnasium.spaces.Box(-100, 100, (2,), np.float32),
        })  # fmt: skip

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        image = observation["pixels"]["top"]
        return {"top": image.repeat(self.times, 0).repeat(self.times, 1), "state": observation["state"]}
