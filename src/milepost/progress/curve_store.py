"""Curves of audited episodes on disk, one JSON file an episode: a later audit takes from them what it needs, and asks for the rest alone.

A file says what made its curves. What another model, dataset or setting made is not read, and is replaced. Which controls are run, with
which seed and which other instruction, makes no difference to the curves of others: each is stored beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from milepost.core import Episode, read_json_object, to_json, write_text
from milepost.metrics import EpisodeCurves

SEEDED = ("shuffled", "noise_10")
"""Controls whose copies depend on the seed."""


@dataclass(frozen=True, eq=False)
class AskedCurves:
    """What a model said of one episode and its copies. refused: control -> why the model says nothing of that copy."""

    curves: EpisodeCurves
    refused: Mapping[str, str] = field(default_factory=dict)

    def lacks(self, edited: Mapping[str, Episode]) -> dict[str, Episode]:
        """Returns the copies that the model has not been asked about."""
        return {name: copy for name, copy in edited.items() if name not in self.curves.controls and name not in self.refused}


class CurveStore:
    """A folder of curves. It is made when the first curves are written.

    made_by: what identifies model, dataset and settings (`provenance`). The version of milepost does not count. seed: that of the copies.
    """

    def __init__(self, folder: Path, made_by: Mapping[str, str], seed: int = 0) -> None:
        self.folder, self.seed = folder, seed
        self.made_by = {name: value for name, value in made_by.items() if name != "milepost_version"}

    def read(self, episode: Episode, edited: Mapping[str, Episode]) -> AskedCurves | None:
        """Returns the curves of an episode and of those of these copies that are stored; None if the episode's own is not.

        DataError for a damaged file.
        """
        record = self._record(episode)
        if not record:
            return None
        curves, refused = record["curves"], record["refused"]
        keys = {name: self._key(name, copy) for name, copy in edited.items()}
        controls = {name: _array(curves[key]) for name, key in keys.items() if key in curves}
        audited = EpisodeCurves(
            episode.index, episode.task, episode.success, _array(curves["real"]), controls, self.seed, bool(record["scaled"]),
            episode.state.shape[1] > 0,
        )  # fmt: skip
        return AskedCurves(audited, {name: str(refused[key]) for name, key in keys.items() if key in refused})

    def write(self, asked_curves: AskedCurves, episode: Episode, edited: Mapping[str, Episode]) -> None:
        """Writes the curves of an episode and of its copies, beside others of the same origin, and in place of those of another one."""
        curves = asked_curves.curves
        before = self._record(episode) or {"curves": {}, "refused": {}}
        values = {self._key(name, edited[name]): value.tolist() for name, value in curves.controls.items()}
        refused = {self._key(name, edited[name]): reason for name, reason in asked_curves.refused.items()}
        record = {
            "made_by": self.made_by,
            "scaled": curves.scaled,
            "curves": {**before["curves"], "real": curves.real.tolist(), **values},
            "refused": {**before["refused"], **refused},
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self._path(episode), to_json(record))

    def _record(self, episode: Episode) -> dict[str, Any]:
        """Returns what is stored of an episode by the same model, dataset and settings; empty if nothing is."""
        path = self._path(episode)
        record = read_json_object(path) if path.is_file() else {}
        return record if record.get("made_by") == self.made_by and "refused" in record else {}

    def _path(self, episode: Episode) -> Path:
        return self.folder / f"episode_{episode.index:06d}.json"

    def _key(self, name: str, copy: Episode) -> str:
        """Returns the name of a copy's curve in a file, with all that the copy depends on beside the episode."""
        if name in SEEDED:
            return f"{name}, seed {self.seed}"
        return f"{name}: {copy.task}" if name == "other_task" else name


def _array(values: list[float | None]) -> np.ndarray:
    return np.array(values, dtype=np.float32)
