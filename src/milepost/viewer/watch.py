"""The dataset as it is on disk now: it is read again when this page, `annotate` or another process writes into its meta/.

If the folder has become another dataset in the meantime, this is an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from milepost.core import HEADS, DataError, Segment, names_in_order
from milepost.datasets import LeRobotDataset, open_dataset, require_editable, stamps_of


class DatasetWatcher:
    """The current state of one dataset. It is safe to use from several threads."""

    def __init__(self, dataset: LeRobotDataset, on_change: Callable[[LeRobotDataset], None]) -> None:
        """Remembers the state of meta/. on_change: called with the dataset each time it was read again."""
        self._dataset, self._on_change = dataset, on_change
        self._stamps = _stamps(dataset)
        self._lock = threading.RLock()

    def current(self) -> LeRobotDataset:
        """Returns the dataset as it is on disk. DataError if it became another dataset, or cannot be read at this moment."""
        with self._lock:
            if self._dataset.is_local and not self._dataset.root.is_dir():
                raise DataError(f"the dataset's folder is gone: {self._dataset.root}")
            if (stamps := _stamps(self._dataset)) != self._stamps:
                fresh = open_dataset(self._dataset.root)
                if _shape(fresh) != _shape(self._dataset):
                    raise DataError(f"{fresh.root} is another dataset now; start milepost view again")
                self._dataset, self._stamps = fresh, stamps
                self._on_change(fresh)
            return self._dataset


def _stamps(dataset: LeRobotDataset) -> tuple[Any, ...]:
    """Returns a value that changes when somebody writes into meta/. A Hub dataset is a commit, so it does not change."""
    return stamps_of(dataset.root) if dataset.is_local else ()


def _shape(dataset: LeRobotDataset) -> list[list[int]]:
    arrays = dataset.meta.arrays
    return [column.tolist() for column in (arrays.number, arrays.row, arrays.length)]


def segments_of(dataset: LeRobotDataset, head: str, numbers: Sequence[int]) -> dict[int, tuple[Segment, ...]]:
    """Returns every episode's annotation. An annotation with a fault counts as none."""
    if not dataset.hints.can_have_annotations:
        return dict.fromkeys(numbers, ())
    return {number: dataset.meta.episodes[number].sound_segments.get(head, ()) for number in numbers}


def stage_names(dataset: LeRobotDataset) -> dict[str, tuple[str, ...]]:
    """Returns head -> stages in order, as the dataset lists them; without a list, the names that its annotations use."""
    names = {head: stages.names for head, stages in dataset.stages.items()}
    for head in HEADS:
        if (
            head not in names
            and dataset.hints.can_have_annotations
            and (annotations := [s for s in segments_of(dataset, head, list(dataset.meta.episodes)).values() if s])
        ):
            names[head] = names_in_order(annotations)
    return names


def why_not_editable(dataset: LeRobotDataset) -> str:
    """Returns why the dataset cannot be edited, in one sentence; "" if it can."""
    if not dataset.is_local:
        return "a Hub dataset is read from a shared cache and never edited there; download a copy of your own to annotate it"
    try:
        require_editable(dataset.root)
    except DataError as error:
        return str(error)
    return ""


def store_folder(dataset: LeRobotDataset) -> Path:
    """Returns the default folder where `milepost annotate` stores its answers."""
    root = dataset.root.resolve()
    return root.with_name(f"{root.name}.annotations")
