"""Datasets whose robot rests before and after it moves, and a copy of one compared with what must be in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from builders import TOP, WRIST, moving
from milepost.core.types import Segment
from milepost.datasets.reader import open_dataset
from milepost.datasets.recording import Recording
from milepost.datasets.writer import write_dataset

NAMES = ("reach", "push")
RESTS = ((12, 30, 20), (0, 25, 0), (25, 22, 8), (6, 28, 30))
"""Frames at rest, in motion, at rest, of each episode, at 20 frames a second."""


def resting_dataset(root: Path, rests: Sequence[tuple[int, int, int]] = RESTS, *, noise: float = 0.0) -> Path:
    """Two cameras, states that rise while the robot moves, two stages that share the whole episode; success at the last frame alone."""
    recordings = []
    for number, (before, motion, after) in enumerate(rests):
        length = before + motion + after
        way = np.concatenate([np.zeros(before), np.linspace(0, 1, motion), np.ones(after)])
        jitter = np.random.default_rng(number).uniform(-noise, noise, (length, 3))
        state = (np.stack([way, 2 * way - 1, 0 * way], axis=1) + jitter).astype(np.float32)
        action = np.stack([way, np.round(way)], axis=1).astype(np.float32)
        middle = before + motion // 2
        success = np.zeros(length, bool)
        success[-1] = number % 2 == 0
        recordings.append(
            Recording(
                frames={camera: list(moving(length, seed=10 * order + number)) for order, camera in enumerate((TOP, WRIST))},
                state=state,
                action=action,
                task=f"task {number % 2}",
                columns={"next.success": success, "next.reward": success.astype(np.float32)},
                segments={"sparse": (Segment("reach", 0, middle), Segment("push", middle, length))},
                facts={"operator": f"person {number}"},
            )
        )
    write_dataset(root, recordings, fps=20, codec="libx264", proportions={"sparse": proportions_of(rests)})
    return root


def proportions_of(rests: Sequence[tuple[int, int, int]]) -> dict[str, float]:
    """The mean part of the episode that each stage takes."""
    reach = float(np.mean([(before + motion // 2) / (before + motion + after) for before, motion, after in rests]))
    return {"reach": reach, "push": 1 - reach}


def require_part(source: Path, copy: Path, ranges: Mapping[int, tuple[int, int]]) -> None:
    """Fails unless the copy has exactly these frames of the source, image for image, under new numbers."""
    old, new = open_dataset(source), open_dataset(copy)
    assert len(new) == len(ranges)
    assert new.total_frames == sum(stop - start for start, stop in ranges.values())
    row = 0
    for place, (number, (start, stop)) in enumerate(sorted(ranges.items())):
        one, other = old.episode(number), new.episode(place)
        assert (other.length, other.row, other.task) == (stop - start, row, one.task)
        row += other.length
        np.testing.assert_array_equal(other.state, one.state[start:stop])
        for name in ("action", "next.reward"):
            tail = 1 if name.startswith("next.") else 0
            np.testing.assert_array_equal(other.columns[name][: other.length - tail], one.columns[name][start : stop - tail])
        np.testing.assert_allclose(other.columns["timestamp"], np.arange(other.length) / old.fps, atol=1e-6)
        frames = np.unique(np.linspace(0, other.length - 1, 7).astype(int))
        for camera in old.cameras:
            np.testing.assert_array_equal(other.camera(camera)[frames], one.camera(camera)[start + frames])


def facts(root: Path, name: str) -> list[Any]:
    dataset = open_dataset(root)
    return [dataset.facts_of(number).get(name) for number in dataset.episode_indices]
