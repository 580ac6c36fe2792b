"""What can be set on the command line of a SARM model."""

from __future__ import annotations

from dataclasses import dataclass

import tyro


@dataclass(frozen=True)
class SARMOptions:
    """For a SARM model."""

    stride: int = 1
    """Look at every N-th frame and the last; between them progress is interpolated."""
    encoder: str | None = None
    """Instead of the encoder the model names, a folder or owner/name."""
    no_cache: tyro.conf.FlagCreatePairsOff[bool] = False
    """Do not keep the frames' features on disk, where they are in half precision, which moves progress by up to about 1e-3."""
    state_stats: str | None = None
    """For a LeRobot checkpoint without them: the dataset whose state statistics it was trained with; default: DATASET, as LeRobot does."""
