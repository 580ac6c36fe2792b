"""Tells from whole columns whether all rows of a data file are as meta/ says: then no episode needs to be looked at by itself.

It finds no fault itself: `findings.check_rows` does, episode by episode, for a file that is not sound.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, Shaped

from milepost.datasets.episode_arrays import EpisodeArrays
from milepost.datasets.findings import JITTER_S
from milepost.datasets.placement import TENTH

Columns = Mapping[str, Shaped[np.ndarray, "T ..."]]


def are_sound(columns: Columns, arrays: EpisodeArrays, places: Int[np.ndarray, "N"], *, fps: float, tasks: int) -> bool:
    """Returns whether there is nothing to say of these rows, which should be those of the episodes at these places, in order.

    Nothing means: no fault or doubt of `check_rows`, one task an episode, and time stamps on the grid of the images.
    """
    number, row, length = arrays.number[places], arrays.row[places], arrays.length[places]
    first = np.cumsum(length) - length
    frame = np.arange(int(length.sum())) - np.repeat(first, length)
    if (length < 2).any() or any(len(column) != len(frame) for column in columns.values()) or not fps:
        return False
    counters = {"episode_index": np.repeat(number, length), "frame_index": frame, "index": np.repeat(row, length) + frame}
    if not all(name in columns and np.array_equal(columns[name].reshape(-1), counter) for name, counter in counters.items()):
        return False
    task = columns.get("task_index")
    if task is not None and (not ((task >= 0) & (task < max(1, tasks))).all() or _changes(task, first).any()):
        return False
    return _on_grid(columns, frame, fps) and all(_are_numbers(name, columns, first) for name in ("observation.state", "action"))


def _on_grid(columns: Columns, frame: Int[np.ndarray, "T"], fps: float) -> bool:
    if "timestamp" not in columns:
        return True
    times = columns["timestamp"].reshape(-1).astype(np.float64)
    off = np.abs(times - frame / fps)
    return bool((off <= min(JITTER_S, TENTH / fps)).all())


def _are_numbers(name: str, columns: Columns, first: Int[np.ndarray, "N"]) -> bool:
    """Returns whether a column is absent, or finite numbers of which a state changes in each episode."""
    values = columns.get(name)
    if values is None:
        return True
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all() or not values.size:
        return False
    return name != "observation.state" or bool(_changes(values, first).all())


def _changes(values: Shaped[np.ndarray, "T ..."], first: Int[np.ndarray, "N"]) -> np.ndarray:
    """Returns, for each episode, whether a number differs from the one in the frame before. first: where each begins."""
    flat = values.reshape(len(values), -1)
    differs = np.zeros(len(flat), dtype=bool)
    differs[1:] = (flat[1:] != flat[:-1]).any(axis=1)
    differs[first] = False
    return np.logical_or.reduceat(differs, first)
