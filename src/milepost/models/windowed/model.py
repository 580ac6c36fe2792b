"""A model that answers every frame from one causal window: an ensemble of small networks on frozen features, states and the instruction.

The windows of training, of `predict` and of `step` are read by the same functions: `EncodedModel.project`, `inputs.pad_state`, `causal`,
`WindowedModel.logits`. A kind adds its loss, and what the networks' output means.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from milepost.core import Dataset, Episode, Progress, UnreadableError, causal, warn_user
from milepost.datasets import find_model
from milepost.encoders import require_device
from milepost.models.encoded import EncodedModel
from milepost.models.saved import read_files
from milepost.models.windowed.config import WindowedConfig
from milepost.models.windowed.inputs import pad_state
from milepost.models.windowed.network import Ensemble

BATCH = 512  # frames whose windows are read at once
M = TypeVar("M", bound="WindowedModel")


class WindowedModel(EncodedModel):
    """The ensemble and the config that made it, after a frozen encoder. outputs: numbers that each network gives."""

    CONFIG: type[WindowedConfig]
    """The class of its config."""
    config: Any
    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, config: WindowedConfig, outputs: int) -> None:
        super().__init__(config)
        cameras, width = len(config.cameras), len(config.state_mean)
        self.register_buffer("feature_mean", torch.zeros(cameras, config.image_dim))
        self.register_buffer("feature_std", torch.ones(cameras, config.image_dim))
        inputs = config.width * (cameras * config.image_dim + width + 1) + config.text_dim
        self.heads = Ensemble(config.members, inputs, config.hidden_dim, outputs, config.dropout)

    def settle(self, dataset: Dataset) -> None:
        """Warns if the dataset has tasks that the model did not learn."""
        self.warn_of_unlearnt(dataset.tasks)

    def warn_of_unlearnt(self, tasks: Sequence[str]) -> None:
        """Warns of those tasks that the model did not learn."""
        if self.config.tasks and (unlearnt := [task for task in tasks if task not in self.config.tasks]):
            more = f" and {len(unlearnt) - 1} more" if unlearnt[1:] else ""
            warn_user(
                f"the {self.config.NAME} model did not learn the task {unlearnt[0]!r}{more}: an unknown instruction looks like a wrong one "
                "to it, so its values may be too low"
            )

    def normalised_state(self, state: Float[np.ndarray, "T S"]) -> Float[np.ndarray, "T Z"]:
        """Returns robot states by the training episodes' statistics, cut off far from them."""
        return pad_state(state, self.config)

    def fit_features(self, features: Shaped[np.ndarray, "N C P"]) -> None:
        """Fits the built-in encoder, or the mean and standard deviation of another one's features, to frames of the training episodes."""
        if self.config.encoder == "pixels":
            self.encoder.fit(features)
            return
        wide = torch.from_numpy(features.astype(np.float32))
        self.feature_mean.copy_(wide.mean(0))
        self.feature_std.copy_(wide.std(0, correction=0).clamp(min=1e-6))

    def logits(
        self, images: Float[Tensor, "B L C E"], state: Float[Tensor, "B L Z"], valid: Bool[Tensor, "B L"], text: Float[Tensor, "B M"]
    ) -> Float[Tensor, "H B K"]:
        """Returns the networks' output, by member (H). Frames of a window that are not valid count as zeros."""
        images = (images - self.feature_mean) / self.feature_std
        if self.training and self.config.feature_noise:
            images = images + torch.randn_like(images) * self.config.feature_noise
        frames = torch.cat([images.flatten(2), state], -1) * valid[..., None]
        words = F.layer_norm(text, text.shape[-1:])
        return self.heads(torch.cat([frames.flatten(1), valid.float(), words], -1))

    def batch_logits(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "H B K"]:
        """Returns the networks' output on a batch of `WindowSamples`."""
        return self.logits(*(batch[name].to(self.device, non_blocking=True) for name in ("images", "state", "valid", "text")))

    def predict(self, episode: Episode, *, task: str | None = None) -> Progress:
        """Returns the curve of an episode. A model says how."""
        raise NotImplementedError

    @torch.no_grad()
    def over_episode(self, episode: Episode, features: Float[np.ndarray, "T C E"] | None = None) -> Float[Tensor, "H T K"]:
        """Returns the networks' output for every frame, by member (H). features: `project`'s, else they are computed.

        UnreadableError if the instruction is blank and the model did not learn from blank ones.
        """
        if fault := self.blank_fault(episode.task):
            raise UnreadableError(f"episode {episode.index}: {fault}")
        self.eval()
        if features is None:
            features = self.project(self.feature_cache.features(episode, self.config.cameras))
        state, gap = pad_state(episode.state, self.config), self.config.gap(episode.fps)
        words = torch.from_numpy(self.frozen.text([episode.task])[0])
        parts = []
        for start in range(0, episode.length, BATCH):
            frames, valid = causal(np.arange(start, min(start + BATCH, episode.length)), self.config.n_obs_steps, gap)
            parts.append(self.read(features[frames], state[frames], valid, words))
        return torch.cat(parts, 1)

    @torch.no_grad()
    def read(
        self, features: Float[np.ndarray, "N L C E"], state: Float[np.ndarray, "N L Z"], valid: Bool[np.ndarray, "N L"], words: Tensor
    ) -> Float[Tensor, "H N K"]:
        """Returns the networks' output for windows of one instruction, whose features are `words` (M,)."""
        arrays = (features.astype(np.float32, copy=False), state, valid)
        images, states, mask = (torch.from_numpy(np.ascontiguousarray(array)).to(self.device) for array in arrays)
        return self.logits(images, states, mask, words.to(self.device).expand(len(images), -1))

    @classmethod
    def from_pretrained(cls: type[M], folder: Path | str, device: str | torch.device = "cpu", *, config: Any = None, **changes: Any) -> M:
        """Loads a saved model from a folder or the Hub. config: instead of the saved one. changes: other values of its fields, None for
        the saved one's. DataError if a file is missing, broken or does not fit its config.
        """
        folder = find_model(folder)
        values, weights = read_files(folder)
        config = cls.CONFIG.from_dict(values) if config is None else config
        config = dataclasses.replace(config, **{name: value for name, value in changes.items() if value is not None})
        return cls.with_weights(folder, config, weights).to(require_device(device)).eval()
