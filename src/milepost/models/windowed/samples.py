"""Training samples of one window each: all frames of the training episodes end to end, from which windows are gathered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from milepost.core import causal
from milepost.models.instructions import TextEncoder, wrong_instruction
from milepost.models.training.episodes import FIT_FRAMES
from milepost.models.windowed.config import WindowedConfig


@dataclass(frozen=True, eq=False)
class LabelledFrames:
    """An episode ready to be sampled: features (T, C, E), state (T, Z), the target of each frame (T,), NaN where nothing is learnt."""

    features: Float[np.ndarray, "T C E"]
    state: Float[np.ndarray, "T Z"]
    target: Float[np.ndarray, "T"]
    task: str
    gap: int


class WindowSamples:
    """All training episodes end to end, ready for windows to be gathered from. wrong: the target under a wrong instruction."""

    def __init__(self, episodes: Sequence[LabelledFrames], config: WindowedConfig, words: TextEncoder, *, wrong: float) -> None:
        self.config, self.words, self.episodes, self.wrong = config, words, episodes, wrong
        self.tasks = tuple(dict.fromkeys(each.task for each in episodes))
        self.starts = np.concatenate([[0], np.cumsum([len(each.target) for each in episodes])])
        self.features = np.concatenate([each.features for each in episodes])
        self.state = np.concatenate([each.state for each in episodes])
        self.target = np.concatenate([each.target for each in episodes])
        self.labelled = np.flatnonzero(~np.isnan(self.target))

    def __len__(self) -> int:
        return len(self.labelled)

    def sample(self, size: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Returns a batch: images (B, L, C, E), state (B, L, Z), valid (B, L), text (B, M), target (B,)."""
        row = self.labelled[rng.integers(len(self), size=size)]
        return self._batch(row, rng.random(size) < self.config.language_perturbation_probability, rng)

    def plain(self, most: int) -> dict[str, Tensor]:
        """Returns up to `most` windows spread evenly over all frames, without any random change."""
        row = self.labelled[np.unique(np.linspace(0, len(self) - 1, most).round().astype(int))]
        return self._batch(row, np.zeros(len(row), bool), None)

    def _batch(self, row: np.ndarray, is_wrong: np.ndarray, rng: np.random.Generator | None) -> dict[str, Tensor]:
        number = np.searchsorted(self.starts, row, side="right") - 1
        frames, valid = causal(row - self.starts[number], self.config.n_obs_steps, self.episodes[0].gap)
        rows = self.starts[number][:, None] + frames
        tasks = [self.episodes[n].task for n in number]
        if rng is not None:
            tasks = [wrong_instruction(task, self.tasks, rng) if wrong else task for task, wrong in zip(tasks, is_wrong, strict=True)]
        arrays: Mapping[str, np.ndarray] = {
            "images": self.features[rows].astype(np.float32, copy=False),
            "state": self.state[rows],
            "valid": valid,
            "text": self.words(tasks),
            "target": np.where(is_wrong, np.float32(self.wrong), self.target[row]),
        }
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def some_frames(features: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Returns a sample of all frames (N, C, P), in order, to fit the built-in encoder to."""
    starts = np.concatenate([[0], np.cumsum([len(each) for each in features])])
    rows = np.sort(rng.choice(starts[-1], size=min(FIT_FRAMES, int(starts[-1])), replace=False))
    number = np.searchsorted(starts, rows, side="right") - 1
    return np.stack([features[n][row - starts[n]] for n, row in zip(number, rows, strict=True)])
