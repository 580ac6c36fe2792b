"""The study of docs/rl_study.md: does progress as a reward help reinforcement learning in simulation, and in which form?

    python -m benchmarks.rl_study --out FOLDER            run what is not in FOLDER/runs.jsonl yet; stop it and start it at will
    python -m benchmarks.rl_study --out FOLDER --beyond   ask the reward models about attempts that go anywhere; into FOLDER/beyond.json
    python -m benchmarks.rl_study --out FOLDER --tripwires    ask the tripwires about the worst attempts; into FOLDER/tripwires.json
    python -m benchmarks.rl_study --out FOLDER --report [--page docs/rl_study.md] [--figures docs/figures]

Every finished run is one line. All conditions have the same algorithm (SAC of Stable-Baselines3), hyperparameters, start scenes of a seed
and success reward, and differ in one added term. It needs the extras `sim`, `gymnasium` and `sb3`. Settings were chosen on
seeds 0 and 100, which are not in it.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback

from benchmarks import rl_report
from benchmarks.rl_model import Clock, TrueProgress, beyond_demonstrations, sarm, tripped
from benchmarks.rl_world import CAMERA, EVALUATION, LIMIT, RATE, RobotEnv
from milepost.core import write_text
from milepost.online import FrameData, RewardConfig, ShapingConfig
from milepost.online.wrappers.gymnasium import ProgressReward
from milepost.sim.compare.experiment import append, read_lines

Source = Literal["none", "true", "sarm", "sarm-wide", "clock"]
VERSION = 1
"""Raise it when equal settings give other runs."""


@dataclass(frozen=True)
class Condition:
    """What is added to the reward of success. source: whose progress. kind: its form. dense: Meta-World's own reward instead."""

    source: Source = "none"
    kind: Literal["potential", "absolute"] = "potential"
    dense: bool = False


CONDITIONS = {
    "sparse": Condition(),
    "oracle": Condition(dense=True),
    "true": Condition("true"),
    "sarm": Condition("sarm"),
    "sarm-wide": Condition("sarm-wide"),
    "clock": Condition("clock"),
    "sarm-absolute": Condition("sarm", "absolute"),
    "true-absolute": Condition("true", "absolute"),
}
"""Name -> what it adds."""
FIRST = ("sparse", "true", "sarm-wide", "sarm")
"""The conditions that answer the question; they are run first, in this order, and the others after them."""
TASKS = {"button-press-v3": 6_000, "door-open-v3": 12_000}
"""Task -> decisions of a run."""


