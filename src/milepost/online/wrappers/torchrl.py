"""TorchRL: progress as the reward of an environment, batched ones too. The raw values are entries of the tensordict under "milepost".

>>> from milepost.online.wrappers.torchrl import ProgressRewardTransform
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from milepost.core import DataError, load
from milepost.online.wrappers.attempts import Attempts, EnvStep, Outcome, RewardConfig
from milepost.online.wrappers.inputs import FrameData, FrameKeys, FrameOf, TaskOf, frame_by, tasks_of

load("torchrl", purpose="transforms of its environments", install="milepost[torchrl]")
transforms: Any = load("torchrl.envs.transforms", purpose="transforms of its environments", install="milepost[torchrl]")
specs: Any = load("torchrl.data", purpose="transforms of its environments", install="milepost[torchrl]")

ENTRY = "milepost"
NUMBERS = ("progress", "model_reward", "env_reward", "age_s")
"""Values of `info` that are entries too; NaN where they are not known."""
FLAGS = ("fresh", "is_success", "is_used")


class ProgressRewardTransform(transforms.Transform):
    """Adds the progress of a reward model to the reward of an environment. One pass of the model serves a whole batch of environments.

    source: a model that follows attempts, `Sessions` of one, or a `RewardClient`. task: the instruction, one for each environment, or
    (tensordict of one environment, {}) -> text, None for the same as before. frames: `FrameKeys` without `render`, or (tensordict of one
    environment, {}) -> `FrameData`. fps: steps a second. config: how the two rewards are mixed. reward_key: the entry of the reward.

    `terminated` is an end of the task, `truncated` is not. A reset of some environments of a batch begins their attempts alone. Entries
    ("milepost", name), each of the shape of `done`: see NUMBERS and FLAGS; `infos` has all of the newest step in words. DataError if the
    model cannot follow so many attempts, or if a frame does not fit.
    """

    def __init__(
        self,
        source: Any,
        *,
        task: str | Sequence[str] | TaskOf,
        frames: FrameKeys | FrameOf,
        fps: float,
        config: RewardConfig | None = None,
        reward_key: Any = "reward",
    ) -> None:
        super().__init__(in_keys=[reward_key], out_keys=[reward_key])
        if isinstance(frames, FrameKeys) and frames.render:
            raise DataError("a transform sees tensordicts alone: make the environment with from_pixels=True, and name its key in images=")
        self._source = (source,)  # in a tuple, so that a torch model is no part of the transform: train(), to() and state_dict() pass it by
        self._task, self._frames, self._fps, self._config = task, frames, fps, config
        self._reward_key = reward_key
        self._attempts: Attempts | None = None
        self._tasks: list[TaskOf] = []
        self.infos: list[dict[str, Any]] = []

    def _reset(self, tensordict: Any, tensordict_reset: Any) -> Any:
        """Begins an attempt of each environment that was reset, and shows the model its first frame."""
        count = self._count()
        mask = tensordict.get("_reset", None)
        first = range(count) if mask is None else torch.nonzero(mask.reshape(count, -1).any(-1)).flatten().tolist()
        self.infos = self.infos or [{} for _ in range(count)]
        outcomes = self._advance([self._step_of(tensordict_reset, place, is_first=True) for place in first])
        values = {name: self._before(tensordict, name) for name in (*NUMBERS, *FLAGS)}
        return self._with_values(tensordict_reset, dict(zip(first, outcomes, strict=True)), values)

    def _step(self, tensordict: Any, next_tensordict: Any) -> Any:
        """Sets the mixed reward, the end of the task, and the raw values of one step."""
        count = self._count()
        reward = next_tensordict.get(self._reward_key)
        terminated = next_tensordict.get("terminated")
        rewards, ends = reward.reshape(count).tolist(), terminated.reshape(count).tolist()
        partial = tensordict.get("_step", None)  # some environments of a batch may stand still, where the others go on to their ends
        places = range(count) if partial is None else torch.nonzero(partial.reshape(count, -1).any(-1)).flatten().tolist()
        steps = [self._step_of(next_tensordict, n, reward=float(rewards[n]), is_terminal=bool(ends[n])) for n in places]
        outcomes = dict(zip(places, self._advance(steps), strict=True))
        for place, outcome in outcomes.items():
            rewards[place], ends[place] = outcome.reward, outcome.is_terminal
        ended = torch.tensor(ends, device=terminated.device).reshape(terminated.shape)
        next_tensordict.set(self._reward_key, torch.tensor(rewards, dtype=reward.dtype, device=reward.device).reshape(reward.shape))
        next_tensordict.set("terminated", ended)
        next_tensordict.set("done", next_tensordict.get("done") | ended)
        return self._with_values(next_tensordict, outcomes, {name: self._before(tensordict, name) for name in (*NUMBERS, *FLAGS)})

    def _reset_on_native_autoreset(self, tensordict: Any, tensordict_reset: Any) -> Any:
        """Begins an attempt of each environment that began anew by itself."""
        return self._reset(tensordict, tensordict_reset)

    def clone(self) -> Any:
        """Returns a copy with attempts of its own, around the same model."""
        other = super().clone()
        other.forget()
        return other

    def forget(self) -> None:
        """Forgets all attempts, without ending those of another transform."""
        self._attempts, self.infos = None, []

    def forward(self, tensordict: Any) -> Any:
        """Refuses a replay buffer's samples: they are not in the order of an attempt. DataError."""
        raise DataError("progress is a matter of whole attempts, in their order: put this transform on the environment, not on a buffer")

    def transform_observation_spec(self, observation_spec: Any) -> Any:
        """Returns the spec with the raw values."""
        shape, device = (*self.parent.batch_size, 1), observation_spec.device
        entries = {name: specs.Unbounded(shape, dtype=torch.float32, device=device) for name in NUMBERS}
        entries |= {name: specs.Binary(shape=shape, dtype=torch.bool, device=device) for name in FLAGS}
        observation_spec[ENTRY] = specs.Composite(entries, shape=self.parent.batch_size, device=device)
        return observation_spec

    def transform_reward_spec(self, reward_spec: Any) -> Any:
        """Returns the spec of a reward without bounds: those of the environment do not hold for the sum."""
        old = reward_spec[self._reward_key] if isinstance(reward_spec, specs.Composite) else reward_spec
        new = specs.Unbounded(old.shape, dtype=old.dtype, device=old.device)
        if not isinstance(reward_spec, specs.Composite):
            return new
        reward_spec[self._reward_key] = new
        return reward_spec

    def close(self) -> None:
        """Ends the attempts."""
        if self._attempts is not None:
            self._attempts.close()

    def _count(self) -> int:
        """Returns how many environments there are, and makes room for their attempts at the first call."""
        if self.parent is None:
            raise DataError("this transform works on an environment: TransformedEnv(env, transform)")
        count = max(1, math.prod(self.parent.batch_size))
        if self._attempts is None:
            self._tasks = tasks_of(self._task, count)
            self._attempts = Attempts(self._source[0], count, self._fps, self._config)
        return count

    def _advance(self, steps: Sequence[EnvStep]) -> list[Outcome]:
        assert self._attempts is not None
        outcomes = self._attempts.advance(steps)
        for step, outcome in zip(steps, outcomes, strict=True):
            self.infos[step.place] = dict(outcome.info)
        return outcomes

    def _step_of(self, tensordict: Any, place: int, **more: Any) -> EnvStep:
        row = tensordict.reshape(-1)[place] if tensordict.batch_size else tensordict
        frame = self._frames.frame(_Arrays(row)) if isinstance(self._frames, FrameKeys) else frame_by(self._frames, row, {})
        images = {camera: _array(image) for camera, image in frame.images.items()}
        return EnvStep(place, FrameData(images, _array(frame.state)), self._tasks[place](row, {}), **more)

    def _before(self, tensordict: Any, name: str) -> list[Any] | None:
        """Returns a raw value of all environments as it was before a reset, None if there was none."""
        value = tensordict.get((ENTRY, name), None)
        if value is None and any(self.infos):
            return [info.get(name, False if name in FLAGS else math.nan) for info in self.infos]
        return None if value is None else value.flatten().tolist()

    def _with_values(self, tensordict: Any, outcomes: dict[int, Outcome], before: dict[str, Any]) -> Any:
        """Sets the raw values; those of an environment without an outcome stay."""
        count, shape = self._count(), (*tensordict.batch_size, 1)
        for name in (*NUMBERS, *FLAGS):
            values = before.get(name) or [False if name in FLAGS else math.nan] * count
            for place, outcome in outcomes.items():
                values[place] = outcome.info[name]
            kind = torch.bool if name in FLAGS else torch.float32
            tensordict.set((ENTRY, name), torch.tensor(values, dtype=kind, device=tensordict.device).reshape(shape))
        return tensordict


class _Arrays(Mapping[str, Any]):
    """A tensordict whose entries are arrays."""

    def __init__(self, tensordict: Any) -> None:
        self._tensordict = tensordict

    def __getitem__(self, name: str) -> Any:
        value = self._tensordict.get(name)
        if value is None:
            raise KeyError(name)
        return _Arrays(value) if hasattr(value, "batch_size") else _array(value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensordict.keys())

    def __len__(self) -> int:
        return len(self._tensordict.keys())


def _array(value: Any) -> Any:
    """Returns an array of a tensor; other values stay as they are."""
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
