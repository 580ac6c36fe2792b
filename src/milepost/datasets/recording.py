"""A finished attempt in memory, ready to be written as an episode. It refuses what LeRobot could not read back, and writes nothing.

`datasets/writer.py` writes it. The two are apart because what is refused and how it is written are two subjects.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Shaped, UInt8

from milepost.core import HEADS, DataError, Segment, segment_faults, shown

DEFAULTS = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64", "task_index": "int64"}
DTYPES = ("bool", "float32", "float64", "int32", "int64", "uint8")

_EPISODE_FIELDS = ("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index")


@dataclass(frozen=True, eq=False)
class Recording:
    """A finished attempt. Raises DataError if any part of it could not be written, or not be read back by LeRobot.

    task: the instruction. state (T, S), action (T, A): float32, finite, raw units; S or A may be 0. frames: full LeRobot camera
    key -> the T images (H, W, 3) uint8, read once, may be generators. columns: additional numbers for every frame, (T,) or (T, D) with
    D > 1, bool, uint8, int32, int64, float32 or float64, finite. segments: "sparse" / "dense" -> stages [start, stop).
    facts: additional fields of the episode in `meta/episodes`. names: column -> the name of each of its channels, for info.json.
    """

    task: str
    state: Float32[np.ndarray, "T S"]
    action: Float32[np.ndarray, "T A"]
    frames: Mapping[str, Iterable[UInt8[np.ndarray, "H W 3"]]]
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    segments: Mapping[str, Sequence[Segment]] = field(default_factory=dict)
    facts: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.task.strip():
            raise DataError("a recording needs a task: the instruction in words")
        for name, values in (("state", self.state), ("action", self.action)):
            if values.ndim != 2 or values.dtype != np.float32:
                raise DataError(f"{name} must be float32 (T, channels), got {values.dtype} {values.shape}")
        if not len(self):
            raise DataError("a recording has at least one frame, got 0")
        for camera in self.frames:
            _check_name(camera, "camera")
        for name, column in {"observation.state": self.state, "action": self.action, **self.columns}.items():
            _check_column(name, column, len(self))
        for name in self.columns:
            if name in ("observation.state", "action", "task", *DEFAULTS, *self.frames):
                raise DataError(f"the column name '{name}' is taken by the format itself; choose another")
            if "image" in name:
                raise DataError(f"column '{name}': LeRobot takes a name with 'image' in it for a camera; choose another")
        _check_segments(self.segments, len(self))
        _check_facts(self.facts)
        _check_names(self.names, {"observation.state": self.state, "action": self.action, **self.columns})

    def __len__(self) -> int:
        return len(self.state)


def _check_name(name: str, what: str) -> None:
    if not name or "/" in name or name.startswith("."):
        raise DataError(f"{what} name '{name}': LeRobot needs a name without '/', not empty, not starting with '.'")


def _check_column(name: str, column: Shaped[np.ndarray, "..."], length: int) -> None:
    _check_name(name, "column")
    if len(column) != length:
        raise DataError(f"column '{name}' has {len(column)} rows, the recording has {length}")
    plain = name in ("observation.state", "action") or column.ndim == 1 or (column.ndim == 2 and column.shape[1] > 1)
    if not plain:
        raise DataError(f"column '{name}' must be ({length},) or ({length}, D) with D > 1, got {column.shape}")
    if column.dtype.name not in DTYPES:
        raise DataError(f"column '{name}' is {column.dtype}; LeRobot's tensors need one of {', '.join(DTYPES)}: use .astype")
    if column.dtype.kind == "f" and not np.isfinite(column).all():
        frame = int(np.argwhere(~np.isfinite(column))[0][0])
        raise DataError(f"column '{name}' has NaN or infinite values, first at frame {frame}; LeRobot cannot normalise them")


def _check_segments(segments: Mapping[str, Sequence[Segment]], length: int) -> None:
    for head, stages in segments.items():
        if head not in HEADS:
            raise DataError(f"segments are for {' or '.join(HEADS)}, got '{head}'")
        for fault in segment_faults(stages, length, episode="the recording"):
            raise DataError(f"{head} {fault}")


def _check_facts(facts: Mapping[str, str | int | float | bool]) -> None:
    for name, value in facts.items():
        _check_name(name, "fact")
        if name in _EPISODE_FIELDS or name.removeprefix("sparse_").removeprefix("dense_").startswith("subtask_"):
            raise DataError(f"the fact name '{name}' is taken by the format itself; choose another")
        if not isinstance(value, str | int | float | bool) or (isinstance(value, float) and not math.isfinite(value)):
            raise DataError(f"fact '{name}' must be a string, a finite number or a bool, got {shown(value)}; leave it out if unknown")


def _check_names(names: Mapping[str, Sequence[str]], columns: Mapping[str, np.ndarray]) -> None:
    for name, channels in names.items():
        if name not in columns:
            raise DataError(f"channels of '{name}' are named, and the recording has no such column")
        count = columns[name].reshape(len(columns[name]), -1).shape[1]
        if len(channels) != count:
            raise DataError(f"column '{name}' has {count} channels, and {len(channels)} names")
