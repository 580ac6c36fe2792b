"""From episodes to a trained SARM: which are learnt from, which choose the checkpoint, which are held out for the table.

Held-out episodes decide nothing, so the table about them is honest. The loop itself is in `models/training/loop.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped

from milepost.core import (
    Brief,
    DataError,
    Dataset,
    Episode,
    Stages,
    Tick,
    UnreadableError,
    annotated_stages,
    number_at,
    quiet_stage,
    require_writable,
)
from milepost.encoders import FeatureCache, load_encoder
from milepost.metrics import Audit, Summary, score_episode, summarise
from milepost.models.elapsed import ElapsedModel
from milepost.models.sarm.augmentation import variants
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.model import SARMModel
from milepost.models.sarm.prepare import (
    LeftOut,
    attempts_of,
    check_labels,
    choose,
    training_set,
    validation_set,
    with_encoder,
    with_statistics,
    without_faults,
)
from milepost.models.training.config import TrainConfig
from milepost.models.training.distributed import current_process_group
from milepost.models.training.loop import FitResult, fit, run_key

VALIDATION, ENOUGH = 0.1, 10
"""Share of the training scenes kept aside where nobody says (`TrainConfig.validation` None), and from how many training episodes on."""
WINDOWS = 256
"""Windows of the validation set that an evaluation takes: enough for a stable loss, and few enough to cost little beside the steps."""


def split(episodes: Sequence[Episode], holdout: float, rng: np.random.Generator) -> tuple[list[Episode], list[Episode]]:
    """Returns (training, held out). Episodes that share a start scene (fact `scene`) stay on one side; without scenes each is its own.

    Scenes are drawn per (task, kind) where those are known, so that both sides see every kind.
    """
    if not 0 <= holdout < 1:
        raise ValueError(f"holdout must lie in [0, 1), got {holdout}")
    strata: dict[tuple, list] = {}
    scenes: dict[tuple, list[Episode]] = {}
    for episode in episodes:
        scene = (episode.task, episode.facts["scene"]) if "scene" in episode.facts else ("episode", episode.index)
        if scene not in scenes:
            strata.setdefault((episode.task, str(episode.facts.get("kind", ""))), []).append(scene)
        scenes.setdefault(scene, []).append(episode)
    held_out_scenes: set[tuple] = set()
    counts = _counts([len(members) for members in strata.values()], holdout)
    for members, count in zip(strata.values(), counts, strict=True):
        if len(members) > 1:
            held_out_scenes |= {members[i] for i in rng.permutation(len(members))[:count]}
    train = [episode for scene, group in scenes.items() if scene not in held_out_scenes for episode in group]
    held_out = [episode for scene, group in scenes.items() if scene in held_out_scenes for episode in group]
    return sorted(train, key=lambda e: e.index), sorted(held_out, key=lambda e: e.index)


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
    is_main: bool = True
    """Whether this is the process that writes; the others of a launcher have no table."""


def read_episodes(dataset: Dataset) -> tuple[list[Episode], dict[int, str]]:
    """Returns the episodes whose rows can be read, and the number of each other one with the reason. DataError if there is none."""
    episodes, unreadable = [], {}
    for position in range(len(dataset)):
        try:
            episodes.append(dataset[position])
        except UnreadableError as error:
            unreadable[number_at(dataset, position)] = str(error)
            if len(unreadable) == len(dataset):
                raise
    return episodes, unreadable


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
    process_group = current_process_group()
    features = features or FeatureCache(None, "", encoder=load_encoder(config.encoder, device=train.device, text_width=config.text_dim))
    episodes, faults = without_faults(episodes, config, stages)
    rng = np.random.default_rng(train.seed)
    learn, held_out = split(episodes, holdout, rng)
    usable, left_out = choose(learn, config)
    usable, aside = keep_aside(usable, train.validation, train.seed)
    plan = config
    config = with_encoder(with_statistics(plan, usable, stages), features.encoder)
    check_labels(usable + aside, config)
    if process_group.is_main:
        require_writable(folder)
    with process_group.main_process_first():  # one process fills the cache, the others read it
        features_of, unreadable = encoded(features, [*usable, *aside], config.cameras)
    if unreadable:
        usable, aside = ([episode for episode in group if episode.index not in unreadable] for group in (usable, aside))
        config = with_encoder(with_statistics(plan, usable, stages), features.encoder)
    torch.manual_seed(train.seed)
    model = SARMModel(config).use_features(features)
    with process_group.main_process_first():
        copies = encoded_variants(features, usable, config, train.seed, on_stage)
    data = training_set(model, usable, [features_of[episode.index] for episode in usable], rng, variants=copies)
    windows = validation_set(model, aside, [features_of[episode.index] for episode in aside]).plain(WINDOWS) if aside else {}
    train = train.with_steps(len(data.rows), process_group.world_size)
    used = [[(e.index, e.length, e.task) for e in group] for group in (usable, aside)]
    key = run_key(dataclasses.asdict(config), train.deciding(), used, process_group.world_size)
    evaluate = partial(model.validation_scores, windows) if aside else None
    fit_result = fit(model, data.sample, config=train, folder=folder, key=key, on_progress=on_stage("train"), evaluate=evaluate)
    if (aside or train.more_follows) and process_group.is_main:
        model = SARMModel.from_pretrained(folder).use_features(features)  # the best; `model` is the last
    train_indices, validation_indices, held_out_indices = (tuple(episode.index for episode in group) for group in (usable, aside, held_out))
    return TrainResult(
        model.to("cpu").eval(), train_indices, validation_indices, held_out_indices, tuple(left_out), fit_result, faults | unreadable
    )


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


def evaluate_held_out(
    model: SARMModel,
    episodes: Sequence[Episode],
    *,
    on_progress: Tick,
    seed: int,
    on_unreadable: Callable[[int, UnreadableError], None] | None = None,
) -> dict[str, Summary]:
    """Returns the trained model's and the clock's numbers on episodes never trained on; empty if there is none that can be read.

    An episode that cannot be read is left out and told to `on_unreadable`; without one the error is raised.
    """
    head = "dense" if model.config.annotation_mode == "dense_only" else "sparse"
    stages, clock = _stages_of_the_truth(model, episodes, head), ElapsedModel()
    rows: list = []
    for done, episode in enumerate(episodes):
        try:
            curve = model.predict(episode)
            rows.append([score_episode(one, episode, stages, head) for one in (curve.head(head), clock.predict(episode).main)])
        except UnreadableError as error:
            if on_unreadable is None:
                raise
            on_unreadable(episode.index, error)
            continue
        on_progress(done + 1, len(episodes))
    if not rows:
        return {}
    return {name: summarise([row[i] for row in rows], np.random.default_rng(seed)) for i, name in enumerate(("sarm", "elapsed"))}


def _stages_of_the_truth(model: SARMModel, episodes: Sequence[Episode], head: str) -> Stages:
    """Returns the stages of the truth: the model's own; of a model of the whole task, those that the episodes are annotated with, if they
    are.
    """
    if head in model.config.annotated_heads:
        return model.config.heads[head]
    annotated = [episode for episode in episodes if episode.sound_segments.get(head) and "truth.progress" not in episode.columns]
    return annotated_stages(attempts_of(annotated, head)) if annotated else model.config.heads[head]
