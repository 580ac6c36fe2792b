"""From episodes to a trained model, for every kind: the episodes are divided, read, learnt from, and the best checkpoint is taken.

A kind adds a `Recipe`: its model, which episodes it can learn from, its training samples, and what its card says. The loop itself is in
`loop.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from milepost.core import Brief, Episode, Tick, quiet_stage, require_writable
from milepost.encoders import Encoder, FeatureCache, load_encoder
from milepost.metrics import Audit, Summary, Threshold
from milepost.models.encoded import EncodedModel
from milepost.models.training.config import TrainConfig
from milepost.models.training.distributed import current_process_group
from milepost.models.training.episodes import LeftOut, encoded, keep_aside, split
from milepost.models.training.loop import FitResult, fit, run_key


@dataclass(frozen=True, eq=False, repr=False)
class TrainResult(Brief):
    """A trained model, and the episodes of its training set, its validation set and its held-out set, and those it could not use.

    unreadable: episodes whose images cannot be read, or whose annotation cannot be true, and why. summaries: the held-out table, the
    model beside a clock; empty until it is evaluated. doubts: what in the annotation may not mean what it says.
    """

    model: Any
    train_episodes: tuple[int, ...]
    validation_episodes: tuple[int, ...]
    held_out: tuple[int, ...]
    left_out: tuple[LeftOut, ...]
    fit_result: FitResult
    unreadable: Mapping[int, str] = field(default_factory=dict)
    summaries: Mapping[str, Summary] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    audit: Audit | None = None
    """Whether its curves follow what is seen, on held-out episodes; None if none was held out."""
    losses: Mapping[str, float] = field(default_factory=dict)
    """Of a fine-tuned model: its loss on the held-out episodes "before" and "after"; empty if none was held out."""
    threshold: Threshold | None = None
    """From which score an attempt is called a success, fitted on episodes not learnt from; None if the kind fits none, or could not."""
    is_main: bool = True
    """Whether this is the process that writes; the others of a launcher have no table."""


@runtime_checkable
class Samples(Protocol):
    """The training samples of some episodes, of which `len` says how many there are."""

    def __len__(self) -> int: ...

    def sample(self, size: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Returns a batch of random samples, as the model's `loss` takes it."""
        ...

    def plain(self, most: int) -> dict[str, Tensor]:
        """Returns up to `most` samples, spread evenly, without any random change, for the model's `validation_scores`."""
        ...


class Recipe:
    """What one kind of model adds to its training. config: as it was chosen, before statistics of the episodes are in it."""

    MODEL: ClassVar[type[EncodedModel]]
    WINDOWS: ClassVar[int]
    """Samples of the validation set that an evaluation takes."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def sound(self, episodes: Sequence[Episode]) -> tuple[list[Episode], dict[int, str]]:
        """Returns the episodes whose labels can be true, and why those of each other one cannot. DataError if nothing can be learnt."""
        return list(episodes), {}

    def choose(self, episodes: Sequence[Episode]) -> tuple[list[Episode], list[LeftOut]]:
        """Returns the episodes that this kind can learn from, and those left out. DataError if too few are left."""
        raise NotImplementedError

    def settled(self, episodes: Sequence[Episode], aside: Sequence[Episode], encoder: Encoder) -> Any:
        """Returns the config with the statistics of the training episodes and with the encoder. DataError if nothing can be learnt from
        them, or a label of theirs or of the validation set (`aside`) does not fit.
        """
        raise NotImplementedError

    def training_set(
        self, model: Any, episodes: Sequence[Episode], features: Sequence[np.ndarray], rng: np.random.Generator, seed: int,
        on_stage: Callable[[str], Tick],
    ) -> Samples:  # fmt: skip
        """Returns the samples, after what the model itself takes from the features. features: the frozen encoder's (T, C, P) of each."""
        raise NotImplementedError

    def validation_set(self, model: Any, episodes: Sequence[Episode], features: Sequence[np.ndarray]) -> Samples:
        """Returns the samples of the validation set, for a model that `training_set` has seen."""
        raise NotImplementedError

    def facts(self, episode: Episode) -> tuple:
        """Returns what of an episode decides what is learnt: an unfinished run goes on only with the same."""
        return (episode.index, episode.length, episode.task)

    def doubts(self, config: Any, episodes: Sequence[Episode]) -> list[str]:
        """Returns warnings about the training episodes, one sentence each."""
        return []

    def concluded(self, result: TrainResult, episodes: Sequence[Episode], folder: Path, on_stage: Callable[[str], Tick]) -> TrainResult:
        """Returns the result after what is fitted to episodes that the weights were not learnt from; `folder` has what is saved of it."""
        return result

    def save_card(self, folder: Path, result: TrainResult, dataset: str, *, fingerprint: str) -> None:
        """Writes the card, and what else belongs beside the weights. dataset: its name."""
        raise NotImplementedError


