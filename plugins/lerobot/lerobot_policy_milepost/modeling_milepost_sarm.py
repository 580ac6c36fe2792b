"""milepost's SARM as a reward model of LeRobot: trained by `lerobot-train`, saved so that LeRobot and milepost both load it.

`forward` uses of a batch its `index` alone: which frames LeRobot's sampler drew. The windows, labels and random changes are milepost's,
from features of every frame, which are computed once. In several processes each knows the rows of all, so that together they learn what
one process learns from the whole batch.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.rewards.pretrained import PreTrainedRewardModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from lerobot_policy_milepost.configuration_milepost_sarm import MilepostSARMConfig
from milepost import DataError, SARMModel, open_dataset
from milepost.encoders import FeatureCache, cache_folder
from milepost.models import RowTraining, RowWindows, current_process_group

log = logging.getLogger(__name__)


class MilepostSARMRewardModel(PreTrainedRewardModel):
    """The two networks behind a frozen encoder. dataset_meta: LeRobot's metadata of the dataset to learn from; None for a model that is
    only asked.
    """

    config_class = MilepostSARMConfig
    name = "milepost_sarm"

    def __init__(self, config: MilepostSARMConfig, dataset_stats: Any = None, dataset_meta: Any = None, **_: Any) -> None:
        super().__init__(config)
        self.config: MilepostSARMConfig = config
        self._training: RowTraining | None = None
        self._windows: RowWindows | None = None
        self._fitted = False
        self._seed = torch.initial_seed() % 2**32
        if dataset_meta is not None:
            self._training = RowTraining.plan(open_dataset(dataset_meta.root), config.sarm, device=config.device or "cpu")
            config.take(self._training.config)
            self._say_what_is_left_out()
        self.sarm = SARMModel(config.sarm)

    def _say_what_is_left_out(self) -> None:
        assert self._training is not None
        for group in self._training.left_out:
            log.warning("milepost_sarm: %s", group)
        for number, reason in self._training.unreadable.items():
            log.warning("milepost_sarm: episode %s left out, %s", number, reason)

    def windows(self) -> RowWindows:
        """Returns the windows of the dataset, whose frames are encoded at the first call. DataError without a dataset."""
        if self._windows is None:
            if self._training is None:
                raise DataError("milepost_sarm has no dataset to learn from: train it with lerobot-train, or give dataset_meta=")
            dataset, folder = self._training.dataset, cache_folder() if self.config.keep_features else None
            features = FeatureCache(folder, dataset.fingerprint, encoder=self.sarm.frozen, half=folder is not None)
            self._windows = self._training.open(self.sarm, features, fitted=self._fitted)
        return self._windows

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Returns (loss, its parts) of the frames that `batch["index"]` numbers. DataError if the batch has no index."""
        if "index" not in batch:
            raise DataError("milepost_sarm learns from the rows that batch['index'] numbers, and this batch has none")
        index, windows = batch["index"].flatten(), self.windows()
        if not self.training:
            scores = self.sarm.validation_scores(windows.plain(index.cpu().numpy()))
            return torch.tensor(scores["validation_loss"], device=self.sarm.device), scores
        step = self.config.count_step()
        group = current_process_group()
        rows = group.gather(index)
        samples = windows.windows(rows.cpu().numpy(), np.random.default_rng([self._seed, step]))
        own = {name: tensor[group.shard(len(rows))] for name, tensor in samples.items()}
        generator = torch.Generator().manual_seed(self._seed + step)
        loss, parts = self.sarm.loss(own, generator, group)
        # This loss is a part of the whole batch's, and LeRobot takes the mean over the processes.
        return loss * group.world_size, {name: part.item() * group.world_size for name, part in parts.items() if name != "loss"}

    @torch.no_grad()
    def compute_reward(self, batch: dict[str, Any]) -> Tensor:
        """Returns progress in [0, 1] of the last frame (of a centred window the middle one) of each window, sparse head, (B,).

        `batch` has been through the preprocessor, whose batch had windows of images: `config.window_indices` says which frames.
        """
        self.sarm.eval()
        if "milepost_images" not in batch:
            return self.sarm.compute_reward(batch)
        encoded, text, state, valid = (batch[f"milepost_{name}"] for name in ("images", "text", "state", "valid"))
        flat = encoded.cpu().numpy().reshape(-1, *encoded.shape[2:])
        images = torch.from_numpy(np.asarray(self.sarm.project(flat), dtype=np.float32)).view(*encoded.shape[:3], -1)
        device, now = self.sarm.device, self.sarm.config.now
        inputs = (each.to(device) for each in (images, text, state, valid))
        return self.sarm.read(*inputs, at=now, heads=["sparse"])["sparse_progress"]

    def _save_pretrained(self, save_directory: Path) -> None:
        """Writes LeRobot's config.json and the weights under milepost's own names, which `milepost.load_model` reads as they are."""
        self.config._save_pretrained(save_directory)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.sarm.state_dict().items()}
        save_file(weights, save_directory / "model.safetensors")

    @classmethod
    def _load_as_safetensor(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        model.load_weights(load_file(model_file))
        return model

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Takes saved weights. DataError names what does not fit; LeRobot itself would only log it."""
        own = self.sarm.state_dict()
        wrong = sorted(name for name in own.keys() | weights.keys() if name not in own or name not in weights)
        wrong += sorted(name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape)
        if wrong:
            raise DataError(
                f"these weights are not of this model: {len(wrong)} parameters are missing, unknown or of another shape ({wrong[0]})"
            )
        self.sarm.load_state_dict(weights)
        self._fitted = True
