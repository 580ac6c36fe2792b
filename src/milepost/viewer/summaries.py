"""One entry per episode: the final value of its curves, their events, the difference of two curves. They are columns, for thousands of
episodes.

Slow columns (events, success that is only in the rows, the simulator's truth) are computed in a background thread from the start.
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
from milepost.viewer.json_arrays import DIGITS, rounded

SPARK = 32
"""Points of a sparkline."""
UNKNOWN = 255
Curves = Mapping[str, Mapping[str, np.ndarray]]
"""Model's name -> head -> progress by row of the dataset (R,), NaN where unknown."""


@dataclass(frozen=True, eq=False)
class EpisodeRows:
    """The rows of the shown episodes in the dataset. count: rows of the whole dataset. start, length: (E,)."""

    numbers: tuple[int, ...]
    start: Int[np.ndarray, "E"]
    length: Int[np.ndarray, "E"]
    count: int

    @classmethod
    def of(cls, dataset: LeRobotDataset, numbers: Sequence[int]) -> EpisodeRows:
        """Returns the rows of these episodes."""
        arrays = dataset.meta.arrays
        places = arrays.places(numbers)
        return cls(tuple(numbers), arrays.row[places], arrays.length[places], row_count(dataset))

    def split(self, values: Float[np.ndarray, "R"]) -> list[np.ndarray]:
        """Returns one array per episode; they are views."""
        return [values[start : start + length] for start, length in zip(self.start.tolist(), self.length.tolist(), strict=True)]


def sparks(curve: Float[np.ndarray, "R"], rows: EpisodeRows) -> list[str]:
    """Returns every episode's curve at 32 frames spread evenly, first and last included: base64 of 32 bytes, 0 to 254; 255 where
    unknown."""
    at = np.rint(np.arange(SPARK) * (np.maximum(rows.length[:, None] - 1, 0) / (SPARK - 1))).astype(np.int64)
    value = curve[rows.start[:, None] + at]
    levels: UInt8[np.ndarray, "E P"] = np.where(np.isnan(value), UNKNOWN, np.rint(np.nan_to_num(value) * 254)).astype(np.uint8)
    return [base64.b64encode(line.tobytes()).decode() for line in levels]


def ends(curve: Float[np.ndarray, "R"], rows: EpisodeRows) -> dict[str, list[Any]]:
    """Returns the quick columns: each episode's final value, its maximum, its sparkline."""
    curves = rows.split(curve)
    return {
        "final": rounded(np.array([final(each) for each in curves])),
        "highest": rounded(np.array([np.fmax.reduce(each, initial=np.nan) for each in curves])),
        "spark": sparks(curve, rows),
    }


def known_mean(values: Float[np.ndarray, "N"]) -> float:
    """Returns the mean of the known values; NaN if there is none."""
    present = values[~np.isnan(values)]
    return float(present.mean(dtype=np.float64)) if len(present) else float("nan")


@dataclass
class BackgroundResults:
    """The results of the background thread. events: model -> head -> kind -> one number per episode. success: of episodes whose success is
    only in the rows. truth: the simulator's progress by row, if known. disagreement: one number per episode. problems: messages about rows
    that cannot be read."""

    events: dict[str, dict[str, dict[str, list[int]]]] = field(default_factory=dict)
    success: dict[int, bool] = field(default_factory=dict)
    truth: np.ndarray | None = None
    disagreement: list[float] | None = None
    disagreement_of: str | None = None
    problems: list[str] = field(default_factory=list)

    def know(self, truth: Float[np.ndarray, "R"]) -> None:
        """Stores the simulator's progress by row."""
        self.truth = truth

    def disagree(self, which: str, how_much: list[float]) -> None:
        """Stores the names of the two compared curves, and their difference in each episode."""
        self.disagreement_of, self.disagreement = which, how_much


class BackgroundJobs:
    """Jobs that run one after the other in a background thread. revision: increases with each finished job."""

    def __init__(self) -> None:
        self.revision = 0
        self.closing = False
        self._pending = 0
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(1, "background")

    def submit(self, job: Callable[[], None]) -> None:
        """Queues a job."""
        if self.closing:
            return
        with self._changed:
            self._pending += 1
        self._pool.submit(self._run, job).add_done_callback(_raise)

    def wait(self, timeout_s: float | int) -> bool:
        """Waits until all jobs are finished, at most `timeout_s` seconds. Returns whether they are."""
        until = time.monotonic() + timeout_s
        with self._changed:
            while self._pending and not self.closing and (remaining := until - time.monotonic()) > 0:
                self._changed.wait(min(remaining, 0.2))  # `closing` is set by a signal, which must take no lock
            return not self._pending

    def stop(self) -> None:
        """Asks the current job to give up soon. It takes no lock, so it is safe in a signal handler."""
        self.closing = True

    def close(self) -> None:
        """Gives up the current job and drops the queue."""
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


