"""One labelling loop for every reward model: episodes -> a progress file, each episode safe on disk as soon as it is done."""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn
from warnings import warn

import numpy as np

from milepost.core import (
    DataError,
    Dataset,
    Episode,
    Identified,
    KnowsRows,
    LooksFirst,
    ModelError,
    Prepares,
    Progress,
    RewardModel,
    UnreadableError,
    number_at,
    output_lock,
)
from milepost.datasets import find_model, revision_of
from milepost.progress.store import ProgressStore
from milepost.progress.table import ProgressTable, read_progress

AHEAD = 2
"""Episodes whose pictures are read while a model thinks about another's."""


def provenance(model: RewardModel, dataset: Dataset, model_path: str, **settings: Any) -> dict[str, str]:
    """What made a label file: model path, weights hash and config, dataset and its fingerprint, settings, code version. All strings.

    The config is the model's `identity()`: where it ran is no part of it. A model that has none is never taken for another run's: "run" is
    new each time, unless `settings` name the package that it is from.
    """
    identity = model.identity() if isinstance(model, Identified) else {}
    unknown = not isinstance(model, Identified) and not settings.get("package")
    folder = find_model(model_path)
    weights = folder / "model.safetensors"
    return {
        "model_path": model_path,
        "model_revision": revision_of(folder),
        "model_type": type(model).__name__,
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else "",
        "config": _as_json(model, identity) if identity else "",
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "settings": json.dumps(settings, sort_keys=True),
        "milepost_version": version("milepost"),
        **({"run": secrets.token_hex(8)} if unknown else {}),
    }


def _as_json(model: RewardModel, identity: Mapping[str, Any]) -> str:
    try:
        return json.dumps(identity)
    except (TypeError, ValueError) as error:
        raise DataError(f"the identity() of {_called(model)} should be plain values that JSON can hold: {error}") from error


def _called(model: RewardModel) -> str:
    """Returns the model as messages call it: its class, and the package that it is from."""
    return f"{type(model).__name__} (of {type(model).__module__.partition('.')[0]})"


def label(
    model: RewardModel,
    dataset: Dataset,
    path: Path,
    *,
    model_path: str = "",
    anew: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_unreadable: Callable[[int, UnreadableError], None] = lambda number, error: warn(left_unknown(number, error), stacklevel=3),
    options: Mapping[str, Any] = MappingProxyType({}),
    **settings: Any,
) -> ProgressTable:
    """Labels the episodes of a dataset into the progress file at `path` and returns it.

    options: what else `model.predict` takes. settings: what else to write down. Episodes that a finished or interrupted run with the same
    model, data, options and settings has labelled are kept, whichever episodes it was asked for, unless all shall be made `anew`. An
    episode that cannot be labelled gets NaN, and `on_unreadable` hears why; one whose rows nobody knows gets none. Raises the last
    UnreadableError if there is nothing to write, BusyError if another process writes the file, and OSError (disk full, read-only) with
    everything labelled so far kept.
    """
    path = Path(path)
    if isinstance(model, Prepares):
        model.prepare_for(dataset)
    with output_lock(path):
        store = ProgressStore(path, provenance(model, dataset, model_path, **options, **settings), anew=anew)
        if path.is_file() and not anew:
            store.adopt(read_progress(path))
        try:
            unread = _fill(store, model, dataset, options, on_progress, on_unreadable)
        finally:
            store.close()
        for number, (start, stop) in unread.items():  # only now: the next run should try them again
            store.add(Progress(number, np.full(stop - start, np.nan, dtype=np.float32)), start)
        return store.finish()


def _fill(
    store: ProgressStore,
    model: RewardModel,
    dataset: Dataset,
    options: Mapping[str, Any],
    on_progress: Callable[[int, int], None],
    on_unreadable: Callable[[int, UnreadableError], None],
) -> dict[int, tuple[int, int]]:
    """Labels what the store lacks. Returns the episodes that could not be labelled, with their dataset rows [start, stop) where known."""
    unread: dict[int, tuple[int, int]] = {}
    failures = 0
    for done, (position, episode, prediction) in enumerate(_predictions(model, dataset, store, options)):
        on_progress(done, len(dataset))
        try:
            if prediction is not None:
                store.add(_checked(prediction, episode, model), 0 if episode is None else episode.row)
        except UnreadableError as error:
            failures += 1
            if failures == len(dataset) and not store.holds_any:
                raise
            number = number_at(dataset, position) if episode is None else episode.index
            if (rows := _rows(dataset, number) if episode is None else (episode.row, episode.row + episode.length)) is not None:
                unread[number] = rows
            on_unreadable(number, error)
    on_progress(len(dataset), len(dataset))
    return unread


