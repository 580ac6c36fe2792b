"""Training labels and rewind as LeRobot 0.6.1 makes them, for `samples="lerobot"`: to compare its recipe with ours, mistakes included.

Ours differ (`stages.targets`, `windows.rewind`): an attempt that stops early is not finished, tau 1 is not the next stage, what nobody
knows is not 0, and a rewound picture has the label of its own frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from milepost.core import Segment

NEARLY = 0.999
"""tau where LeRobot means "done": k + 1 would be the next stage."""


def stage_and_tau(
    frames: Int[np.ndarray, "N"], segments: Sequence[Segment], names: Sequence[str], length: int
) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """Stage and tau at these frames of an episode. One stage: the share of the episode gone by. No segments: 0 and 0.

    A segment counts its last frame `stop` as its own, and the first that has a frame gets it. Before them all: 0 and 0. After the last:
    the last stage of the task, 0.999. In a gap: the stage before, 1. A name that is not in `names` is stage 0.
    """
    stage, tau = np.zeros(len(frames), dtype=np.int64), np.zeros(len(frames))
    if len(names) == 1:
        return stage, np.clip(frames / max(length - 1, 1), 0, 1)
    if not segments:
        return stage, tau
    order = {name: k for k, name in enumerate(names)}
    for segment in segments:
        after = frames > segment.stop
        stage[after], tau[after] = order.get(segment.name, 0), 1.0
    done, early = frames > segments[-1].stop, frames < segments[0].start
    stage[done], tau[done] = len(names) - 1, NEARLY
    stage[early], tau[early] = 0, 0.0
    for segment in reversed(segments):
        inside = (frames >= segment.start) & (frames <= segment.stop)
        span = segment.stop - segment.start
        stage[inside] = order.get(segment.name, 0)
        tau[inside] = (frames[inside] - segment.start) / span if span else 1.0
    return stage, tau


def combined(stage: Int[np.ndarray, "*N"], tau: Float[np.ndarray, "*N"], count: int) -> Float[np.ndarray, "*N"]:
    """The number LeRobot trains on, stage + tau: tau 1 of a stage is tau 0 of the next, but of the last it is 0.999."""
    return np.where((stage >= count - 1) & (tau >= 1), count - 1 + NEARLY, stage + tau)


def separated(target: Float[np.ndarray, "*N"], count: int) -> tuple[Int[np.ndarray, "*N"], Float[np.ndarray, "*N"]]:
    """What its loss makes of that number: stage int64, tau float32."""
    return np.clip(np.floor(target), 0, count - 1).astype(np.int64), (target % 1).astype(np.float32)


def labels(segments: Sequence[Segment], names: Sequence[str], length: int) -> tuple[Int[np.ndarray, "T"], Float[np.ndarray, "T"]]:
    """Stage and tau its loss sees, for every frame of an episode."""
    return separated(combined(*stage_and_tau(np.arange(length), segments, names, length), len(names)), len(names))


def rewind_room(at: Int[np.ndarray, "N"], n_obs_steps: int, most: int, gap: int) -> Int[np.ndarray, "N"]:
    """How many steps LeRobot allows back from the window's first frame."""
    earliest = at - n_obs_steps // 2 * gap
    return np.where(earliest > 0, np.minimum(most, earliest // gap), 0)


def rewind(
    at: Int[np.ndarray, "N"], steps: Int[np.ndarray, "N"], n_obs_steps: int, most: int, *, gap: int
) -> tuple[Int[np.ndarray, "N R"], Int[np.ndarray, "N R"], Bool[np.ndarray, "N R"]]:
    """(frames of the pictures, frames of the labels, valid): the pictures go back from `at`, the labels from the window's first frame."""
    back = np.arange(1, most + 1)[None, :] * gap
    shown = np.maximum(at[:, None] - back, 0)
    told = np.maximum(at[:, None] - n_obs_steps // 2 * gap - back, 0)
    return shown, told, np.arange(1, most + 1)[None, :] <= steps[:, None]
