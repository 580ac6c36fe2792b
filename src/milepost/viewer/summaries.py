"""One line an episode: where its curves end, what happens in them, how far two of them differ. Columns, for thousands of episodes.

What takes long (events, the success that only the rows tell, the simulator's truth) is counted in a thread of its own from the start.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from milepost.core import SUCCESS, DataError, Segment, Stages, ends_well, progress, targets
from milepost.datasets import LeRobotDataset, read_columns
from milepost.metrics import KINDS, count_events, final, find_events, mean_error
from milepost.progress import row_count
from milepost.viewer.plain import DIGITS, rounded

SPARK = 32
"""Points of a small curve."""
UNKNOWN = 255
Curves = Mapping[str, Mapping[str, np.ndarray]]
"""Model's name -> head -> progress by row of the dataset (R,), NaN where unknown."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Where the episodes shown are among the dataset's rows. count: rows of the whole dataset. start, length: (E,)."""

    numbers: tuple[int, ...]
    start: Int[np.ndarray, "E"]
    length: Int[np.ndarray, "E"]
    count: int

    @classmethod
    def of(cls, dataset: LeRobotDataset, numbers: Sequence[int]) -> Rows:
        records = [dataset.meta.episodes[number] for number in numbers]
        return cls(tuple(numbers), np.array([r.row for r in records]), np.array([r.length for r in records]), row_count(dataset))

    def cut(self, values: Float[np.ndarray, "R"]) -> list[np.ndarray]:
        """An array an episode, views."""
        return [values[start : start + length] for start, length in zip(self.start.tolist(), self.length.tolist(), strict=True)]


def sparks(curve: Float[np.ndarray, "R"], rows: Rows) -> list[str]:
    """Every episode's curve at 32 frames spread evenly, first and last among them: base64 of 32 bytes, 0 to 254, 255 where unknown."""
    at = np.rint(np.arange(SPARK) * (np.maximum(rows.length[:, None] - 1, 0) / (SPARK - 1))).astype(np.int64)
    value = curve[rows.start[:, None] + at]
    levels: UInt8[np.ndarray, "E P"] = np.where(np.isnan(value), UNKNOWN, np.rint(np.nan_to_num(value) * 254)).astype(np.uint8)
    return [base64.b64encode(line.tobytes()).decode() for line in levels]


def ends(curve: Float[np.ndarray, "R"], rows: Rows) -> dict[str, list[Any]]:
    """The columns that are quick: where each episode's curve ends, its highest point, the small curve."""
    cut = rows.cut(curve)
    return {
        "final": rounded(np.array([final(each) for each in cut])),
        "highest": rounded(np.array([np.fmax.reduce(each, initial=np.nan) for each in cut])),
        "spark": sparks(curve, rows),
    }


def known_mean(values: Float[np.ndarray, "N"]) -> float:
    """NaN where nothing is known."""
    known = values[~np.isnan(values)]
    return float(known.mean(dtype=np.float64)) if len(known) else float("nan")


@dataclass
class Counted:
    """What the thread has found. events: model -> head -> kind -> one number an episode. success: of those that only rows tell.
    truth: the simulator's progress by row, if it is known. disagreement: one number an episode. problems: what could not be read."""

    events: dict[str, dict[str, dict[str, list[int]]]] = field(default_factory=dict)
    success: dict[int, bool] = field(default_factory=dict)
    truth: np.ndarray | None = None
    disagreement: list[float] | None = None
    disagreement_of: str | None = None
    problems: list[str] = field(default_factory=list)

    def know(self, truth: Float[np.ndarray, "R"]) -> None:
        """Keeps the simulator's progress by row."""
        self.truth = truth

    def disagree(self, which: str, how_much: list[float]) -> None:
        """Keeps which two curves were compared, and their difference in each episode."""
        self.disagreement_of, self.disagreement = which, how_much


