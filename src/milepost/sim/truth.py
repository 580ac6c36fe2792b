"""The truth of a rollout: stage, tau and progress of every frame, and the segments that a perfect annotator would mark.

tau = the proportion of the expert's frames of that task and stage that are less far along. So on experts it is linear in time on average,
which is SARM's label; standing still adds nothing, going back subtracts, and a failed attempt keeps what it reached. progress = P_{k-1} +
alpha_k tau (SARM, arXiv 2509.25358, eqs. 1-2), and 1 from success on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from milepost.core import Segment, Stages, progress, proportions
from milepost.sim.rollout import Rollout
from milepost.sim.stagewise import finish, runs, stages_of
from milepost.sim.tasks import STAGES, TASKS, Trace


@dataclass(frozen=True, eq=False)
class RolloutTruth:
    """stage (T,), tau (T,) in [0, 1], progress (T,) in [0, 1], success (T,): done by this frame. segments tile the frames up to
    success, or all of them."""

    stage: Int[np.ndarray, "T"]
    tau: Float[np.ndarray, "T"]
    progress: Float[np.ndarray, "T"]
    success: Bool[np.ndarray, "T"]
    segments: tuple[Segment, ...]


class Ranking:
    """The sorted `way` of the experts in each stage of one task; every other frame is ranked against it."""

    def __init__(self, task: str, experts: Sequence[Trace]) -> None:
        """Collects the experts' frames. experts: successful expert rollouts. ValueError if a stage never appears in them."""
        self.task = task
        pools: list[list[np.ndarray]] = [[] for _ in STAGES]
        for trace in experts:
            end = finish(task, trace)
            stage, way = stages_of(task, trace)[:end], TASKS[task].way(trace)[:end]
            for k, pool in enumerate(pools):
                pool.append(way[stage == k, k])
        self._sorted = [np.sort(np.concatenate(pool)) if pool else np.zeros(0) for pool in pools]
        for name, ways in zip(STAGES, self._sorted, strict=True):
            if not len(ways):
                raise ValueError(f"no expert rollout of {task} has a frame of '{name}'; {len(experts)} rollouts given")

    def tau(self, trace: Trace) -> Float[np.ndarray, "T"]:
        """Returns the proportion of expert frames of the same stage that are less far along, interpolated; 1 from success on."""
        stage, way = stages_of(self.task, trace), TASKS[self.task].way(trace)
        tau = np.zeros(len(trace))
        for k, ways in enumerate(self._sorted):
            mine = stage == k
            tau[mine] = np.interp(way[mine, k], ways, np.arange(len(ways)) / len(ways), left=0.0, right=1.0)
        end = finish(self.task, trace)
        if end is not None:
            tau[end:] = 1.0
        return tau


def truth_of_rollouts(rollouts: Sequence[Rollout]) -> tuple[list[RolloutTruth], Stages]:
    """Returns the truth of every rollout, and the stages with their proportions of an episode (eq. 1 over the stored successful rollouts of
    all tasks, frames before success). Each task is ranked against all its expert rollouts in the list. ValueError if a task has none."""
    segments = [segments_of(rollout.task, rollout.trace) for rollout in rollouts]
    used = [parts for parts, rollout in zip(segments, rollouts, strict=True) if rollout.success and rollout.stored]
    if not used:  # a dataset of failures alone: the proportions come from its references
        used = [parts for parts, rollout in zip(segments, rollouts, strict=True) if rollout.success]
    stages = proportions(used, STAGES)
    rankings = {
        task: Ranking(task, [r.trace for r in rollouts if r.task == task and r.kind == "expert"])
        for task in dict.fromkeys(rollout.task for rollout in rollouts)
    }
    pairs = zip(rollouts, segments, strict=True)
    return [_truth(rollout.trace, rankings[rollout.task], stages, parts) for rollout, parts in pairs], stages


def _truth(trace: Trace, ranking: Ranking, stages: Stages, segments: tuple[Segment, ...]) -> RolloutTruth:
    stage, tau = stages_of(ranking.task, trace), ranking.tau(trace)
    end = finish(ranking.task, trace)
    success = np.arange(len(trace)) >= (len(trace) if end is None else end)
    value = progress(stage, tau, stages)
    return RolloutTruth(stage, tau.astype(np.float32), np.where(success, np.float32(1), value), success, segments)


def segments_of(task: str, trace: Trace) -> tuple[Segment, ...]:
    """Returns the stage runs up to success, or all of them without success. They stop at success, so that eq. 1 counts no frame of a
    finished task; readers treat the frames after them as finished."""
    stage = stages_of(task, trace)[: finish(task, trace)]
    return tuple(Segment(STAGES[stage[start]], start, stop) for start, stop in runs(stage))
