"""A trained model on episodes that it never saw: the held-out table, beside a clock, and the audit of its card."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from milepost.core import WHOLE, Episode, Stages, Tick, UnreadableError, annotated_stages
from milepost.datasets import LeRobotDataset
from milepost.metrics import FEWEST, Summary, score_episode, summarise
from milepost.models.elapsed import ElapsedModel
from milepost.models.training.episodes import attempts_of
from milepost.models.training.recipe import TrainResult
from milepost.progress import AuditConfig, audit, choose_episodes

AUDITED = 20
"""Held-out episodes that the model card's audit takes, at most."""
AUDITED_BY = (
    "frozen_first", "frozen_middle", "frozen_last", "reversed", "shuffled", "cut_50", "cut_80", "stalled", "regressed", "images_frozen",
    "states_frozen", "other_task", "empty_task",
)  # fmt: skip
"""Its controls. `milepost audit` has those too that change the images, and would be encoded anew."""


def evaluate_held_out(
    model: Any,
    episodes: Sequence[Episode],
    *,
    on_progress: Tick,
    seed: int,
    on_unreadable: Callable[[int, UnreadableError], None] | None = None,
) -> dict[str, Summary]:
    """Returns the trained model's and the clock's numbers on episodes never trained on; empty if there is none that can be read.

    The truth is that of the episodes: their true progress or their annotation, if they have one. An episode that cannot be read is left out
    and told to `on_unreadable`; without one the error is raised.
    """
    head = model.config.judged_head
    stages, clock = model.config.own_stages or _stages_of_the_truth(episodes, head), ElapsedModel()
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
    names = (model.config.TYPE, "elapsed")
    return {name: summarise([row[i] for row in rows], np.random.default_rng(seed)) for i, name in enumerate(names)}


def _stages_of_the_truth(episodes: Sequence[Episode], head: str) -> Stages:
    """Returns the stages that the episodes are annotated with, if they are and have no better truth."""
    annotated = [episode for episode in episodes if episode.sound_segments.get(head) and "truth.progress" not in episode.columns]
    return annotated_stages(attempts_of(annotated, head)) if annotated else WHOLE


def evaluated(result: TrainResult, episodes: Sequence[Episode], unreadable: dict[int, str], tick: Tick, seed: int) -> TrainResult:
    """Returns the result with the held-out table, and all episodes that could not be read: these, and those found now."""
    unreadable = {**unreadable, **result.unreadable}
    held_out = [episode for episode in episodes if episode.index in result.held_out]
    summaries = evaluate_held_out(
        result.model, held_out, on_progress=tick, seed=seed,
        on_unreadable=lambda number, error: unreadable.update({number: str(error)}),
    )  # fmt: skip
    return dataclasses.replace(result, unreadable=unreadable, summaries=summaries)


def audited(
    result: TrainResult, dataset: LeRobotDataset, episodes: Sequence[Episode], bar: Callable[[str], Tick], seed: int
) -> TrainResult:
    """Returns the result with an audit of held-out episodes: the controls that need no other features than the recordings have."""
    outcomes = {each.index: each.success for each in episodes if each.index in result.held_out and each.index not in result.unreadable}
    if sum(success is not False for success in outcomes.values()) < FEWEST:
        return result  # no verdict could be given
    config = AuditConfig(result.model.config.judged_head, AUDITED_BY, seed)
    held_out = dataset.only(choose_episodes(outcomes, AUDITED))
    return dataclasses.replace(result, audit=audit(result.model, held_out, config=config, on_progress=bar("audit held-out")).audit)
