"""Curves of audited episodes on disk, one JSON file an episode: an interrupted audit goes on from them.

A file says what made its curves. What another model, dataset, setting or instruction made is not read, and is replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from milepost.core import Episode, read_json_object, to_json, write_text
from milepost.metrics import EpisodeCurves


class CurveStore:
    """A folder of curves. It is made when the first curves are written.

    made_by: what identifies model, dataset and settings (`provenance`). The version of milepost does not count.
    """

    def __init__(self, folder: Path, made_by: Mapping[str, str]) -> None:
        self.folder = folder
        self.made_by = {name: value for name, value in made_by.items() if name != "milepost_version"}

    def read(self, episode: Episode, edited: Mapping[str, Episode]) -> EpisodeCurves | None:
        """Returns the curves of an episode and its copies; None if there are none of the same origin. DataError for a damaged file."""
        path = self._path(episode)
        if not path.is_file():
            return None
        stored = read_json_object(path)
        if stored.get("made_by") != self._origin(edited):
            return None
        curves = {name: np.array(values, dtype=np.float32) for name, values in stored["curves"].items()}
        return EpisodeCurves(
            episode.index, episode.task, episode.success, curves.pop("real"), curves, int(stored["seed"]), bool(stored["scaled"]),
            episode.state.shape[1] > 0,
        )  # fmt: skip

    def write(self, curves: EpisodeCurves, episode: Episode, edited: Mapping[str, Episode]) -> None:
        """Writes the curves of an episode and of its copies, in place of others of this episode."""
        values = {"real": curves.real, **curves.controls}
        record = {
            "made_by": self._origin(edited),
            "seed": curves.seed,
            "scaled": curves.scaled,
            "curves": {name: value.tolist() for name, value in values.items()},
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self._path(episode), to_json(record))

    def _path(self, episode: Episode) -> Path:
        return self.folder / f"episode_{episode.index:06d}.json"

    def _origin(self, edited: Mapping[str, Episode]) -> dict[str, str]:
        """Returns what made the curves, with the other instruction: which one it is depends on what else is audited."""
        return self.made_by | ({"other_task": edited["other_task"].task} if "other_task" in edited else {})
