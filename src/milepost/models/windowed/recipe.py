"""How a model of one window is trained: its samples. A kind adds which episodes it learns from, the target of a frame, and its card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from milepost.core import Episode, Tick
from milepost.models.training.recipe import Recipe
from milepost.models.windowed.inputs import pad_state
from milepost.models.windowed.model import WindowedModel
from milepost.models.windowed.samples import LabelledFrames, WindowSamples, some_frames


class WindowedRecipe(Recipe):
    """How a model of one window is trained."""

    WINDOWS = 2048
    WRONG: ClassVar[float]
    """The target under a wrong instruction, which is that of a failure."""

    def sound(self, episodes: Sequence[Episode]) -> tuple[list[Episode], dict[int, str]]:
        """Returns all. DataError before any work about what is wrong with all of them, not with a part."""
        self.choose(episodes)
        return list(episodes), {}

    def targets(self, episode: Episode, config: Any) -> Float[np.ndarray, "T"]:
        """Returns the target of each frame, NaN where nothing is learnt. A kind says."""
        raise NotImplementedError

    def training_set(
        self, model: WindowedModel, episodes: Sequence[Episode], features: Sequence[np.ndarray], rng: np.random.Generator, seed: int,
        on_stage: Callable[[str], Tick],
    ) -> WindowSamples:  # fmt: skip
        """Returns the windows, after the built-in encoder, or the scale of another one's features, was fitted to the frames."""
        model.fit_features(some_frames(features, rng))
        return self.validation_set(model, episodes, features)

    def validation_set(self, model: WindowedModel, episodes: Sequence[Episode], features: Sequence[np.ndarray]) -> WindowSamples:
        """Returns the windows of the validation set."""
        config = model.config
        parts = [
            LabelledFrames(
                model.project(each), pad_state(episode.state, config), self.targets(episode, config), episode.task, config.gap(episode.fps)
            )
            for episode, each in zip(episodes, features, strict=True)
        ]
        return WindowSamples(parts, config, model.frozen.text, wrong=self.WRONG)

    def facts(self, episode: Episode) -> tuple:
        """Returns what of an episode decides what is learnt, the outcome among it."""
        return (*super().facts(episode), episode.success)
