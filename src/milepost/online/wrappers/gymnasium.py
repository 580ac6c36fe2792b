"""gymnasium: progress as the reward of one environment, or of many at once. Spaces stay as they are; `info["milepost"]` has the raw values.

>>> from milepost.online.wrappers.gymnasium import ProgressReward
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from milepost.core import DataError, load
from milepost.online.wrappers.attempts import Attempts, EnvStep, Outcome, RewardConfig
from milepost.online.wrappers.inputs import FrameData, FrameKeys, FrameOf, TaskOf, frame_by, tasks_of

gymnasium: Any = load("gymnasium", purpose="wrappers of its environments", install="milepost[gymnasium]")
NEXT_STEP, SAME_STEP, DISABLED = "NextStep", "SameStep", "Disabled"
"""How a vector environment begins a new episode: in the step after the end, in the step of the end, or when it is told to."""

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
        require_original(env)
        self._frames = frames
        (self._task,) = tasks_of(task, 1)
        self._attempts = Attempts(source, 1, fps_of(env.metadata, fps), config)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environment, begins an attempt, and shows the model the first frame."""
        observation, info = self.env.reset(seed=seed, options=options)
        (outcome,) = self._attempts.advance([self._step(observation, info, is_first=True)])
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

    def _step(self, observation: Any, info: Mapping[str, Any], **more: Any) -> EnvStep:
        frame = frame_of(self._frames, observation, info, self.env.render)
        return EnvStep(0, frame, self._task(observation, info), **more)


