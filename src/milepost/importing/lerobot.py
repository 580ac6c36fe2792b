"""Reads a LeRobot dataset of version 2.0 or 2.1, to be written as v3.0: rows, annotations and facts as they are, images encoded again.

Time stamps become frame / fps. An episode with several tasks keeps the first. Columns that are no numbers, and cameras that measure
distances, are left out, which is said.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped, UInt8

from milepost.core import HEADS, DataError, Frames
from milepost.datasets import LeRobotDataset, Recording, open_dataset
from milepost.importing.channels import ACTION, STATE, even_images
from milepost.importing.source import CHUNK, Choices, Entry, Source

COUNTERS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
NUMBERS = ("bool", "float32", "float64", "int32", "int64", "uint8")


def open_lerobot(path: Path, choices: Choices) -> Source:
    """Opens a dataset of an older version. Raises DataError if it is v3.0 already, damaged, or of a frame rate that is not whole."""
    dataset = open_dataset(path)
    if dataset.version.startswith("v3"):
        flags = [f" {flag} {text}" for flag, text in (("--episodes", choices.episodes), ("--without", choices.without)) if text is not None]
        command = f"milepost copy {shlex.quote(str(path))}{''.join(flags) or ' --without 3,7'} --output-dir NEW"
        raise DataError(f"{path} is a LeRobot v3.0 dataset already; this copies some of its episodes: {command}")
    if (choices.image_keys, choices.state_keys, choices.action_keys) != (None, None, None):
        raise DataError("a LeRobot dataset has its cameras, state and action: leave out --image-keys, --state-keys and --action-keys")
    fps = choices.rate(dataset.fps, who=str(path), hint="")
    if fps != dataset.fps:
        raise DataError(f"{path} has {dataset.fps:g} frames per second, and --fps {fps} would change its times; leave --fps out")
    features = dataset.meta.features
    cameras = dataset.cameras
    columns = [name for name in features if name not in (STATE, ACTION, *COUNTERS) and _is_column(features[name])]
    left_out = [name for name in features if name not in (STATE, ACTION, *COUNTERS, *cameras, *columns)]
    notes = [f"cameras: {', '.join(cameras) or 'none'}", "images are encoded again; rows stay as they are"]
    if left_out:
        notes.append(f"left out: {', '.join(left_out)}")
    names = {name: channels for name in (STATE, ACTION) if (channels := _channels(features.get(name, {})))}
    entries = [
        Entry(index, f"episode {index}", dataset.length(index), partial(_recording, dataset, index, columns, names, choices))
        for index in choices.numbers(dataset.episode_indices)
    ]
    proportions = {head: each for head in HEADS if (each := dataset.proportions(head))}
    robot = dataset.meta.info.get("robot_type")
    robot_type = robot if isinstance(robot, str) else None
    return Source(f"LeRobot {dataset.version}", path, fps, cameras, entries, notes, robot_type, proportions)


def _is_column(feature: Mapping[str, Any]) -> bool:
    return feature.get("dtype") in NUMBERS and len(feature.get("shape") or [1]) == 1


def _channels(feature: Mapping[str, Any]) -> list[str]:
    """Returns the names of a feature's channels; v2.1 also has them in an object, such as {"motors": [...]}."""
    names = feature.get("names")
    if isinstance(names, Mapping) and len(names) == 1:
        names = next(iter(names.values()))
    count = (feature.get("shape") or [0])[0]
    return [str(name) for name in names] if isinstance(names, list) and len(names) == count else []


def _recording(dataset: LeRobotDataset, index: int, columns: list[str], names: Mapping[str, list[str]], choices: Choices) -> Recording:
    episode = dataset.episode(index)
    length = episode.length
    return Recording(
        task=choices.words(episode.task, who=f"episode {index}"),
        state=episode.state.astype(np.float32),
        action=_matrix(episode.columns.get(ACTION), length),
        frames={name: even_images(_images(frames), swap=choices.swap_red_blue) for name, frames in episode.cameras.items()},
        columns={name: _column(episode.columns[name]) for name in columns if name in episode.columns},
        segments=episode.sound_segments,
        facts={name: value for name, value in episode.facts.items() if isinstance(value, str | int | float | bool)},
        names=names,
    )


def _matrix(values: Shaped[np.ndarray, "..."] | None, length: int) -> Float32[np.ndarray, "T A"]:
    return np.empty((length, 0), np.float32) if values is None else np.asarray(values, np.float32).reshape(length, -1)


def _column(values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "T *D"]:
    """Returns a column as a Recording has it: one number a frame without an axis of its own."""
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _images(frames: Frames) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    for images in frames.chunks(CHUNK):
        yield from images
