"""What one model adds to fine-tuning: its clips with targets, the hidden states it reads them from, its loss. And the clips of episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor, nn

from milepost.core import Episode, Stages
from milepost.models.instructions import wrong_instruction
from milepost.models.tuning.targets import progress_targets, success_targets
from milepost.models.zero_shot.model import ZeroShotModel
from milepost.models.zero_shot.sampling import anchors

WRONG = 0.1
"""Proportion of the training clips that are shown under a wrong instruction too, with progress 0."""


@dataclass(frozen=True, eq=False)
class Labels:
    """What is known of each frame of an episode, NaN where it is not."""

    progress: Float[np.ndarray, "T"]
    success: Float[np.ndarray, "T"]
    outcome: bool | None


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of one episode that are shown at once, the instruction, and what is learnt from them."""

    episode: Episode
    frames: Int[np.ndarray, "N"]
    task: str
    targets: Mapping[str, Shaped[np.ndarray, "..."]]

    def images(self, camera: str) -> UInt8[np.ndarray, "N H W 3"]:
        """Returns the images, decoded now."""
        return self.episode.camera(camera)[self.frames]

    @property
    def times_s(self) -> list[float]:
        """Returns the time of each frame in its episode, in seconds."""
        return (self.frames / self.episode.fps).tolist()


class Tuner:
    """How one kind of model is fine-tuned."""

    MODEL: ClassVar[type[ZeroShotModel]]

    def clip(self, model: Any, episode: Episode, frames: Int[np.ndarray, "N"], task: str, labels: Labels) -> Clip | None:
        """Returns the clip that shows an attempt up to the last of these frames; None if nothing is known that it could teach."""
        raise NotImplementedError

    def weights(self, engine: Any, *, adapter: bool) -> dict[str, nn.Parameter]:
        """Returns the weights beside the adapter that are learnt, by name. adapter: whether there is one."""
        raise NotImplementedError

    def hidden(self, model: Any, clip: Clip) -> Float[Tensor, "N E"]:
        """Returns the hidden states that `loss` takes, with gradients where they are switched on."""
        raise NotImplementedError

    def loss(self, model: Any, hidden: Float[Tensor, "N E"], clip: Clip) -> dict[str, Tensor]:
        """Returns the terms of a clip's loss, of which at least one depends on the weights; a term of which nothing is known is 0."""
        raise NotImplementedError


def labels_of(episode: Episode, stages: Stages | None) -> Labels:
    """Returns what is known of an episode. stages: those of the annotation; None: progress is time."""
    progress = progress_targets(episode, stages)
    return Labels(progress, success_targets(progress, episode.success), episode.success)


def clips_of(
    tuner: Tuner, model: ZeroShotModel, episodes: Sequence[Episode], stages: Stages | None, count: int, wrong: np.random.Generator | None
) -> list[Clip]:
    """Returns the clips of episodes: `count` beginnings of each, evenly spaced. wrong: draws which are shown under a wrong task too."""
    clips: list[Clip] = []
    tasks = tuple(dict.fromkeys(model.instruction_of(episode) for episode in episodes))
    for episode in episodes:
        at, _ = model.looked_at(episode.length, episode.fps)
        task, labels = model.instruction_of(episode), labels_of(episode, stages)
        never = Labels(np.zeros(episode.length, np.float32), np.zeros(episode.length, np.float32), False)
        for prefix in anchors(len(at), max(2, count)).tolist():
            new = [tuner.clip(model, episode, at[:prefix], task, labels)]
            if wrong is not None and wrong.random() < WRONG:
                new.append(tuner.clip(model, episode, at[:prefix], wrong_instruction(task, tasks, wrong), never))
            clips += [clip for clip in new if clip is not None]
    return clips


def mean_known(losses: Float[Tensor, "N"], is_known: Shaped[np.ndarray, "N"]) -> Float[Tensor, ""]:
    """Returns the mean of the losses of the frames whose target is known, 0 if none is."""
    rows = torch.from_numpy(np.flatnonzero(is_known)).to(losses.device)
    return losses[rows].mean() if len(rows) else losses.sum() * 0.0
