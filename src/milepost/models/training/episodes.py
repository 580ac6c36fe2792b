"""Which episodes a model learns from, which choose the checkpoint, which are held out for the table, and the features of all.

Held-out episodes decide nothing, so the table about them is honest. Every episode left out is counted and named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Shaped

from milepost.core import Attempt, DataError, Episode, UnreadableError, count_noun, shortlist
from milepost.encoders import Encoder, FeatureCache
from milepost.models.model_config import ModelConfig

VALIDATION, ENOUGH = 0.1, 10
"""Share of the training scenes kept aside where nobody says (`TrainConfig.validation` None), and from how many training episodes on."""
FIT_FRAMES = 4096
"""Frames that the built-in encoder is fitted to, at most."""
C = TypeVar("C", bound=ModelConfig)


@dataclass(frozen=True)
class LeftOut:
    """Episodes that a model cannot learn from, and why."""

    reason: str
    episodes: tuple[int, ...]

    def __str__(self) -> str:
        return f"{count_noun(len(self.episodes), 'episode')} left out, {self.reason}: {shortlist(sorted(self.episodes))}"


def attempts_of(episodes: Sequence[Episode], head: str) -> list[Attempt]:
    """Returns what `stages.contradictions` and `stages.doubts` look at: the annotated ones."""
    return [Attempt(episode.index, episode.task, s, episode.success) for episode in episodes if (s := episode.sound_segments.get(head))]


def split(episodes: Sequence[Episode], holdout: float, rng: np.random.Generator) -> tuple[list[Episode], list[Episode]]:
    """Returns (training, held out). Episodes that share a start scene (fact `scene`) stay on one side; without scenes each is its own.

    Scenes are drawn per task and kind, or outcome where no kind is known, so that both sides see every kind, and successes and failures.
    """
    if not 0 <= holdout < 1:
        raise ValueError(f"holdout must lie in [0, 1), got {holdout}")
    strata: dict[tuple, list] = {}
    scenes: dict[tuple, list[Episode]] = {}
    for episode in episodes:
        scene = (episode.task, episode.facts["scene"]) if "scene" in episode.facts else ("episode", episode.index)
        if scene not in scenes:
            strata.setdefault((episode.task, str(episode.facts.get("kind") or episode.success)), []).append(scene)
        scenes.setdefault(scene, []).append(episode)
    held_out_scenes: set[tuple] = set()
    counts = _counts([len(members) for members in strata.values()], holdout)
    for members, count in zip(strata.values(), counts, strict=True):
        if len(members) > 1:
            held_out_scenes |= {members[i] for i in rng.permutation(len(members))[:count]}
    train = [episode for scene, group in scenes.items() if scene not in held_out_scenes for episode in group]
    held_out = [episode for scene, group in scenes.items() if scene in held_out_scenes for episode in group]
    return sorted(train, key=lambda e: e.index), sorted(held_out, key=lambda e: e.index)


def one_sided(episodes: Sequence[Episode], held_out: Sequence[int]) -> list[str]:
    """Returns a warning if all held-out episodes ended alike, and others not: the held-out table then says nothing of the other outcome."""
    everywhere = {each.success for each in episodes} - {None}
    among_held_out = {each.success for each in episodes if each.index in set(held_out)}
    if not held_out or len(everywhere) < 2 or everywhere <= among_held_out:
        return []
    missing = " and ".join(words for outcome, words in ((True, "succeeded"), (False, "failed")) if outcome not in among_held_out)
    return [f"no held-out episode {missing}: how this model tells successes from failures is not measured; use a larger --holdout"]


def _counts(sizes: Sequence[int], proportion: float) -> list[int]:
    """Returns how many scenes of each group are held out: its proportion, rounded. Where many small groups round to nothing, the largest
    remainders get one more, until the whole has its proportion (at least one). Every group keeps one.
    """
    counts = [min(size - 1, round(proportion * size)) for size in sizes]
    total = max(1, round(proportion * sum(sizes))) if proportion > 0 else 0
    by_remainder = sorted(range(len(sizes)), key=lambda i: (counts[i] - proportion * sizes[i], i))
    for i in by_remainder:
        if sum(counts) < total and counts[i] < sizes[i] - 1:
            counts[i] += 1
    return counts


def keep_aside(episodes: Sequence[Episode], requested: float | None, seed: int) -> tuple[list[Episode], list[Episode]]:
    """Returns (training set, validation set) of the training episodes, split by scene as `split` does.

    requested: the proportion; None is a tenth if there are at least 10 episodes, else no validation set. DataError if a proportion was
    requested and there are too few scenes: a task and kind with one scene keeps it for training.
    """
    proportion = VALIDATION if requested is None else requested
    if not proportion or (requested is None and len(episodes) < ENOUGH):
        return list(episodes), []
    # A stream of its own: another validation set must not change which episodes are held out.
    learn, aside = split(episodes, proportion, np.random.default_rng([seed, 1]))
    if requested and not aside:
        raise DataError(f"no scene can be kept aside: {proportion:g} of {len(episodes)} training episodes; use a larger --validation, or 0")
    return learn, aside


def encoded(
    features: FeatureCache, episodes: Sequence[Episode], cameras: Sequence[str]
) -> tuple[dict[int, Shaped[np.ndarray, "T C E"]], dict[int, str]]:
    """Returns features by episode, and why those that are missing cannot be read. UnreadableError if none can."""
    features_of: dict[int, np.ndarray] = {}
    unreadable: dict[int, str] = {}
    while rest := [episode for episode in episodes if episode.index not in features_of and episode.index not in unreadable]:
        try:
            for episode, frame_features in zip(rest, features.stream(rest, cameras), strict=True):
                features_of[episode.index] = frame_features
        except UnreadableError as error:  # of the first one that is not there yet: they come in order
            unreadable[next(episode.index for episode in rest if episode.index not in features_of)] = str(error)
            if len(unreadable) == len(episodes):
                raise
    return features_of, unreadable


def with_encoder(config: C, encoder: Encoder) -> C:
    """Returns the config with this encoder's fingerprint and widths. The widths of the built-in one are a choice, and stay."""
    widths = {} if encoder.name == "pixels" else {"image_dim": encoder.width, "text_dim": encoder.text_width}
    return dataclasses.replace(config, encoder_fingerprint=encoder.fingerprint, **widths)  # type: ignore[type-var]
