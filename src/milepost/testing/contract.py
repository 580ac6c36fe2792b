"""Checks the contract of a reward model on any model. It returns one sentence per fault and repairs nothing.

Errors that the model raises itself are not caught, because their traceback says more than a sentence. Only `ModelError` is caught: the
types of the package raise it for numbers that are not progress.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from milepost.core import (
    ArrayFrames,
    Episode,
    Identified,
    Judges,
    LooksFirst,
    ModelError,
    Online,
    Prepares,
    Progress,
    RewardModel,
    Saved,
    Step,
    UnreadableError,
    count_noun,
    identity_fault,
)
from milepost.testing.dots import ListDataset

Broken = Iterator[str]
"""One sentence per fault."""


def check_reward_model(model: Any, episode: Episode, *, load: Callable[[Path], RewardModel] | None = None) -> list[str]:
    """Returns what is broken of the contract of a reward model, one sentence each; an empty list if it keeps all of it.

    model: anything with `predict(episode) -> Progress`; a model that has `prepare_for` is made ready first. episode: one with pictures and
    state as the model wants them, such as `dot_episodes(1)[0]`; with `truth.*` columns it is also found out whether the model reads them.
    load: makes a model from a folder that `save_pretrained` wrote; if it is given, the loaded model has to give the same curves.

    What is asked: of `predict`, one number for each frame, under the episode's own number, in [0, 1], not NaN for all, the same when it is
    asked again, from the episode alone, which stays as it was, and from an episode of one frame too; signals within their bounds; stage
    probabilities that sum to 1. Of the capabilities (`core/capabilities.py`) that the model has, what their docstrings say. What the model
    itself raises is passed on.

    >>> check_reward_model(object(), dot_episodes(1)[0])  # doctest: +SKIP
    ['the model has no method predict(episode)']
    """
    if not isinstance(model, RewardModel):
        return ["the model has no method predict(episode)"]
    if isinstance(model, Prepares):
        model.prepare_for(ListDataset([episode]))
    before = _contents(episode)
    try:
        first = model.predict(episode)
        if broken := list(_of_an_answer(first, episode)):
            return broken
        if not _equal(_contents(episode), before):
            return ["predict changes the episode it is given: work on a copy of the arrays"]
        if not _same(model.predict(episode), first):  # nothing else could be told from what it says
            return ["predict gives other numbers when it is asked again: seed what it draws, or keep what it learns apart"]
        return [*_of_predict(model, episode, first), *_of_capabilities(model, episode, first, load)]
    except ModelError as error:
        return [f"predict makes no valid progress: {error}"]


def _of_an_answer(answer: Any, episode: Episode) -> Broken:
    """Checks one answer; without a valid answer the other checks are not possible."""
    if not isinstance(answer, Progress):
        yield f"predict must return milepost.Progress, it returned {type(answer).__name__}"
        return
    if answer.episode != episode.index:
        yield f"predict was asked of episode {episode.index} and answers of episode {answer.episode}; Progress takes episode.index"
    if len(answer) != episode.length:
        frames = count_noun(episode.length, "frame")
        yield f"predict must return one number for each frame: the episode has {frames}, the answer {len(answer)}"
    if np.isnan(answer.value).all():
        yield "progress is NaN in every frame: NaN means unknown, and such an episode weighs nothing; raise UnreadableError with the reason"


def _of_predict(model: RewardModel, episode: Episode, first: Progress) -> Broken:
    renumbered = model.predict(dataclasses.replace(episode, index=episode.index + 1))
    if renumbered.episode != episode.index + 1:
        yield f"predict was asked of episode {episode.index + 1} and answers of episode {renumbered.episode}; Progress takes episode.index"
    bare = dataclasses.replace(
        episode, columns={name: column for name, column in episode.columns.items() if not name.startswith("truth.")}, segments={}, facts={}
    )
    if not _same(model.predict(bare), first):
        yield "predict gives other numbers without the annotation, the facts and the truth.* columns: it reads the answer"
    try:
        alone = model.predict(_first_frame(bare))
        if len(alone) != 1:
            yield f"of an episode of one frame predict must return one number, it returned {len(alone)}"
    except UnreadableError:
        return  # a model may refuse an episode, in words


def _of_capabilities(model: Any, episode: Episode, first: Progress, load: Callable[[Path], RewardModel] | None) -> Broken:
    if isinstance(model, LooksFirst) and not _same(model.predict(episode, seen=model.look(episode)), first):
        yield "predict(episode, seen=look(episode)) gives other numbers than predict(episode)"
    if isinstance(model, Judges) and not _is_number(model.success_threshold):
        yield f"success_threshold must be a number, minus infinity for none; it is a {type(model.success_threshold).__name__}"
    if isinstance(model, Identified):
        yield from _of_identity(model)
    if isinstance(model, Online):
        yield from _of_steps(model, episode)
    if isinstance(model, Saved):
        yield from _of_saving(model, episode, first, load)
    elif load is not None:
        yield "load is given, and the model has no save_pretrained(folder)"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.floating) and not np.isnan(value)


def _of_identity(model: Identified) -> Broken:
    identity = model.identity()
    if fault := identity_fault(identity):
        yield fault
    elif json.dumps(dict(model.identity()), sort_keys=True) != json.dumps(dict(identity), sort_keys=True):
        yield "identity() says something else when it is asked again: labelling would never go on where it stopped"


def _of_steps(model: Online, episode: Episode) -> Broken:
    model.reset(task=episode.task, fps=episode.fps)
    for frame in range(min(episode.length, 3)):
        images_now = {name: images[np.array([frame])][0] for name, images in episode.cameras.items()}
        step = model.step(images_now, episode.state[frame])
        if not isinstance(step, Step):
            yield f"step must return milepost.core.Step, it returned {type(step).__name__}"
            return
        if not (np.isnan(step.progress) or 0 <= step.progress <= 1):
            yield f"step must return progress in [0, 1] or NaN, it returned {step.progress:g} for frame {frame}"
            return


def _of_saving(model: Saved, episode: Episode, first: Progress, load: Callable[[Path], RewardModel] | None) -> Broken:
    with tempfile.TemporaryDirectory(prefix="milepost-check-") as name:
        folder = Path(name) / "model"
        model.save_pretrained(folder)
        config = folder / "config.json"
        values = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else None
        if not isinstance(values, Mapping) or not isinstance(values.get("type"), str):
            yield 'save_pretrained(folder) must write config.json with a "type": the name that load_model finds the model by'
        elif load is not None and not _same(load(folder).predict(episode), first):
            yield "the model that is loaded from the saved folder gives other numbers"


def _first_frame(episode: Episode) -> Episode:
    """Returns an episode of the first frame alone."""
    cameras = {name: ArrayFrames(frames[np.array([0])]) for name, frames in episode.cameras.items()}
    columns = {name: column[:1] for name, column in episode.columns.items()}
    return dataclasses.replace(episode, length=1, state=episode.state[:1], cameras=cameras, columns=columns)


def _contents(episode: Episode) -> dict[str, np.ndarray]:
    """Returns copies of all arrays of an episode."""
    every = np.arange(episode.length)
    images = {name: np.array(frames[every]) for name, frames in episode.cameras.items()}
    return {"state": episode.state.copy(), **{name: np.array(column) for name, column in episode.columns.items()}, **images}


def _equal(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(_same_array(one[name], other[name]) for name in one)


def _same_array(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f" and other.dtype.kind == "f")


def _arrays(progress: Progress) -> dict[str, np.ndarray]:
    arrays = {}
    for head, curve in progress.heads.items():
        arrays[head] = curve.value
        arrays |= {f"{head}/signal/{name}": signal.values for name, signal in curve.signals.items()}
        if curve.stage is not None:
            arrays[f"{head}/stage"] = curve.stage
    return arrays


def _same(one: Progress, other: Progress) -> bool:
    return _equal(_arrays(one), _arrays(other))
