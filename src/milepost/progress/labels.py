"""The loop of labelling: it reads each episode once, gives it to every model that has not labelled it, and keeps what they say.

What is wrong with one episode costs one model that episode's curve. What is wrong with a model ends its labels; the others go on.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from milepost.core import (
    DataError,
    Dataset,
    Episode,
    KnowsRows,
    LooksFirst,
    ModelError,
    Progress,
    RewardModel,
    Tick,
    UnreadableError,
    count_noun,
    number_at,
    quiet,
    shown,
)
from milepost.progress.held import with_shared_images
from milepost.progress.store import ProgressStore
from milepost.progress.table import ProgressTable, progress_rows

AHEAD = 2
"""Episodes whose images are read while the models compute another one. Each needs memory for its images."""
Prediction = Callable[[], Progress]


class Labels:
    """One model's labels in the making.

    path: the progress file. store: what is labelled so far. on_unreadable: is called with an episode that cannot be labelled, and why.
    fault: what ended the labels, None while nothing has.
    """

    def __init__(self, path: Path, store: ProgressStore, on_unreadable: Callable[[int, UnreadableError], None]) -> None:
        self.path, self.store, self.on_unreadable = path, store, on_unreadable
        self.fault: DataError | None = None
        self._failures = 0
        self._unreadable_rows: dict[int, tuple[int, int]] = {}

    def lacks(self, episode_index: int) -> bool:
        """Returns whether this episode is still to be labelled."""
        return self.fault is None and not self.store.has(episode_index)

    def stop(self, fault: DataError) -> None:
        """Ends these labels: nothing more is asked of the model. What it has labelled stays on disk, as in an interrupted run."""
        self.fault = fault

    def take(self, outcome: EpisodeOutcome, dataset: Dataset) -> None:
        """Adds the curve of an episode, or notes why it has none.

        DataError if the model breaks its contract. Raises the UnreadableError of the last episode if there is nothing to write.
        """
        if outcome.rows is not None:
            self.store.add_rows(outcome.rows, outcome.episode)
            return
        assert outcome.error is not None
        if not isinstance(outcome.error, UnreadableError):
            raise outcome.error
        self._failures += 1
        if self._failures == len(dataset) and not self.store.holds_any:
            none = f"; none of the {len(dataset)} episodes has a curve, so no file is made" if len(dataset) > 1 else ""
            raise UnreadableError(f"{outcome.error}{none}") from outcome.error
        if outcome.place is not None:
            self._unreadable_rows[outcome.episode] = outcome.place
        self.on_unreadable(outcome.episode, outcome.error)

    def finish(self) -> ProgressTable:
        """Writes the file, with NaN for the episodes that cannot be labelled, and returns it."""
        for episode_index, (start, stop) in self._unreadable_rows.items():  # only now, so that an interrupted run tries them again
            self.store.add(Progress(episode_index, np.full(stop - start, np.nan, dtype=np.float32)), start)
        return self.store.finish()


@dataclass(frozen=True, eq=False)
class EpisodeOutcome:
    """What one model says of one episode. It can be sent to another machine.

    model: its place among the models. episode: its number. rows: its part of a progress file, None if it has none. error: why it has none;
    if that is no UnreadableError, the model is at fault. place: the dataset rows [start, stop) of an episode without a curve, if known.
    """

    model: int
    episode: int
    rows: pa.Table | None = None
    error: DataError | None = None
    place: tuple[int, int] | None = None


Plan = Iterable[tuple[int, Sequence[int]]]
"""Positions of the dataset, each with the places of the models that lack a curve of it."""
Compute = Callable[[Plan], Iterable[EpisodeOutcome]]
"""What computes the curves of a plan, in any order."""


def fill(
    all_labels: Sequence[Labels], dataset: Dataset, compute: Compute, on_stop: Callable[[Path, DataError], None] | None = None
) -> None:
    """Labels the episodes that are lacking. on_stop: is called when a fault has ended a model's labels; without it the fault is raised."""
    plan = (
        (position, [place for place, labels in enumerate(all_labels) if labels.lacks(number_at(dataset, position))])
        for position in range(len(dataset))
    )
    for outcome in compute(plan):
        labels = all_labels[outcome.model]
        if labels.fault is not None:
            continue
        try:
            labels.take(outcome, dataset)
        except DataError as error:
            if on_stop is None:
                raise
            labels.stop(error)
            on_stop(labels.path, error)
            if all(labels.fault is not None for labels in all_labels):
                return


@dataclass(frozen=True)
class Predictor:
    """A model, and the further arguments of its `predict`."""

    model: RewardModel
    options: Mapping[str, Any]


def in_turn(
    predictors: Sequence[Predictor],
    dataset: Dataset,
    plan: Plan,
    *,
    is_wanted: Callable[[int], bool] = lambda place: True,
    on_progress: Tick = quiet,
) -> Iterator[EpisodeOutcome]:
    """Yields what the models say of the episodes of a plan, in its order. is_wanted: whether the model at a place is still to be asked."""
    for count, turn in enumerate(_turns(predictors, dataset, plan)):
        on_progress(count, len(dataset))
        for place, prediction in turn.predictions:
            if is_wanted(place):
                yield _outcome(prediction, turn, place, predictors[place].model, dataset)
    on_progress(len(dataset), len(dataset))


