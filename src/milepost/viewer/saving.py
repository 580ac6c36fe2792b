"""Stages corrected by a person, into the dataset: judged as `annotate` judges them, written as it writes them, never over somebody else's.

A version is a hash of one episode's annotation of one head. A page sends the one that it began with; another one on disk is a conflict.
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
"""How long to wait for another process that writes into the dataset."""


class FaultyError(DataError):
    """These segments do not pass the checks. faults: one sentence each."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True)
class Edit:
    """One head of one episode as a person wants it. known: the head's stages as the dataset has them; names: as it shall have them, if
    they change. before: what the page began with. length in frames."""

    number: int
    head: str
    segments: tuple[Segment, ...]
    before: tuple[Segment, ...]
    known: tuple[str, ...]
    names: tuple[str, ...] | None
    length: int
    fps: float
    success: bool | None


def version_of(segments: Sequence[Segment]) -> str:
    """16 hex digits, the same for the same segments."""
    told = json.dumps([[each.name, each.start, each.stop] for each in segments], ensure_ascii=False)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def parse_segments(told: Any) -> tuple[Segment, ...]:
    """What a page sent: a list of {name, start, stop}. FaultyError if it is not one."""
    found, faults = [], []
    if not isinstance(told, list):
        raise FaultyError(["segments should be a list of objects with name, start and stop"])
    for place, each in enumerate(told, start=1):
        fields: Mapping[str, Any] = each if isinstance(each, Mapping) else {}
        name, start, stop = fields.get("name"), fields.get("start"), fields.get("stop")
        if not isinstance(name, str) or type(start) is not int or type(stop) is not int:
            faults.append(f"segment {place} should have a name, and whole numbers for start and stop")
        elif not name or not 0 <= start < stop:
            faults.append(f"segment {place}, '{name}', goes from frame {start} to {stop}; it should have a name and at least one frame")
        else:
            found.append(Segment(name, start, stop))
    if faults:
        raise FaultyError(faults)
    return tuple(found)


def judged(edit: Edit, store: Path) -> tuple[tuple[Segment, ...], tuple[str, ...], list[str]]:
    """The segments to write, the head's stages, and what was repaired, in words. store: where `annotate` keeps what it asked with.

    Where a model was asked with a list of stages, the checks that its answers had to pass; names beyond that list are optional stages.
    FaultyError lists what is wrong.
    """
    asked = _asked(store / edit.head)
    names = edit.names or edit.known or (asked.names if asked is not None else ()) or _named(edit.segments)
    if not edit.segments:
        return (), names, []
    try:
        listed = SubtaskList(tuple(Subtask(name, optional=True) for name in names))
    except DataError as error:
        raise FaultyError([str(error)]) from error
    if asked is None:
        if faults := segment_faults(edit.segments, edit.length, names):
            raise FaultyError(list(dict.fromkeys(map(str, faults))))
        return edit.segments, names, []
    entries = {each.name: each for each in asked}
    subtasks = SubtaskList(tuple(entries.get(each.name, each) for each in listed), asked.covers)
    checked = check_segments(edit.segments, subtasks, edit.length, edit.fps, success=edit.success)
    if checked.segments is None:
        raise FaultyError([fault.message for fault in checked.faults])
    return checked.segments, names, [repair.message for repair in checked.repairs]


def _named(segments: Sequence[Segment]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.name for each in segments))


def _asked(store: Path) -> SubtaskList | None:
    """The list of stages that `annotate` asked with; None where it did not ask."""
    told = read_provenance(store)
    if told is None or "stages" not in told:
        return None
    return SubtaskList.from_dict(parse_json(told["stages"], source="the annotation's provenance"))


def write(root: Path, edit: Edit, segments: tuple[Segment, ...], names: tuple[str, ...]) -> None:
    """Into the dataset, if it has there what the page began with (ChangedError else). DataError if it cannot be written at all.

    Another process that is writing is waited for, a few seconds: BusyError then.
    """
    told = {edit.head: names} if names else None
    until = time.monotonic() + BUSY_S
    while True:
        try:
            write_annotations(root, {edit.number: {edit.head: segments}}, names=told, expected={edit.number: {edit.head: edit.before}})
            return
        except BusyError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
