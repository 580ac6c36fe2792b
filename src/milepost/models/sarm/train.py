"""How SARM is trained: which episodes it learns from, its samples, its card. What all kinds share is in `models/training/recipe.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from milepost.core import Episode, Stages, Tick, doubts, has_words, quiet_stage
from milepost.encoders import Encoder, FeatureCache
from milepost.models.sarm.augmentation import variants
from milepost.models.sarm.card import save_card
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.model import SARMModel
from milepost.models.sarm.prepare import check_labels, choose, training_set, validation_set, with_statistics, without_faults
from milepost.models.sarm.samples import TrainingSet
from milepost.models.training.config import TrainConfig
from milepost.models.training.distributed import current_process_group
from milepost.models.training.episodes import LeftOut, attempts_of, with_encoder
from milepost.models.training.recipe import Recipe, TrainResult, learn


def train_sarm(
    episodes: Sequence[Episode],
    config: SARMConfig,
    train: TrainConfig,
    *,
    folder: Path,
    stages: dict[str, Stages],
    holdout: float,
    features: FeatureCache | None = None,
    on_stage: Callable[[str], Tick] = quiet_stage,
) -> TrainResult:
    """Trains SARM on a part of the episodes, split by start scene, and saves it to `folder`.

    stages: the dataset's own stage shares by head, where it has them. features: of this dataset by the encoder `config` names; without,
    they are made and not kept. on_stage(name): gives a progress callback for each part. An episode whose pictures cannot be read is left
    out and named in `TrainResult.unreadable`, as is one whose annotation cannot be true; the last UnreadableError is raised if none can
    be read.
    """
    return learn(SARMRecipe(config, stages), episodes, train, folder=folder, holdout=holdout, features=features, on_stage=on_stage)


class SARMRecipe(Recipe):
    """How SARM is trained. stages: the dataset's own by head, where it has them. for_lerobot: LeRobot's form is saved beside."""

    MODEL = SARMModel
    WINDOWS = 256  # enough for a stable loss, and few enough to cost little beside the steps

    def __init__(self, config: SARMConfig, stages: Mapping[str, Stages], *, for_lerobot: bool = False) -> None:
        super().__init__(config)
        self.stages, self.for_lerobot = stages, for_lerobot

    def sound(self, episodes: Sequence[Episode]) -> tuple[list[Episode], dict[int, str]]:
        """Returns the episodes whose annotation can be true, and why each other one's cannot."""
        return without_faults(episodes, self.config, self.stages)

    def choose(self, episodes: Sequence[Episode]) -> tuple[list[Episode], list[LeftOut]]:
        """Returns the episodes that the annotation mode can learn from, and those left out."""
        return choose(episodes, self.config)

    def settled(self, episodes: Sequence[Episode], aside: Sequence[Episode], encoder: Encoder) -> SARMConfig:
        """Returns the config with the stages, the state statistics and the encoder. DataError if an annotation does not fit."""
        config = with_encoder(with_statistics(self.config, episodes, self.stages), encoder)
        check_labels([*episodes, *aside], config)
        return config

    def training_set(
        self, model: SARMModel, episodes: Sequence[Episode], features: Sequence[np.ndarray], rng: np.random.Generator, seed: int,
        on_stage: Callable[[str], Tick],
    ) -> TrainingSet:  # fmt: skip
        """Returns the windows, with changed images if the config asks for them; the built-in encoder is fitted first."""
        with current_process_group().main_process_first():
            copies = encoded_variants(model.feature_cache, episodes, model.config, seed, on_stage)
        return training_set(model, episodes, features, rng, variants=copies)

    def validation_set(self, model: SARMModel, episodes: Sequence[Episode], features: Sequence[np.ndarray]) -> TrainingSet:
        """Returns the windows of the validation set."""
        return validation_set(model, episodes, features)

    def doubts(self, config: SARMConfig, episodes: Sequence[Episode]) -> list[str]:
        """Returns warnings about annotations that may not mean what they say."""
        blank = sum(not has_words(episode.task) for episode in episodes)
        words = [f"{blank} of the episodes learnt from have a blank task: the model knows them by no instruction"] if blank else []
        return words + [each for head in config.annotated_heads for each in doubts(attempts_of(episodes, head), config.heads[head])]

    def save_card(self, folder: Path, result: TrainResult, dataset: str, *, fingerprint: str) -> None:
        """Writes the card, and the model in LeRobot's form if that was asked for."""
        save_card(folder, result, dataset, result.summaries, fingerprint=fingerprint)
        if self.for_lerobot:
            result.model.save_pretrained(folder / "lerobot", format="lerobot")


def encoded_variants(
    features: FeatureCache, episodes: Sequence[Episode], config: SARMConfig, seed: int, on_stage: Callable[[str], Tick]
) -> list[Shaped[np.ndarray, "V _ C E"]]:
    """Returns the features of each episode's changed copies; none without augmentation, or for the built-in encoder, which needs none."""
    if not config.augmentation or config.encoder == "pixels":
        return []
    tick, encoded = on_stage("encode changed images"), []
    for done, episode in enumerate(episodes):
        copies = variants(episode, config.cameras, config.augmentation, seed)
        encoded.append(np.stack([features.features(copy, config.cameras) for copy in copies]))
        tick(done + 1, len(episodes))
    return encoded
