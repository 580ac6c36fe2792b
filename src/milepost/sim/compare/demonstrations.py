"""Good and bad demonstrations of one simulated task, drawn anew with every seed, with true progress and progress seen in the pictures.

Three sets that share no start scene: those a policy learns from, those SARM learns from, those a policy is tried in (`scenes`). SARM is
shown pictures, hand positions and stage boundaries; never a kind, a success flag or true progress. Nothing here trains a policy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from milepost.core import ArrayFrames, Episode, atomic_path
from milepost.encoders import SIDE, reduce_images
from milepost.models import PRESETS, SARMModel, train_sarm
from milepost.sim.closed_loop import observations
from milepost.sim.compare.config import PoolConfig
from milepost.sim.compare.policy import Demonstrations
from milepost.sim.rollout import Rollout, SimConfig, roll_out
from milepost.sim.scene import CAMERAS, close_painters, painter
from milepost.sim.tasks import TASKS
from milepost.sim.truth import RolloutTruth, truth_of_rollouts
from milepost.sim.world import FPS

BAD = ("slow", "hesitating", "backtracking", "giving_up", "failing_early")
"""Kinds of bad demonstrations, in equal parts."""
POLICY, REWARD, TRIAL = 1000, 2000, 900_000_000
"""Where the scenes of each set begin: seeds of the simulation for the first two, scene numbers for the third."""


@dataclass(frozen=True, eq=False)
class Pool:
    """A seed's demonstrations of a task, frames end to end, episodes in mixing order: good ones first.

    progress: name -> (N,): "true", and "sarm" where there is one.
    """

    task: str
    seed: int
    frames: Demonstrations
    kind: tuple[str, ...]
    success: Bool[np.ndarray, "E"]
    progress: dict[str, Float[np.ndarray, "N"]] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Writes the pool as one npz file."""
        curves = {f"progress_{name}": value for name, value in self.progress.items()}
        columns = {name: getattr(self.frames, name) for name in ("observation", "action", "episode_index")}
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            arrays: dict[str, Any] = {**columns, **curves, "kind": np.array(self.kind), "success": self.success}
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path, task: str, seed: int) -> Pool:
        """Reads a pool."""
        with np.load(path, allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files}
        frames = Demonstrations(columns["observation"], columns["action"], columns["episode_index"])
        curves = {name.removeprefix("progress_"): value for name, value in columns.items() if name.startswith("progress_")}
        return cls(task, seed, frames, tuple(str(kind) for kind in columns["kind"]), columns["success"], curves)

    def mix(self, episodes: int, proportion: float) -> Int[np.ndarray, "E"]:
        """Returns the episodes of a set of this size with this proportion of bad ones, kinds in equal parts. Sets of one seed are
        nested."""
        bad = round(proportion * episodes)
        good_ones = [e for e, kind in enumerate(self.kind) if kind == "expert"]
        bad_ones = [e for e, kind in enumerate(self.kind) if kind != "expert"]
        return np.array(sorted(good_ones[: episodes - bad] + bad_ones[:bad]))


def draw(task: str, seed: int, config: PoolConfig) -> Pool:
    """Simulates, renders and runs SARM, which takes minutes. Equal arguments give equal results."""
    rollouts, truths = _simulate(task, POLICY + seed, {"expert": config.episodes, **_equal(config.episodes)})
    frames = Demonstrations(
        np.concatenate([observations(rollout.trace) for rollout in rollouts]),
        np.concatenate([rollout.action for rollout in rollouts]),
        np.repeat(np.arange(len(rollouts)), [len(rollout) for rollout in rollouts]),
    )
    progress = {"true": np.concatenate([truth.progress for truth in truths])}
    if config.annotated:
        progress["sarm"] = _sarm_progress(task, seed, rollouts, config)
    return Pool(task, seed, frames, tuple(r.kind for r in rollouts), np.array([r.success for r in rollouts]), progress)


def scenes(seed: int, count: int) -> list[int]:
    """Returns start scenes to try a policy in: the same for every arm of a seed, and different from those of all demonstrations."""
    return [TRIAL + 1000 * seed + place for place in range(count)]


def _equal(count: int) -> dict[str, int]:
    return {kind: count // len(BAD) + (place < count % len(BAD)) for place, kind in enumerate(BAD)}


def _simulate(task: str, seed: int, episodes: dict[str, int]) -> tuple[list[Rollout], list[RolloutTruth]]:
    """Simulates good episodes first, then bad ones with the kinds in turn."""
    rollouts = roll_out(SimConfig(tasks=(task,), episodes=episodes, seed=seed))
    truths, _ = truth_of_rollouts(rollouts)
    turns: dict[str, int] = {}
    order = []
    for place, rollout in enumerate(rollouts):
        turn = turns[rollout.kind] = turns.get(rollout.kind, 0) + 1
        if rollout.stored:
            order.append((rollout.kind != "expert", turn, rollout.kind, place))
    places = [place for *_, place in sorted(order)]
    return [rollouts[place] for place in places], [truths[place] for place in places]


def _sarm_progress(task: str, seed: int, rollouts: Sequence[Rollout], config: PoolConfig) -> np.ndarray:
    """Predicts progress of every frame with a SARM that was trained on other demonstrations."""
    own, truths = _simulate(task, REWARD + seed, _equal(config.annotated))
    try:
        learn = [_episode(place, *pair, config.side) for place, pair in enumerate(zip(own, truths, strict=True))]
        model = _train(learn, seed, config)
        views = (_episode(place, rollout, None, config.side) for place, rollout in enumerate(rollouts))
        return np.concatenate([model.predict(episode).value for episode in views])
    finally:
        close_painters()


def _episode(index: int, rollout: Rollout, truth: RolloutTruth | None, side: int) -> Episode:
    """Returns the part of a rollout that SARM may know: images, hand and gripper; stage boundaries only for its training."""
    by = painter(rollout.task, side)
    images = {}
    for camera in CAMERAS:
        small = reduce_images(np.stack(list(by.frames(rollout, camera))))
        images[camera] = ArrayFrames(np.ascontiguousarray(small.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)))
    state = np.column_stack([rollout.trace.hand, rollout.trace.opening]).astype(np.float32)
    segments = {} if truth is None else {"sparse": truth.segments}
    return Episode(index, 0, TASKS[rollout.task].instruction, FPS, len(rollout), state, images, segments)


def _train(episodes: Sequence[Episode], seed: int, config: PoolConfig) -> SARMModel:
    """Trains with the demo's recipe on one task."""
    sarm, train = PRESETS["small"]
    first, *more = CAMERAS
    sarm = dataclasses.replace(sarm, annotation_mode="sparse_only", image_key=first, more_image_keys=tuple(more), gap_s=0.1)
    train = dataclasses.replace(train, steps=config.sarm_steps, seed=seed, validation=0.0, checkpoint_s=1e9)
    with TemporaryDirectory() as folder:
        return train_sarm(episodes, sarm, train, folder=Path(folder), stages={}, holdout=0.0).model
