"""A dataset -> what a success head trains on: which episodes, where their labels come from, the statistics. What is left out is counted.

It refuses data in which nothing is done or everything is, and says what it cannot learn where it can learn less.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from milepost.core import SUCCESS, DataError, Episode, count_noun, has_words
from milepost.models.success.config import SuccessConfig
from milepost.models.success.targets import frame_labels, label_source, marked
from milepost.models.training.episodes import LeftOut
from milepost.models.windowed.inputs import state_statistics

RECORD = "record next.success, or the fact success in meta/episodes"


def choose(episodes: Sequence[Episode], config: SuccessConfig) -> tuple[list[Episode], list[LeftOut]]:
    """Returns the episodes that can be learnt from, and those left out: of unknown outcome, or with two outcomes that contradict.

    DataError if none is left, if no frame of them is a success or every frame is one, or if a column that was asked for is missing.
    """
    unknown = tuple(each.index for each in episodes if each.success is None)
    torn = tuple(each.index for each in episodes if _is_torn(each))
    reasons = ((unknown, "because nobody recorded whether they succeeded"), (torn, f"because {SUCCESS} and the fact success contradict"))
    left_out = [LeftOut(reason, numbers) for numbers, reason in reasons if numbers]
    usable = [each for each in episodes if each.index not in {*unknown, *torn}]
    why = "".join(f" ({each})" for each in left_out)
    if not usable:
        raise DataError(f"a success head learns from outcomes, and none of {count_noun(len(episodes), 'episode')} has one{why}: {RECORD}")
    bare = [each.index for each in usable if marked(each) is None]
    if config.success_labels == "next.success" and bare:
        raise DataError(f"--success-labels next.success needs that column, and episode {bare[0]} has none; use --success-labels outcome")
    settled = dataclasses.replace(config, success_labels=label_source(usable, config.success_labels))
    labels = np.concatenate([frame_labels(each, settled) for each in usable])
    if not (labels == 1).any():
        raise DataError(
            f"none of the {count_noun(len(usable), 'episode')} to learn from succeeded{why}: record successes, or leave more episodes in "
            "with --episodes and --holdout"
        )
    if not (labels == 0).any():
        raise DataError(
            f"every frame of the {count_noun(len(usable), 'episode')} to learn from is a success{why}: nothing shows what is not done yet; "
            "record next.success as false until the task is done, or use --success-labels outcome"
        )
    return usable, left_out


def _is_torn(episode: Episode) -> bool:
    """Returns whether the fact and the last frame of the column contradict."""
    column = marked(episode)
    return column is not None and episode.success is not None and bool(column[-1]) is not episode.success


def label_doubts(config: SuccessConfig, episodes: Sequence[Episode]) -> list[str]:
    """Returns what the labels of the training episodes do not teach: warnings, one sentence each."""
    count, words = len(episodes), []
    if all(each.success for each in episodes):
        words.append(
            f"none of the {count_noun(count, 'episode')} learnt from failed: the model learns how a success ends, and saw nothing that "
            "only looks like one"
        )
    for task in dict.fromkeys(each.task for each in episodes):
        if not any(each.success for each in episodes if each.task == task):
            words.append(f"no episode of the task {task!r} succeeded: the model learns that it is never done")
    if started := sum(bool(frame_labels(each, config)[0] == 1) for each in episodes):
        words.append(f"{count_noun(started, 'episode')} of {count} are marked as done in the first frame")
    blank = sum(not has_words(each.task) for each in episodes)
    return words + ([f"{blank} of the episodes learnt from have a blank task: the model knows them by no instruction"] if blank else [])


def with_statistics(config: SuccessConfig, episodes: Sequence[Episode]) -> SuccessConfig:
    """Returns the config with where the labels come from, the tasks and the state statistics."""
    mean, std = state_statistics(list(episodes)) if config.takes_state else ((), ())
    return dataclasses.replace(
        config,
        success_labels=label_source(episodes, config.success_labels),
        tasks=tuple(dict.fromkeys(each.task for each in episodes)),
        state_mean=mean,
        state_std=std,
        blank_task=config.blank_task or any(not has_words(each.task) for each in episodes),
    )