def _raise(future: Future[None]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        raise error


def count_all(results: BackgroundResults, jobs: BackgroundJobs, dataset: LeRobotDataset, rows: EpisodeRows, curves: Curves) -> None:
    """Computes the slow columns that do not change while the page is open."""
    _read_rows(results, dataset, rows)
    for model, heads in curves.items():
        for head, curve in heads.items():
            columns: dict[str, list[int]] = {kind: [] for kind in KINDS}
            for each in rows.split(curve):
                if jobs.closing:
                    return
                for kind, number in count_events(find_events(each, dataset.fps)).items():
                    columns[kind].append(number)
            results.events.setdefault(model, {})[head] = columns


def _read_rows(results: BackgroundResults, dataset: LeRobotDataset, rows: EpisodeRows) -> None:
    """Reads truth and success from the rows of a local dataset. A Hub dataset is not read, because all its rows would have to be
    downloaded."""
    meta = dataset.meta
    code, outcomes = meta.fact("success")
    success_in_meta = all(outcomes[each] is not None for each in np.unique(code[meta.arrays.places(rows.numbers)]).tolist())
    names = ["truth.progress", *([] if success_in_meta else [SUCCESS])]
    columns = [name for name in names if name in meta.features]
    if not dataset.is_local or not columns:
        return
    truth = np.full(rows.count, np.nan, np.float32)
    try:
        for record, values in read_columns(dataset.files, meta, columns):
            if SUCCESS in values:
                results.success[record.index] = ends_well(values[SUCCESS])
            if "truth.progress" in values:
                truth[record.row : record.row + record.length] = values["truth.progress"]
    except DataError as error:
        results.problems.append(str(error))
    if "truth.progress" in columns:
        results.know(truth)


def differences(first: Float[np.ndarray, "R"], second: Float[np.ndarray, "R"], rows: EpisodeRows) -> list[float]:
    """Returns each episode's mean absolute difference over the frames where both curves are known."""
    return [mean_error(a, b) for a, b in zip(rows.split(first), rows.split(second), strict=True)]


def annotated_progress(
    segments: Mapping[int, Sequence[Segment]], stages: Stages, rows: EpisodeRows, success: Callable[[int], bool | None]
) -> Float[np.ndarray, "R"]:
    """Returns progress by row from the annotation (SARM eq. 2), NaN without one; an annotation that does not fit counts as none."""
    out = np.full(rows.count, np.nan, np.float32)
    for number, start, length in zip(rows.numbers, rows.start.tolist(), rows.length.tolist(), strict=True):
        if segments.get(number):
            try:
                stage, tau = targets(segments[number], stages.names, length, success(number))
            except DataError:
                continue
            out[start : start + length] = progress(stage, tau, stages)
    return out


def quick_columns(
    rows: EpisodeRows, curves: Curves, weight: Float[np.ndarray, "R"] | None
) -> tuple[dict[str, dict[str, dict[str, Any]]], list[float | None] | None]:
    """Returns the columns that are computed before the page is served: by model and head, and the mean weight."""
    models = {model: {head: ends(curve, rows) for head, curve in heads.items()} for model, heads in curves.items()}
    mean_weight = None if weight is None else rounded(np.array([known_mean(each) for each in rows.split(weight)]), DIGITS)
    return models, mean_weight


def curves_to_compare(curves: Curves, truth: np.ndarray | None) -> tuple[str, Callable[[EpisodeRows], list[float]]] | None:
    """Returns the names of the two curves to compare, and a function that compares them: the first two models, else the first one and the
    truth; None if there is only one curve."""
    names = list(curves)
    heads = [head for head in ("sparse", "dense") if all(head in curves[name] for name in names[:2])]
    if not names or not heads:
        return None
    first = curves[names[0]][heads[0]]
    if len(names) > 1:
        return f"{names[0]} / {names[1]}", partial(differences, first, curves[names[1]][heads[0]])
    return (f"{names[0]} / truth", partial(differences, first, truth)) if truth is not None else None
