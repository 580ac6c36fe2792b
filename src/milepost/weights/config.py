"""Every option of sample weighting, as plain values. The defaults are LeRobot's rule; what is not at its default is a choice of yours.

A combination in which an option would do nothing is refused, so a config never says something that is not so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal


@dataclass(frozen=True)
class RabcConfig:
    """How progress becomes weights: RA-BC with LeRobot's names and defaults, then the named options.

    ValueError for a value out of range and for an option that would do nothing beside the others.
    """

    chunk_size: int = 50
    """Horizon H in frames: the action chunk of the policy to be trained."""
    kappa: float = 0.01
    """Progress over the horizon above which a frame counts fully."""
    epsilon: float = 1e-6
    """Keeps divisions defined, as in LeRobot."""
    fallback_weight: float = 1.0
    """Weight of frames whose progress is unknown."""
    rule: Literal["rabc", "awr", "uniform"] = "rabc"
    """rabc: eqs. 8-9. awr: exp(advantage), clipped, as TOPReward has it. uniform: 1, so that only the episode filters act."""
    end: Literal["truncate", "rescale"] = "truncate"
    """Near an episode's end: truncate, as LeRobot (delta shrinks to 0), or rescale to what a whole chunk would do at the same pace."""
    ramp: Literal["soft", "linear", "hard"] = "soft"
    """From 0 to kappa: soft, eq. 8 (standing still keeps weight); linear, delta / kappa (standing still gets 0); hard, 0."""
    statistics: Literal["dataset", "task"] = "dataset"
    """Mean, deviation, and kappa where it is made from the deltas: over the dataset, as LeRobot, or each task by itself."""
    kappa_duration_s: float | None = None
    """Kappa from a target duration: the pace of a demonstration that takes this long, H / (fps * seconds)."""
    kappa_quantile: float | None = None
    """Kappa at this quantile of the deltas, at least 0: 0.5 gives half of the frames full weight."""
    kappa_keep: float | None = None
    """Kappa at which the mean weight is this, before floor and fallback."""
    kappa_pace: float | None = None
    """Kappa of each frame: this share of the usual delta at the same progress. A phase slow in every demonstration is not starved."""
    smooth: int = 0
    """Frames of a centred local line (Savitzky-Golay, degree 1) through progress before differencing: odd, 0 for none."""
    floor: float = 0.0
    """No known frame weighs less, except in episodes filtered out."""
    max_duration_s: float | None = None
    """Episodes that take longer weigh nothing."""
    min_final: float | None = None
    """Episodes whose last known progress is lower weigh nothing."""
    awr_scale: float = 2.0
    """Weight at advantage 0; this and the next are TOPReward's tau and delta_max."""
    awr_max: float = 2.0
    """Largest weight: with TOPReward's numbers every advantage above 0 is clipped."""
    awr_temperature: float = 1.0
    """Advantage is divided by this; TOPReward has none (1), which is mild. Try the standard deviation of the deltas."""
    awr_centre: bool = True
    """Advantage is delta minus the mean delta, not delta itself."""

    def __post_init__(self) -> None:
        _require_ranges(self)
        given = [name for name in _KAPPAS if getattr(self, name) is not None]
        if len(given) > 1 or (given and self.changed("kappa")):
            names = ", ".join([*(["kappa"] if self.changed("kappa") else []), *given])
            raise ValueError(f"one kappa must be chosen, got {names}; leave the others at their defaults")
        if idle := [name for name in self._idle() if self.changed(name)]:
            raise ValueError(f"with {self._kind()}, {', '.join(idle)} must be left at the default: it would do nothing")

    def changed(self, name: str) -> bool:
        """Is this option away from its default?"""
        return getattr(self, name) != _DEFAULTS[name]

    @property
    def is_lerobots(self) -> bool:
        """Does LeRobot's own weighter, given one number for kappa, make the same weights from the same progress file?"""
        ours = [f.name for f in fields(self) if f.name not in (*_LEROBOTS, "kappa_duration_s", "kappa_quantile", "kappa_keep")]
        return not any(self.changed(name) for name in ours)

    @property
    def needs_fps(self) -> bool:
        """Is an option given in seconds?"""
        return self.kappa_duration_s is not None or self.max_duration_s is not None

    def _kind(self) -> str:
        return f"rule {self.rule}" if self.rule != "rabc" else f"rule rabc, ramp {self.ramp} and this kappa"

    def _idle(self) -> list[str]:
        """Options that can change nothing beside the others."""
        if self.rule == "uniform":
            smooth = [] if self.min_final is not None else ["smooth"]
            return ["kappa", *_KAPPAS, "end", "ramp", "statistics", "floor", *smooth, *_AWRS]
        if self.rule == "awr":
            return ["kappa", *_KAPPAS, "ramp", *([] if self.awr_centre else ["statistics"])]
        made = any(getattr(self, name) is not None for name in _FROM_DELTAS)
        return [*_AWRS, *(["statistics"] if self.ramp != "soft" and not made else []), *(["epsilon"] if self.ramp != "soft" else [])]


_DEFAULTS = {f.name: f.default for f in fields(RabcConfig)}
_LEROBOTS = ("chunk_size", "kappa", "epsilon", "fallback_weight")
_FROM_DELTAS = ("kappa_quantile", "kappa_keep", "kappa_pace")
_KAPPAS = ("kappa_duration_s", *_FROM_DELTAS)
_AWRS = ("awr_scale", "awr_max", "awr_temperature", "awr_centre")
_CHOICES = {
    "rule": ("rabc", "awr", "uniform"),
    "end": ("truncate", "rescale"),
    "ramp": ("soft", "linear", "hard"),
    "statistics": ("dataset", "task"),
}


def _require_ranges(config: RabcConfig) -> None:
    for name, choices in _CHOICES.items():
        if getattr(config, name) not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got '{getattr(config, name)}'")
    numbers = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in (*_CHOICES, "awr_centre")}
    for name, value in numbers.items():
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, got {value}")
    if config.chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {config.chunk_size}")
    if config.smooth < 0 or (config.smooth and (config.smooth < 3 or config.smooth % 2 == 0)):
        raise ValueError(f"smooth must be 0 or an odd number of frames from 3 on, got {config.smooth}")
    for name in ("epsilon", "kappa_duration_s", "kappa_pace", "max_duration_s", "awr_scale", "awr_max", "awr_temperature"):
        if numbers[name] is not None and numbers[name] <= 0:
            raise ValueError(f"{name} must be above 0, got {numbers[name]}")
    for name in ("kappa", "fallback_weight", "floor"):
        if numbers[name] < 0:
            raise ValueError(f"{name} must be at least 0, got {numbers[name]}")
    for name in ("kappa_quantile", "kappa_keep"):
        if numbers[name] is not None and not 0 < numbers[name] < 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {numbers[name]}")
    highest = config.awr_max if config.rule == "awr" else 1.0
    if config.floor > highest:
        raise ValueError(f"floor must be at most the highest weight, {highest:g}, got {config.floor:g}")
