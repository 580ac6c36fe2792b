"""From episodes to a trained SARM: which are learnt from, which choose the checkpoint, which are kept out for the table.

Held-out episodes decide nothing, so the table about them is honest. The loop itself is in `models/training/loop.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped

from milepost.core import DataError, Dataset, Episode, Stages, Tick, UnreadableError, annotated_stages, number_at, require_writable
from milepost.encoders import FeatureCache, load_encoder
from milepost.metrics import Summary, score_episode, summarise
from milepost.models.elapsed import ElapsedModel
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
from milepost.models.training.distributed import current
from milepost.models.training.loop import Fitted, fit, run_key

VALIDATION, ENOUGH = 0.1, 10
"""Share of the training scenes kept aside where nobody says (`TrainConfig.validation` None), and from how many training episodes on."""
WINDOWS = 256
"""Windows of the episodes kept aside that an evaluation looks at."""


PRESETS = {
    "paper": (SARMConfig(), TrainConfig()),
    "small": (
        SARMConfig(
            hidden_dim=96,
            n_obs_steps=4,
            num_layers=2,
            num_heads=4,
            rewind_probability=0.0,
            max_rewind_steps=0,
            dropout=0.0,
            feature_noise=0.3,
            unfinished="zero",
            encoder="pixels",
            image_dim=64,
            text_dim=32,
        ),
        TrainConfig(steps=800, batch_size=64, lr=1e-3, weight_decay=1e-2),
    ),
}


def split(episodes: Sequence[Episode], holdout: float, rng: np.random.Generator) -> tuple[list[Episode], list[Episode]]:
    """(training, held out). Episodes that share a start scene (fact `scene`) stay on one side; without scenes each is its own.

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
    out: set[tuple] = set()
    counts = _shares([len(members) for members in strata.values()], holdout)
    for members, count in zip(strata.values(), counts, strict=True):
        if len(members) > 1:
            out |= {members[i] for i in rng.permutation(len(members))[:count]}
    train = [episode for scene, group in scenes.items() if scene not in out for episode in group]
    held = [episode for scene, group in scenes.items() if scene in out for episode in group]
    return sorted(train, key=lambda e: e.index), sorted(held, key=lambda e: e.index)


def _shares(sizes: Sequence[int], share: float) -> list[int]:
    """How many of each group: its share, rounded; and where many small groups round to nothing, one more of the largest remainders, until
    the whole has its share (at least one). Every group keeps one."""
    counts = [min(size - 1, round(share * size)) for size in sizes]
    wanted = max(1, round(share * sum(sizes))) if share > 0 else 0
    by_remainder = sorted(range(len(sizes)), key=lambda i: (counts[i] - share * sizes[i], i))
    for i in by_remainder:
        if sum(counts) < wanted and counts[i] < sizes[i] - 1:
            counts[i] += 1
    return counts


