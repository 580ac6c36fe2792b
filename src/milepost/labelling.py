"""One labelling loop for every reward model: episodes -> a progress file, each episode safe on disk as soon as it is done."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable
from warnings import warn

import numpy as np

from milepost.hub import find_model, revision_of
from milepost.store import ProgressStore, ProgressTable
from milepost.types import Dataset, Episode, Progress, RewardModel, UnreadableError

AHEAD = 2
"""Episodes whose pictures are read while a model thinks about another's."""


@runtime_checkable
class Saved(Protocol):
    """A config that knows what of it belongs into config.json."""

    def to_dict(self) -> dict[str, Any]: ...


@runtime_checkable
class LooksFirst(Protocol):
    """A model that can read an episode's pictures apart from thinking about them: the next episode's are read meanwhile."""

    def look(self, episode: Episode) -> Any: ...

    def predict(self, episode: Episode, *, seen: Any = None) -> Progress: ...


def provenance(model: RewardModel, dataset: Dataset, model_path: str, **settings: Any) -> dict[str, str]:
    """What made a label file: model path, weights hash and config, dataset and its fingerprint, settings, code version. All strings.

    The config is what the model would save: where it ran is no part of it.
    """
    config = getattr(model, "config", None)
    saved = config.to_dict() if isinstance(config, Saved) else {}
    folder = find_model(model_path)
    weights = folder / "model.safetensors"
    return {
        "model_path": model_path,
        "model_revision": revision_of(folder),
        "model_type": type(model).__name__,
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else "",
        "config": json.dumps(saved) if saved else "",
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "settings": json.dumps(settings, sort_keys=True),
        "milepost_version": version("milepost"),
    }


def label(
    model: RewardModel,
    dataset: Dataset,
    path: Path,
    *,
    model_path: str = "",
    positions: Sequence[int] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_unreadable: Callable[[Episode, UnreadableError], None] = lambda episode, error: warn(str(error), stacklevel=3),
    options: Mapping[str, Any] = MappingProxyType({}),
    **settings: Any,
) -> ProgressTable:
    """Label a dataset (or the episodes at these positions) into the progress file at `path`.

    options: what else `model.predict` takes. settings: what else to write down. Episodes that an interrupted run with the same model,
    data, options and settings has done are not done again. An episode whose pictures cannot be read is told to `on_unreadable` and gets
    NaN. Raises the last UnreadableError if none could be read, and OSError (disk full, read-only) with everything labelled so far kept
    for the next run.
    """
    store = ProgressStore(path, provenance(model, dataset, model_path, **options, **settings))
    wanted = range(len(dataset)) if positions is None else positions
    unread: list[Episode] = []
    for done, (episode, said) in enumerate(_predictions(model, (dataset[position] for position in wanted), store, options)):
        on_progress(done, len(wanted))
        if said is None:
            continue
        try:
            store.add(said(), episode.row)
        except UnreadableError as error:
            unread.append(episode)
            if len(unread) == len(wanted):
                raise
            on_unreadable(episode, error)
    on_progress(len(wanted), len(wanted))
    for episode in unread:  # only now: the next run should try them again
        store.add(Progress(episode.index, np.full(episode.length, np.nan, dtype=np.float32)), episode.row)
    return store.finish()


def _predictions(
    model: RewardModel, episodes: Iterable[Episode], store: ProgressStore, options: Mapping[str, Any]
) -> Iterator[tuple[Episode, Callable[[], Progress] | None]]:
    """Each episode, and how to get its curve; None if it is labelled already. Pictures of the next `AHEAD` are read in the background."""
    predict: Callable[..., Progress] = model.predict
    if not isinstance(model, LooksFirst):
        for episode in episodes:
            yield episode, None if store.has(episode.index) else partial(predict, episode, **options)
        return
    pool, waiting = ThreadPoolExecutor(AHEAD), deque[tuple[Episode, Future[Any] | None]]()
    try:
        source = iter(episodes)
        while True:
            for episode in itertools.islice(source, 1 + AHEAD - len(waiting)):
                waiting.append((episode, None if store.has(episode.index) else pool.submit(model.look, episode)))
            if not waiting:
                return
            episode, seen = waiting.popleft()
            yield episode, None if seen is None else partial(_after_looking, predict, episode, seen, options)
    finally:
        pool.shutdown(cancel_futures=True)


def _after_looking(predict: Callable[..., Progress], episode: Episode, seen: Future[Any], options: Mapping[str, Any]) -> Progress:
    return predict(episode, seen=seen.result(), **options)


def unknown_frames(table: ProgressTable) -> dict[int, int]:
    """Episode -> how many of its frames got no progress (NaN)."""
    bad = np.isnan(table.curve())
    numbers, counts = np.unique(table.episode_index[bad], return_counts=True)
    return {int(number): int(count) for number, count in zip(numbers, counts, strict=True)}
