"""Stable-Baselines3: progress as the reward of its vector environments. Spaces stay as they are; `infos[n]["milepost"]` has the raw values.

>>> from milepost.online.wrappers.stable_baselines3 import VecProgressReward
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from milepost.core import DataError, load
from milepost.online.wrappers.attempts import Attempts, EnvStep, RewardConfig
from milepost.online.wrappers.inputs import FrameKeys, FrameOf, TaskOf, frame_by, tasks_of

stable_baselines3: Any = load("stable_baselines3", purpose="wrappers of its environments", install="milepost[sb3]")

INFO = "milepost"
"""The key of an info under which the raw values are."""


class VecProgressReward(stable_baselines3.common.vec_env.VecEnvWrapper):
    """Adds the progress of a reward model to the rewards of a vector environment. One pass of the model serves all of its environments.

    source: a model that follows attempts, `Sessions` of one, or a `RewardClient`. task: the instruction, one for each environment, or
    (observation, info) -> text, None for the same as before. frames: `FrameKeys` without `render`, or (observation, info) -> `FrameData`.
    fps: steps a second. config: how the two rewards are mixed.

    An environment that ended has begun anew in the same step: the model is shown its `terminal_observation`, then the new first frame.
    `TimeLimit.truncated` is no end of the task. What the environment renders cannot be asked for, because the image of the last frame is
    gone by then. DataError for that, over a `VecNormalize` that changes what the model sees, or if the model cannot follow so many
    attempts.
    """

    def __init__(
        self,
        venv: Any,
        source: Any,
        *,
        task: str | Sequence[str] | TaskOf,
        frames: FrameKeys | FrameOf,
        fps: float,
        config: RewardConfig | None = None,
    ) -> None:
        super().__init__(venv)
        if isinstance(frames, FrameKeys) and frames.render:
            raise DataError(
                "environments of Stable-Baselines3 begin anew in the step of the end, so the image of the last frame cannot be rendered: "
                "take images from the observation or from info, or wrap each environment in gymnasium's ProgressReward"
            )
        require_original(venv, frames)
        config = config or RewardConfig()
        if config.terminate_on_success and venv.unwrapped is not venv:
            raise DataError(
                f"to end an episode at success its environment is reset here, past {type(venv).__name__}: put this wrapper inside it, "
                f"around the environments themselves"
            )
        self._frames, self._tasks = frames, tasks_of(task, venv.num_envs)
        self._attempts = Attempts(source, venv.num_envs, fps, config)

    def reset(self) -> Any:
        """Resets the environments, and shows the model their first frames; the raw values are in `reset_infos`."""
        observations = self.venv.reset()
        infos = self.venv.unwrapped.reset_infos
        steps = [self._step(place, row_of(observations, place), infos[place], is_first=True) for place in range(self.num_envs)]
        self.reset_infos = [{**info, INFO: outcome.info} for info, outcome in zip(infos, self._attempts.advance(steps), strict=True)]
        return observations

    def step_wait(self) -> tuple[Any, Float[np.ndarray, "N"], Bool[np.ndarray, "N"], list[dict[str, Any]]]:
        """Returns what the environments return, with the mixed rewards."""
        observations, rewards, dones, infos = self.venv.step_wait()
        dones, infos = np.array(dones, dtype=bool), [dict(info) for info in infos]
        steps = []
        for place, info in enumerate(infos):
            observation = info["terminal_observation"] if dones[place] else row_of(observations, place)
            is_terminal = bool(dones[place]) and not info.get("TimeLimit.truncated", False)
            steps.append(self._step(place, observation, info, reward=float(rewards[place]), is_terminal=is_terminal))
        outcomes = self._attempts.advance(steps)
        begun = {int(place): self.venv.unwrapped.reset_infos[place] for place in np.flatnonzero(dones)}
        for place, outcome in enumerate(outcomes):
            infos[place][INFO] = outcome.info
            if outcome.is_terminal and not dones[place]:
                infos[place] |= {"terminal_observation": row_of(observations, place), "TimeLimit.truncated": False}
                ((observation, begun[place]),) = self.venv.env_method("reset", indices=[place])
                observations, dones[place] = with_row(observations, place, observation), True
        self._renew(observations, begun)
        return observations, np.array([outcome.reward for outcome in outcomes], dtype=np.float32), dones, infos

    def close(self) -> None:
        """Ends the attempts, and closes the environments."""
        self._attempts.close()
        super().close()

    def _renew(self, observations: Any, begun: Mapping[int, Mapping[str, Any]]) -> None:
        """Begins an attempt of each environment that began anew. begun: its number -> its info."""
        steps = [self._step(place, row_of(observations, place), info, is_first=True) for place, info in begun.items()]
        for step, outcome in zip(steps, self._attempts.advance(steps), strict=True):
            self.reset_infos[step.place] = {**begun[step.place], INFO: outcome.info}

    def _step(self, place: int, observation: Any, info: Mapping[str, Any], **more: Any) -> EnvStep:
        frames = self._frames
        frame = frames.frame(observation) if isinstance(frames, FrameKeys) else frame_by(frames, observation, info)
        return EnvStep(place, frame, self._tasks[place](observation, info), **more)


def require_original(venv: Any, frames: FrameKeys | FrameOf) -> None:
    """Raises DataError if a `VecNormalize` below normalises what the model sees: images and states in units that it does not know."""
    kinds = stable_baselines3.common.vec_env
    while isinstance(venv, kinds.VecEnvWrapper):
        if isinstance(venv, kinds.VecNormalize) and venv.norm_obs and _is_among(frames, venv.norm_obs_keys):
            raise DataError(
                "VecNormalize below this wrapper normalises what the model would see: put it around this wrapper, as in "
                "VecNormalize(VecProgressReward(venv, ...)), or make it with norm_obs=False"
            )
        venv = venv.venv


def _is_among(frames: FrameKeys | FrameOf, names: Sequence[str] | None) -> bool:
    """Returns whether the model may see one of these entries of an observation; None for all."""
    if names is None or not isinstance(frames, FrameKeys):
        return True
    keys = [*frames.images.values(), *([] if frames.state is None else [frames.state])]
    return bool({key if isinstance(key, str) else next(iter(key), "") for key in keys} & {*names, ""})


def row_of(observations: Any, place: int) -> Any:
    """Returns the observation of one environment: of an array, or of a dictionary or tuple of arrays."""
    if isinstance(observations, Mapping):
        return {key: values[place].copy() for key, values in observations.items()}
    if isinstance(observations, tuple):
        return tuple(values[place].copy() for values in observations)
    return observations[place].copy()


def with_row(observations: Any, place: int, observation: Any) -> Any:
    """Returns observations in which that of one environment is another."""
    if isinstance(observations, Mapping):
        return {key: with_row(values, place, observation[key]) for key, values in observations.items()}
    if isinstance(observations, tuple):
        return tuple(with_row(values, place, part) for values, part in zip(observations, observation, strict=True))
    changed = observations.copy()
    changed[place] = observation
    return changed
