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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from milepost.compare.arms import ARMS, Mix, needs_sarm, rabc_config
from milepost.compare.demonstrations import Pool, PoolConfig, draw, scenes
from milepost.policy import Demonstrations, PolicyConfig, fit_policy
from milepost.sim import RECIPE, TASKS, success_of
from milepost.types import DataError
from milepost.weights import RabcConfig


@dataclass(frozen=True)
class CompareConfig:
    """What to compare. DataError for an unknown task or arm or an impossible number."""

    tasks: tuple[str, ...] = ("pick-place-v3",)
    shares: tuple[float, ...] = (0.8,)
    """Shares of bad demonstrations."""
    arms: tuple[str, ...] = tuple(ARMS)
    seeds: tuple[int, ...] = (0, 1, 2)
    trials: int = 30
    """Start scenes each policy is tried in."""
    execute: int = 2
    """Actions of a chunk that are carried out before the policy looks again."""
    pool: PoolConfig = field(default_factory=PoolConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    rabc: RabcConfig = field(default_factory=lambda: rabc_config(PolicyConfig().chunk_size))

    def __post_init__(self) -> None:
        for what, names, known in (("task", self.tasks, TASKS), ("arm", self.arms, ARMS)):
            unknown = [name for name in names if name not in known]
            if unknown or not names:
                raise DataError(f"unknown {what} '{', '.join(unknown)}'; choose from: {', '.join(known)}")
        if not all(0 <= share <= 1 for share in self.shares) or not self.shares:
            raise DataError(f"shares of bad demonstrations lie in [0, 1], got {self.shares}")
        if min(self.seeds, default=-1) < 0 or self.trials < 1 or not 1 <= self.execute <= self.policy.chunk_size:
            raise DataError("seeds must be at least 0, trials at least 1, and execute from 1 to the policy's chunk_size")
        if self.pool.episodes < 5:
            raise DataError(f"at least 5 demonstrations are needed, got {self.pool.episodes}")
        if not self.pool.annotated and any(map(needs_sarm, self.arms)):
            raise DataError("arms with SARM need annotated demonstrations")

    def key(self) -> str:
        """Changes when a line made before would no longer be the same."""
        deciding = {name: dataclasses.asdict(getattr(self, name)) for name in ("pool", "policy")}
        deciding["rabc"] = {name: value for name, value in vars(self.rabc).items() if self.rabc.changed(name)}
        text = json.dumps([RECIPE, deciding, self.trials, self.execute], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Job:
    """One policy to train and try."""

    seed: int
    task: str
    share: float
    arm: str


def jobs(config: CompareConfig) -> Iterator[Job]:
    """Seed by seed, so that whatever is done is a comparison."""
    for seed in config.seeds:
        for task in config.tasks:
            for share in config.shares:
                for arm in config.arms:
                    yield Job(seed, task, share, arm)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Finished lines; one that was cut off by a kill is not one."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("}\n")]


def append(path: Path, line: dict[str, Any]) -> None:
    """One more line, on a line of its own even behind one that was cut off."""
    cut = path.is_file() and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write("\n" * cut + json.dumps(line) + "\n")


def run(config: CompareConfig, folder: Path, *, on_progress: Callable[[str], Callable[[int, int], None]]) -> list[dict[str, Any]]:
    """All lines of this comparison, those in `folder/runs.jsonl` and new ones. Demonstrations are kept in `folder` too."""
    folder.mkdir(parents=True, exist_ok=True)
    path, key = folder / "runs.jsonl", config.key()
    lines = {Job(*(line[name] for name in ("seed", "task", "share", "arm"))): line for line in read_lines(path) if line["key"] == key}
    wanted, pools = list(jobs(config)), Pools(folder, config.pool)
    tick = on_progress("policies")
    for done, job in enumerate(wanted):
        tick(done, len(wanted))
        if job not in lines:
            lines[job] = {**dataclasses.asdict(job), "key": key, **run_one(job, pools.get(job.task, job.seed), config)}
            append(path, lines[job])
    tick(len(wanted), len(wanted))
    return [lines[job] for job in wanted]


class Pools:
    """Demonstrations by task and seed, drawn once and kept on disk; the last one in memory."""

    def __init__(self, folder: Path, config: PoolConfig) -> None:
        self.folder, self.config = folder, config
        self.mark = hashlib.sha256(json.dumps([RECIPE, dataclasses.asdict(config)]).encode()).hexdigest()[:8]
        self._last: Pool | None = None

    def get(self, task: str, seed: int) -> Pool:
        if self._last is None or (self._last.task, self._last.seed) != (task, seed):
            path = self.folder / f"demonstrations-{task}-{seed}-{self.mark}.npz"
            if not path.is_file():
                draw(task, seed, self.config).save(path)
            self._last = Pool.load(path, task, seed)
        return self._last


def mixture(pool: Pool, episodes: int, share: float) -> tuple[Demonstrations, Mix]:
    """The demonstrations of a share, and what the arms may know of them."""
    chosen = pool.mix(episodes, share)
    rows = np.isin(pool.frames.episode_index, chosen)
    number = np.searchsorted(chosen, pool.frames.episode_index[rows])
    curves = {name: value[rows] for name, value in pool.progress.items()}
    frames = Demonstrations(pool.frames.observation[rows], pool.frames.action[rows], number)
    return frames, Mix(number, pool.success[chosen], curves)


def run_one(job: Job, pool: Pool, config: CompareConfig) -> dict[str, Any]:
    """Train the policy of a job and try it: what the line says."""
    frames, mix = mixture(pool, config.pool.episodes, job.share)
    weight = ARMS[job.arm](mix, config.rabc, np.random.default_rng([job.seed, 7]))
    start = time.monotonic()
    policy = fit_policy(frames, config.policy, rng=np.random.default_rng([job.seed, 11]), weight=weight)
    trained = time.monotonic()
    act = policy.actor(np.random.default_rng([job.seed, 13]))
    success = success_of(job.task, act, scenes(job.seed, config.trials), execute=config.execute)
    good = np.array([kind == "expert" for kind in np.array(pool.kind)[pool.mix(config.pool.episodes, job.share)]])[mix.episode]
    return {
        "success": [int(done) for done in success],
        "frames": len(weight),
        "mean_weight": _mean(weight),
        "good_weight": _mean(weight[good]),
        "bad_weight": _mean(weight[~good]),
        "train_s": round(trained - start, 2),
        "trial_s": round(time.monotonic() - trained, 2),
    }


def _mean(weight: np.ndarray) -> float | None:
    return round(float(weight.mean()), 4) if len(weight) else None
