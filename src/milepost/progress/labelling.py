"""The one labelling loop for every reward model: episodes become a progress file, and each episode is on disk soon after it is computed."""

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
    HasSettings,
    HasWeights,
    Identified,
    KnowsRows,
    LooksFirst,
    ModelError,
    Prepares,
    Progress,
    RewardModel,
    Tick,
    UnreadableError,
    count_noun,
    number_at,
    output_lock,
    quiet,
    require_file_name,
    shown,
)
from milepost.datasets import as_dataset, find_model, revision_of
from milepost.progress.existing import existing_result
from milepost.progress.store import ProgressStore
from milepost.progress.table import ProgressTable, read_progress

AHEAD = 2
"""Episodes whose images are read while the model computes another one. Each needs memory for its images."""


def provenance(model: RewardModel, dataset: Dataset, model_path: str = "", *, bare: bool = False, **settings: Any) -> dict[str, str]:
    """Returns what made a progress file: model path, weights hash and config, dataset and its fingerprint, settings, version. All strings.

    bare: `model_path` is the name of a model that needs no folder; no file is looked at. The settings are those given, and those that the
    model has for itself (`run_settings`). The config is the model's `identity()`; the machine is no part of it. A model without an identity
    never continues another run: its "run" is new each time, unless `settings` has the hash of its code and of its files (`source`).
    """
    identity = model.identity() if isinstance(model, Identified) else {}
    unknown = not isinstance(model, Identified) and not settings.get("source")
    folder = Path() if bare else find_model(model_path)
    if isinstance(model, HasSettings):
        settings |= model.run_settings(settings)
    return {
        "model_path": model_path,
        "model_revision": revision_of(folder),
        "model_type": type(model).__name__,
        "weights_sha256": _weights_hash(model, folder if model_path and not bare else None),
        "config": _as_json(model, identity) if identity else "",
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "settings": json.dumps(settings, sort_keys=True),
        "milepost_version": version("milepost"),
        **({"run": secrets.token_hex(8)} if unknown else {}),
    }


def _weights_hash(model: RewardModel, folder: Path | None) -> str:
    """Returns the hash of the file that the weights come from, else of the weights themselves, "" of a model without any."""
    if folder is not None and (weights := folder / "model.safetensors").is_file():
        return hashlib.sha256(weights.read_bytes()).hexdigest()
    return model.weights_hash() if isinstance(model, HasWeights) else ""


def _as_json(model: RewardModel, identity: Mapping[str, Any]) -> str:
    try:
        return json.dumps(identity, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"the identity() of {_called(model)} should be plain values that JSON can hold: {error}") from error


def _called(model: RewardModel) -> str:
    """Returns the name of a model in messages: its class and the package that it is from."""
    return f"{type(model).__name__} (of {type(model).__module__.partition('.')[0]})"


def label(
    model: RewardModel,
    dataset: Dataset | Path | str,
    path: Path | str,
    *,
    overwrite: bool = False,
    on_progress: Tick = quiet,
    on_unreadable: Callable[[int, UnreadableError], None] = lambda episode_index, error: warn(
        left_unknown(episode_index, error), stacklevel=3
    ),
    options: Mapping[str, Any] = MappingProxyType({}),
    made_by: Mapping[str, str] | None = None,
) -> ProgressTable:
    """Labels the episodes of a dataset into the progress file at `path` and returns it.

    options: further arguments of `model.predict`. made_by: what goes into the file's metadata, if it is more than `provenance` knows of the
    model, the dataset and the options. Episodes that a finished or interrupted run with the same provenance has labelled are kept,
    whichever episodes it was asked for. What another model, or other options, made at `path` is replaced only with `overwrite`, which
    labels all again. An episode that cannot be labelled gets NaN,
    and `on_unreadable` is called with the reason; if its rows are unknown, it gets no rows. DataError if the file, or an unfinished run,
    is of something else. Raises the last UnreadableError if there is nothing to write, BusyError if another process writes the file, and
    OSError (disk full, read-only) after saving what has been labelled.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> dataset = milepost.open_dataset("dots")
    >>> table = milepost.label(milepost.ElapsedModel(), dataset, "dots/again_progress.parquet")
    >>> len(table.index) == dataset.total_frames
    True
    """
    path, dataset = Path(path), as_dataset(dataset) if isinstance(dataset, str | Path) else dataset
    require_file_name(path)
    require_model(model, "label")
    if isinstance(model, Prepares):
        model.prepare_for(dataset)
    with output_lock(path):
        made_by = made_by or provenance(model, dataset, **options)
        if not overwrite:
            existing_result(path, made_by, [number_at(dataset, position) for position in range(len(dataset))])
        store = ProgressStore(path, made_by, anew=overwrite)
        if path.is_file() and not overwrite:
            store.adopt(read_progress(path))
        try:
            unreadable_rows = _fill(store, model, dataset, options, on_progress, on_unreadable)
        finally:
            store.close()
        for episode_index, (start, stop) in unreadable_rows.items():  # only now, so that an interrupted run tries them again
            store.add(Progress(episode_index, np.full(stop - start, np.nan, dtype=np.float32)), start)
        return store.finish()


