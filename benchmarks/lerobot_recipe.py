"""Training labels, rewind, coins and loss as LeRobot 0.6.1 has them, restated to compare its recipe with ours, mistakes included.

Ours differ (`stages.targets`, `windows.rewind`): an attempt that stops early is not finished, tau 1 is not the next stage, what nobody
knows is not 0, and a rewound picture has the label of its own frame. `recipe` gives what `milepost.fit.fit` takes, a model and a
function that draws batches; `sarm_recipe.py` trains with it, and tests/models/test_lerobot_rules.py compares it with LeRobot's numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from milepost.core import Episode, Segment
from milepost.models import SARMConfig, SARMModel
from milepost.models.instructions import wrong_instruction
from milepost.models.sarm.prepare import training_set
from milepost.models.sarm.samples import LabelledEpisode, TrainingSet, window_frames
from milepost.models.training.distributed import ProcessGroup

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


Batch = dict[str, Tensor]
Sample = Callable[[int, np.random.Generator], Batch]


class OneCoin(SARMModel):
    """SARM as LeRobot trains it: one coin decides for a whole batch whether the within-stage network is shown the true stage."""

    def coins(self, count: int, generator: torch.Generator | None, process_group: ProcessGroup) -> Float[Tensor, "1 1"]:
        return torch.rand(1, 1, generator=generator)


class LeRobotSamples:
    """Draws batches as LeRobot does: its labels, one coin for the rewind and one instruction a batch, padding blank."""

    def __init__(self, data: TrainingSet, episodes: Sequence[Episode]) -> None:
        """data: our samples of the same episodes, for their features, states and words."""
        labelled = [relabelled(own, episode, data.config) for own, episode in zip(data.episodes, episodes, strict=True)]
        self.data = TrainingSet(labelled, data.config, words=data.words)
        self.rows = np.setdiff1d(self.data.rows, self.data.starts[1:] - 1)
        """It never samples an episode's last frame."""

    def sample(self, size: int, rng: np.random.Generator) -> Batch:
        """A batch as `TrainingSet.sample`'s."""
        data, config = self.data, self.data.config
        row = rng.choice(self.rows, size=size)
        number = np.searchsorted(data.starts, row, side="right") - 1
        at, gap = row - data.starts[number], data.episodes[0].gap
        frames, valid = window_frames(at, config, gap, np.diff(data.starts)[number][:, None])
        room = rewind_room(at, config.n_obs_steps, config.max_rewind_steps, gap)
        steps = rng.integers(1, np.maximum(room, 1) + 1) * (room > 0) * (rng.random() < config.rewind_probability)
        shown, told, back = rewind(at, steps, config.n_obs_steps, config.max_rewind_steps, gap=gap)
        valid = np.concatenate([valid, back], axis=1)
        wrong = np.full(size, rng.random() < config.language_perturbation_probability)
        start = data.starts[number][:, None]
        inputs = data.inputs(start + np.concatenate([frames, shown], axis=1), valid, rng)
        task = data.episodes[number[0]].task
        task = wrong_instruction(task, data.tasks, rng) if wrong[0] else task
        labels = data.labels(start + np.concatenate([frames, told], axis=1), valid, wrong)
        arrays = {**inputs, "text": data.words([task] * size), **labels}
        return blanked({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()})


def relabelled(own: LabelledEpisode, episode: Episode, config: SARMConfig) -> LabelledEpisode:
    """The episode with LeRobot's labels."""
    stage, tau = {}, {}
    for head, stages in config.heads.items():
        whole = (Segment(stages.names[0], 0, episode.length),)
        segments = episode.segments.get(head, ()) if head in config.annotated_heads else whole
        stage[head], tau[head] = labels(segments, stages.names, episode.length)
    return dataclasses.replace(own, stage=stage, tau=tau)


def blanked(batch: Batch) -> Batch:
    """The batch with nothing to see in its padding: LeRobot's loss looks at what comes out there."""
    valid = batch["valid"]
    images = torch.where(valid[:, :, None, None], batch["images"], 0)
    return batch | {"images": images, "state": torch.where(valid[:, :, None], batch["state"], 0)}


def taught(batch: Batch) -> Batch:
    """The batch with every unknown label as stage 0, tau 0, padding included: what LeRobot's loss makes of it."""
    stages = {name: stage.clamp(min=0) for name, stage in batch.items() if name.endswith("_stage")}
    return batch | stages | {name: tau.nan_to_num(0.0) for name, tau in batch.items() if name.endswith("_tau")}


def recipe(
    config: SARMConfig,
    episodes: Sequence[Episode],
    features: Sequence[np.ndarray],
    rng: np.random.Generator,
    *,
    samples: Literal["own", "lerobot"],
    loss: Literal["masked", "lerobot"],
) -> tuple[SARMModel, Sample, Int[np.ndarray, "N"]]:
    """(model, what draws its batches, the rows they are drawn around): LeRobot's samples or ours, with its loss or ours.

    features: of each episode, what the frozen encoder gives (T, C, E).
    """
    model = OneCoin(config) if loss == "lerobot" else SARMModel(config)
    data = training_set(model, episodes, features, rng)
    source = LeRobotSamples(data, episodes) if samples == "lerobot" else data
    if loss == "masked":
        return model, source.sample, source.rows
    return model, lambda size, rng: taught(blanked(source.sample(size, rng))), source.rows
