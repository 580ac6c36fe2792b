"""How a success head is trained: which episodes it learns from, their labels, its threshold, its card."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from milepost.core import Episode, Tick, UnreadableError
from milepost.encoders import Encoder
from milepost.metrics import Threshold, success_threshold, sustained_score
from milepost.models.success.card import save_card
from milepost.models.success.config import SuccessConfig
from milepost.models.success.model import SuccessModel
from milepost.models.success.prepare import choose, label_doubts, with_statistics
from milepost.models.success.targets import frame_labels, frames_too_early, marked
from milepost.models.training.episodes import LeftOut, with_encoder
from milepost.models.training.recipe import TrainResult
from milepost.models.windowed.recipe import WindowedRecipe

LOWEST, HIGHEST = 0.05, 0.95
"""Between these a threshold of a probability is believed."""


class SuccessRecipe(WindowedRecipe):
    """How a success head is trained."""

    MODEL = SuccessModel
    WRONG = 0.0

    def choose(self, episodes: Sequence[Episode]) -> tuple[list[Episode], list[LeftOut]]:
        """Returns the episodes of known outcome, and those left out."""
        return choose(episodes, self.config)

    def settled(self, episodes: Sequence[Episode], aside: Sequence[Episode], encoder: Encoder) -> SuccessConfig:
        """Returns the config with the source of the labels, the state statistics and the encoder."""
        choose(episodes, self.config)
        return with_encoder(with_statistics(self.config, episodes), encoder)

    def targets(self, episode: Episode, config: Any) -> Float[np.ndarray, "T"]:
        """Returns whether the task is done at each frame of an episode of known outcome."""
        return frame_labels(episode, config)

    def facts(self, episode: Episode) -> tuple:
        """Returns what of an episode decides what is learnt, its column among it."""
        column = marked(episode)
        return (*super().facts(episode), None if column is None else zlib.crc32(column.tobytes()))

    def doubts(self, config: SuccessConfig, episodes: Sequence[Episode]) -> list[str]:
        """Returns what the labels do not teach."""
        return label_doubts(config, episodes)

    def concluded(self, result: TrainResult, episodes: Sequence[Episode], folder: Path, on_stage: Callable[[str], Tick]) -> TrainResult:
        """Returns the result with the threshold, fitted on held-out episodes, else on the validation set's; it is saved with the model.

        Without a success and a failure among either, the threshold stays 0.5, which is a doubt.
        """
        model: SuccessModel = result.model
        for numbers in (result.held_out, result.validation_episodes):
            scores = _scores(model, [each for each in episodes if each.index in numbers], on_stage("fit threshold"))
            if scores.success and scores.failure:
                rng = np.random.default_rng(result.fit_result.config.seed)
                early = scores.early if model.config.success_labels == "next.success" else None
                threshold = success_threshold(scores.success, scores.failure, early=early, rng=rng)
                doubt = _doubt_of(threshold, model.config.hold)
                if doubt:
                    threshold = dataclasses.replace(threshold, value=float(np.clip(threshold.value, LOWEST, HIGHEST)))
                model.use_threshold(threshold)
                model.save_pretrained(folder)
                return dataclasses.replace(result, threshold=threshold, doubts=(*result.doubts, *doubt))
        words = (
            f"no threshold could be fitted, because no episodes of both outcomes were kept from training: "
            f"{model.config.success_threshold:g} is used; train with a larger --holdout, or record failures"
        )
        return dataclasses.replace(result, doubts=(*result.doubts, words))

    def save_card(self, folder: Path, result: TrainResult, dataset: str, *, fingerprint: str) -> None:
        """Writes the card."""
        save_card(folder, result, dataset, fingerprint=fingerprint)


def _doubt_of(threshold: Threshold, hold: int) -> tuple[str, ...]:
    """Returns what is wrong with a threshold that no probability of success would pass for; nothing if it is plausible."""
    if LOWEST <= threshold.value <= HIGHEST:
        return ()
    return (
        f"the threshold that separates the held-out episodes best is {threshold.value:.2g}, which says little of another episode, so "
        f"{np.clip(threshold.value, LOWEST, HIGHEST):g} is used: look at the held-out episodes on its wrong side; a film that ends "
        f"at its success needs a smaller --hold than {hold}",
    )


@dataclasses.dataclass(frozen=True)
class _Scores:
    """What the curves hold long enough to count as done, by outcome; early: in the frames of each success that are too early."""

    success: list[float] = dataclasses.field(default_factory=list)
    failure: list[float] = dataclasses.field(default_factory=list)
    early: list[float] = dataclasses.field(default_factory=list)

    def add(self, curve: Float[np.ndarray, "T"], is_success: bool, too_early: int | None, hold: int) -> None:
        """Adds an episode. too_early: first frames in which it should not count as done, None if nobody knows.

        A film that ends sooner after its success than `hold` frames is scored by the frames that it has: a robot would have gone on.
        """
        if is_success and too_early is not None:
            hold = max(1, min(hold, len(curve) - too_early))
        (self.success if is_success else self.failure).append(sustained_score(curve, hold))
        if is_success:
            self.early.append(sustained_score(curve[: too_early or 0], hold))


def _scores(model: SuccessModel, episodes: Sequence[Episode], tick: Tick) -> _Scores:
    """Returns the scores of the episodes.

    Episodes of unknown outcome have none, and those that cannot be read, which the held-out table names. A failure that was done for some
    frames is neither.
    """
    scores = _Scores()
    for done, episode in enumerate(episodes):
        tick(done + 1, len(episodes))
        column = marked(episode)
        if episode.success is None or (episode.success is False and column is not None and column.any()):
            continue
        try:
            curve = model.probability(episode)
        except UnreadableError:  # named by the held-out table
            continue
        scores.add(curve, episode.success, frames_too_early(episode, model.config), model.config.hold)
    return scores
