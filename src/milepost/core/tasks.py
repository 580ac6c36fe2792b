"""The one check for verbs that ask a model about an episode's task: the task must have words."""

from __future__ import annotations

from milepost.core.calls import warn_user
from milepost.core.errors import DataError
from milepost.core.files import count_noun, shortlist
from milepost.core.types import Dataset, KnowsEpisodes, has_words


def require_tasks(dataset: Dataset, default_task: str | None) -> None:
    """Warns of the episodes whose task has no words, before hours of work begin; `default_task` stands in for a missing task.

    Raises DataError if no episode has a task in words.
    """
    if not isinstance(dataset, KnowsEpisodes) or has_words(default_task or ""):
        return
    without_task = [episode_index for episode_index in dataset.episode_indices if not has_words(dataset.task_of(episode_index))]
    if without_task and len(without_task) == len(dataset):
        raise DataError("no episode has a task in words, and a model is asked about a task: give one with --task")
    if without_task:
        has = "has no task in words and is" if len(without_task) == 1 else "have no task in words and are"
        message = f"{count_noun(len(without_task), 'episode')} {has} left out: {shortlist(without_task)}; give one for them with --task"
        warn_user(message)
