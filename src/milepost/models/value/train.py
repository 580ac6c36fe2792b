"""From episodes to a trained value model: which are learnt from, which choose the checkpoint, which are held out for the table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from milepost.core import WHOLE, Episode, Stages, Tick, UnreadableError, annotated_stages, quiet_stage, require_writable
from milepost.encoders import FeatureCache, load_encoder
from milepost.metrics import Summary, score_episode, summarise
from milepost.models.elapsed import ElapsedModel
from milepost.models.sarm.prepare import attempts_of
from milepost.models.sarm.train import TrainResult, encoded, keep_aside, split
from milepost.models.training.config import TrainConfig
from milepost.models.training.distributed import current_process_group
from milepost.models.training.loop import fit, run_key
from milepost.models.value.config import ValueConfig
from milepost.models.value.model import ValueModel
from milepost.models.value.prepare import TrainingSet, choose, labelled, outcome_doubts, some_frames, with_encoder, with_statistics

WINDOWS = 2048
"""Windows of the validation set that an evaluation takes."""


def train_value(
    episodes: Sequence[Episode],
    config: ValueConfig,
    train: TrainConfig,
    *,
    folder: Path,
    holdout: float,
    features: FeatureCache | None = None,
    on_stage: Callable[[str], Tick] = quiet_stage,
) -> TrainResult:
    """Trains a value model on a part of the episodes, split by start scene, and saves it to `folder`.

    features: of this dataset by the encoder that `config` names; without, they are made and not kept. on_stage(name): gives a progress
    callback for each part. Episodes of unknown outcome are left out; those whose images cannot be read are named in
    `TrainResult.unreadable`. DataError if no value can be learnt from the episodes, see `prepare.choose`.
    """
    process_group = current_process_group()
    features = features or FeatureCache(None, "", encoder=load_encoder(config.encoder, device=train.device, text_width=config.text_dim))
    choose(episodes)  # before any work: what is wrong with all of them, not with a part
    rng = np.random.default_rng(train.seed)
    learn, held_out = split(episodes, holdout, rng)
    usable, left_out = choose(learn)
    usable, aside = keep_aside(usable, train.validation, train.seed)
    choose(usable)
    if process_group.is_main:
        require_writable(folder)
    with process_group.main_process_first():  # one process fills the cache, the others read it
        features_of, unreadable = encoded(features, [*usable, *aside], config.cameras)
    usable, aside = ([episode for episode in group if episode.index in features_of] for group in (usable, aside))
    choose(usable)
    config = with_encoder(with_statistics(config, usable), features.encoder)
    torch.manual_seed(train.seed)
    model = ValueModel(config).use_features(features)
    model.fit_features(some_frames([features_of[episode.index] for episode in usable], rng))
    data, windows = (_set(model, group, [features_of[episode.index] for episode in group]) if group else None for group in (usable, aside))
    assert data is not None
    train = train.with_steps(len(data), process_group.world_size)
    used = [[(e.index, e.length, e.task, e.success) for e in group] for group in (usable, aside)]
    key = run_key(dataclasses.asdict(config), train.deciding(), used, process_group.world_size)
    evaluate = partial(model.validation_scores, windows.plain(WINDOWS)) if windows is not None else None
    fit_result = fit(model, data.sample, config=train, folder=folder, key=key, on_progress=on_stage("train"), evaluate=evaluate)
    if (aside or train.more_follows) and process_group.is_main:
        model = ValueModel.from_pretrained(folder).use_features(features)  # the best; `model` is the last
    learnt, checked, unseen = (tuple(episode.index for episode in group) for group in (usable, aside, held_out))
    result = TrainResult(model.to("cpu").eval(), learnt, checked, unseen, tuple(left_out), fit_result, unreadable)
    return dataclasses.replace(result, doubts=tuple(outcome_doubts(usable)))


def _set(model: ValueModel, episodes: Sequence[Episode], features: Sequence[np.ndarray]) -> TrainingSet:
    parts = [labelled(episode, model.project(each), model.config) for episode, each in zip(episodes, features, strict=True)]
    return TrainingSet(parts, model.config, model.frozen.text)


def evaluate_held_out(
    model: ValueModel, episodes: Sequence[Episode], *, on_progress: Tick, seed: int, on_unreadable: Callable[[int, UnreadableError], None]
) -> dict[str, Summary]:
    """Returns the trained model's and the clock's numbers on episodes never trained on; empty if there is none that can be read.

    The truth is that of the episodes: their true progress or their annotation, if they have one.
    """
    stages, clock = _stages_of_the_truth(episodes), ElapsedModel()
    rows = []
    for done, episode in enumerate(episodes):
        try:
            curves = (model.predict(episode).main, clock.predict(episode).main)
        except UnreadableError as error:
            on_unreadable(episode.index, error)
            continue
        rows.append([score_episode(curve, episode, stages) for curve in curves])
        on_progress(done + 1, len(episodes))
    if not rows:
        return {}
    return {name: summarise([row[i] for row in rows], np.random.default_rng(seed)) for i, name in enumerate(("value", "elapsed"))}


def _stages_of_the_truth(episodes: Sequence[Episode]) -> Stages:
    annotated = [episode for episode in episodes if episode.sound_segments.get("sparse") and "truth.progress" not in episode.columns]
    return annotated_stages(attempts_of(annotated, "sparse")) if annotated else WHOLE
