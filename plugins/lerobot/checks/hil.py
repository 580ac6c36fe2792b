"""The processor step in LeRobot's own HIL-SERL loop: its reset, its step, its pipelines, an environment that replays recorded attempts."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DataProcessorPipeline,
    DeviceProcessorStep,
    InfoProcessorStep,
    InterventionActionProcessorStep,
    ProcessorStepRegistry,
    TransitionKey,
    VanillaObservationProcessorStep,
    identity_transition,
)
from lerobot.rl.gym_manipulator import reset_and_build_transition, step_env_and_process_transition
from lerobot.teleoperators.utils import TeleopEvents

import milepost
from milepost.testing import CAMERA, dot_episodes, tiny_sarm

EPISODES = dot_episodes(2)
NAME = "milepost_reward_processor"


class Replay(gymnasium.Env):
    """Shows one recorded attempt after the other, with a reward of 0.25 a step."""

    def __init__(self) -> None:
        self.number, self.frame = -1, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        self.number, self.frame = self.number + 1, 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[dict, float, bool, bool, dict]:
        self.frame += 1
        return self._observation(), 0.25, False, False, {}

    def _observation(self) -> dict:
        episode = EPISODES[self.number]
        image = episode.camera(CAMERA)[np.array([self.frame])][0]
        return {"pixels": {"top": image}, "agent_pos": episode.state[self.frame]}


class Person(InfoProcessorStep):
    """Presses "success" in the fourth action of each attempt."""

    actions = 0

    def info(self, info: dict) -> dict:
        self.actions += 1
        return {**info, TeleopEvents.SUCCESS: self.actions == 4}

    def reset(self) -> None:
        self.actions = 0

    def transform_features(self, features: Any) -> Any:
        return features


def pipeline(steps: list) -> Any:
    return DataProcessorPipeline(steps=steps, to_transition=identity_transition, to_output=identity_transition)


def played(step: Any, frames: int) -> list[list[dict]]:
    """Returns the transitions of both attempts."""
    env = Replay()
    environment = pipeline([VanillaObservationProcessorStep(), step, AddBatchDimensionProcessorStep(), DeviceProcessorStep("cpu")])
    action = pipeline([Person(), InterventionActionProcessorStep(terminate_on_success=False)])
    rows = []
    for _ in EPISODES:
        transition = reset_and_build_transition(env, environment, action)
        rows.append([transition])
        for _ in range(frames):
            transition[TransitionKey.COMPLEMENTARY_DATA]["task"] = EPISODES[0].task
            transition = step_env_and_process_transition(env, transition, torch.zeros(3), environment, action)
            rows[-1].append(transition)
    return rows


def reward_step(folder: Path) -> tuple[bool, str]:
    """Returns whether the step does what it says in LeRobot's loop, and a line about it."""
    model, frames = tiny_sarm(), 8
    model.save_pretrained(folder / "tiny_sarm")
    kind = ProcessorStepRegistry.get(NAME)
    options = {"model": str(folder / "tiny_sarm"), "fps": 10.0, "task": EPISODES[0].task, "gamma": 0.9}
    rows = played(kind(**options), frames)
    off = 0.0
    for episode, row in zip(EPISODES, rows, strict=True):
        curve = model.predict(episode).main.value
        shaper = milepost.Shaper(milepost.ShapingConfig(gamma=0.9))
        shaper.begin(float(curve[0]))
        for frame, transition in enumerate(row):
            values = transition[TransitionKey.INFO]["milepost"]
            others = 0.0 if frame == 0 else 1.25 if frame == 4 else 0.25
            expected = others + (shaper.reward(float(curve[frame])) if frame else 0.0)
            off = max(off, abs(float(transition[TransitionKey.REWARD]) - expected), abs(values["progress"] - float(curve[frame])))
            if values["frame"] != frame or bool(transition[TransitionKey.DONE]):
                return False, f"frame {values['frame']} in place of {frame}, or an end that nobody asked for"
    ended = played(kind(**options, success_threshold=0.0, success_release=0.0, success_hold=3, terminate_on_success=True), frames)
    ends = [[bool(transition[TransitionKey.DONE]) for transition in row].index(True) for row in ended]
    pipeline([kind(**options)]).save_pretrained(folder / "saved")
    loaded = DataProcessorPipeline.from_pretrained(folder / "saved", config_filename=f"{pipeline([]).name.lower()}.json").steps[0]
    off = max(off, documented(folder))
    hertz = float(np.median([transition[TransitionKey.INFO]["milepost_frequency"] for row in rows for transition in row]))
    fits = off < 1e-5 and ends == [2, 2] and loaded.get_config()["gamma"] == 0.9
    words = f"rewards and curves of 2 episodes {off:.1e} from the offline ones, beside the environment's and a person's reward"
    return fits, f"{words}; success ends an attempt at frame {ends[0]} if asked; saved and loaded; {hertz:.0f} answers a second"


def documented(folder: Path) -> float:
    """Returns how far the progress by the lines of docs/rl.md is from the offline curve."""
    (*_, block) = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[3] / "docs" / "rl.md").read_text(), re.DOTALL)
    environment = pipeline([VanillaObservationProcessorStep(), AddBatchDimensionProcessorStep(), DeviceProcessorStep("cpu")])
    block = block.replace('model="sarm"', f'model="{folder / "tiny_sarm"}"')
    exec(compile(block, "rl.md", "exec"), {"env_processor": environment})
    transition = reset_and_build_transition(Replay(), environment, pipeline([]))
    episode = dataclasses.replace(EPISODES[0], task="stack the cubes")
    return abs(transition[TransitionKey.INFO]["milepost"]["progress"] - float(tiny_sarm().predict(episode).main.value[0]))
