"""A dataset -> what a value model trains on: which episodes, the scale of each task, the statistics. Every episode left out is counted.

It refuses data from which no value can be learnt, and says what it then learns where it can learn less: without a failure it is a model of
time alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from milepost.core import DataError, Episode, has_words
from milepost.models.training.episodes import LeftOut
from milepost.models.value.config import ValueConfig
from milepost.models.value.targets import SUCCESSES_DOWN_TO
from milepost.models.windowed.inputs import state_statistics


def choose(episodes: Sequence[Episode]) -> tuple[list[Episode], list[LeftOut]]:
    """Returns the episodes that a value can be learnt from, and those that are left out: of unknown outcome, or of one frame.

    DataError if fewer than two are left, or none of them is a success.
    """
    unknown = tuple(each.index for each in episodes if each.success is None)
    single = tuple(each.index for each in episodes if each.success is not None and each.length < 2)
    reasons = ((unknown, "because nobody recorded whether they succeeded"), (single, "because they have one frame"))
    left_out = [LeftOut(reason, numbers) for numbers, reason in reasons if numbers]
    usable = [each for each in episodes if each.success is not None and each.length >= 2]
    why = "".join(f" ({each})" for each in left_out)
    if not usable and unknown:
        raise DataError(
            f"a value model learns from outcomes, and none of the {len(episodes)} episodes has one{why}: record next.success, "
            "or the fact success in meta/episodes"
        )
    if len(usable) < 2:
        raise DataError(f"a value model needs at least two episodes of known outcome to learn from, there is {len(usable)}{why}")
    if not any(each.success for each in usable):
        raise DataError(
            f"none of the {len(usable)} episodes to learn from succeeded{why}: the time to success cannot be learnt from failures alone; "
            "record successes, or leave more episodes in with --episodes and --holdout"
        )
    return usable, left_out


def outcome_doubts(episodes: Sequence[Episode]) -> list[str]:
    """Returns what the outcomes of the training episodes do not teach: warnings, one sentence each."""
    if all(each.success for each in episodes):
        return [
            f"none of the {len(episodes)} episodes learnt from failed: the model learns the time that is left, and cannot tell that an "
            "attempt fails"
        ]
    words = []
    for task in dict.fromkeys(each.task for each in episodes):
        outcomes = {bool(each.success) for each in episodes if each.task == task}
        if outcomes == {True}:
            words.append(f"no episode of the task {task!r} failed: the model cannot tell that an attempt at it fails")
        if outcomes == {False}:
            words.append(f"no episode of the task {task!r} succeeded: the model learns that it always fails")
    blank = sum(not has_words(each.task) for each in episodes)
    return words + ([f"{blank} of the episodes learnt from have a blank task: the model knows them by no instruction"] if blank else [])


def with_statistics(config: ValueConfig, episodes: Sequence[Episode]) -> ValueConfig:
    """Returns the config with the scale and the duration of each task, the frame rate and the state statistics.

    "task": the scale puts the first frame of the task's longest success at -0.8. "lerobot": it is the task's longest episode, less one
    frame, plus C. A task without a success has the medians of the others.
    """
    tasks = tuple(dict.fromkeys(each.task for each in episodes))
    of_task = {task: [each for each in episodes if each.task == task] for task in tasks}
    successes = {task: [each.length - 1 for each in group if each.success] for task, group in of_task.items()}
    durations = {task: float(np.median(lengths)) for task, lengths in successes.items() if lengths}
    if config.normalise == "lerobot":
        scales = {task: max(each.length for each in group) - 1 + config.penalty(0.0) for task, group in of_task.items()}
    else:
        scales = {task: max(lengths) / -SUCCESSES_DOWN_TO for task, lengths in successes.items() if lengths}
    mean, std = state_statistics(list(episodes))
    return dataclasses.replace(
        config,
        tasks=tasks,
        scales=tuple(float(scales.get(task, np.median(list(scales.values())))) for task in tasks),
        durations=tuple(durations.get(task, float(np.median(list(durations.values())))) for task in tasks),
        fps=float(episodes[0].fps),
        state_mean=mean,
        state_std=std,
        blank_task=config.blank_task or any(not has_words(each.task) for each in episodes),
    )
