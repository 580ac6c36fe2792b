"""Episodes -> training samples. One index array gathers features, states and labels, so pixels and labels cannot disagree.

Every random choice (frame, rewind, instruction) is drawn per sample from the generator passed in. An unknown label is -1 / NaN and the
loss leaves it out. A wrong instruction makes every label of its sample stage 0, tau 0. `TrainingSet.inputs` and `labels` are for others who
draw samples in another way: benchmarks/lerobot_recipe.py draws LeRobot's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from milepost.core import DataError, Episode, Segment, causal, centred, rewind, targets
from milepost.models.instructions import TextEncoder, wrong_instruction
from milepost.models.sarm.config import SARMConfig

STATE = "observation.state"
"""The state every LeRobot dataset has, which is `Episode.state`; others are in its columns."""
Augment = Callable[[Int[np.ndarray, "B L"], np.random.Generator], Float[np.ndarray, "B L C E"]]


def window_frames(
    at: Int[np.ndarray, "N"], config: SARMConfig, gap: int, length: int | Int[np.ndarray, "N 1"]
) -> tuple[Int[np.ndarray, "N L"], Bool[np.ndarray, "N L"]]:
    """Returns the model's window at these frames, without rewind: frames (N, 1 + n_obs_steps) and valid. `length`: frames in the
    episode.
    """
    if config.window == "centred":
        return centred(at, config.n_obs_steps, gap, length)
    return causal(at, config.n_obs_steps, gap)


def state_of(episode: Episode, config: SARMConfig) -> Float[np.ndarray, "T S"]:
    """Returns the robot state the model takes: `config.state_key`'s column. DataError if the episode has no such numbers."""
    if config.state_key == STATE:
        return episode.state
    column = episode.columns.get(config.state_key)
    if column is None or not np.issubdtype(column.dtype, np.number):
        columns = ((name, values) for name, values in episode.columns.items() if not name.startswith("truth."))
        numbers = [name for name, values in columns if np.issubdtype(values.dtype, np.number)]
        raise DataError(f"episode {episode.index} has no state '{config.state_key}'; it has: {', '.join([STATE, *numbers])}")
    return column.reshape(episode.length, -1).astype(np.float32)


def pad_state(state: Float[np.ndarray, "T S"], config: SARMConfig) -> Float[np.ndarray, "T Z"]:
    """Returns the state normalised with the training set's statistics and padded or cut to `max_state_dim`. DataError if there are none."""
    if not config.state_stats_from:
        raise DataError(
            "this checkpoint does not say how its robot states were normalised (LeRobot leaves that in the dataset): load it with "
            "state_stats=<folder of the dataset it was trained on>"
        )
    width = len(config.state_mean)
    if state.shape[1] != width:
        raise ValueError(f"this model was trained on a robot state of width {width}, this dataset's has {state.shape[1]}")
    out = np.zeros((len(state), config.max_state_dim), dtype=np.float32)
    keep = min(width, config.max_state_dim)
    if keep:
        out[:, :keep] = ((state - np.asarray(config.state_mean)) / (np.asarray(config.state_std) + 1e-8))[:, :keep]
    return out


@dataclass(frozen=True, eq=False)
class LabelledEpisode:
    """An episode ready to be sampled: features (T, C, E) float16 or float32, state (T, Z), per head stage (T,) and tau (T,)."""

    features: Float[np.ndarray, "T C E"]
    state: Float[np.ndarray, "T Z"]
    task: str
    gap: int
    stage: Mapping[str, Int[np.ndarray, "T"]]
    tau: Mapping[str, Float[np.ndarray, "T"]]


def label_episode(episode: Episode, features: Float[np.ndarray, "T C E"], config: SARMConfig) -> LabelledEpisode:
    """Features and labels of one episode. Heads without annotation treat the episode as one stage.

    DataError names the episode if its annotation has an unknown stage or stages that overlap.
    """
    stage, tau = {}, {}
    for head, stages in config.heads.items():
        whole = (Segment(stages.names[0], 0, episode.length),)
        segments = episode.segments.get(head, ()) if head in config.annotated_heads else whole
        try:
            stage[head], tau[head] = targets(segments, stages.names, episode.length, episode.success)
        except DataError as error:
            raise DataError(
                f"episode {episode.index}: its {head} annotation is wrong: {error}; annotate it again, or leave it out with --episodes "
                "(milepost info lists all such episodes)"
            ) from error
        if config.unfinished == "zero":
            tau[head] = np.where((stage[head] >= 0) & np.isnan(tau[head]), 0, tau[head]).astype(np.float32)
    return LabelledEpisode(features, pad_state(state_of(episode, config), config), episode.task, config.gap(episode.fps), stage, tau)


