"""Labelling: episodes become progress files, by one model or by several in one reading, and each episode is on disk soon after it is
computed."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any
from warnings import warn

from milepost.core import (
    DataError,
    Dataset,
    HasSettings,
    HasWeights,
    Identified,
    Prepares,
    RewardModel,
    Tick,
    UnreadableError,
    bare_reason,
    number_at,
    output_lock,
    quiet,
    require_file_name,
    shown,
    to_json,
)
from milepost.datasets import as_dataset, find_model, revision_of
from milepost.progress.existing import existing_result
from milepost.progress.labels import Compute, Labels, Predictor, called, fill, in_turn
from milepost.progress.store import ProgressStore
from milepost.progress.table import ProgressTable, read_progress


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
        "settings": to_json(settings, sort_keys=True),
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
        raise DataError(f"the identity() of {called(model)} should be plain values that JSON can hold: {error}") from error


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
        labels = _begun(path, dataset, made_by or provenance(model, dataset, **options), overwrite=overwrite, on_unreadable=on_unreadable)
        try:
            fill([labels], dataset, partial(in_turn, [Predictor(model, options)], dataset, on_progress=on_progress))
        finally:
            labels.store.close()
        return labels.finish()


def label_several(
    models: Mapping[Path | str, RewardModel],
    dataset: Dataset | Path | str,
    *,
    overwrite: bool = False,
    on_progress: Tick = quiet,
    on_unreadable: Callable[[Path, int, UnreadableError], None] = lambda path, episode_index, error: warn(
        f"{path}: {left_unknown(episode_index, error)}", stacklevel=4
    ),
    on_stop: Callable[[Path, DataError], None] = lambda path, error: warn(stopped(path, error), stacklevel=3),
    options: Mapping[Path | str, Mapping[str, Any]] = MappingProxyType({}),
    made_by: Mapping[Path | str, Mapping[str, str]] = MappingProxyType({}),
) -> dict[Path, ProgressTable]:
    """Labels a dataset with several models in one reading, each into its own progress file. Returns path -> file.

    models: the path of a progress file -> the model. An episode's frames are decoded once for all of them, as long as those of one episode
    fit in 1 GiB. Each file is, byte for byte, what `label` writes with this model alone, and each is continued by itself. options, made_by:
    as of `label`, by path. An episode that one model cannot label costs this model's curve of it, and `on_unreadable` is called. A model
    that fails altogether is stopped, `on_stop` is called, and the others go on; its path is not in what is returned, and a later run
    continues it. Raises the last model's DataError if all of them fail, and what `label` raises before anything is labelled.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> from milepost.testing import tiny_sarm
    >>> models = {"dots/one_progress.parquet": milepost.ElapsedModel(), "dots/two_progress.parquet": tiny_sarm()}
    >>> len(milepost.label_several(models, milepost.open_dataset("dots")))
    2
    """
    dataset = as_dataset(dataset) if isinstance(dataset, str | Path) else dataset
    paths = {path: Path(path) for path in models}
    _require_separate(list(paths.values()))
    for path, model in models.items():
        require_file_name(paths[path])
        require_model(model, "label_several")
        if isinstance(model, Prepares):
            model.prepare_for(dataset)
    with ExitStack() as opened:
        for each in sorted(paths.values()):  # two runs that name the same files ask for them in the same order
            opened.enter_context(output_lock(each))
        all_labels = []
        for path, model in models.items():
            origin = made_by.get(path) or provenance(model, dataset, **options.get(path, {}))
            labels = _begun(paths[path], dataset, origin, overwrite=overwrite, on_unreadable=partial(on_unreadable, paths[path]))
            opened.callback(labels.store.close)
            all_labels.append(labels)
        predictors = [Predictor(model, options.get(path, {})) for path, model in models.items()]
        compute = partial(in_turn, predictors, dataset, is_wanted=lambda place: all_labels[place].fault is None, on_progress=on_progress)
        fill(all_labels, dataset, compute, on_stop)
        return _finished(all_labels, on_stop)


def label_elsewhere(
    compute: Compute,
    dataset: Dataset,
    made_by: Mapping[Path, Mapping[str, str]],
    *,
    overwrite: bool = False,
    on_unreadable: Callable[[Path, int, UnreadableError], None],
    on_stop: Callable[[Path, DataError], None],
) -> dict[Path, ProgressTable]:
    """Labels a dataset with models that are not here, each into its own progress file, and returns path -> file.

    compute: a plan -> outcomes, in any order, from `in_turn` with the same models on whatever machine. made_by: the path of a progress
    file -> its provenance, in the order of the models. Each file is, byte for byte, what `label` writes. The other arguments, and what is
    raised, are as of `label_several`.
    """
    _require_separate(list(made_by))
    with ExitStack() as opened:
        for each in sorted(made_by):
            opened.enter_context(output_lock(each))
        all_labels = []
        for path, origin in made_by.items():
            require_file_name(path)
            labels = _begun(path, dataset, origin, overwrite=overwrite, on_unreadable=partial(on_unreadable, path))
            opened.callback(labels.store.close)
            all_labels.append(labels)
        fill(all_labels, dataset, compute, on_stop)
        return _finished(all_labels, on_stop)


def _finished(all_labels: Sequence[Labels], on_stop: Callable[[Path, DataError], None]) -> dict[Path, ProgressTable]:
    """Writes the files of the models that were not stopped. Raises the last fault if there is no such file."""
    for labels in all_labels:
        labels.store.keep()
    finished = {}
    for labels in all_labels:
        if labels.fault is None:
            try:
                finished[labels.path] = labels.finish()
            except DataError as error:
                labels.stop(error)
                on_stop(labels.path, error)
    faults = [labels.fault for labels in all_labels if labels.fault is not None]
    if not finished:
        raise faults[-1]
    return finished


def _begun(
    path: Path,
    dataset: Dataset,
    made_by: Mapping[str, str],
    *,
    overwrite: bool,
    on_unreadable: Callable[[int, UnreadableError], None],
) -> Labels:
    """Returns one model's labels as far as they are there. DataError if the file, or an unfinished run, is of something else."""
    if not overwrite:
        existing_result(path, made_by, [number_at(dataset, position) for position in range(len(dataset))])
    store = ProgressStore(path, made_by, anew=overwrite)
    if path.is_file() and not overwrite:
        store.adopt(read_progress(path))
    return Labels(path, store, on_unreadable)