def _fill(
    store: ProgressStore,
    model: RewardModel,
    dataset: Dataset,
    options: Mapping[str, Any],
    on_progress: Tick,
    on_unreadable: Callable[[int, UnreadableError], None],
) -> dict[int, tuple[int, int]]:
    """Labels the episodes that the store lacks. Returns the dataset rows [start, stop), where known, of those that failed."""
    unreadable_rows: dict[int, tuple[int, int]] = {}
    failures = 0
    for count, (position, episode, prediction) in enumerate(_predictions(model, dataset, store, options)):
        on_progress(count, len(dataset))
        try:
            if prediction is not None:
                store.add(_with_sound_heads(_checked(prediction, episode, model), model), 0 if episode is None else episode.row)
        except UnreadableError as error:
            failures += 1
            if failures == len(dataset) and not store.holds_any:
                raise
            episode_index = number_at(dataset, position) if episode is None else episode.index
            if (rows := _rows(dataset, episode_index) if episode is None else (episode.row, episode.row + episode.length)) is not None:
                unreadable_rows[episode_index] = rows
            on_unreadable(episode_index, error)
    on_progress(len(dataset), len(dataset))
    return unreadable_rows


def require_model(model: object, caller: str) -> None:
    """Raises DataError if this is no model: a class, a name, anything without `predict`. caller: the function that was called."""
    if isinstance(model, type):
        raise DataError(f"{model.__name__} is a class; {caller} takes a model that is made: {model.__name__}()")
    if isinstance(model, str | Path):
        raise DataError(f"{caller} takes a model, got {shown(str(model))}; open it first: milepost.load_model({str(model)!r})")
    if not callable(getattr(model, "predict", None)):
        raise DataError(f"{caller} takes a model with predict(episode), got {type(model).__name__}")


def predicted(model: RewardModel, episode: Episode, options: Mapping[str, Any]) -> Progress:
    """Returns the model's output for an episode. Raises DataError, which names the model, if it breaks its contract."""
    return _checked(partial(model.predict, episode, **options), episode, model)


def _checked(prediction: Callable[[], object], episode: Episode | None, model: RewardModel) -> Progress:
    """Returns the prediction if it is of this episode. If `episode` is None, calling `prediction` raises why it cannot be read."""
    try:
        progress = prediction()
    except ModelError as error:
        raise DataError(f"{_called(model)}: {error}") from error
    if not isinstance(progress, Progress):
        raise DataError(f"{_called(model)}: predict should return Progress, it returned {type(progress).__name__}")
    if episode is not None and (progress.episode != episode.index or len(progress) != episode.length):
        raise DataError(
            f"{_called(model)}: of episode {episode.index}, which has {count_noun(episode.length, 'frame')}, predict returned "
            f"{count_noun(len(progress), 'frame')} of episode {progress.episode}"
        )
    return progress


def _with_sound_heads(progress: Progress, model: RewardModel) -> Progress:
    """Returns the model's output if its heads can name columns. DataError names one that cannot."""
    for head in progress.heads:
        if not head.isidentifier():
            raise DataError(f"{_called(model)}: predict returned the head {shown(head)}; it must name a column: letters, digits and _")
    return progress


def _rows(dataset: Dataset, episode_index: int) -> tuple[int, int] | None:
    """Returns the dataset rows of an episode that cannot be read, if the dataset knows them; else None."""
    try:
        return dataset.row_range(episode_index) if isinstance(dataset, KnowsRows) else None
    except UnreadableError:
        return None


def left_unknown(episode_index: int, error: UnreadableError) -> str:
    """Returns the message that an episode has no curve, and why."""
    return f"episode {episode_index} is left unknown: {str(error).removeprefix(f'episode {episode_index}: ')}"


Prediction = Callable[[], Progress]


def _predictions(
    model: RewardModel, dataset: Dataset, store: ProgressStore, options: Mapping[str, Any]
) -> Iterator[tuple[int, Episode | None, Prediction | None]]:
    """Yields each position, its episode (None if its rows cannot be read) and a function that returns its curve (None if it is labelled).

    The images of the next `AHEAD` episodes are read in the background.
    """
    predict: Callable[..., Progress] = model.predict
    episodes = ((position, _read(dataset, position, store)) for position in range(len(dataset)))
    if not isinstance(model, LooksFirst):
        for position, episode in episodes:
            yield position, *_curve(episode, predict, options)
        return
    pool, queue = ThreadPoolExecutor(AHEAD), deque[tuple[int, Episode | UnreadableError | None, Future[Any] | None]]()
    try:
        while True:
            for position, episode in itertools.islice(episodes, 1 + AHEAD - len(queue)):
                queue.append((position, episode, pool.submit(model.look, episode) if isinstance(episode, Episode) else None))
            if not queue:
                return
            position, episode, images = queue.popleft()
            yield position, *_curve(episode, predict if images is None else partial(_after_looking, predict, images), options)
    finally:
        pool.shutdown(cancel_futures=True)


def _read(dataset: Dataset, position: int, store: ProgressStore) -> Episode | UnreadableError | None:
    """Returns the episode; the error if its rows cannot be read; None, without reading anything, if it is labelled already."""
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


def _after_looking(predict: Callable[..., Progress], images: Future[Any], episode: Episode, **options: Any) -> Progress:
    return predict(episode, seen=images.result(), **options)
