"""The value model: episode -> a distribution over the time that is left until success, and from it progress in [0, 1].

Each of M networks gives a probability of every return in [-1, 0] (`targets.py`). Where `normalise` is "task":

    value     the mean return
    progress  the mean of max(0, 1 + return * scale / duration): 1 + the value in tasks, as `milepost advantage` counts them
    success   the probability of the returns that only successes have

The members' answers are averaged, or the lowest is taken; `spread` is the standard deviation of their progress. The window is causal, so
`step` gives the same curve while the robot moves. It is not told the time.
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
from milepost.models.online import History, Windows
from milepost.models.training.distributed import SINGLE_PROCESS, ProcessGroup
from milepost.models.value.config import Reduction, ValueConfig
from milepost.models.value.targets import above_boundary, bin_centres, hl_gauss, two_hot
from milepost.models.windowed.model import WindowedModel


class ValueModel(WindowedModel):
    """The ensemble and the config that made it, after a frozen encoder.

    >>> from milepost.testing import dot_episodes, tiny_value
    >>> tiny_value().save_pretrained("value-model")
    >>> curve = milepost.load_model("value-model").predict(dot_episodes(1)[0]).main
    >>> len(curve.value), list(curve.signals)
    (33, ['value', 'spread', 'success', 'seconds'])
    """

    WRONG_INSTRUCTION = "is a failure"
    CONFIG = ValueConfig
    config: ValueConfig

    def __init__(self, config: ValueConfig) -> None:
        super().__init__(config, config.bins)

    def use_reduction(self, reduction: Reduction) -> None:
        """Answers with the mean of the members from now on, or with the lowest of them; it becomes part of the config."""
        self.config = dataclasses.replace(self.config, reduction=reduction)

    # Training

    def loss(
        self, batch: Mapping[str, Tensor], generator: torch.Generator | None = None, process_group: ProcessGroup = SINGLE_PROCESS
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the cross-entropy between target and prediction, the mean over members and over the samples of all processes.

        `batch` is `WindowSamples.sample`'s: images (B, L, C, E), state (B, L, S), valid (B, L), text (B, M), target (B,) in [-1, 0].
        """
        returns = batch["target"].to(self.device, non_blocking=True)
        logits, target = self.batch_logits(batch), self.targets(returns)
        loss = -(target * F.log_softmax(logits, -1)).sum(-1).mean(0).sum() / (len(returns) * process_group.world_size)
        return loss, {"loss": loss.detach()}

    def targets(self, returns: Float[Tensor, "N"]) -> Float[Tensor, "N K"]:
        """Returns the target distribution of each return."""
        config = self.config
        return two_hot(returns, config.bins) if config.target == "two_hot" else hl_gauss(returns, config.bins, config.sigma_bins)

    @torch.no_grad()
    def validation_scores(self, windows: Mapping[str, Tensor]) -> dict[str, float]:
        """Returns "validation_loss" and "validation_error", the mean distance of the value from the return, on windows of `plain`."""
        loss, _ = self.loss(windows)
        value = (self.batch_logits(windows).softmax(-1) @ bin_centres(self.config.bins).to(self.device)).mean(0).cpu()
        return {"validation_loss": loss.item(), "validation_error": (value - windows["target"]).abs().mean().item()}

    # Looking back at a recorded episode

    def distribution(self, episode: Episode, features: Float[np.ndarray, "T C E"] | None = None) -> Float[np.ndarray, "H T K"]:
        """Returns the probability of each bin for every frame, by member (H). features: `project`'s, else they are computed.

        UnreadableError if the instruction is blank and the model did not learn from blank ones.
        """
        return self.over_episode(episode, features).softmax(-1).cpu().numpy()

    def predict(self, episode: Episode, *, task: str | None = None) -> Progress:
        """Returns progress of every frame, with the signals "value", "spread" and, if `normalise` is "task", "success" and "seconds".

        value: the mean return, in [-1, 0]. spread: the members' standard deviation in progress. success: the probability of success.
        seconds: the time until success if it comes, NaN where that is less likely than 1 in 20. task: instead of the episode's.
        """
        episode = episode if task is None else dataclasses.replace(episode, task=task)
        value, signals = self._summary(self.distribution(episode), self.config.pace(episode.task))
        bounds: dict[str, tuple[str, float, float, bool]] = {
            "value": ("", -1.0, 0.0, True), "spread": ("", 0.0, 1.0, False), "success": ("", 0.0, 1.0, True),
            "seconds": ("s", 0.0, np.inf, False),
        }  # fmt: skip
        return Progress(episode.index, Curve(value, signals={name: Signal(array, *bounds[name]) for name, array in signals.items()}))

    def _summary(
        self, probability: Float[np.ndarray, "H T K"], pace: tuple[float, float]
    ) -> tuple[Float[np.ndarray, "T"], dict[str, Float[np.ndarray, "T"]]]:
        """Returns progress and the signals. pace: scale and duration of the task in frames."""
        reduce = np.min if self.config.reduction == "min" else np.mean
        centres = bin_centres(self.config.bins).numpy().astype(np.float64)
        scale, duration = pace
        in_tasks = centres * (scale / duration if self.config.normalise == "task" else 1.0)
        progress = np.clip(probability @ np.maximum(0.0, 1.0 + in_tasks), 0.0, 1.0)
        signals = {"value": np.clip(reduce(probability @ centres, axis=0), -1.0, 0.0), "spread": progress.std(axis=0)}
        if self.config.knows_success:
            is_success = above_boundary(self.config.bins).numpy()
            success = np.clip(probability[..., is_success].sum(-1), 0.0, 1.0)
            left = probability[..., is_success].mean(0) @ -centres[is_success] * scale / (self.config.fps or 1.0)
            mean = success.mean(axis=0)
            signals |= {
                "success": reduce(success, axis=0),
                "seconds": np.divide(left, mean, out=np.full(len(left), np.nan), where=mean >= 0.05),
            }
        return reduce(progress, axis=0).astype(np.float32), {name: array.astype(np.float32) for name, array in signals.items()}

    # While the robot moves

    def new_memory(self, task: str) -> tuple[float, float]:
        """Returns scale and duration of the task in frames."""
        return self.config.pace(task)

    def steps(self, attempts: Sequence[History], windows: Windows, words: Float[Tensor, "B M"]) -> list[Step]:
        """Returns progress at these windows, and the signals that `predict` has."""
        probability = self.read(*windows, words).softmax(-1).cpu().numpy()
        steps = []
        for place, attempt in enumerate(attempts):
            value, signals = self._summary(probability[:, place : place + 1], attempt.memory)
            steps.append(Step(float(value[0]), {name: float(array[0]) for name, array in signals.items()}))
        return steps
