"""The success head: episode -> the probability at every frame that the task is done, and from it whether the attempt counts as done.

The probability is the mean over M small networks. `detected` follows it with two thresholds and a number of frames in a row
(`metrics.SuccessRule`), so that noise does not switch it on and off. The curve is no progress: it is near 0 until the end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from milepost.core import Curve, Episode, Progress, Signal, Step
from milepost.metrics import SuccessDetector, Threshold, detect_success
from milepost.models.online import History, Windows
from milepost.models.success.config import SuccessConfig
from milepost.models.training.distributed import SINGLE_PROCESS, ProcessGroup
from milepost.models.windowed.model import WindowedModel


class SuccessModel(WindowedModel):
    """The networks and the config that made them, after a frozen encoder.

    >>> from milepost.testing import dot_episodes, tiny_success
    >>> tiny_success().save_pretrained("success-model")
    >>> curve = milepost.load_model("success-model").predict(dot_episodes(1)[0]).main
    >>> len(curve.value), list(curve.signals)
    (33, ['success', 'detected'])
    """

    WRONG_INSTRUCTION = "is never done"
    CONFIG = SuccessConfig
    config: SuccessConfig

    def __init__(self, config: SuccessConfig) -> None:
        super().__init__(config, 1)

    @property
    def success_threshold(self) -> float:
        """Returns the probability above which an attempt that ends there is called a success."""
        return self.config.success_threshold

    def use_threshold(self, threshold: Threshold) -> None:
        """Counts an attempt as done from this fitted threshold on; it becomes part of the config."""
        interval = () if np.isnan(threshold.interval).any() else tuple(float(np.clip(end, 0.0, 1.0)) for end in threshold.interval)
        value = float(np.clip(threshold.value, 0.0, 1.0))
        self.config = dataclasses.replace(self.config, success_threshold=value, threshold_interval=interval)

    # Training

    def loss(
        self, batch: Mapping[str, Tensor], generator: torch.Generator | None = None, process_group: ProcessGroup = SINGLE_PROCESS
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the binary cross-entropy, the mean over members and over the samples of all processes. batch: of `WindowSamples`."""
        logits, target = self.batch_logits(batch)[..., 0], batch["target"].to(self.device, non_blocking=True)
        losses = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
        loss = losses.mean(0).sum() / (len(target) * process_group.world_size)
        return loss, {"loss": loss.detach()}

    @torch.no_grad()
    def validation_scores(self, windows: Mapping[str, Tensor]) -> dict[str, float]:
        """Returns "validation_loss" and "validation_error", the mean distance of the probability from the label."""
        loss, _ = self.loss(windows)
        value = _probability(self.batch_logits(windows)).cpu()
        return {"validation_loss": loss.item(), "validation_error": (value - windows["target"]).abs().mean().item()}

    # Looking back at a recorded episode

    def probability(self, episode: Episode, features: Float[np.ndarray, "T C E"] | None = None) -> Float[np.ndarray, "T"]:
        """Returns the probability at every frame that the task is done. features: `project`'s, else they are computed.

        UnreadableError if the instruction is blank and the model did not learn from blank ones.
        """
        return _probability(self.over_episode(episode, features)).cpu().numpy()

    def predict(self, episode: Episode, *, task: str | None = None) -> Progress:
        """Returns the probability of success at every frame as the curve, with the signals "success", which is the same, and "detected".

        detected: 1 where the attempt counts as done by `config.rule`, else 0. task: instead of the episode's.
        """
        episode = episode if task is None else dataclasses.replace(episode, task=task)
        value = self.probability(episode)
        detected = detect_success(value, self.config.rule).astype(np.float32)
        signals = {"success": Signal(value, "", 0.0, 1.0), "detected": Signal(detected, "", 0.0, 1.0)}
        return Progress(episode.index, Curve(value, signals=signals, score="success"))

    # While the robot moves

    def new_memory(self, task: str) -> SuccessDetector:
        """Returns what follows the probability of an attempt."""
        return SuccessDetector(self.config.rule)

    def steps(self, attempts: Sequence[History], windows: Windows, words: Float[Tensor, "B M"]) -> list[Step]:
        """Returns the probability at these windows, and whether each attempt counts as done."""
        values = _probability(self.read(*windows, words)).tolist()
        return [
            Step(value, {"success": value, "detected": float(attempt.memory.update(value))})
            for attempt, value in zip(attempts, values, strict=True)
        ]


def _probability(logits: Float[Tensor, "H T 1"]) -> Float[Tensor, "T"]:
    """Returns the members' mean probability."""
    return logits[..., 0].sigmoid().mean(0)
