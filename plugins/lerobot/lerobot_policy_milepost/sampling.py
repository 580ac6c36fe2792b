"""Frames drawn by weight in LeRobot's training, for policies that give no loss for each sample.

LeRobot's training script makes its sampler by the name `EpisodeAwareSampler`. For one run that name stands for the sampler here, which
takes the same arguments, draws with replacement, and is resumed in the same way. If the script made no sampler by then (a streamed
dataset), the first step is refused: it would have learnt without weights.
"""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
from lerobot.datasets import EpisodeAwareSampler

from lerobot_policy_milepost.requirements import changed, replace, require_parameters
from lerobot_policy_milepost.weighting import innermost, name_of
from milepost import DataError, SampleWeights, WeightedSampler

log = logging.getLogger(__name__)
NAME = "EpisodeAwareSampler"
SCRIPTS = ("lerobot.scripts.lerobot_train", "__main__")
"""The training script, as a module and run by `python -m`."""
PARAMETERS = (
    "self", "dataset_from_indices", "dataset_to_indices", "episode_indices_to_use", "drop_n_first_frames", "drop_n_last_frames", "shuffle",
    "seed", "absolute_to_relative_idx",
)  # fmt: skip
"""What LeRobot's sampler takes in the tested version."""


class WeightedEpisodeAwareSampler(EpisodeAwareSampler):
    """LeRobot's sampler, but for the order: positions are drawn with replacement in proportion to their frames' weights.

    An epoch has as many draws as there are frames. The same (seed, epoch) gives the same draws in every process.
    """

    def __init__(self, weights: SampleWeights, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._frames = np.asarray(self.indices)
        numbered = EpisodeAwareSampler(*arguments, **{**options, "absolute_to_relative_idx": None})
        self._weight = weights[np.asarray(numbered.indices)]

    def __iter__(self) -> Iterator[int]:
        state = self.state_dict()
        self.load_state_dict({"epoch": state["epoch"] + 1, "start_index": 0})
        return self._draws(state["epoch"], state["start_index"])

    def _draws(self, epoch: int, start: int) -> Iterator[int]:
        sampler = WeightedSampler(self._weight, len(self), seed=self.seed)
        sampler.set_epoch(epoch)
        for position in itertools.islice(sampler, start, None):
            yield int(self._frames[position])


class OneSampler:
    """Stands for the name of LeRobot's sampler until the training script makes one by it."""

    def __init__(self, weights: SampleWeights, modules: list[ModuleType]) -> None:
        self.weights, self.modules = weights, modules
        self.is_used = False

    def __call__(self, *arguments: Any, **options: Any) -> WeightedEpisodeAwareSampler:
        """Returns the sampler that draws by weight, and gives the name back to LeRobot's."""
        self.give_back()
        self.is_used = True
        return WeightedEpisodeAwareSampler(self.weights, *arguments, **options)

    def give_back(self) -> None:
        """Puts LeRobot's sampler under its name again."""
        for module in self.modules:
            replace(module, NAME, EpisodeAwareSampler)


def draw_by_weight(weights: SampleWeights, policy: Any) -> None:
    """Lets the training script that is running draw its frames by weight. ChangedError if it has no such sampler as was tested."""
    require_parameters(EpisodeAwareSampler.__init__, PARAMETERS, NAME)
    modules = [module for name in SCRIPTS if (module := sys.modules.get(name)) is not None and is_sampler(getattr(module, NAME, None))]
    if not modules:
        raise changed("its training script makes no EpisodeAwareSampler")
    sampler = OneSampler(weights, modules)
    for module in modules:
        replace(module, NAME, sampler)
    inner = innermost(policy)
    replace(inner, "forward", refusing(inner.forward, sampler))
    zero = int((weights.weight == 0).sum())
    words = "milepost: '%s' gives no loss for each sample, or by='sampler' was asked for: frames are drawn by weight, %d of %d never"
    log.info(words, name_of(policy), zero, len(weights))


def is_sampler(there: Any) -> bool:
    """Returns whether this is LeRobot's sampler, or what stood for it in a run that was broken off."""
    return there is EpisodeAwareSampler or isinstance(there, OneSampler)


def refusing(forward: Callable[..., Any], sampler: OneSampler) -> Callable[..., Any]:
    """Returns the policy's forward, which raises DataError if the frames were not drawn by the sampler."""

    def checked(*arguments: Any, **options: Any) -> Any:
        if not sampler.is_used:
            sampler.give_back()
            raise DataError("a streamed dataset has no sampler, so its frames cannot be drawn by weight: use --dataset.streaming=false")
        return forward(*arguments, **options)

    return checked
