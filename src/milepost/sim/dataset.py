"""A dataset of simulated attempts: simulate, compute the truth, render and encode each episode in parallel, join.

Encoded episodes are stored in `<root>.partial/<hash of the config>/`, and an interrupted call continues from there. The simulation is
repeated then, because it is deterministic and takes a tenth of the time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from milepost.core import DataError
from milepost.datasets import Recording, assemble, encode_episode, is_encoded
from milepost.sim.pool import pool
from milepost.sim.rollout import OnStageProgress, Rollout, SimConfig, roll_out_with
from milepost.sim.scene import CAMERAS, Painter, close_painters, painter, require_renderer
from milepost.sim.tasks import RECIPE, TASKS
from milepost.sim.truth import RolloutTruth, truth_of_rollouts
from milepost.sim.world import FPS


@dataclass(frozen=True, eq=False)
class _EncodeJob:
    folder: Path
    rollout: Rollout
    truth: RolloutTruth
    size: int
    codec: str


def describe(rollout: Rollout, truth: RolloutTruth, by: Painter) -> Recording:
    """Returns a rollout as a recording. Its frames are rendered when they are read, so the painter `by` must still be open.

    state (T, 4): hand x, y, z in metres and gripper opening (1 open). action (T, 4): as in `Rollout`. Columns `truth.progress`
    and `truth.tau` float32 in [0, 1], `truth.stage` int64, `next.success` bool, true from success on. Facts `kind`, `success`,
    `scene`.
    """
    trace = rollout.trace
    return Recording(
        task=TASKS[rollout.task].instruction,
        state=np.column_stack([trace.hand, trace.opening]).astype(np.float32),
        action=rollout.action,
        frames={camera: by.frames(rollout, camera) for camera in CAMERAS},
        columns={
            "truth.progress": truth.progress,
            "truth.stage": truth.stage,
            "truth.tau": truth.tau,
            "next.success": truth.success,
        },
        segments={"sparse": truth.segments},
        facts={"kind": rollout.kind, "success": rollout.success, "scene": rollout.scene},
    )


def make_dataset(root: Path, config: SimConfig, *, workers: int = 2, on_progress: OnStageProgress | None = None) -> None:
    """Simulates a LeRobot v3.0 dataset at `root`, with 20 frames per second, two cameras and the truth of every frame.

    After an interruption the same call continues; another config never uses this one's work. Equal configs give equal tables byte for
    byte, for any number of workers. DataError if `root` exists; NoRendererError or MissingSimulatorError before any work if
    something is missing.
    """
    root = Path(root)
    if root.exists():
        raise DataError(f"{root} exists already and is not overwritten; remove it or choose another name")
    require_renderer()
    report = on_progress or (lambda *_: None)
    partial = root.with_name(root.name + ".partial")
    work = partial / fingerprint(config)
    work.mkdir(parents=True, exist_ok=True)
    with pool(workers) as run:
        rollouts = roll_out_with(run, config, on_progress=report)
        truths, stages = truth_of_rollouts(rollouts)
        stored = [(rollout, truth) for rollout, truth in zip(rollouts, truths, strict=True) if rollout.stored]
        folders = [work / f"{number:06d}" for number in range(len(stored))]
        todo = [
            _EncodeJob(folder, rollout, truth, config.size, config.codec)
            for folder, (rollout, truth) in zip(folders, stored, strict=True)
            if not is_encoded(folder)
        ]
        try:
            for count, _ in enumerate(run(_encode, todo), len(folders) - len(todo) + 1):
                report("drawing", count, len(folders))
        finally:
            close_painters()
    proportions: Mapping[str, Mapping[str, float]] = {"sparse": dict(zip(stages.names, stages.shares, strict=True))}
    assemble(root, folders, fps=FPS, robot_type="sawyer", proportions=proportions)
    shutil.rmtree(work)
    if not any(partial.iterdir()):  # otherwise it contains another config's work, or other files
        partial.rmdir()


def fingerprint(config: SimConfig) -> str:
    """Returns twelve letters that change with the config and with the recipe."""
    text = json.dumps([RECIPE, dataclasses.asdict(config)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _encode(job: _EncodeJob) -> None:
    recording = describe(job.rollout, job.truth, painter(job.rollout.task, job.size))
    encode_episode(job.folder, recording, fps=FPS, codec=job.codec)
