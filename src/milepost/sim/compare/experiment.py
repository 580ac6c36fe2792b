"""Run the comparison: every (seed, task, share of bad demonstrations, arm) is one policy trained and tried, and one line of a file.

All arms of a cell have the same demonstrations, network, steps, first weights, batches and start scenes; they differ in the weights alone.
A line is written when its policy has been tried, so that a stopped run goes on where it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from milepost.sim.closed_loop import success_of
from milepost.sim.compare.arms import ARMS, Mix
from milepost.sim.compare.config import CompareConfig, PoolConfig
from milepost.sim.compare.demonstrations import Pool, draw, scenes
from milepost.sim.compare.policy import Demonstrations, fit_policy
from milepost.sim.tasks import RECIPE


@dataclass(frozen=True)
class PolicyJob:
    """One policy to train and try."""

    seed: int
    task: str
    share: float
    arm: str


def jobs(config: CompareConfig) -> Iterator[PolicyJob]:
    """Yields jobs seed by seed, so that the finished ones can always be compared."""
    for seed in config.seeds:
        for task in config.tasks:
            for proportion in config.shares:
                for arm in config.arms:
                    yield PolicyJob(seed, task, proportion, arm)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Reads finished lines; a line that a kill cut off does not count."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("}\n")]


def append(path: Path, line: dict[str, Any]) -> None:
    """Appends one line; it starts on a new line even after a line that was cut off."""
    unfinished = path.is_file() and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write("\n" * unfinished + json.dumps(line, allow_nan=False) + "\n")


def run(config: CompareConfig, folder: Path, *, on_progress: Callable[[str], Callable[[int, int], None]]) -> list[dict[str, Any]]:
    """Returns all lines of this comparison: those in `folder/runs.jsonl` and new ones. Demonstrations are also stored in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path, key = folder / "runs.jsonl", config.key()
    lines = {PolicyJob(*(line[name] for name in ("seed", "task", "share", "arm"))): line for line in read_lines(path) if line["key"] == key}
    todo, pools = list(jobs(config)), Pools(folder, config.pool)
    tick = on_progress("policies")
    for count, job in enumerate(todo):
        tick(count, len(todo))
        if job not in lines:
            lines[job] = {**dataclasses.asdict(job), "key": key, **run_one(job, pools.get(job.task, job.seed), config)}
            append(path, lines[job])
    tick(len(todo), len(todo))
    return [lines[job] for job in todo]


class Pools:
    """Demonstrations by task and seed, drawn once and kept on disk; the last one in memory."""

    def __init__(self, folder: Path, config: PoolConfig) -> None:
        self.folder, self.config = folder, config
        self.mark = hashlib.sha256(json.dumps([RECIPE, dataclasses.asdict(config)]).encode()).hexdigest()[:8]
        self._last: Pool | None = None

    def get(self, task: str, seed: int) -> Pool:
        """Returns the demonstrations of a task and seed, from disk if they are there."""
        if self._last is None or (self._last.task, self._last.seed) != (task, seed):
            path = self.folder / f"demonstrations-{task}-{seed}-{self.mark}.npz"
            if not path.is_file():
                draw(task, seed, self.config).save(path)
            self._last = Pool.load(path, task, seed)
        return self._last


def mixture(pool: Pool, episodes: int, proportion: float) -> tuple[Demonstrations, Mix]:
    """Returns the demonstrations of a mix, and the facts that the arms may know about them."""
    episodes_used = pool.mix(episodes, proportion)
    rows = np.isin(pool.frames.episode_index, episodes_used)
    number = np.searchsorted(episodes_used, pool.frames.episode_index[rows])
    curves = {name: value[rows] for name, value in pool.progress.items()}
    frames = Demonstrations(pool.frames.observation[rows], pool.frames.action[rows], number)
    return frames, Mix(number, pool.success[episodes_used], curves)


def run_one(job: PolicyJob, pool: Pool, config: CompareConfig) -> dict[str, Any]:
    """Trains and tries the policy of a job; returns the content of its line."""
    frames, mix = mixture(pool, config.pool.episodes, job.share)
    weight = ARMS[job.arm](mix, config.rabc, np.random.default_rng([job.seed, 7]))
    start = time.monotonic()
    policy = fit_policy(frames, config.policy, rng=np.random.default_rng([job.seed, 11]), weight=weight)
    trained = time.monotonic()
    act = policy.actor(np.random.default_rng([job.seed, 13]))
    success = success_of(job.task, act, scenes(job.seed, config.trials), execute=config.execute)
    good = np.array([kind == "expert" for kind in np.array(pool.kind)[pool.mix(config.pool.episodes, job.share)]])[mix.episode]
    return {
        "success": [int(outcome) for outcome in success],
        "frames": len(weight),
        "mean_weight": _mean(weight),
        "good_weight": _mean(weight[good]),
        "bad_weight": _mean(weight[~good]),
        "train_s": round(trained - start, 2),
        "trial_s": round(time.monotonic() - trained, 2),
    }


def _mean(weight: np.ndarray) -> float | None:
    return round(float(weight.mean()), 4) if len(weight) else None
