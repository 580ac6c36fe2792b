"""Checks an episode's numbers: its rows, its annotation, its place in a video. Arrays in, findings out.

Nothing here opens a file. Bad content never raises; it becomes a finding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped

from milepost.core import count_noun, segment_faults, shown

JITTER_S = 1e-3
Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """A fact about a dataset. error: it cannot be used as it is; warning: somebody should look at it; note: good to know."""

    code: str
    severity: Severity
    message: str
    episode: int | None = None


def joined_findings(findings: Iterable[tuple[str, Severity, str, str]]) -> list[Finding]:
    """Returns one Finding for each (code, severity, what): with the first place and how many there are. Tuples end with a place."""
    places: dict[tuple[str, Severity, str], list[str]] = {}
    for code, severity, what, place in findings:
        places.setdefault((code, severity, what), []).append(place)
    return [
        Finding(code, severity, f"{files[0]} {what}" + (f", and {len(files) - 1} more" if len(files) > 1 else ""))
        for (code, severity, what), files in places.items()
    ]


@dataclass(frozen=True)
class Expected:
    """The rows of an episode as meta/ has them. row: dataset row of frame 0, None if `index` counts something else. tasks: 0 if unknown."""

    episode: int
    length: int
    row: int | None
    fps: float
    tasks: int


def check_rows(columns: Mapping[str, Shaped[np.ndarray, "T ..."]], expected: Expected) -> Iterator[Finding]:
    """Checks the rows of one episode, by column name, against meta/. Columns that are missing are not checked."""
    count = max((len(column) for column in columns.values()), default=0)
    if count != expected.length:
        yield _error("row-count", f"meta/ says {count_noun(expected.length, 'frame')}, the data has {count}", expected.episode)
    yield from _check_counters(columns, expected)
    if "timestamp" in columns:
        yield from _check_times(columns["timestamp"], expected)
    for name in ("observation.state", "action"):
        if name in columns:
            yield from _check_numbers(name, columns[name], expected.episode)
    if count == 1:
        yield Finding("one-frame", "warning", "the episode has a single frame", expected.episode)


def _error(code: str, message: str, episode: int | None) -> Finding:
    return Finding(code, "error", message, episode)


def _check_counters(columns: Mapping[str, Shaped[np.ndarray, "T ..."]], expected: Expected) -> Iterator[Finding]:
    for name, code, start in (("frame_index", "frame-index", 0), ("index", "row-index", expected.row)):
        if name not in columns:
            continue
        counter = columns[name].reshape(-1)
        start = start if start is not None else counter[0] if len(counter) and np.isfinite(counter[0]) else 0
        wrong = np.flatnonzero(counter != start + np.arange(len(counter)))
        if len(wrong):
            first = wrong[0]
            message = f"{name} must count {start}, {start + 1}, ...; {len(wrong)} rows do not, first {counter[first]:.10g} at frame {first}"
            yield _error(code, message, expected.episode)
    if "task_index" in columns and expected.tasks:
        task = columns["task_index"]
        outside = task[~((task >= 0) & (task < expected.tasks))]
        if outside.size:
            message = f"task_index {outside[0]} is outside the {expected.tasks} tasks of meta/tasks ({outside.size} rows)"
            yield _error("task-index", message, expected.episode)


def _check_times(times: Shaped[np.ndarray, "T ..."], expected: Expected) -> Iterator[Finding]:
    times = times.reshape(-1).astype(np.float64)
    off = np.abs(times - np.arange(len(times)) / expected.fps)
    # float32 time stamps of long episodes are themselves off by their rounding.
    slack = np.abs(times) * 2.0**-23
    late, loose = ~(off <= 0.5 / expected.fps + slack), off > JITTER_S + slack
    for code, severity, wrong in (("timestamp", "error", late), ("timestamp-jitter", "warning", loose & ~late.any())):
        if wrong.any():
            frame = int(np.argmax(wrong))
            mend = "; milepost copy --restamp writes them into a copy" if severity == "error" else ""
            message = f"{int(wrong.sum())} time stamps are not frame / {expected.fps:g} fps; frame {frame} says {times[frame]:.4f} s{mend}"
            yield Finding(code, "error" if severity == "error" else "warning", message, expected.episode)


def _check_numbers(name: str, values: Shaped[np.ndarray, "T ..."], episode: int) -> Iterator[Finding]:
    if values.dtype.kind not in "biuf":
        yield _error("not-numbers", f"{name} holds {values.dtype}, expected numbers", episode)
        return
    flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
    bad = ~np.isfinite(flat).all(axis=1)
    if bad.any():
        message = f"{name} is NaN or infinite in {count_noun(int(bad.sum()), 'frame')}, first at frame {int(np.argmax(bad))}"
        yield _error("not-finite", message, episode)
    elif name == "observation.state" and len(flat) > 1 and flat.size and (flat == flat[0]).all():
        yield Finding("constant-state", "warning", "the robot state never changes", episode)


def check_segments(
    head: str, names: Any, starts: Any, ends: Any, *, length: int, stage_names: Sequence[str] | None, episode: int
) -> Iterator[Finding]:
    """Checks one head's annotation of one episode, as raw lists. stage_names: the known stages, None if nothing lists them."""
    lists = [values if isinstance(values, list) else [] for values in (names, starts, ends)]
    if len({len(values) for values in lists}) > 1:
        counts = f"{len(lists[0])} names, {len(lists[1])} starts, {len(lists[2])} ends"
        yield _error("segment-lists", f"{head}: the lists differ in length: {counts}", episode)
        return
    spans = []
    for name, start, end in zip(*lists, strict=True):
        if not isinstance(start, int | float) or not isinstance(end, int | float) or not isinstance(name, str) or not name.strip():
            yield _error("segment-lists", f"{head}: a segment {shown(name)} from {shown(start)} to {shown(end)}", episode)
        else:
            spans.append((name, start, end))
    for fault in segment_faults(spans, length, stage_names):
        yield _error(f"segment-{fault.kind}", f"{head}: {fault}", episode)
