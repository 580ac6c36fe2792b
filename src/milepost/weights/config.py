"""Every option of sample weighting, as plain values. The defaults are LeRobot's rule.

A combination in which an option has no effect is refused, so every option of a config has an effect.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from milepost.core import refuses_unknown_options, require_integers

PRESETS: Mapping[str, Mapping[str, Any]] = {"study": {"end": "rescale", "ramp": "linear", "kappa_pace": 1.0, "smooth": 5}}
"""Named settings. study: the rule of docs/rabc_study.md. From SARM's curves it gained 11 points of success [+5, +17] more than LeRobot's
rule where 80 % of the demonstrations were bad, and lost nothing where none was."""
REMOVED = ("kappa_quantile", "kappa_keep", "awr_scale", "awr_max", "awr_temperature", "awr_centre")
"""Options of earlier versions, from which no study showed a gain. A weights file made with them can still be read: weights are a column."""
IN_PLACE = 'Use RabcConfig.preset("study", chunk_size=...), or kappa'
"""What takes their place."""


@refuses_unknown_options({name: f"{name} was removed: no study showed a gain. {IN_PLACE}" for name in REMOVED})
@dataclass(frozen=True)
class RabcConfig:
    """How progress becomes weights: RA-BC with LeRobot's names and defaults, then the named options.

    ValueError for a value out of range and for an option that would do nothing beside the others.

    >>> milepost.RabcConfig(chunk_size=30, kappa=0.02).ramp
    'soft'
    """

    chunk_size: int = 50
    """Horizon H in frames: the action chunk of the policy to be trained."""
    kappa: float = 0.01
    """Progress over the horizon above which a frame counts fully."""
    epsilon: float = 1e-6
    """Keeps divisions defined, as in LeRobot."""
    fallback_weight: float = 1.0
    """Weight of frames whose progress is unknown."""
    rule: Literal["rabc", "uniform"] = "rabc"
    """rabc: eqs. 8-9. uniform: 1, so that only the episode filters act."""
    end: Literal["truncate", "rescale"] = "truncate"
    """Near an episode's end: truncate, as LeRobot (delta shrinks to 0), or rescale to what a whole chunk would do at the same pace."""
    ramp: Literal["soft", "linear", "hard"] = "soft"
    """From 0 to kappa: soft, eq. 8 (standing still keeps weight); linear, delta / kappa (standing still gets 0); hard, 0."""
    statistics: Literal["dataset", "task"] = "dataset"
    """Mean, deviation, and kappa where it is made from the deltas: over the dataset, as LeRobot, or each task by itself."""
    kappa_duration_s: float | None = None
    """Kappa from a target duration: the pace of a demonstration that takes this long, H / (fps * seconds)."""
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

    def __post_init__(self) -> None:
        require_integers(self)
        _require_ranges(self)
        kappas = [name for name in _KAPPAS if getattr(self, name) is not None]
        if len(kappas) > 1 or (kappas and self.changed("kappa")):
            names = ", ".join([*(["kappa"] if self.changed("kappa") else []), *kappas])
            raise ValueError(f"one kappa must be chosen, got {names}; leave the others at their defaults")
        if idle := [name for name in self._idle() if self.changed(name)]:
            raise ValueError(f"with {self._kind()}, {', '.join(idle)} must be left at the default: it would do nothing")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> RabcConfig:
        """Returns a named setting, with these options in place of the preset's: `PRESETS` has the names.

        ValueError if there is no such preset, and as the class for the options together.

        >>> RabcConfig.preset("study", chunk_size=6).kappa_pace
        1.0
        """
        return cls(**preset_options(name, changes), **changes)

    def changed(self, name: str) -> bool:
        """Returns whether this option differs from its default."""
        return getattr(self, name) != _DEFAULTS[name]

    @property
    def is_lerobots(self) -> bool:
        """Returns whether LeRobot's own weighter makes the same weights from the same progress file, given one number for kappa."""
        ours = [f.name for f in fields(self) if f.name not in (*_LEROBOTS, "kappa_duration_s")]
        return not any(self.changed(name) for name in ours)

    @property
    def needs_fps(self) -> bool:
        """Returns whether an option is in seconds."""
        return self.kappa_duration_s is not None or self.max_duration_s is not None

    def _kind(self) -> str:
        return f"rule {self.rule}" if self.rule != "rabc" else f"rule rabc, ramp {self.ramp} and this kappa"

    def _idle(self) -> list[str]:
        """Lists the options that have no effect beside the others."""
        if self.rule == "uniform":
            smooth = [] if self.min_final is not None else ["smooth"]
            return ["kappa", *_KAPPAS, "end", "ramp", "statistics", "floor", *smooth]
        if self.ramp == "soft":
            return []
        return ["epsilon", *(["statistics"] if self.kappa_pace is None else [])]


_DEFAULTS = {f.name: f.default for f in fields(RabcConfig)}
_LEROBOTS = ("chunk_size", "kappa", "epsilon", "fallback_weight")
_KAPPAS = ("kappa_duration_s", "kappa_pace")
_CHOICES = {name: get_args(hint) for name, hint in get_type_hints(RabcConfig).items() if get_origin(hint) is Literal}


def preset_options(name: str, overrides: Collection[str]) -> dict[str, Any]:
    """Returns the options of a preset without those named in `overrides`. Any choice of kappa replaces the preset's.

    ValueError if there is no such preset.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset '{name}'; there is: {', '.join(PRESETS)}")
    replaced = {*overrides, *(("kappa", *_KAPPAS) if not {"kappa", *_KAPPAS}.isdisjoint(overrides) else ())}
    return {option: value for option, value in PRESETS[name].items() if option not in replaced}


def _require_ranges(config: RabcConfig) -> None:
    for name, choices in _CHOICES.items():
        if getattr(config, name) not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got '{getattr(config, name)}'")
    numbers = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in _CHOICES}
    for name, value in numbers.items():
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, got {value}")
    if config.chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {config.chunk_size}")
    if config.smooth < 0 or (config.smooth and (config.smooth < 3 or config.smooth % 2 == 0)):
        raise ValueError(f"smooth must be 0 or an odd number of frames from 3 on, got {config.smooth}")
    for name in ("epsilon", "kappa_duration_s", "kappa_pace", "max_duration_s"):
        if numbers[name] is not None and numbers[name] <= 0:
            raise ValueError(f"{name} must be above 0, got {numbers[name]}")
    for name in ("kappa", "fallback_weight", "floor"):
        if numbers[name] < 0:
            raise ValueError(f"{name} must be at least 0, got {numbers[name]}")
    if config.floor > 1:
        raise ValueError(f"floor must be at most the highest weight, 1, got {config.floor:g}")
