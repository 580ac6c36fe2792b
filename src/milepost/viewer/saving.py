"""Writes stages that a person corrected into the dataset, with the same checks as `annotate` and never over newer changes.

A version is a hash of one episode's annotation of one head. A page sends the version that it began with. If the version on disk differs,
that is a conflict.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost.annotation import Subtask, SubtaskList, check_segments, read_provenance
from milepost.core import DataError, Segment, parse_json, segment_faults
from milepost.datasets import BusyError, write_annotations

BUSY_S = 5.0
"""Longest wait in seconds for another process that writes into the dataset."""


class FaultyError(DataError):
    """These segments do not pass the checks. faults: one sentence for each fault."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True)
class Edit:
    """A person's new annotation of one head of one episode. dataset_names: the head's stages in the dataset; names: the new list of stages,
    if it changes. before: the annotation that the page began with. length in frames."""

    episode_index: int
    head: str
    segments: tuple[Segment, ...]
    before: tuple[Segment, ...]
    dataset_names: tuple[str, ...]
    names: tuple[str, ...] | None
    length: int
    fps: float
    success: bool | None


def version_of(segments: Sequence[Segment]) -> str:
    """Returns 16 hex digits, the same for the same segments."""
    text = json.dumps([[each.name, each.start, each.stop] for each in segments], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_segments(content: Any) -> tuple[Segment, ...]:
    """Parses the page's list of {name, start, stop}. FaultyError if it is not one."""
    segments, faults = [], []
    if not isinstance(content, list):
        raise FaultyError(["segments should be a list of objects with name, start and stop"])
    for place, each in enumerate(content, start=1):
        fields: Mapping[str, Any] = each if isinstance(each, Mapping) else {}
        name, start, stop = fields.get("name"), fields.get("start"), fields.get("stop")
        if not isinstance(name, str) or type(start) is not int or type(stop) is not int:
            faults.append(f"segment {place} should have a name, and whole numbers for start and stop")
        elif not name or not 0 <= start < stop:
            faults.append(f"segment {place}, '{name}', goes from frame {start} to {stop}; it should have a name and at least one frame")
        else:
            segments.append(Segment(name, start, stop))
    if faults:
        raise FaultyError(faults)
    return tuple(segments)


def check_edit(edit: Edit, store: Path) -> tuple[tuple[Segment, ...], tuple[str, ...], list[str]]:
    """Returns the segments to write, the head's stages, and one message per repair. store: the folder where `annotate` stores its answers.

    If a model annotated with a list of stages, the segments must pass the same checks as its answers; names beyond that list are optional
    stages. FaultyError lists the faults.
    """
    annotated_with = _annotated_stages(store / edit.head)
    names = edit.names or edit.dataset_names or (annotated_with.names if annotated_with is not None else ()) or _names_in(edit.segments)
    if not edit.segments:
        return (), names, []
    try:
        stages = SubtaskList(tuple(Subtask(name, optional=True) for name in names))
    except DataError as error:
        raise FaultyError([str(error)]) from error
    if annotated_with is None:
        if faults := segment_faults(edit.segments, edit.length, names):
            raise FaultyError(list(dict.fromkeys(map(str, faults))))
        return edit.segments, names, []
    entries = {each.name: each for each in annotated_with}
    subtasks = SubtaskList(tuple(entries.get(each.name, each) for each in stages), annotated_with.covers)
    checked = check_segments(edit.segments, subtasks, edit.length, edit.fps, success=edit.success)
    if checked.segments is None:
        raise FaultyError([fault.message for fault in checked.faults])
    return checked.segments, names, [repair.message for repair in checked.repairs]


def _names_in(segments: Sequence[Segment]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.name for each in segments))


def _annotated_stages(store: Path) -> SubtaskList | None:
    """Returns the list of stages that `annotate` used, or None if it did not run."""
    provenance = read_provenance(store)
    if provenance is None or "stages" not in provenance:
        return None
    return SubtaskList.from_dict(parse_json(provenance["stages"], source="the annotation's provenance"))


def write(root: Path, edit: Edit, segments: tuple[Segment, ...], names: tuple[str, ...]) -> None:
    """Writes into the dataset if its annotation is still the one that the page began with (ChangedError else). DataError if it cannot be
    written at all.

    It waits a few seconds for another process that is writing; BusyError after that.
    """
    names_by_head = {edit.head: names} if names else None
    until = time.monotonic() + BUSY_S
    while True:
        try:
            write_annotations(
                root,
                {edit.episode_index: {edit.head: segments}},
                names=names_by_head,
                expected={edit.episode_index: {edit.head: edit.before}},
            )
            return
        except BusyError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
