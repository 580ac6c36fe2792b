"""What is compared, as plain values: the policy, the demonstrations, the arms. No torch, no simulator."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Literal

from milepost.core import DataError, require_integers
from milepost.sim.compare.arms import ARMS, needs_sarm, rabc_config
from milepost.sim.tasks import RECIPE, TASKS
from milepost.weights import RabcConfig


@dataclass(frozen=True)
class PolicyConfig:
    """The network and how it is trained. Sizes of observation and action come from the demonstrations."""

    chunk_size: int = 6
    """Actions it predicts at once (H)."""
    loss: Literal["l1", "flow"] = "l1"
    hidden_dim: int = 256
    num_layers: int = 3
    flow_steps: int = 5
    """Euler steps from noise to actions."""
    steps: int = 1600
    batch_size: int = 64
    lr: float = 2e-3
    """At the start; a cosine takes it to 0."""
    weight_decay: float = 1e-4
    draw: Literal["uniform", "weight"] = "uniform"
    """uniform: samples are drawn alike and weights act in the loss. weight: samples are drawn by weight, and the loss is a plain mean."""

    def __post_init__(self) -> None:
        require_integers(self)
        for name in ("chunk_size", "hidden_dim", "num_layers", "flow_steps", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.lr <= 0 or self.weight_decay < 0:
            raise ValueError(f"lr must be above 0 and weight_decay at least 0, got {self.lr} and {self.weight_decay}")
        for name, choices in (("loss", ("l1", "flow")), ("draw", ("uniform", "weight"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be {' or '.join(choices)}, got '{getattr(self, name)}'")


@dataclass(frozen=True)
class PoolConfig:
    """What a seed draws: so many good and as many bad demonstrations of a task, and those that SARM learns from."""

    episodes: int = 40
    """Demonstrations that a policy learns from; a proportion of them is bad."""
    annotated: int = 30
    """Bad demonstrations with annotated stages, SARM's alone, so that it has never seen a good one; 0: no SARM."""
    sarm_steps: int = 300
    side: int = 32
    """Pixels of the pictures that are drawn; the built-in encoder averages them to 16 x 16."""

    def __post_init__(self) -> None:
        require_integers(self)


@dataclass(frozen=True)
class CompareConfig:
    """What to compare. DataError for an unknown task or arm or an impossible number."""

    tasks: tuple[str, ...] = ("pick-place-v3",)
    shares: tuple[float, ...] = (0.8,)
    """Proportions of bad demonstrations. (`share` is the name in the lines of runs.jsonl, so it stays.)"""
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
        require_integers(self)
        for what, names, choices in (("task", self.tasks, TASKS), ("arm", self.arms, ARMS)):
            unknown = [name for name in names if name not in choices]
            if unknown or not names:
                raise DataError(f"unknown {what} '{', '.join(unknown)}'; choose from: {', '.join(choices)}")
        if not all(0 <= proportion <= 1 for proportion in self.shares) or not self.shares:
            raise DataError(f"proportions of bad demonstrations lie in [0, 1], got {self.shares}")
        if min(self.seeds, default=-1) < 0 or self.trials < 1 or not 1 <= self.execute <= self.policy.chunk_size:
            raise DataError("seeds must be at least 0, trials at least 1, and execute from 1 to the policy's chunk_size")
        if self.pool.episodes < 5:
            raise DataError(f"at least 5 demonstrations are needed, got {self.pool.episodes}")
        if not self.pool.annotated and any(map(needs_sarm, self.arms)):
            raise DataError("arms with SARM need annotated demonstrations")

    def key(self) -> str:
        """Returns a hash that changes when earlier lines would no longer be reproduced."""
        deciding = {name: dataclasses.asdict(getattr(self, name)) for name in ("pool", "policy")}
        deciding["rabc"] = {name: value for name, value in vars(self.rabc).items() if self.rabc.changed(name)}
        text = json.dumps([RECIPE, deciding, self.trials, self.execute], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