class Counting:
    """Jobs done one after the other in a thread beside the requests. revision: grows with each one done."""

    def __init__(self) -> None:
        self.revision = 0
        self.closing = False
        self._pending = 0
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(1, "counting")

    def submit(self, job: Callable[[], None]) -> None:
        if self.closing:
            return
        with self._changed:
            self._pending += 1
        self._pool.submit(self._run, job).add_done_callback(_raise)

    def wait(self, timeout_s: float | int) -> bool:
        """Until everything is counted, at most so long; is it?"""
        until = time.monotonic() + timeout_s
        with self._changed:
            while self._pending and not self.closing and (left := until - time.monotonic()) > 0:
                self._changed.wait(min(left, 0.2))  # `closing` is set by a signal, which must take no lock
            return not self._pending

    def stop(self) -> None:
        """Gives up what is being counted, soon. Takes no lock: safe in a signal handler."""
        self.closing = True

    def close(self) -> None:
        """Gives up what is being counted."""
        self.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        finally:
            with self._changed:
                self._pending -= 1
                self.revision += 1
                self._changed.notify_all()


def _raise(done: Future[None]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        raise error


def count_all(found: Counted, counting: Counting, dataset: LeRobotDataset, rows: Rows, curves: Curves) -> None:
    """Everything slow that does not change while the page is open."""
    _read_rows(found, dataset, rows)
    for model, heads in curves.items():
        for head, curve in heads.items():
            columns: dict[str, list[int]] = {kind: [] for kind in KINDS}
            for each in rows.cut(curve):
                if counting.closing:
                    return
                for kind, number in count_events(find_events(each, dataset.fps)).items():
                    columns[kind].append(number)
            found.events.setdefault(model, {})[head] = columns


def _read_rows(found: Counted, dataset: LeRobotDataset, rows: Rows) -> None:
    """Of a local dataset alone: a Hub dataset's rows would have to be downloaded, all of them."""
    meta = dataset.meta
    known = all(meta.episodes[number].success is not None for number in rows.numbers)
    wanted = ["truth.progress", *([] if known else [SUCCESS])]
    columns = [name for name in wanted if name in meta.features]
    if not dataset.is_local or not columns:
        return
    truth = np.full(rows.count, np.nan, np.float32)
    try:
        for record, values in read_columns(dataset.files, meta, columns):
            if SUCCESS in values:
                found.success[record.index] = ends_well(values[SUCCESS])
            if "truth.progress" in values:
                truth[record.row : record.row + record.length] = values["truth.progress"]
    except DataError as error:
        found.problems.append(str(error))
    if "truth.progress" in columns:
        found.know(truth)


def differences(first: Float[np.ndarray, "R"], second: Float[np.ndarray, "R"], rows: Rows) -> list[float]:
    """Each episode's mean absolute difference where both are known."""
    return [mean_error(a, b) for a, b in zip(rows.cut(first), rows.cut(second), strict=True)]


def annotated_progress(
    segments: Mapping[int, Sequence[Segment]], stages: Stages, rows: Rows, success: Callable[[int], bool | None]
) -> Float[np.ndarray, "R"]:
    """Progress by row as the annotation tells it (SARM eq. 2), NaN where it does not; an annotation that does not fit is none."""
    out = np.full(rows.count, np.nan, np.float32)
    for number, start, length in zip(rows.numbers, rows.start.tolist(), rows.length.tolist(), strict=True):
        if segments.get(number):
            try:
                stage, tau = targets(segments[number], stages.names, length, success(number))
            except DataError:
                continue
            out[start : start + length] = progress(stage, tau, stages)
    return out


def listed(
    rows: Rows, curves: Curves, weight: Float[np.ndarray, "R"] | None
) -> tuple[dict[str, dict[str, dict[str, Any]]], list[float | None] | None]:
    """The columns that are counted before the page is served: by model and head, and the mean weight."""
    models = {model: {head: ends(curve, rows) for head, curve in heads.items()} for model, heads in curves.items()}
    kept = None if weight is None else rounded(np.array([known_mean(each) for each in rows.cut(weight)]), DIGITS)
    return models, kept


def compared(curves: Curves, truth: np.ndarray | None) -> tuple[str, Callable[[Rows], list[float]]] | None:
    """Which two curves disagree, and by how much: the first two models', else the first one's and the truth; None if there is one alone."""
    names = list(curves)
    heads = [head for head in ("sparse", "dense") if all(head in curves[name] for name in names[:2])]
    if not names or not heads:
        return None
    first = curves[names[0]][heads[0]]
    if len(names) > 1:
        return f"{names[0]} / {names[1]}", partial(differences, first, curves[names[1]][heads[0]])
    return (f"{names[0]} / truth", partial(differences, first, truth)) if truth is not None else None