@dataclass(frozen=True)
class Settings:
    """What is equal in all runs. scale: a factor of the whole reward, success and added term alike. every: decisions between evaluations of
    `episodes` attempts each. first: decisions at random before learning."""

    gamma: float = 0.95
    scale: float = 10.0
    limit: int = LIMIT
    every: int = 500
    episodes: int = 20
    first: int = 500
    sac: Mapping[str, Any] = field(
        default_factory=lambda: {
            "learning_rate": 1e-3, "batch_size": 128, "buffer_size": 50_000, "train_freq": 2, "gradient_steps": 1, "ent_coef": "auto_0.1",
            "policy_kwargs": {"net_arch": [64, 64]},
        }
    )  # fmt: skip

    def key(self) -> str:
        """Returns eight letters that change with the settings."""
        return hashlib.sha256(json.dumps([VERSION, dataclasses.asdict(self)], default=dict).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Job:
    """One run. steps: decisions."""

    task: str
    condition: str
    seed: int
    steps: int


@dataclass(frozen=True)
class Places:
    """Where environments and models come from. environment: (task, dense, limit) -> one with `progress`, `limit` and `instruction`. model:
    (task, wide) -> a model that follows attempts. frame: what it sees of an environment now."""

    environment: Callable[[str, bool, int], Any]
    model: Callable[[str, bool], Any]
    frame: Callable[[Any], FrameData]


def simulated(folder: Path) -> Places:
    """Returns Meta-World, and SARM trained on demonstrations of it, kept in the folder."""
    cache: dict[tuple[str, bool], Any] = {}

    def model(task: str, wide: bool) -> Any:
        if (task, wide) not in cache:
            cache[task, wide] = sarm(task, folder, wide=wide)
        return cache[task, wide]

    def frame(env: Any) -> FrameData:
        return FrameData({CAMERA: env.image()}, env.hand())

    return Places(lambda task, dense, limit: RobotEnv(task, dense=dense, limit=limit), model, frame)


class Timed(gymnasium.Wrapper):
    """Adds up the processor seconds of an environment, its reward model included."""

    seconds = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        begun_s = time.process_time()
        answer = super().reset(seed=seed, options=options)
        self.seconds += time.process_time() - begun_s
        return answer

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        begun_s = time.process_time()
        answer = super().step(action)
        self.seconds += time.process_time() - begun_s
        return answer


def environment(job: Job, settings: Settings, places: Places) -> Timed:
    """Returns the environment that a run learns in, with its condition's reward."""
    condition = CONDITIONS[job.condition]
    env = places.environment(job.task, condition.dense, settings.limit)
    if condition.source == "none":
        scaled = gymnasium.wrappers.TransformReward(env, lambda reward: settings.scale * float(reward))
        return Timed(scaled)
    sources: dict[Source, Callable[[], tuple[Any, Callable[..., FrameData]]]] = {
        "true": lambda: (TrueProgress(), lambda observation, info: FrameData({"progress": env.progress()})),
        "clock": lambda: (Clock(settings.limit), lambda observation, info: FrameData({})),
        "sarm": lambda: (places.model(job.task, False), lambda observation, info: places.frame(env)),
        "sarm-wide": lambda: (places.model(job.task, True), lambda observation, info: places.frame(env)),
    }
    source, frames = sources[condition.source]()
    shaping = ShapingConfig(condition.kind, gamma=settings.gamma)
    config = RewardConfig(shaping=shaping, env_weight=settings.scale, model_weight=settings.scale)
    return Timed(ProgressReward(env, source, task=env.instruction, frames=frames, fps=float(RATE), config=config))


@dataclass(frozen=True, eq=False)
class Attempt:
    """One episode of a policy without noise. curve: the model's progress, where it was asked. images, states: what the model saw."""

    success: bool
    progress: float
    decisions: int
    curve: Sequence[float] = ()
    images: Sequence[Any] = ()
    states: Sequence[Any] = ()


def attempt(policy: Any, env: Any, scene: int, ask: Callable[[], tuple[float, Any, Any]] | None = None) -> Attempt:
    """Follows a policy in one scene. ask: returns the model's progress of the current state, and the image and the state it saw."""
    observation, _ = env.reset(options={"scene": scene})
    steps = [ask()] if ask else []
    decisions, is_done, is_over = 0, False, False
    while not (is_done or is_over):
        decisions += 1
        observation, _, is_done, is_over, _ = env.step(policy.predict(observation, deterministic=True)[0])
        if ask:
            steps.append(ask())
    curve, images, states = ([step[part] for step in steps] for part in range(3))
    return Attempt(is_done, env.progress(), decisions, curve, images, states)


def judged(policy: Any, job: Job, settings: Settings, places: Places) -> list[Attempt]:
    """Follows the policy in the evaluation's scenes. The reward model looks on: the policy's own, or `sarm` for those that have none."""
    env = places.environment(job.task, False, settings.limit)
    model, attempts = places.model(job.task, CONDITIONS[job.condition].source == "sarm-wide"), []
    for scene in scenes(job.seed, settings.episodes):
        following = model.begin(task=env.instruction, fps=float(RATE))

        def ask(following: Any = following) -> tuple[float, Any, Any]:
            frame = places.frame(env)
            (step,) = model.advance([following], [frame.images], [frame.state])
            return float(step.progress), next(iter(frame.images.values())), frame.state

        attempts.append(attempt(policy, env, scene, ask))
    return attempts


def scenes(seed: int, count: int) -> list[int]:
    """Returns the start scenes of a seed's evaluations, the same for every condition."""
    return [EVALUATION + 1000 * seed + number for number in range(count)]


class Evaluations(BaseCallback):
    """Evaluates the policy every so many decisions: (decisions, success rate, mean true progress at the end)."""

    def __init__(self, env: Any, every: int, where: Sequence[int]) -> None:
        super().__init__()
        self.env, self.every, self.where = env, every, where
        self.points: list[list[float]] = []
        self.seconds = 0.0

    def _on_step(self) -> bool:
        if self.num_timesteps % self.every == 0:
            begun_s = time.process_time()
            attempts = [attempt(self.model, self.env, scene) for scene in self.where]
            rate, progress = (float(np.mean([getattr(each, name) for each in attempts])) for name in ("success", "progress"))
            self.points.append([self.num_timesteps, rate, round(progress, 4)])
            self.seconds += time.process_time() - begun_s
        return True


def run(job: Job, settings: Settings, places: Places, folder: Path) -> dict[str, Any]:
    """Trains and evaluates one policy; returns the content of its line, and keeps the images of an attempt that fooled the model."""
    begun_s = time.monotonic()
    env = environment(job, settings, places)
    evaluations = Evaluations(places.environment(job.task, False, settings.limit), settings.every, scenes(job.seed, settings.episodes))
    options = copy.deepcopy(dict(settings.sac))  # SAC writes into its options
    policy = SAC("MlpPolicy", env, gamma=settings.gamma, learning_starts=settings.first, seed=job.seed, device="cpu", **options)
    env.seconds = 0.0
    processor_s = time.process_time()
    policy.learn(job.steps, callback=evaluations)
    processor_s = time.process_time() - processor_s - evaluations.seconds
    attempts = judged(policy, job, settings, places)
    rl_report.keep_worst(folder, dataclasses.asdict(job), attempts)
    return {
        "points": evaluations.points,
        "success": [int(each.success) for each in attempts],
        "progress": [round(each.progress, 3) for each in attempts],
        "model_end": [round(each.curve[-1], 3) for each in attempts],
        "model_best": [round(max(each.curve), 3) for each in attempts],
        "decisions": [each.decisions for each in attempts],
        "env_ms": round(1000 * env.seconds / job.steps, 3),
        "sac_ms": round(1000 * (processor_s - env.seconds) / job.steps, 3),
        "wall_s": round(time.monotonic() - begun_s, 1),
    }


def jobs(tasks: Sequence[str], conditions: Sequence[str], seeds: Sequence[int], steps: int | None) -> Iterator[Job]:
    """Yields the runs: the most telling conditions first, task by task, and seed by seed, so that the finished ones can be compared."""
    first = [name for name in FIRST if name in conditions]
    for group in (first, [name for name in conditions if name not in first]):
        for task in tasks:
            for seed in seeds:
                for condition in group:
                    yield Job(task, condition, seed, steps or TASKS[task])


def study(todo: Sequence[Job], folder: Path, settings: Settings, places: Places) -> list[dict[str, Any]]:
    """Runs the jobs that have no line in `folder/runs.jsonl` yet; returns the lines of all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "runs.jsonl"
    lines = {Job(*(line[name] for name in ("task", "condition", "seed", "steps"))): line for line in finished(folder, settings)}
    for count, job in enumerate(todo, 1):
        if job not in lines:
            lines[job] = {**dataclasses.asdict(job), "key": settings.key(), **run(job, settings, places, folder)}
            append(path, lines[job])
            rate = np.mean(lines[job]["success"])
            print(time.strftime("%H:%M:%S"), f"{count} of {len(todo)}", *dataclasses.astuple(job), f"success {rate:.2f}", flush=True)
    return [lines[job] for job in todo]


def finished(folder: Path, settings: Settings) -> list[dict[str, Any]]:
    """Returns the lines of these settings; those of others in the same file are not."""
    return [line for line in read_lines(folder / "runs.jsonl") if line["key"] == settings.key()]


def main() -> None:
    """Runs the study, or reports on it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of runs.jsonl, the trained reward models and the worst attempts")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--conditions", nargs="+", choices=list(CONDITIONS), default=list(CONDITIONS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(1, 6)))
    parser.add_argument("--steps", type=int, help="decisions of a run, of every task; default: " + str(TASKS))
    parser.add_argument("--beyond", action="store_true", help="ask the reward models about attempts that go anywhere, and run nothing")
    parser.add_argument("--tripwires", action="store_true", help="ask the tripwires about the worst attempts, and run nothing")
    parser.add_argument("--report", action="store_true", help="print the tables of what is finished, and run nothing")
    parser.add_argument("--page", type=Path, help="write the tables between the marks of this page instead of printing them")
    parser.add_argument("--figures", type=Path, help="draw the figures into this folder")
    args = parser.parse_args()
    settings, todo = Settings(), list(jobs(args.tasks, args.conditions, args.seeds, args.steps))
    if args.report:
        rl_report.write(finished(args.out, settings), args.out, total=len(todo), page=args.page, figures=args.figures)
        return
    torch.set_num_threads(1)
    asides = {"beyond": beyond_demonstrations, "tripwires": tripped}
    for name in (name for name in asides if getattr(args, name)):
        rows = [row for task in args.tasks for row in asides[name](task, args.out)]
        write_text(args.out / f"{name}.json", json.dumps(rows))
    if args.beyond or args.tripwires:
        return
    study(todo, args.out, settings, simulated(args.out))


if __name__ == "__main__":
    main()
