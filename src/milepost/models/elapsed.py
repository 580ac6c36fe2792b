"""Progress is the elapsed proportion of the episode. Every table compares with this baseline, and it is the file to copy for a new
model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost.core import Episode, Progress
from milepost.metrics import clock
from milepost.models.registry import ModelKind


@dataclass(frozen=True)
class ElapsedConfig:
    """Nothing to set."""


class ElapsedModel:
    """A clock. It sees no image and needs no training, and it already knows when the episode will end.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> progress = milepost.ElapsedModel().predict(milepost.open_dataset("dots")[0])
    >>> progress.main.value[[0, -1]].tolist()
    [0.0, 1.0]
    """

    def __init__(self, config: ElapsedConfig | None = None) -> None:
        self.config = config or ElapsedConfig()

    def predict(self, episode: Episode) -> Progress:
        """Returns t / (T - 1), so the last frame is 1; NaN for a one-frame episode, of which a clock can say nothing."""
        return Progress(episode.index, clock(episode.length))

    def identity(self) -> dict[str, Any]:
        """Returns what its curves depend on: nothing."""
        return {}


def _from_folder(folder: Path | str, device: str = "cpu") -> ElapsedModel:
    return ElapsedModel()


def _bare(device: str = "cpu") -> ElapsedModel:
    return ElapsedModel()


def _make(config: ElapsedConfig, folder: str | None) -> ElapsedModel:
    return ElapsedModel(config)


MODEL = ModelKind(
    "elapsed",
    _from_folder,
    _bare,
    config=ElapsedConfig,
    make=_make,
    untrainable="the model 'elapsed' is a clock: there is nothing to train",
)
