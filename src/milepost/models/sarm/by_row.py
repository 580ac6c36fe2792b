"""SARM in the loop of another trainer, which draws the frames itself: rows of the dataset in, this model's training windows out.

LeRobot's trainer is such a loop (plugins/lerobot). The windows, labels and random changes are those of `TrainingSet`, and each frame is
encoded once, so only the row numbers of the trainer's batches are used, and none of its images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from milepost.core import DataError, Episode, Stages, quiet_stage, read_episodes
from milepost.datasets import LeRobotDataset
from milepost.encoders import FeatureCache, load_encoder
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.model import SARMModel
from milepost.models.sarm.prepare import check_labels, choose, training_set, with_statistics, without_faults
from milepost.models.sarm.samples import TrainingSet
from milepost.models.sarm.train import encoded_variants
from milepost.models.training.distributed import current_process_group
from milepost.models.training.episodes import LeftOut, encoded, with_encoder


class RowWindows:
    """Windows by dataset row. A row that the model cannot learn from has a window without any label, which adds nothing to the loss.

    A row is LeRobot's `index`.
    """

    def __init__(self, data: TrainingSet, episodes: Sequence[Episode]) -> None:
        """Takes the episodes of the set, in its order."""
        self.data = data
        self._place = np.full(max(episode.row + episode.length for episode in episodes), -1, dtype=np.int64)
        for episode, start in zip(episodes, data.starts[:-1], strict=True):
            self._place[episode.row : episode.row + episode.length] = start + np.arange(episode.length)

    def windows(self, row: Int[np.ndarray, "B"], rng: np.random.Generator) -> dict[str, Tensor]:
        """Returns a batch for `SARMModel.loss`, with the random changes of training."""
        place = self._places(row)
        return self._without_labels(self.data.windows(np.maximum(place, 0), rng), place < 0)

    def plain(self, row: Int[np.ndarray, "B"]) -> dict[str, Tensor]:
        """Returns the same without random changes, for `SARMModel.validation_scores`."""
        place = self._places(row)
        return self._without_labels(self.data.plain_windows(np.maximum(place, 0)), place < 0)

    def _places(self, row: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B"]:
        if row.min() < 0:
            raise DataError(f"a row is LeRobot's index, from 0 on; the batch has {row.min()}")
        return np.where(row < len(self._place), self._place[np.minimum(row, len(self._place) - 1)], -1)

    def _without_labels(self, batch: dict[str, Tensor], unknown: np.ndarray) -> dict[str, Tensor]:
        mask = torch.from_numpy(unknown)[:, None]
        for head in self.data.config.heads:
            batch[f"{head}_stage"] = batch[f"{head}_stage"].masked_fill(mask, -1)
            batch[f"{head}_tau"] = batch[f"{head}_tau"].masked_fill(mask, float("nan"))
        return batch


@dataclass(frozen=True, eq=False)
class RowTraining:
    """What a SARM learns from a dataset: its whole config, the episodes, and those it cannot use.

    unreadable: episode -> why its rows cannot be read, or its annotation cannot be true.
    """

    dataset: LeRobotDataset
    config: SARMConfig
    episodes: tuple[Episode, ...]
    left_out: tuple[LeftOut, ...]
    unreadable: Mapping[int, str]

    @classmethod
    def plan(cls, dataset: LeRobotDataset, config: SARMConfig, *, device: str = "cpu") -> RowTraining:
        """Returns the config with what the dataset says: cameras (all, if `image_key` is empty), stages, state statistics, the encoder.

        What the config has already stays, so that a saved model goes on with its own. No image is read. DataError if no episode is usable.
        """
        names = config.cameras if config.image_key else ()
        cameras = dataset.showing(names).choose_cameras(names, flag="image_key")
        config = dataclasses.replace(config, image_key=cameras[0], more_image_keys=cameras[1:])
        stages = {**dataset.stages, **_own_stages(config)}
        episodes, unreadable = read_episodes(dataset.showing(cameras))
        episodes, faults = without_faults(episodes, config, stages)
        usable, left_out = choose(episodes, config)
        config = with_statistics(config, usable, stages)
        if not config.encoder_fingerprint:
            config = with_encoder(config, load_encoder(config.encoder, device=device, text_width=config.text_dim))
        check_labels(usable, config)
        return cls(dataset, config, tuple(usable), tuple(left_out), {**unreadable, **faults})

    def open(self, model: SARMModel, features: FeatureCache, *, fitted: bool = False, seed: int = 0) -> RowWindows:
        """Encodes the frames, and returns the windows. fitted: the built-in encoder stays as it is.

        In several processes the main one goes first and the others read its cache. UnreadableError if no episode's images can be read; one
        whose images cannot be read has no labels.
        """
        model.use_features(features)
        with current_process_group().main_process_first():
            features_of, _ = encoded(features, self.episodes, self.config.cameras)
            episodes = [episode for episode in self.episodes if episode.index in features_of]
            copies = encoded_variants(features, episodes, self.config, seed, quiet_stage)
        rng, arrays = np.random.default_rng(seed), [features_of[episode.index] for episode in episodes]
        return RowWindows(training_set(model, episodes, arrays, rng, variants=copies, fitted=fitted), episodes)


def _own_stages(config: SARMConfig) -> dict[str, Stages]:
    """Returns the stages that a config names by head, none for a model that has not learnt yet."""
    named_heads = [head for head in config.annotated_heads if getattr(config, f"{head}_subtask_names")]
    return {head: config.heads[head] for head in named_heads}