def _outcome(prediction: Prediction, turn: _Turn, place: int, model: RewardModel, dataset: Dataset) -> EpisodeOutcome:
    """Returns what a model says of an episode."""
    episode = turn.episode
    number = number_at(dataset, turn.position) if episode is None else episode.index
    try:
        progress = _with_sound_heads(_checked(prediction, episode, model), model)
        return EpisodeOutcome(place, number, progress_rows(progress, 0 if episode is None else episode.row))
    except UnreadableError as error:
        rows = rows_of(dataset, number) if episode is None else (episode.row, episode.row + episode.length)
        return EpisodeOutcome(place, number, error=error, place=rows)
    except DataError as error:
        return EpisodeOutcome(place, number, error=error)


@dataclass(frozen=True, eq=False)
class _Turn:
    """An episode that is read. episode: None if its rows cannot be, or nobody lacks it. predictions: for each model that lacks it, its
    place and a function that returns its curve, or raises why there is none."""

    position: int
    episode: Episode | None
    predictions: Sequence[tuple[int, Prediction]]


def _turns(predictors: Sequence[Predictor], dataset: Dataset, plan: Plan) -> Iterator[_Turn]:
    """Yields every position of the plan. The images of the next `AHEAD` episodes are read in the background."""
    lazily_read = (_read(predictors, dataset, position, lacking) for position, lacking in plan)
    if not any(isinstance(each.model, LooksFirst) for each in predictors):
        for begun in lazily_read:
            yield begun.finished()
        return
    pool, queue = ThreadPoolExecutor(AHEAD), deque[_Begun]()
    try:
        while True:
            for begun in itertools.islice(lazily_read, 1 + AHEAD - len(queue)):
                begun.look(pool)
                queue.append(begun)
            if not queue:
                return
            yield queue.popleft().finished()
    finally:
        pool.shutdown(cancel_futures=True)


class _Begun:
    """An episode that is about to be given to the models that lack it: place -> the model."""

    def __init__(self, position: int, episode: Episode | UnreadableError | None, lacking: Mapping[int, Predictor]) -> None:
        self.position, self.episode, self.lacking = position, episode, lacking
        self._images: dict[int, Future[Any]] = {}

    def look(self, pool: ThreadPoolExecutor) -> None:
        """Lets those models that look first read their images."""
        if isinstance(self.episode, Episode):
            for place, each in self.lacking.items():
                if isinstance(each.model, LooksFirst):
                    self._images[place] = pool.submit(each.model.look, self.episode)

    def finished(self) -> _Turn:
        """Returns the turn, as soon as all images that were asked for are read."""
        if len(self.lacking) > 1:  # else a model that reads while another looks would decode what that one decodes too
            wait(self._images.values())
        episode = self.episode if isinstance(self.episode, Episode) else None
        return _Turn(self.position, episode, [(place, self._prediction(place)) for place in self.lacking])

    def _prediction(self, place: int) -> Prediction:
        if not isinstance(self.episode, Episode):
            assert self.episode is not None
            return partial(_raise, self.episode)
        predict: Callable[..., Progress] = self.lacking[place].model.predict
        images = self._images.get(place)
        predict = predict if images is None else partial(_after_looking, predict, images)
        return partial(predict, self.episode, **self.lacking[place].options)


def _read(predictors: Sequence[Predictor], dataset: Dataset, position: int, places: Sequence[int]) -> _Begun:
    """Reads the episode for the models that lack it. Nothing is read if none does."""
    lacking = {place: predictors[place] for place in places}
    if not lacking:
        return _Begun(position, None, {})
    try:
        episode = dataset[position]
    except UnreadableError as error:
        return _Begun(position, error, lacking)
    return _Begun(position, with_shared_images(episode) if len(lacking) > 1 else episode, lacking)


def predicted(model: RewardModel, episode: Episode, options: Mapping[str, Any]) -> Progress:
    """Returns the model's output for an episode. Raises DataError, which names the model, if it breaks its contract."""
    return _checked(partial(model.predict, episode, **options), episode, model)


def called(model: RewardModel) -> str:
    """Returns the name of a model in messages: its class and the package that it is from."""
    return f"{type(model).__name__} (of {type(model).__module__.partition('.')[0]})"


def _checked(prediction: Callable[[], object], episode: Episode | None, model: RewardModel) -> Progress:
    """Returns the prediction if it is of this episode. If `episode` is None, calling `prediction` raises why it cannot be read."""
    try:
        progress = prediction()
    except ModelError as error:
        raise DataError(f"{called(model)}: {error}") from error
    if not isinstance(progress, Progress):
        raise DataError(f"{called(model)}: predict should return Progress, it returned {type(progress).__name__}")
    if episode is not None and (progress.episode != episode.index or len(progress) != episode.length):
        raise DataError(
            f"{called(model)}: of episode {episode.index}, which has {count_noun(episode.length, 'frame')}, predict returned "
            f"{count_noun(len(progress), 'frame')} of episode {progress.episode}"
        )
    return progress


def _with_sound_heads(progress: Progress, model: RewardModel) -> Progress:
    """Returns the model's output if its heads can name columns. DataError names one that cannot."""
    for head in progress.heads:
        if not head.isidentifier():
            raise DataError(f"{called(model)}: predict returned the head {shown(head)}; it must name a column: letters, digits and _")
    return progress


def rows_of(dataset: Dataset, episode_index: int) -> tuple[int, int] | None:
    """Returns the dataset rows of an episode that cannot be read, if the dataset knows them; else None."""
    try:
        return dataset.row_range(episode_index) if isinstance(dataset, KnowsRows) else None
    except UnreadableError:
        return None


def _raise(error: UnreadableError) -> NoReturn:
    raise error


def _after_looking(predict: Callable[..., Progress], images: Future[Any], episode: Episode, **options: Any) -> Progress:
    return predict(episode, seen=images.result(), **options)
