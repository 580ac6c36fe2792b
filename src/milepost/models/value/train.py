"""How a value model is trained: which episodes it learns from, its samples, its card. `models/training/recipe.py` has what all share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from milepost.core import Episode
from milepost.encoders import Encoder
from milepost.models.training.episodes import LeftOut, with_encoder
from milepost.models.training.recipe import TrainResult
from milepost.models.value.card import save_card
from milepost.models.value.config import ValueConfig
from milepost.models.value.model import ValueModel
from milepost.models.value.prepare import choose, outcome_doubts, with_statistics
from milepost.models.value.targets import frame_returns
from milepost.models.windowed.recipe import WindowedRecipe


class ValueRecipe(WindowedRecipe):
    """How a value model is trained."""

    MODEL = ValueModel
    WRONG = -1.0

    def choose(self, episodes: Sequence[Episode]) -> tuple[list[Episode], list[LeftOut]]:
        """Returns the episodes of known outcome, and those left out."""
        return choose(episodes)

    def settled(self, episodes: Sequence[Episode], aside: Sequence[Episode], encoder: Encoder) -> ValueConfig:
        """Returns the config with the scale of each task, the state statistics and the encoder."""
        choose(episodes)
        return with_encoder(with_statistics(self.config, episodes), encoder)

    def targets(self, episode: Episode, config: Any) -> Float[np.ndarray, "T"]:
        """Returns the return of each frame of an episode of known outcome."""
        scale, _ = config.pace(episode.task)
        return frame_returns(episode.length, not episode.success, scale, config.penalty(scale)).astype(np.float32)

    def doubts(self, config: ValueConfig, episodes: Sequence[Episode]) -> list[str]:
        """Returns what the outcomes do not teach."""
        return outcome_doubts(episodes)

    def save_card(self, folder: Path, result: TrainResult, dataset: str, *, fingerprint: str) -> None:
        """Writes the card."""
        save_card(folder, result, dataset, fingerprint=fingerprint)
