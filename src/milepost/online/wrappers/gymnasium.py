"""gymnasium: progress as the reward of one environment. Spaces stay as they are; `info["milepost"]` has the raw values.

>>> from milepost.online.wrappers.gymnasium import ProgressReward
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from milepost.core import DataError, load
from milepost.online.wrappers.attempts import Attempts, EnvStep, Outcome, RewardConfig
from milepost.online.wrappers.inputs import FrameData, FrameKeys, FrameOf, TaskOf, tasks_of

gymnasium: Any = load("gymnasium", purpose="wrappers of its environments", install="milepost[gymnasium]")

INFO = "milepost"
"""The key of `info` under which the raw values are."""


class ProgressReward(gymnasium.Wrapper):
    """Adds the progress of a reward model to the reward of an environment.

    source: a model that follows attempts, `Sessions` of one, or a `RewardClient`. task: the instruction, or (observation, info) -> text,
    None for the same as before. frames: `FrameKeys`, or (observation, info) -> `FrameData`. fps: steps a second, None for the
    environment's "render_fps". config: how the two rewards are mixed.

    The model sees the frame of `reset` too. A truncation is no end of the task. DataError if the model cannot follow an attempt, if fps
    is not known, or if the first frame does not fit the model.
    """

    def __init__(
        self,
        env: Any,
        source: Any,
        *,
        task: str | TaskOf,
        frames: FrameKeys | FrameOf,
        fps: float | None = None,
        config: RewardConfig | None = None,
    ) -> None:
        super().__init__(env)
        require_renderer(frames, env.render_mode)
        self._frames = frames
        (self._task,) = tasks_of(task, 1)
        self._attempts = Attempts(source, 1, fps_of(env.metadata, fps), config)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environment, begins an attempt, and shows the model the first frame."""
        observation, info = self.env.reset(seed=seed, options=options)
        (outcome,) = self._attempts.begin([self._step(observation, info)])
        return observation, with_values(info, outcome)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Returns what the environment returns, with the mixed reward."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        step = self._step(observation, info, reward=float(reward), is_terminal=bool(terminated))
        (outcome,) = self._attempts.advance([step])
        return observation, outcome.reward, outcome.is_terminal, truncated, with_values(info, outcome)

    def close(self) -> None:
        """Ends the attempt, and closes the environment."""
        self._attempts.close()
        super().close()

    def _step(self, observation: Any, info: Mapping[str, Any], *, reward: float = 0.0, is_terminal: bool = False) -> EnvStep:
        frame = frame_of(self._frames, observation, info, self.env.render)
        return EnvStep(0, frame, self._task(observation, info), reward, is_terminal)


def with_values(info: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """Returns an environment's info with the raw values."""
    return {**info, INFO: outcome.info}


def fps_of(metadata: Mapping[str, Any], fps: float | None) -> float:
    """Returns the frames a second. DataError if nobody names them."""
    value = metadata.get("render_fps") if fps is None else fps
    if not value:
        raise DataError("the environment does not name its steps a second (metadata['render_fps']): give fps=")
    return float(value)


def require_renderer(frames: FrameKeys | FrameOf, render_mode: str | None) -> None:
    """Raises DataError if the model is to see what the environment renders, and it renders no images."""
    if isinstance(frames, FrameKeys) and frames.render and render_mode != "rgb_array":
        raise DataError(f"render= needs an environment made with render_mode='rgb_array', this one has {render_mode!r}")


def frame_of(frames: FrameKeys | FrameOf, observation: Any, info: Mapping[str, Any], render: Any) -> FrameData:
    """Returns what the model sees. render: returns the environment's image, and is called only if it is asked for."""
    if not isinstance(frames, FrameKeys):
        return frames(observation, info)
    return frames.frame(observation, render() if frames.render else None)
