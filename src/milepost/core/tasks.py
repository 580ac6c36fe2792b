"""The one check for verbs that put an episode's task to a model: it must have one, in words."""

from __future__ import annotations

import warnings

from milepost.core.types import DataError, Dataset, DataWarning, KnowsEpisodes, has_words


def require_tasks(dataset: Dataset, instead: str | None) -> None:
    """Warns, before hours of work, of the episodes that have no task in words, if nothing stands in for one. DataError if none has."""
    if not isinstance(dataset, KnowsEpisodes) or has_words(instead or ""):
        return
    blank = [number for number in dataset.episode_indices if not has_words(dataset.task_of(number))]
    if blank and len(blank) == len(dataset):
        raise DataError("no episode has a task in words, and a model is asked about a task: give one with --task")
    if blank:
        some = ", ".join(map(str, blank[:10])) + (f" and {len(blank) - 10} more" if len(blank) > 10 else "")
        words = f"{len(blank)} episodes have no task in words and are left out: {some}; give one for them with --task"
        warnings.warn(words, DataWarning, stacklevel=3)
