"""What `milepost info` says of LeRobot's language columns: gaps, late starts, overlaps, stamps off the frames, frames that differ, clashes.

One finding for each kind of fault, which names the episodes. Nothing is repaired. What the faults are: `datasets/language_rows.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from milepost.core import DataError, count_noun, shortlist, shown
from milepost.datasets.findings import Finding
from milepost.datasets.hub import Files
from milepost.datasets.language_rows import (
    DTYPE,
    EVENT_STYLES,
    EVENTS,
    LANGUAGE,
    PERSISTENT_STYLES,
    LanguageColumn,
    LanguageFault,
    count_styles,
    language_faults,
)
from milepost.datasets.records import EpisodeRecord


def check_language(files: Files, features: Mapping[str, Mapping[str, Any]], records: Collection[EpisodeRecord]) -> Iterator[Finding]:
    """Yields what is wrong with, and good to know of, the language columns of a dataset whose `features` have one."""
    for name in (LANGUAGE, EVENTS):
        if name in features and features[name].get("dtype") != DTYPE:
            what = f"info.json says that it holds {shown(features[name].get('dtype'))}; LeRobot's column of that name holds '{DTYPE}'"
            yield Finding("language-name", "warning", f"{name}: {what}, so no subtask is read from it")
    if features.get(LANGUAGE, {}).get("dtype") != DTYPE:
        return
    column, checks = LanguageColumn(files), _Checks()
    for record in (each for each in records if each.length):
        checks.add(record, column)
    yield from checks.results(counts=any(record.from_language for record in records))
    yield from _events(files, features, records)


class _Checks:
    """What the episodes' rows have shown so far."""

    def __init__(self) -> None:
        self._faults: dict[str, list[tuple[int, LanguageFault]]] = defaultdict(list)
        self._unreadable: dict[str, int] = {}
        self._without: list[int] = []
        self._subtasks = 0

    def add(self, record: EpisodeRecord, column: LanguageColumn) -> None:
        """Checks the rows of one episode."""
        try:
            rows = column.rows(record)
        except DataError as error:
            self._unreadable.setdefault(str(error), record.index)
            return
        self._subtasks += len(rows.rows)
        if not rows.rows and not rows.fault:
            self._without.append(record.index)
        for fault in language_faults(rows, record.fps):
            self._faults[fault.code].append((record.index, fault))
        if record.language_clash:
            self._faults["clash"].append((record.index, LanguageFault("language-clash", record.language_clash)))
        for style in sorted(set(rows.styles) - PERSISTENT_STYLES - EVENT_STYLES - {"None"}):
            fault = LanguageFault("language-unknown", f"the style {shown(style)} is not one of LeRobot's own")
            self._faults[f"style {style}"].append((record.index, fault))

    def results(self, *, counts: bool) -> Iterator[Finding]:
        """Yields one finding for each kind of fault. counts: whether the subtasks are the dataset's sparse stages."""
        yield from (Finding("language-column", "error", message, episode) for message, episode in self._unreadable.items())
        yield from (_joined([episode for episode, _ in there], there[0][1]) for there in self._faults.values())
        if self._subtasks and counts:
            brings = "milepost annotate DATASET --from-language sparse writes the columns that LeRobot's SARM reads"
            yield Finding("language", "note", f"the subtasks of {LANGUAGE} are the sparse stages, since meta/ has no annotation; {brings}")
        if self._subtasks and self._without:
            what = f"{count_noun(len(self._without), 'episode')} without a subtask, while others have some: {shortlist(self._without)}"
            yield Finding("language-none", "warning", f"{LANGUAGE}: {what}", self._without[0])


def _joined(episodes: Sequence[int], fault: LanguageFault) -> Finding:
    """Returns one finding for the episodes that have a fault; its words are the first one's."""
    where = f" (so in {count_noun(len(episodes), 'episode')}: {shortlist(episodes)})" if len(episodes) > 1 else ""
    return Finding(fault.code, "error" if fault.is_error else "warning", f"{LANGUAGE}: {fault.message}{where}", episodes[0])


def _events(files: Files, features: Mapping[str, Mapping[str, Any]], records: Collection[EpisodeRecord]) -> Iterator[Finding]:
    """Yields subtasks that lie in the column of events, where neither LeRobot nor milepost looks for them."""
    if features.get(EVENTS, {}).get("dtype") != DTYPE:
        return
    for name in sorted({record.data for record in records if record.data}):
        try:
            styles = count_styles(files.path(name))
        except DataError as error:
            yield Finding("language-column", "error", str(error))
            continue
        if strange := sorted(PERSISTENT_STYLES & set(styles)):
            what = f"{count_noun(styles[strange[0]], 'row')} of style '{strange[0]}' in {name}"
            yield Finding("language-style", "warning", f"{EVENTS}: {what} belong into the column {LANGUAGE}, and are not read here")