class TrainingSet:
    """All training episodes end to end, ready for windows to be gathered from."""

    def __init__(
        self, episodes: Sequence[LabelledEpisode], config: SARMConfig, *, words: TextEncoder, augmented: Augment | None = None
    ) -> None:
        """Takes labelled episodes. ValueError if no frame of any episode has a label.

        words: features (N, M) of sentences. augmented: (rows (B, L), generator) -> features (B, L, C, E) of changed images of those rows.
        """
        self.config = config
        self.words = words
        self.augmented = augmented
        self.episodes = episodes
        self.tasks = tuple(dict.fromkeys(episode.task for episode in episodes))
        self.starts = np.concatenate([[0], np.cumsum([len(episode.state) for episode in episodes])])
        self.features = np.concatenate([episode.features for episode in episodes])
        self.state = np.concatenate([episode.state for episode in episodes])
        self.stage = {head: np.concatenate([episode.stage[head] for episode in episodes]) for head in config.heads}
        self.tau = {head: np.concatenate([episode.tau[head] for episode in episodes]) for head in config.heads}
        self.noise = config.feature_noise
        if self.noise and config.encoder != "pixels":  # the built-in encoder's features have unit variance
            self.noise *= float(self.features.std(dtype=np.float64))
        known = np.any([stage >= 0 for stage in self.stage.values()], axis=0)
        self.rows = np.flatnonzero(known)
        if not len(self.rows):
            raise ValueError("no frame of the training episodes has a label")

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, size: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Returns a batch of random windows, as `windows` gives them."""
        return self.windows(rng.choice(self.rows, size=size), rng)

    def windows(self, row: Int[np.ndarray, "B"], rng: np.random.Generator) -> dict[str, Tensor]:
        """Returns the windows at these rows of the set: images (B, L, C, E), text (B, M), state (B, L, Z), valid (B, L), per head
        {head}_stage and {head}_tau (B, L).

        L is 1 + n_obs_steps + max_rewind_steps; rewind positions not drawn are padding.
        """
        config, size = self.config, len(row)
        number = np.searchsorted(self.starts, row, side="right") - 1
        at, gap = row - self.starts[number], self.episodes[0].gap
        frames, valid = window_frames(at, config, gap, np.diff(self.starts)[number][:, None])
        if config.max_rewind_steps and config.rewind_probability:
            steps = rng.integers(1, config.max_rewind_steps + 1, size=size) * (rng.random(size) < config.rewind_probability)
            back, back_valid = rewind(frames[:, -1], steps, config.max_rewind_steps, gap)
            frames, valid = np.concatenate([frames, back], axis=1), np.concatenate([valid, back_valid], axis=1)
        wrong = rng.random(size) < config.language_perturbation_probability
        rows = self.starts[number][:, None] + frames
        arrays = {**self.inputs(rows, valid, rng), "text": self._text(number, wrong, rng), **self.labels(rows, valid, wrong)}
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}

    def plain(self, most: int) -> dict[str, Tensor]:
        """Returns up to `most` windows spread evenly over the labelled frames, as `plain_windows` gives them."""
        return self.plain_windows(self.rows[np.unique(np.linspace(0, len(self.rows) - 1, most).round().astype(int))])

    def plain_windows(self, row: Int[np.ndarray, "B"]) -> dict[str, Tensor]:
        """Returns `windows` without any random change: no rewind, noise or wrong instruction."""
        number = np.searchsorted(self.starts, row, side="right") - 1
        start, true = self.starts[number][:, None], np.zeros(len(row), dtype=bool)
        frames, valid = window_frames(row - start[:, 0], self.config, self.episodes[0].gap, np.diff(self.starts)[number][:, None])
        text = self.words([self.episodes[n].task for n in number])
        arrays = {**self.inputs(start + frames, valid), "text": text, **self.labels(start + frames, valid, true)}
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}

    def inputs(
        self, gather: Int[np.ndarray, "B L"], valid: Bool[np.ndarray, "B L"], rng: np.random.Generator | None = None
    ) -> dict[str, np.ndarray]:
        """Returns images (B, L, C, E), state (B, L, Z) and valid of windows. gather: rows of the set. rng: draws the noise, if any."""
        state = self.state[gather]
        if self.augmented is None or rng is None:
            images = self.features[gather].astype(np.float32, copy=False)
        else:
            images = self.augmented(gather, rng)
        if self.noise and rng is not None:
            images = images + rng.standard_normal(images.shape, dtype=np.float32) * np.float32(self.noise)
        return {"images": images, "state": state, "valid": valid}

    def _text(self, number: np.ndarray, wrong: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns the features of each sample's instruction, or of a wrong one."""
        tasks = [self.episodes[n].task for n in number]
        return self.words([wrong_instruction(task, self.tasks, rng) if no else task for task, no in zip(tasks, wrong, strict=True)])

    def labels(self, gather: Int[np.ndarray, "B L"], valid: Bool[np.ndarray, "B L"], wrong: Bool[np.ndarray, "B"]) -> dict[str, np.ndarray]:
        """Returns {head}_stage and {head}_tau (B, L) of windows, -1 and NaN where unknown; 0 and 0 where the instruction is wrong."""
        batch = {}
        for head in self.config.heads:
            known = valid & (self.stage[head][gather] >= 0)
            batch[f"{head}_stage"] = np.where(known, np.where(wrong[:, None], 0, self.stage[head][gather]), -1)
            batch[f"{head}_tau"] = np.where(known, np.where(wrong[:, None], 0, self.tau[head][gather]), np.nan).astype(np.float32)
        return batch