def predicted(model: RewardModel, episode: Episode, options: Mapping[str, Any]) -> Progress:
    """Returns what a model says of an episode. DataError names the model that breaks its contract."""
    return _checked(partial(model.predict, episode, **options), episode, model)


def _checked(prediction: Callable[[], object], episode: Episode | None, model: RewardModel) -> Progress:
    """Returns what is predicted, if it is of this episode. Raises what made the episode unreadable, if it is None."""
    try:
        progress = prediction()
    except ModelError as error:
        raise DataError(f"{_called(model)}: {error}") from error
    if not isinstance(progress, Progress):
        raise DataError(f"{_called(model)}: predict should return Progress, it returned {type(progress).__name__}")
    if episode is not None and (progress.episode != episode.index or len(progress) != episode.length):
        raise DataError(
            f"{_called(model)}: of episode {episode.index}, which has {episode.length} frames, predict returned {len(progress)} frames of "
            f"episode {progress.episode}"
        )
    return progress


def _rows(dataset: Dataset, number: int) -> tuple[int, int] | None:
    """The dataset rows of an episode that cannot be read, where the dataset knows them all the same."""
    try:
        return dataset.row_range(number) if isinstance(dataset, KnowsRows) else None
    except UnreadableError:
        return None


def left_unknown(number: int, error: UnreadableError) -> str:
    """Returns the line that says which episode has no curve, and why."""
    return f"episode {number} is left unknown: {str(error).removeprefix(f'episode {number}: ')}"


Prediction = Callable[[], Progress]


def _predictions(
    model: RewardModel, dataset: Dataset, store: ProgressStore, options: Mapping[str, Any]
) -> Iterator[tuple[int, Episode | None, Prediction | None]]:
    """Each position, its episode (None if its rows cannot be read) and how to get its curve (None if it is labelled already).

    Pictures of the next `AHEAD` episodes are read in the background.
    """
    predict: Callable[..., Progress] = model.predict
    todo = ((position, _read(dataset, position, store)) for position in range(len(dataset)))
    if not isinstance(model, LooksFirst):
        for position, episode in todo:
            yield position, *_curve(episode, predict, options)
        return
    pool, waiting = ThreadPoolExecutor(AHEAD), deque[tuple[int, Episode | UnreadableError | None, Future[Any] | None]]()
    try:
        while True:
            for position, episode in itertools.islice(todo, 1 + AHEAD - len(waiting)):
                waiting.append((position, episode, pool.submit(model.look, episode) if isinstance(episode, Episode) else None))
            if not waiting:
                return
            position, episode, seen = waiting.popleft()
            yield position, *_curve(episode, predict if seen is None else partial(_after_looking, predict, seen), options)
    finally:
        pool.shutdown(cancel_futures=True)


def _read(dataset: Dataset, position: int, store: ProgressStore) -> Episode | UnreadableError | None:
    """The episode, the error if its rows cannot be read, None if it is labelled already: then nothing of it is read."""
    if store.has(number_at(dataset, position)):
        return None
    try:
        return dataset[position]
    except UnreadableError as error:
        return error


def _curve(
    episode: Episode | UnreadableError | None, predict: Callable[..., Progress], options: Mapping[str, Any]
) -> tuple[Episode | None, Prediction | None]:
    if isinstance(episode, UnreadableError):
        return None, partial(_raise, episode)
    return episode, None if episode is None else partial(predict, episode, **options)


def _raise(error: UnreadableError) -> NoReturn:
    raise error


def _after_looking(predict: Callable[..., Progress], seen: Future[Any], episode: Episode, **options: Any) -> Progress:
    return predict(episode, seen=seen.result(), **options)


def unknown_frames(table: ProgressTable) -> dict[int, int]:
    """Episode -> how many of its frames got no progress (NaN)."""
    bad = np.isnan(table.main.value)
    numbers, counts = np.unique(table.episode_index[bad], return_counts=True)
    return {int(number): int(count) for number, count in zip(numbers, counts, strict=True)}
