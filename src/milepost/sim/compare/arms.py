"""The arms of the comparison: each gives one weight per frame to the policy's training. numpy only.

`success` and the filters know the true success; RA-BC knows only progress.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from milepost.weights import RabcConfig, weigh


@dataclass(frozen=True, eq=False)
class Mix:
    """One set of demonstrations, frames end to end: episode (N,) counting from 0, success (E,), progress by name (N,)."""

    episode: Int[np.ndarray, "N"]
    success: Bool[np.ndarray, "E"]
    progress: Mapping[str, Float[np.ndarray, "N"]]

    @property
    def lengths(self) -> Int[np.ndarray, "E"]:
        """Returns the frames of each episode."""
        return np.bincount(self.episode, minlength=len(self.success))


Weigh = Callable[[Mix, RabcConfig, np.random.Generator], Float[np.ndarray, "N"]]


def _rabc(mix: Mix, config: RabcConfig, name: str) -> Float[np.ndarray, "N"]:
    return weigh(np.arange(len(mix.episode)), mix.episode, mix.progress[name], config=config).weight


def _permuted(mix: Mix, config: RabcConfig, rng: np.random.Generator) -> Float[np.ndarray, "N"]:
    return rng.permutation(_rabc(mix, config, "sarm" if "sarm" in mix.progress else "true"))


def _lerobots(mix: Mix, config: RabcConfig, rng: np.random.Generator) -> Float[np.ndarray, "N"]:
    """Computes LeRobot's unchanged rule; kappa is half the pace of the median episode."""
    plain = RabcConfig(config.chunk_size, kappa=0.5 * config.chunk_size / float(np.median(mix.lengths)))
    return _rabc(mix, plain, "sarm")


def _shortest(mix: Mix, among: Bool[np.ndarray, "E"]) -> Float[np.ndarray, "N"]:
    """Selects the frames of the shorter half of these episodes; a single episode is kept."""
    if not among.any():
        return np.ones(len(mix.episode), np.float32)
    keep = among & (mix.lengths <= np.median(mix.lengths[among]))
    return keep[mix.episode].astype(np.float32)


def _successes(mix: Mix) -> Float[np.ndarray, "N"]:
    return mix.success[mix.episode].astype(np.float32) if mix.success.any() else np.ones(len(mix.episode), np.float32)


ARMS: dict[str, Weigh] = {
    "uniform": lambda mix, config, rng: np.ones(len(mix.episode), np.float32),
    "permuted": _permuted,
    "short": lambda mix, config, rng: _shortest(mix, np.ones(len(mix.success), bool)),
    "success": lambda mix, config, rng: _successes(mix),
    "success+short": lambda mix, config, rng: _shortest(mix, mix.success),
    "rabc-true": lambda mix, config, rng: _rabc(mix, config, "true"),
    "rabc-sarm": lambda mix, config, rng: _rabc(mix, config, "sarm"),
    "rabc-sarm-lerobot": _lerobots,
}
"""uniform: plain behaviour cloning. permuted: SARM's weights, each given to another frame. short: the shorter half of the episodes.
success: the successful ones. success+short: the shorter half of those. rabc-true: RA-BC with true progress, the oracle. rabc-sarm: with
SARM's. rabc-sarm-lerobot: the same by LeRobot's rule."""


def needs_sarm(arm: str) -> bool:
    """Returns whether an arm uses SARM's progress."""
    return "sarm" in arm or arm == "permuted"


def rabc_config(chunk_size: int) -> RabcConfig:
    """Returns the rule of the study: full weight at or above the usual pace of a phase, none for standing still, and ends are rescaled."""
    return RabcConfig.preset("study", chunk_size=chunk_size)
