"""A dataset -> what a value model trains on: which episodes, the scale of each task, the statistics. Every episode left out is counted.

It refuses data from which no value can be learnt, and says what it then learns where it can learn less: without a failure it is a model of
time alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from milepost.core import DataError, Episode, causal, has_words
from milepost.models.instructions import TextEncoder, wrong_instruction
from milepost.models.training.episodes import FIT_FRAMES, LeftOut
from milepost.models.value.config import ValueConfig
from milepost.models.value.inputs import pad_state, state_statistics
from milepost.models.value.targets import SUCCESSES_DOWN_TO, frame_returns


def choose(episodes: Sequence[Episode]) -> tuple[list[Episode], list[LeftOut]]:
    """Returns the episodes that a value can be learnt from, and those that are left out: of unknown outcome, or of one frame.

    DataError if fewer than two are left, or none of them is a success.
    """
    unknown = tuple(each.index for each in episodes if each.success is None)
    single = tuple(each.index for each in episodes if each.success is not None and each.length < 2)
    reasons = ((unknown, "because nobody recorded whether they succeeded"), (single, "because they have one frame"))
    left_out = [LeftOut(reason, numbers) for numbers, reason in reasons if numbers]
    usable = [each for each in episodes if each.success is not None and each.length >= 2]
    why = "".join(f" ({each})" for each in left_out)
    if not usable and unknown:
        raise DataError(
            f"a value model learns from outcomes, and none of the {len(episodes)} episodes has one{why}: record next.success, "
            "or the fact success in meta/episodes"
        )
    if len(usable) < 2:
        raise DataError(f"a value model needs at least two episodes of known outcome to learn from, there is {len(usable)}{why}")
    if not any(each.success for each in usable):
        raise DataError(
            f"none of the {len(usable)} episodes to learn from succeeded{why}: the time to success cannot be learnt from failures alone; "
            "record successes, or leave more episodes in with --episodes and --holdout"
        )
    return usable, left_out


def outcome_doubts(episodes: Sequence[Episode]) -> list[str]:
    """Returns what the outcomes of the training episodes do not teach: warnings, one sentence each."""
    if all(each.success for each in episodes):
        return [
            f"none of the {len(episodes)} episodes learnt from failed: the model learns the time that is left, and cannot tell that an "
            "attempt fails"
        ]
    words = []
    for task in dict.fromkeys(each.task for each in episodes):
        outcomes = {bool(each.success) for each in episodes if each.task == task}
        if outcomes == {True}:
            words.append(f"no episode of the task {task!r} failed: the model cannot tell that an attempt at it fails")
        if outcomes == {False}:
            words.append(f"no episode of the task {task!r} succeeded: the model learns that it always fails")
    blank = sum(not has_words(each.task) for each in episodes)
    return words + ([f"{blank} of the episodes learnt from have a blank task: the model knows them by no instruction"] if blank else [])


def with_statistics(config: ValueConfig, episodes: Sequence[Episode]) -> ValueConfig:
    """Returns the config with the scale and the duration of each task, the frame rate and the state statistics.

    "task": the scale puts the first frame of the task's longest success at -0.8. "lerobot": it is the task's longest episode, less one
    frame, plus C. A task without a success has the medians of the others.
    """
    tasks = tuple(dict.fromkeys(each.task for each in episodes))
    of_task = {task: [each for each in episodes if each.task == task] for task in tasks}
    successes = {task: [each.length - 1 for each in group if each.success] for task, group in of_task.items()}
    durations = {task: float(np.median(lengths)) for task, lengths in successes.items() if lengths}
    if config.normalise == "lerobot":
        scales = {task: max(each.length for each in group) - 1 + config.penalty(0.0) for task, group in of_task.items()}
    else:
        scales = {task: max(lengths) / -SUCCESSES_DOWN_TO for task, lengths in successes.items() if lengths}
    mean, std = state_statistics(list(episodes))
    return dataclasses.replace(
        config,
        tasks=tasks,
        scales=tuple(float(scales.get(task, np.median(list(scales.values())))) for task in tasks),
        durations=tuple(durations.get(task, float(np.median(list(durations.values())))) for task in tasks),
        fps=float(episodes[0].fps),
        state_mean=mean,
        state_std=std,
        blank_task=config.blank_task or any(not has_words(each.task) for each in episodes),
    )


def some_frames(features: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Returns a sample of all frames (N, C, P), in order, to fit the built-in encoder to."""
    starts = np.concatenate([[0], np.cumsum([len(each) for each in features])])
    rows = np.sort(rng.choice(starts[-1], size=min(FIT_FRAMES, int(starts[-1])), replace=False))
    number = np.searchsorted(starts, rows, side="right") - 1
    return np.stack([features[n][row - starts[n]] for n, row in zip(number, rows, strict=True)])


@dataclass(frozen=True, eq=False)
class ValueEpisode:
    """An episode ready to be sampled: features (T, C, E), state (T, S), the return of each frame (T,)."""

    features: Float[np.ndarray, "T C E"]
    state: Float[np.ndarray, "T S"]
    returns: Float[np.ndarray, "T"]
    task: str
    gap: int


def labelled(episode: Episode, features: Float[np.ndarray, "T C E"], config: ValueConfig) -> ValueEpisode:
    """Returns an episode of known outcome with its targets."""
    scale, _ = config.pace(episode.task)
    returns = frame_returns(episode.length, not episode.success, scale, config.penalty(scale))
    return ValueEpisode(features, pad_state(episode.state, config), returns.astype(np.float32), episode.task, config.gap(episode.fps))


class TrainingSet:
    """All training episodes end to end, ready for windows to be gathered from."""

    def __init__(self, episodes: Sequence[ValueEpisode], config: ValueConfig, words: TextEncoder) -> None:
        self.config, self.words, self.episodes = config, words, episodes
        self.tasks = tuple(dict.fromkeys(each.task for each in episodes))
        self.starts = np.concatenate([[0], np.cumsum([len(each.returns) for each in episodes])])
        self.features = np.concatenate([each.features for each in episodes])
        self.state = np.concatenate([each.state for each in episodes])
        self.returns = np.concatenate([each.returns for each in episodes])

    def __len__(self) -> int:
        return len(self.returns)

    def sample(self, size: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Returns a batch: images (B, L, C, E), state (B, L, S), valid (B, L), text (B, M), returns (B,); -1 under a wrong instruction."""
        row = rng.integers(len(self), size=size)
        return self._batch(row, rng.random(size) < self.config.language_perturbation_probability, rng)

    def plain(self, most: int) -> dict[str, Tensor]:
        """Returns up to `most` windows spread evenly over all frames, without any random change."""
        row = np.unique(np.linspace(0, len(self) - 1, most).round().astype(int))
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
            "returns": np.where(is_wrong, np.float32(-1.0), self.returns[row]),
        }
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