def learn(
    recipe: Recipe,
    episodes: Sequence[Episode],
    train: TrainConfig,
    *,
    folder: Path,
    holdout: float,
    features: FeatureCache | None = None,
    on_stage: Callable[[str], Tick] = quiet_stage,
) -> TrainResult:
    """Trains a model on a part of the episodes, split by start scene, and saves it to `folder`.

    features: of this dataset by the encoder that the config names; without, they are made and not kept. on_stage(name): gives a progress
    callback for each part. An episode whose images cannot be read is left out and named in `TrainResult.unreadable`, as is one whose labels
    cannot be true; the last UnreadableError is raised if none can be read. DataError as the recipe's.
    """
    process_group, config = current_process_group(), recipe.config
    features = features or FeatureCache(None, "", encoder=load_encoder(config.encoder, device=train.device, text_width=config.text_dim))
    episodes, faults = recipe.sound(episodes)
    rng = np.random.default_rng(train.seed)
    learnt, held_out = split(episodes, holdout, rng)
    usable, left_out = recipe.choose(learnt)
    usable, aside = keep_aside(usable, train.validation, train.seed)
    config = recipe.settled(usable, aside, features.encoder)
    if process_group.is_main:
        require_writable(folder)
    with process_group.main_process_first():  # one process fills the cache, the others read it
        features_of, unreadable = encoded(features, [*usable, *aside], config.cameras)
    if unreadable:
        usable, aside = ([episode for episode in group if episode.index not in unreadable] for group in (usable, aside))
        config = recipe.settled(usable, aside, features.encoder)
    torch.manual_seed(train.seed)
    model = recipe.MODEL(config).use_features(features)
    data = recipe.training_set(model, usable, [features_of[episode.index] for episode in usable], rng, train.seed, on_stage)
    evaluate = None
    if aside:
        windows = recipe.validation_set(model, aside, [features_of[episode.index] for episode in aside]).plain(recipe.WINDOWS)
        evaluate = partial(model.validation_scores, windows)
    train = train.with_steps(len(data), process_group.world_size)
    used = [[recipe.facts(episode) for episode in group] for group in (usable, aside)]
    key = run_key(dataclasses.asdict(config), train.deciding(), used, process_group.world_size)
    fit_result = fit(model, data.sample, config=train, folder=folder, key=key, on_progress=on_stage("train"), evaluate=evaluate)
    if (aside or train.more_follows) and process_group.is_main:
        model = recipe.MODEL.from_pretrained(folder).use_features(features)  # the best; `model` is the last
    learnt_from, checked, unseen = (tuple(episode.index for episode in group) for group in (usable, aside, held_out))
    return TrainResult(
        model.to("cpu").eval(), learnt_from, checked, unseen, tuple(left_out), fit_result, faults | unreadable,
        doubts=tuple(recipe.doubts(config, usable)),
    )  # fmt: skip
