"""What verbs say of a copy of a dataset that they wrote: what is not in it, and which of its episodes are damaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from milepost import datasets
from milepost.cli.console import FIRST
from milepost.core import bare_reason, count_noun, shortlist


def in_words(copied: datasets.Copied, args_dataset: str, dataset: datasets.LeRobotDataset) -> list[str]:
    """Returns what is not in a copy of all episodes, and which are damaged, with the command that makes a dataset without these.

    args_dataset: the dataset as the person named it.
    """
    numbers = list(copied.damage)
    lines = left_out_in_words(copied.left_out) + damage_in_words(copied.damage)
    if numbers and len(numbers) < len(dataset.meta.episodes):
        command = datasets.leave_out_command(args_dataset, numbers, version=dataset.version)
        lines.append(f"this makes a dataset without damaged episodes: {command}")
    return lines


def left_out_in_words(names: Sequence[str]) -> list[str]:
    """Returns the sentence about data files that are not in the copy."""
    return [f"data files that no episode needs are not in the copy: {', '.join(names[:9])}"] if names else []


def damage_in_words(damage: Mapping[int, str]) -> list[str]:
    """Returns which episodes of the copy are damaged, the first ones with the reason. damage: episode -> what is wrong with it."""
    numbers = list(damage)
    lines = [
        f"episode {number} is damaged, and the copy has it as it is: {bare_reason(damage[number], number)}" for number in numbers[:FIRST]
    ]
    if others := numbers[FIRST:]:
        verbs = "is damaged, and the copy has it as it is" if len(others) == 1 else "are damaged, and the copy has them as they are"
        lines.append(f"{count_noun(len(others), 'more episode')} {verbs}: {shortlist(others)}; milepost info says what is wrong")
    return lines