def keep_aside(episodes: Sequence[Episode], share: float | None, seed: int) -> tuple[list[Episode], list[Episode]]:
    """(to learn from, to choose the best checkpoint with) of the training episodes, split by scene as `split` does.

    None is a tenth where there are at least 10 episodes, else nothing. DataError if a share was asked for and there are too few scenes:
    a task and kind with one scene keeps it for learning.
    """
    asked = VALIDATION if share is None else share
    if not asked or (share is None and len(episodes) < ENOUGH):
        return list(episodes), []
    learn, aside = split(episodes, asked, np.random.default_rng([seed, 1]))
    if share and not aside:
        raise DataError(f"no scene can be kept aside: {asked:g} of {len(episodes)} training episodes; use a larger --validation, or 0")
    return learn, aside


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model, the episodes it learnt from, those that chose its checkpoint, those it never saw, and those it could not use.

    unreadable: episodes whose pictures cannot be read, or whose annotation cannot be true, and why.
    """

    model: SARMModel
    train_episodes: tuple[int, ...]
    validation_episodes: tuple[int, ...]
    held_out: tuple[int, ...]
    left_out: tuple[LeftOut, ...]
    fitted: Fitted
    unreadable: Mapping[int, str] = field(default_factory=dict)


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
    on_stage: Callable[[str], Tick],
) -> Trained:
    """Train SARM on a share of the episodes, split by start scene, and save it to `folder`.

    stages: the dataset's own stage shares by head, where it has them. features: of this dataset by the encoder `config` names; without,
    they are made and not kept. on_stage(name): gives a progress callback for each part. An episode whose pictures cannot be read is left
    out and named in `Trained.unreadable`, as is one whose annotation cannot be true; the last UnreadableError is raised if no episode can
    be read.
    """
    peers = current()
    features = features or FeatureCache(None, "", encoder=load_encoder(config.encoder, device=train.device, text_width=config.text_dim))
    episodes, faults = without_faults(episodes, config, stages)
    rng = np.random.default_rng(train.seed)
    learn, held = split(episodes, holdout, rng)
    usable, left_out = choose(learn, config)
    usable, aside = keep_aside(usable, train.validation, train.seed)
    plan = config
    config = with_encoder(with_statistics(plan, usable, stages), features.encoder)
    check_labels(usable + aside, config)
    if peers.first:
        require_writable(folder)
    with peers.first_first():  # one process fills the cache, the others read it
        seen, unreadable = _encoded(features, [*usable, *aside], config.cameras)
    if unreadable:
        usable, aside = ([episode for episode in group if episode.index not in unreadable] for group in (usable, aside))
        config = with_encoder(with_statistics(plan, usable, stages), features.encoder)
    torch.manual_seed(train.seed)
    model = SARMModel(config).use_features(features)
    data = training_set(model, usable, [seen[episode.index] for episode in usable], rng)
    windows = validation_set(model, aside, [seen[episode.index] for episode in aside]).plain(WINDOWS) if aside else {}
    train = train.with_steps(len(data.rows), peers.world)
    used = [[(e.index, e.length, e.task) for e in group] for group in (usable, aside)]
    key = run_key(dataclasses.asdict(config), train.deciding(), used, peers.world)
    evaluate = partial(model.judge, windows) if aside else None
    fitted = fit(model, data.sample, config=train, folder=folder, key=key, on_progress=on_stage("train"), evaluate=evaluate)
    if (aside or train.more_follows) and peers.first:
        model = SARMModel.from_pretrained(folder).use_features(features)  # the best; `model` is the last
    learnt, chose, kept_out = (tuple(episode.index for episode in group) for group in (usable, aside, held))
    return Trained(model.to("cpu").eval(), learnt, chose, kept_out, tuple(left_out), fitted, faults | unreadable)


def _encoded(
    features: FeatureCache, episodes: Sequence[Episode], cameras: Sequence[str]
) -> tuple[dict[int, Shaped[np.ndarray, "T C E"]], dict[int, str]]:
    """Features by episode, and why those that are missing cannot be read. UnreadableError if none can."""
    seen: dict[int, np.ndarray] = {}
    unreadable: dict[int, str] = {}
    while rest := [episode for episode in episodes if episode.index not in seen and episode.index not in unreadable]:
        try:
            for episode, found in zip(rest, features.stream(rest, cameras), strict=True):
                seen[episode.index] = found
        except UnreadableError as error:  # of the first one that is not there yet: they come in order
            unreadable[next(episode.index for episode in rest if episode.index not in seen)] = str(error)
            if len(unreadable) == len(episodes):
                raise
    return seen, unreadable


def evaluate_held_out(
    model: SARMModel,
    held: Sequence[Episode],
    *,
    on_progress: Tick,
    seed: int,
    on_unreadable: Callable[[int, UnreadableError], None] | None = None,
) -> dict[str, Summary]:
    """Returns the trained model's and the clock's numbers on episodes never trained on; empty if there is none that can be read.

    An episode that cannot be read is left out and told to `on_unreadable`; without one the error is raised.
    """
    head = "dense" if model.config.annotation_mode == "dense_only" else "sparse"
    stages, clock = _judged_by(model, held, head), ElapsedModel()
    rows: list = []
    for done, episode in enumerate(held):
        try:
            curve = model.predict(episode)
            rows.append([score_episode(one, episode, stages, head) for one in (curve.head(head), clock.predict(episode).main)])
        except UnreadableError as error:
            if on_unreadable is None:
                raise
            on_unreadable(episode.index, error)
            continue
        on_progress(done + 1, len(held))
    if not rows:
        return {}
    return {name: summarise([row[i] for row in rows], np.random.default_rng(seed)) for i, name in enumerate(("sarm", "elapsed"))}


def _judged_by(model: SARMModel, held: Sequence[Episode], head: str) -> Stages:
    """The stages of the truth: the model's own; of a model of the whole task, those that the episodes are annotated with, if they are."""
    if head in model.config.annotated_heads:
        return model.config.heads[head]
    annotated = [episode for episode in held if episode.sound_segments.get(head) and "truth.progress" not in episode.columns]
    return annotated_stages(attempts_of(annotated, head)) if annotated else model.config.heads[head]