def _require_separate(paths: Sequence[Path]) -> None:
    """Raises DataError if there is no path, or two are the same file."""
    if not paths:
        raise DataError("no model is named; give at least one progress file with its model")
    places = [path.absolute() for path in paths]
    if twice := [path for path in places if places.count(path) > 1]:
        raise DataError(f"two models would write {twice[0]}; give each a file of its own")


def require_model(model: object, caller: str) -> None:
    """Raises DataError if this is no model: a class, a name, anything without `predict`. caller: the function that was called."""
    if isinstance(model, type):
        raise DataError(f"{model.__name__} is a class; {caller} takes a model that is made: {model.__name__}()")
    if isinstance(model, str | Path):
        raise DataError(f"{caller} takes a model, got {shown(str(model))}; open it first: milepost.load_model({str(model)!r})")
    if not callable(getattr(model, "predict", None)):
        raise DataError(f"{caller} takes a model with predict(episode), got {type(model).__name__}")


def left_unknown(episode_index: int, error: UnreadableError) -> str:
    """Returns the message that an episode has no curve, and why."""
    return f"episode {episode_index} is left unknown: {bare_reason(error, episode_index)}"


def stopped(path: Path, error: DataError) -> str:
    """Returns the message that a model's labels ended before their time, and why."""
    return f"{path} is unfinished, and the other models went on: {error}"
