"""`milepost_reward_processor`: progress as the reward of a robot that learns while it acts (HIL-SERL), as a step of LeRobot's pipelines.

The step stands in the environment's pipeline, behind the step that names images and state as LeRobot does. LeRobot resets its pipelines
when an episode begins: the first observation after that is the first frame of an attempt.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lerobot.processor import ProcessorStep, ProcessorStepRegistry, TransitionKey

from milepost import FrameData, RewardClient, RewardConfig, ShapingConfig, load_model
from milepost.core import DataError
from milepost.metrics import SuccessRule
from milepost.online import Attempts, EnvStep

NAME = "milepost_reward_processor"
INFO, FREQUENCY = "milepost", "milepost_frequency"
"""Keys of the transition's info: the raw values, and how often a second the model could answer."""
STATE = "observation.state"


@dataclass
@ProcessorStepRegistry.register(NAME)
class MilepostRewardProcessorStep(ProcessorStep):
    """Adds the progress of a reward model to the reward of a transition.

    model: a folder, a Hub id, or the address of `milepost serve`. fps: of the robot. task: the instruction where the transition's
    complementary data has no "task". success_reward: is added once, at the first success of an episode. terminate_on_success: success ends
    the episode. Other fields are those of milepost's ShapingConfig, SuccessRule and RewardConfig. source: a model in place of `model`.

    The reward of the environment and of a person is weighted and stays; it is never replaced. DataError without a model, an instruction or
    images, and for more than one environment at once.
    """

    model: str = ""
    fps: float = 30.0
    task: str = ""
    device: str = "cpu"
    shaping: str = "potential"
    gamma: float = 0.99
    model_weight: float = 1.0
    env_weight: float = 1.0
    success_threshold: float = 0.9
    success_release: float = 0.8
    success_hold: int = 5
    success_reward: float = 0.0
    terminate_on_success: bool = False
    max_age_s: float | None = None
    source: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.source is None:
            if not self.model:
                raise DataError(f"{NAME} has no model: name a folder, a Hub id or the address of milepost serve in model")
            is_server = self.model.startswith(("http://", "https://", "ws://", "wss://"))
            self.source = RewardClient(self.model) if is_server else load_model(self.model, self.device)
        shaping = ShapingConfig(self.shaping, gamma=self.gamma)  # type: ignore[arg-type]
        success = SuccessRule(self.success_threshold, self.success_release, self.success_hold)
        config = RewardConfig(
            shaping, self.model_weight, self.env_weight, success, self.success_reward, self.terminate_on_success, self.max_age_s
        )
        self._attempts, self._is_first = Attempts(self.source, 1, self.fps, config), True

    def __call__(self, transition: Any) -> Any:
        """Returns the transition with the mixed reward, `done` where success ends the episode, and the raw values in its info."""
        observation = transition.get(TransitionKey.OBSERVATION)
        reward, done = transition.get(TransitionKey.REWARD, 0.0), transition.get(TransitionKey.DONE, False)
        step = EnvStep(
            0, frame_of(observation), self._instruction(transition), float(reward or 0.0), bool(done) and not self._is_first, self._is_first
        )
        begun_s = time.perf_counter()
        (outcome,) = self._attempts.advance([step])
        frequency = 1 / max(time.perf_counter() - begun_s, 1e-9)
        self._is_first = False
        info = {**(transition.get(TransitionKey.INFO) or {}), INFO: dict(outcome.info), FREQUENCY: frequency}
        return {
            **transition,
            TransitionKey.REWARD: _like(reward, outcome.reward),
            TransitionKey.DONE: _like(done, outcome.is_terminal or bool(done)),
            TransitionKey.INFO: info,
        }

    def reset(self) -> None:
        """Ends the attempt: the next observation is the first of another."""
        self._is_first = True

    def get_config(self) -> dict[str, Any]:
        """Returns the fields as JSON holds them. A model that was handed over is not among them."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.name != "source"}

    def transform_features(self, features: Any) -> Any:
        """Returns the features: the step changes none."""
        return features

    def _instruction(self, transition: Any) -> str:
        task = (transition.get(TransitionKey.COMPLEMENTARY_DATA) or {}).get("task", self.task)
        if isinstance(task, list | tuple):
            task = task[0] if task else ""
        if not task:
            raise DataError(f'{NAME} has no instruction: put "task" into the complementary data, or give task= to the step')
        return str(task)


def frame_of(observation: Any) -> FrameData:
    """Returns the frame of an observation of one environment: images under "observation.image...", and the state. DataError for several."""
    if not isinstance(observation, Mapping):
        raise DataError(f"{NAME} has no observation: it stands in the environment's pipeline")
    images = {key: _single(value) for key, value in observation.items() if str(key).startswith("observation.image")}
    if not images:
        raise DataError(f'{NAME} finds no images ("observation.images...") in {", ".join(map(str, observation))}: it stands behind '
                        f"VanillaObservationProcessorStep")  # fmt: skip
    state = observation.get(STATE)
    return FrameData(images, None if state is None else _single(state))


def _single(value: Any) -> Any:
    """Returns an array without the dimension of a batch of one."""
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if array.ndim in (2, 4):
        if len(array) != 1:
            raise DataError(f"{NAME} follows one environment, and this observation is of {len(array)}")
        array = array[0]
    return array


def _like(before: Any, value: Any) -> Any:
    """Returns a value in the form that it had before: a tensor, or a plain number."""
    return torch.full_like(before, value) if isinstance(before, torch.Tensor) else value
