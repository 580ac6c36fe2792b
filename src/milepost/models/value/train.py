"""How a value model is trained: which episodes it learns from, its samples, its card. `models/training/recipe.py` has what all share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from milepost.core import Episode, Tick
from milepost.encoders import Encoder
from milepost.models.training.episodes import LeftOut, with_encoder
from milepost.models.training.recipe import Recipe, TrainResult
from milepost.models.value.card import save_card
from milepost.models.value.config import ValueConfig
from milepost.models.value.model import ValueModel
from milepost.models.value.prepare import TrainingSet, choose, labelled, outcome_doubts, some_frames, with_statistics


class ValueRecipe(Recipe):
    """How a value model is trained."""

    MODEL = ValueModel
    WINDOWS = 2048

    def sound(self, episodes: Sequence[Episode]) -> tuple[list[Episode], dict[int, str]]:
        """Returns all. DataError before any work about what is wrong with all of them, not with a part."""
        choose(episodes)
        return list(episodes), {}

    def choose(self, episodes: Sequence[Episode]) -> tuple[list[Episode], list[LeftOut]]:
        """Returns the episodes of known outcome, and those left out."""
        return choose(episodes)

    def settled(self, episodes: Sequence[Episode], aside: Sequence[Episode], encoder: Encoder) -> ValueConfig:
        """Returns the config with the scale of each task, the state statistics and the encoder."""
        choose(episodes)
        return with_encoder(with_statistics(self.config, episodes), encoder)

    def training_set(
        self, model: ValueModel, episodes: Sequence[Episode], features: Sequence[np.ndarray], rng: np.random.Generator, seed: int,
        on_stage: Callable[[str], Tick],
    ) -> TrainingSet:  # fmt: skip
        """Returns the windows, after the built-in encoder, or the scale of another one's features, was fitted to the frames."""
        model.fit_features(some_frames(features, rng))
        return self.validation_set(model, episodes, features)

    def validation_set(self, model: ValueModel, episodes: Sequence[Episode], features: Sequence[np.ndarray]) -> TrainingSet:
        """Returns the windows of the validation set."""
        parts = [labelled(episode, model.project(each), model.config) for episode, each in zip(episodes, features, strict=True)]
        return TrainingSet(parts, model.config, model.frozen.text)

    def facts(self, episode: Episode) -> tuple:
        """Returns what of an episode decides what is learnt, the outcome among it."""
        return (*super().facts(episode), episode.success)

    def doubts(self, config: ValueConfig, episodes: Sequence[Episode]) -> list[str]:
        """Returns what the outcomes do not teach."""
        return outcome_doubts(episodes)

    def save_card(self, folder: Path, result: TrainResult, dataset: str, *, fingerprint: str) -> None:
        """Writes the card."""
        save_card(folder, result, dataset, fingerprint=fingerprint)
