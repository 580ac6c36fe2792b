"""What a model of one window takes from an episode: its robot states, normalised. Training and use call the same function."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from milepost.core import DataError, Episode
from milepost.models.model_config import ModelConfig

FARTHEST = 6.0
"""Standard deviations at which a state is cut off: an arm that rested in training has hardly any, and its channel would drown the rest."""


def pad_state(state: Float[np.ndarray, "T S"], config: ModelConfig) -> Float[np.ndarray, "T Z"]:
    """Returns robot states by the training episodes' mean and standard deviation, cut off at 6; (T, 0) if the model takes none.

    DataError if the width is another.
    """
    width = len(config.state_mean)
    state = state if config.takes_state else state[:, :0]
    if state.shape[1] != width:
        raise DataError(f"this model was trained on a robot state of width {width}, this one has {state.shape[1]}")
    scaled = (state - np.asarray(config.state_mean)) / (np.asarray(config.state_std) + 1e-8)
    return np.clip(scaled, -FARTHEST, FARTHEST).astype(np.float32).reshape(len(state), width)


def state_statistics(episodes: list[Episode]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel over all frames. DataError if the episodes' states differ in width."""
    if len(widths := {episode.state.shape[1] for episode in episodes}) > 1:
        raise DataError(f"the episodes have robot states of {' and '.join(map(str, sorted(widths)))} numbers; a model needs one width")
    state = np.concatenate([episode.state for episode in episodes]).astype(np.float64)
    return tuple(float(x) for x in state.mean(axis=0)), tuple(float(x) for x in state.std(axis=0))
