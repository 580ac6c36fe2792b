"""A dataset -> what a model is fine-tuned on: which episodes, progress from stages or time. Each episode left out is counted, with why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from milepost.core import (
    MAIN_HEAD,
    DataError,
    Episode,
    Stages,
    UnreadableError,
    annotated_stages,
    annotation_fault,
    contradictions,
    doubts,
    has_words,
)
from milepost.models.training.episodes import LeftOut, attempts_of
from milepost.models.tuning.options import Source


def source_of(episodes: Sequence[Episode], requested: Source | None) -> Source:
    """Returns what progress is learnt from. DataError if stages were requested and no episode is annotated."""
    annotated = any(episode.sound_segments.get(MAIN_HEAD) for episode in episodes)
    if requested == "stages" and not annotated:
        raise DataError("no episode has a sparse annotation to take progress from; annotate the dataset, or use --progress-from time")
    return requested or ("stages" if annotated else "time")


def sound(episodes: Sequence[Episode], source: Source, own: Stages | None) -> tuple[list[Episode], dict[int, str]]:
    """Returns the episodes whose annotation can be true, and why that of each other one cannot. By time all are returned.

    own: the dataset's own stages; None: those that the episodes name.
    """
    faults = {} if source == "time" else {each.index: annotation_fault(each, MAIN_HEAD, own) for each in episodes}
    faults = {number: f"{words}; annotate it again (milepost info lists all such episodes)" for number, words in faults.items() if words}
    return [each for each in episodes if each.index not in faults], faults


def stages_of(episodes: Sequence[Episode], source: Source, own: Stages | None) -> Stages | None:
    """Returns the stages with their proportions: the dataset's own, else those of these episodes; None by time.

    DataError if the annotations contradict each other.
    """
    if source == "time":
        return None
    attempts = attempts_of(episodes, MAIN_HEAD)
    stages = own or annotated_stages(attempts)
    if faults := contradictions(attempts, stages.names):
        raise DataError(f"the annotations contradict each other: {faults[0]}")
    return stages


def choose(episodes: Sequence[Episode], source: Source, default_task: str | None) -> tuple[list[Episode], list[LeftOut]]:
    """Returns the episodes that can be learnt from, and those left out. DataError if none is left."""
    reasons: dict[str, list[int]] = {}
    usable = []
    for episode in episodes:
        if not (has_words(episode.task) or default_task):
            reasons.setdefault("because they have no task in words", []).append(episode.index)
        elif episode.length < 2:
            reasons.setdefault("because they have one frame", []).append(episode.index)
        elif source == "stages" and not episode.sound_segments.get(MAIN_HEAD):
            reasons.setdefault("because they have no sparse annotation, and progress is learnt from stages", []).append(episode.index)
        else:
            usable.append(episode)
    left_out = [LeftOut(reason, tuple(numbers)) for reason, numbers in reasons.items()]
    if not usable:
        why = "".join(f" ({each})" for each in left_out)
        raise DataError(f"no episode is left to fine-tune on, of {len(episodes)}{why}")
    return usable, left_out


def unreadable_of(episodes: Sequence[Episode], camera: str) -> dict[int, str]:
    """Returns why the first or the last image of an episode cannot be read, of those of which it cannot. UnreadableError if none can."""
    unreadable: dict[int, str] = {}
    for episode in episodes:
        try:
            episode.camera(camera)[np.array([0, episode.length - 1])]
        except UnreadableError as error:
            unreadable[episode.index] = str(error)
            if len(unreadable) == len(episodes):
                raise
    return unreadable


def outcome_doubts(episodes: Sequence[Episode], stages: Stages | None) -> list[str]:
    """Returns what the training episodes do not teach: warnings, one sentence each."""
    words = doubts(attempts_of(episodes, MAIN_HEAD), stages) if stages is not None else []
    unknown = sum(each.success is None for each in episodes)
    if unknown:
        count = "no episode" if unknown == len(episodes) else f"{len(episodes) - unknown} of {len(episodes)} episodes"
        words.append(
            f"{count} learnt from says whether it succeeded: the others count as complete for progress, and teach nothing about success; "
            "record next.success, or the fact success in meta/episodes"
        )
    elif all(each.success for each in episodes):
        words.append("no episode learnt from failed: nothing here teaches that an attempt can fail; record failures too")
    elif not any(each.success for each in episodes):
        far = "progress only as far as their stages go" if stages is not None else "no progress above 0"
        words.append(f"no episode learnt from succeeded: this teaches {far}, and no success at all; record successes too")
    return words
