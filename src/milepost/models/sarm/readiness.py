"""What a SARM model needs of a dataset before it can label."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from milepost.core import DataError, Dataset, EditedFrames, Episode, warn_user
from milepost.models.sarm.checkpoint import StateStats, read_state_stats
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.samples import pad_state, state_of

FAR = 6
"""Standard deviations from the training set's mean from which a state is said to be unlike it. Of 460 held-out episodes, simulated and
real, one lies there for most of its frames, and its model is silent; the next ones lie at 5.7."""


@runtime_checkable
class HasRoot(Protocol):
    """A dataset in a folder, with the statistics of its columns in `meta/stats.json`."""

    @property
    def root(self) -> Path: ...


def stats_of(dataset: Dataset, key: str) -> StateStats:
    """Returns the state statistics of a dataset for a checkpoint that has none, with a warning. DataError if they are not there."""
    if not isinstance(dataset, HasRoot):
        raise DataError("this checkpoint has no state statistics: give it some with use_state_stats")
    stats = read_state_stats(dataset.root, key, dataset.name)
    words = f"taking those of {dataset.name}; if it learnt from another dataset, use --state-stats"
    warn_user(f"this checkpoint has no state statistics: {words}")
    return stats


def familiar_state(episode: Episode, config: SARMConfig) -> Float[np.ndarray, "T Z"]:
    """Returns the episode's normalised state, with a warning if a channel of it is far from all that the model learnt from.

    An arm that rested during training hardly moved, so its channels were scaled up: resting elsewhere, it can silence the model
    (docs/real_data.md).
    """
    state = pad_state(state_of(episode, config), config)
    far = np.flatnonzero(np.median(np.abs(state), axis=0) >= FAR)
    if len(far) and not any(isinstance(frames, EditedFrames) for frames in episode.cameras.values()):
        many, channels = len(far) > 1, ", ".join(map(str, far[:8])) + (", ..." if len(far) > 8 else "")
        warn_user(
            f"episode {episode.index}: the robot's state is unlike what this model learnt from: channel{'s' * many} {channels} "
            f"{'lie' if many else 'lies'} {FAR} or more standard deviations away in most frames, so its progress may mean nothing"
        )
    return state