class VectorProgressReward(gymnasium.vector.VectorWrapper):
    """Adds the progress of a reward model to the rewards of a vector environment. One pass of the model serves all of its environments.

    As `ProgressReward`; task may be one instruction for each environment, and functions are called for each environment by itself. All
    three ways of gymnasium to begin a new episode work; without `metadata["autoreset_mode"]` it is that of the next step.

    DataError if an episode should end at success while the environment itself decides when one begins, or if the model should see what
    the environment renders while a new episode begins in the step of the end: the image of the last frame is then gone.
    """

    _attempts: Any = None
    """None where a refusal came first: earlier releases of gymnasium close such a wrapper too."""

    def __init__(
        self,
        env: Any,
        source: Any,
        *,
        task: str | Sequence[str] | TaskOf,
        frames: FrameKeys | FrameOf,
        fps: float | None = None,
        config: RewardConfig | None = None,
    ) -> None:
        super().__init__(env)
        require_renderer(frames, getattr(env, "render_mode", None))
        require_original(env)
        mode = env.metadata.get("autoreset_mode", NEXT_STEP)
        self._mode = str(getattr(mode, "value", mode))
        config = config or RewardConfig()
        if config.terminate_on_success and self._mode != DISABLED:
            raise DataError(
                f"the environment begins episodes by itself (autoreset_mode {self._mode}), so none can end at success here: make it with "
                f"autoreset_mode {DISABLED} and reset with a reset_mask, or wrap each environment in ProgressReward"
            )
        if self._mode == SAME_STEP and isinstance(frames, FrameKeys) and frames.render:
            raise DataError(
                f"with autoreset_mode {SAME_STEP} the image of the last frame is gone when it could be rendered: take images from the "
                f"observation, or make the environment with autoreset_mode {NEXT_STEP}"
            )
        self._frames, self._tasks = frames, tasks_of(task, self.num_envs)
        self._attempts = Attempts(source, self.num_envs, fps_of(env.metadata, fps), config)
        self._ended = np.zeros(self.num_envs, dtype=bool)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environments, or those of `options["reset_mask"]`, and begins an attempt of each."""
        mask = np.array((options or {}).get("reset_mask", np.ones(self.num_envs, dtype=bool)), dtype=bool)
        observations, infos = self.env.reset(seed=seed, options=options)
        self._ended &= ~mask
        steps = [step for step in self._steps(observations, infos, is_first=mask) if mask[step.place]]
        return observations, self._with_values(infos, steps, self._attempts.advance(steps))

    def step(self, actions: Any) -> tuple[Any, Float[np.ndarray, "N"], Bool[np.ndarray, "N"], Any, dict[str, Any]]:
        """Returns what the environment returns, with the mixed rewards."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        first = self._ended if self._mode == NEXT_STEP else np.zeros(self.num_envs, dtype=bool)
        ended = terminated | truncated
        if self._mode == SAME_STEP and ended.any():
            steps = list(self._last_steps(observations, infos, ended, rewards, terminated))
        else:
            steps = list(self._steps(observations, infos, rewards, terminated, is_first=first))
        outcomes = self._attempts.advance(steps)
        if self._mode == SAME_STEP and ended.any():
            infos = self._renewed(observations, infos, ended, outcomes)
        else:
            infos = self._with_values(infos, steps, outcomes)
        self._ended = np.array(ended, dtype=bool)
        mixed = np.array([outcome.reward for outcome in outcomes], dtype=np.result_type(rewards, np.float32))
        return observations, mixed, np.array([outcome.is_terminal for outcome in outcomes]), truncated, infos

    def close(self, **options: Any) -> None:
        """Ends the attempts, and closes the environments."""
        if self._attempts is not None:
            self._attempts.close()
        super().close(**options)

    def _steps(
        self, observations: Any, infos: Mapping[str, Any], rewards: Any = None, terminated: Any = None, *, is_first: Any
    ) -> Iterator:
        """Yields what each environment returned."""
        rendered = self.env.render() if isinstance(self._frames, FrameKeys) and self._frames.render else None
        for place, observation in enumerate(gymnasium.vector.utils.iterate(self.env.observation_space, observations)):
            info = info_of(infos, place)
            frame = frame_of(self._frames, observation, info, lambda place=place: rendered[place])  # type: ignore[index]
            reward, is_terminal = (0.0, False) if rewards is None else (float(rewards[place]), bool(terminated[place]))
            yield EnvStep(place, frame, self._tasks[place](observation, info), reward, is_terminal, bool(is_first[place]))

    def _last_steps(self, observations: Any, infos: Mapping[str, Any], ended: Any, rewards: Any, terminated: Any) -> Iterator:
        """Yields what each environment returned before those that ended began anew."""
        for place, observation in enumerate(gymnasium.vector.utils.iterate(self.env.observation_space, observations)):
            info = info_of(infos["final_info"] if ended[place] else infos, place)
            observation = infos["final_obs"][place] if ended[place] else observation
            frame = frame_of(self._frames, observation, info, None)
            yield EnvStep(place, frame, self._tasks[place](observation, info), float(rewards[place]), bool(terminated[place]))

    def _renewed(self, observations: Any, infos: Mapping[str, Any], ended: Any, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """Begins an attempt of each environment that ended. Returns the infos: the values of the last frames are in its final_info."""
        first = [step for step in self._steps(observations, infos, is_first=ended) if step.is_first]
        begun = dict(zip([step.place for step in first], self._attempts.advance(first), strict=True))
        added, last = dict(infos), dict(infos["final_info"])
        for place, outcome in enumerate(outcomes):
            if place in begun:
                last = self._add_info(last, {INFO: outcome.info}, place)
            added = self._add_info(added, {INFO: begun.get(place, outcome).info}, place)
        return {**added, "final_info": last}

    def _with_values(self, infos: Mapping[str, Any], steps: Sequence[EnvStep], outcomes: Sequence[Outcome]) -> dict[str, Any]:
        added = dict(infos)
        for step, outcome in zip(steps, outcomes, strict=True):
            added = self._add_info(added, {INFO: outcome.info}, step.place)
        return added


def info_of(infos: Mapping[str, Any], place: int) -> dict[str, Any]:
    """Returns the info of one environment, from that of a vector environment, where "_key" says who has the key."""
    info: dict[str, Any] = {}
    for key, values in infos.items():
        if key.startswith("_") and key[1:] in infos:
            continue
        has_it = infos.get(f"_{key}")
        if has_it is None or has_it[place]:
            info[key] = info_of(values, place) if isinstance(values, Mapping) else values if has_it is None else values[place]
    return info


def with_values(info: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """Returns an environment's info with the raw values."""
    return {**info, INFO: outcome.info}


def fps_of(metadata: Mapping[str, Any], fps: float | None) -> float:
    """Returns the frames a second. DataError if nobody names them."""
    value = metadata.get("render_fps") if fps is None else fps
    if value is None:
        raise DataError("the environment does not name its steps a second (metadata['render_fps']): give fps=")
    return float(value)


def require_renderer(frames: FrameKeys | FrameOf, render_mode: str | None) -> None:
    """Raises DataError if the model is to see what the environment renders, and it renders no images."""
    if isinstance(frames, FrameKeys) and frames.render and render_mode != "rgb_array":
        raise DataError(f"render= needs an environment made with render_mode='rgb_array', this one has {render_mode!r}")


def require_original(env: Any) -> None:
    """Raises DataError if a wrapper below normalises observations: images and states are then in units that the model does not know."""
    kinds = (gymnasium.wrappers.NormalizeObservation, gymnasium.wrappers.vector.NormalizeObservation)
    while isinstance(env, gymnasium.Wrapper | gymnasium.vector.VectorWrapper):
        if isinstance(env, kinds):
            raise DataError(
                "NormalizeObservation below this wrapper normalises what the model would see: put it around this wrapper, as in "
                "NormalizeObservation(ProgressReward(env, ...))"
            )
        env = env.env


def frame_of(frames: FrameKeys | FrameOf, observation: Any, info: Mapping[str, Any], render: Any) -> FrameData:
    """Returns what the model sees. render: returns the environment's image, and is called only if it is asked for."""
    if not isinstance(frames, FrameKeys):
        return frame_by(frames, observation, info)
    return frames.frame(observation, render() if frames.render else None)
