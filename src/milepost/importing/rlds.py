"""Reads RLDS (Open X-Embodiment): a folder as TensorFlow Datasets writes it, through tensorflow-datasets, where that is installed.

Each camera is a pass over an episode's steps, so images are never all in memory, and opening is a pass over everything. The instruction is
that of the first step. Frame rates are not in the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from milepost.core import DataError, load
from milepost.datasets import Recording
from milepost.importing.channels import Arrays, Layout, even_images
from milepost.importing.source import Choices, Entry, Source

NAMES = ("language_instruction", "natural_language_instruction")
"""Where an instruction is: of the step, or of its observation."""


def is_rlds(path: Path) -> bool:
    """Returns whether a folder is a prepared dataset of TensorFlow Datasets."""
    return (path / "dataset_info.json").is_file() and (path / "features.json").is_file()


def open_rlds(path: Path, choices: Choices) -> Source:
    """Opens a prepared dataset. Raises DataError if tensorflow-datasets is missing, or there is no frame rate or instruction."""
    tfds = load("tensorflow_datasets", purpose="RLDS datasets", install="milepost[rlds]")
    if not is_rlds(path):
        raise DataError(f"{path} has no dataset_info.json and features.json; give the folder of a version, such as bridge/1.0.0")
    builder = tfds.builder_from_directory(str(path))
    places = [(split, number) for split in sorted(builder.info.splits) for number in range(builder.info.splits[split].num_examples)]
    fps = choices.rate(None, who=str(path), hint=" (Bridge has 5, DROID 15, RT-1 3)")
    numbers = choices.numbers(range(len(places)))
    steps = {number: partial(_steps, builder, *places[number]) for number in numbers}
    episodes = {number: _arrays("{}, episode {}".format(*places[number]), steps[number]) for number in numbers}
    first = next((arrays for arrays, _ in episodes.values() if arrays.shapes), None)
    layout = _layout(first, choices) if first is not None else Layout({}, (), ())

    def entry(number: int) -> Entry:
        arrays, task = episodes[number]
        length = next(iter(arrays.shapes.values()), (0,))[0]
        words = choices.words(task, who=f"{path}, {arrays.name}") if length else ""
        if length and first is not None:
            layout.check(arrays, first)
        return Entry(number, arrays.name, length, partial(_recording, steps[number], arrays, layout, words, choices))

    entries = list(choices.each(numbers, entry).values())
    notes = layout.notes(first) if first is not None else []
    return Source("RLDS", path, fps, tuple(layout.images.values()), entries, notes)


def _steps(builder: Any, split: str, number: int) -> Iterator[dict[str, Any]]:
    """Yields the steps of an episode, with NumPy arrays."""
    for episode in builder.as_dataset(split=f"{split}[{number}:{number + 1}]", shuffle_files=False):
        yield from episode["steps"].as_numpy_iterator()


def _values(step: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a step by key: those of the observation by their own, and `action`, whose parts are `action/PART`."""
    action = step.get("action", {})
    out = dict(step.get("observation", {}))
    out |= {f"action/{name}": each for name, each in action.items()} if isinstance(action, Mapping) else {"action": action}
    return out


def _arrays(name: str, steps: Any) -> tuple[Arrays, str]:
    """Returns the sizes of an episode's arrays, and its instruction: one pass over its steps, which keeps only the first and the count."""
    values: dict[str, Any] = {}
    task, count = "", 0
    for step in steps():
        if not count:
            values = {key: np.asarray(each) for key, each in _values(step).items()}
            words = [container[key] for container in (step, step.get("observation", {})) for key in NAMES if key in container]
            task = words[0].decode("utf-8", "replace") if words and isinstance(words[0], bytes) else str(words[0]) if words else ""
        count += 1

    def read(key: str, start: int, stop: int) -> np.ndarray:
        return np.stack([np.asarray(_values(step)[key]) for i, step in enumerate(steps()) if start <= i < stop])

    shapes = {key: (count, *each.shape) for key, each in values.items()}
    return Arrays(name, shapes, {key: each.dtype for key, each in values.items()}, read), task


def _layout(first: Arrays, choices: Choices) -> Layout:
    actions = [key for key in first.shapes if key.partition("/")[0] == "action" and first.is_vector(key)]
    numbers = [key for key in first.shapes if first.is_vector(key) and key not in actions and "embedding" not in key]
    states = [key for key in numbers if key in ("state", "proprio")] or [key for key in numbers if len(first.shapes[key]) == 2]
    return Layout.choose(first, choices, images=[key for key in first.shapes if first.is_image(key)], state=states, action=actions)


def _images(steps: Any, key: str) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    for step in steps():
        yield np.asarray(_values(step)[key])


def _recording(steps: Any, arrays: Arrays, layout: Layout, task: str, choices: Choices) -> Recording:
    length = next(iter(arrays.shapes.values()))[0]
    images: dict[str, Iterable[np.ndarray]] = {
        camera: even_images(_images(steps, key), swap=choices.swap_red_blue) for key, camera in layout.images.items()
    }
    rewards = np.array([step.get("reward", np.nan) for step in steps()], np.float32).reshape(length, -1)[:, 0]
    return Recording(
        task=task,
        state=layout.vectors(arrays, layout.state, length),
        action=layout.vectors(arrays, layout.action, length),
        frames=images,
        columns={"next.reward": rewards} if np.isfinite(rewards).all() else {},
        facts={"source": arrays.name},
        names=layout.names(arrays),
    )
