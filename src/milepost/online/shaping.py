"""Turns progress into a reward for reinforcement learning. numpy only.

Potential-based shaping adds F = gamma * phi(s') - phi(s), with progress as phi. It leaves the optimal policy as it is, whatever phi is, if
phi counts as 0 in a terminal state (sources: Ng, Harada, Russell 1999; Grzes 2017 for the terminal state). A terminal state that would keep
its progress for ever gives the same: its later rewards sum up to -gamma * phi, so the last reward is -phi(s) in both results. A time limit
is no terminal state: there phi(s') counts, as in any other step.

"difference" is phi(s') - phi(s) and "absolute" is phi(s'). Both change what is optimal. They are what many people train with, so they are
here under their names.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Literal

Kind = Literal["potential", "difference", "absolute"]


@dataclass(frozen=True)
class ShapingConfig:
    """How progress becomes a reward. ValueError for numbers outside their range.

    kind: "potential" (gamma * phi(s') - phi(s)), "difference" (phi(s') - phi(s)) or "absolute" (phi(s')). gamma: the discount of the
    learner, above 0 and at most 1; a policy-invariant reward needs the very same. scale: a factor of the reward. clip: its largest absolute
    value in a step, None for none; clipping ends the invariance.

    >>> milepost.ShapingConfig().is_policy_invariant, milepost.ShapingConfig("difference").is_policy_invariant
    (True, False)
    """

    kind: Kind = "potential"
    gamma: float = 0.99
    scale: float = 1.0
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("potential", "difference", "absolute"):
            raise ValueError(f"kind must be potential, difference or absolute, got '{self.kind}'")
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma must be above 0 and at most 1, got {self.gamma:g}")
        if not math.isfinite(self.scale):
            raise ValueError(f"scale must be a finite number, got {self.scale}")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise ValueError(f"clip must be above 0, got {self.clip:g}")

    @property
    def is_policy_invariant(self) -> bool:
        """Returns whether the reward leaves the optimal policy as it is."""
        return self.kind == "potential" and self.clip is None


class Shaper:
    """Follows one attempt, progress by progress. Unknown progress (NaN) counts as the last known one, so that the sum stays a telescope.

    `follow` takes frames by their numbers, of which some may be missing or unknown, and is what the server and all wrappers use. `begin`,
    `reward` and `skip` take one step after the other.

    >>> shaper = milepost.Shaper(milepost.ShapingConfig(gamma=0.5))
    >>> shaper.begin(0.2)
    >>> [round(shaper.reward(phi), 3) for phi in (0.4, float("nan"), 1.0)]
    [0.0, -0.2, 0.1]
    >>> shaper.reward(1.0, is_terminal=True)
    -1.0
    """

    def __init__(self, config: ShapingConfig | None = None) -> None:
        self.config = config or ShapingConfig()
        self._phi = math.nan
        self._first: int | None = None
        self._at, self._is_over = 0, False
        self.unknown_steps = 0

    def begin(self, progress: float) -> None:
        """Begins an attempt whose first frame has this progress."""
        self._phi, self.unknown_steps = progress, int(math.isnan(progress))
        self._first, self._is_over = None, False

    def follow(self, frame: int, progress: float, *, is_terminal: bool = False) -> float:
        """Returns the reward of the step that led to this frame; NaN for the first frame, where progress is not known, and after the end.

        frame: its number. With "potential" the next known frame makes up for those that are missing or unknown, discounted as the learner
        discounts, so the sum stays the telescope that it is; and an unknown terminal frame has -phi(s), which needs no phi(s').

        >>> shaper = milepost.Shaper(milepost.ShapingConfig(gamma=0.5))
        >>> [shaper.follow(0, 0.2), shaper.follow(1, float("nan")), shaper.follow(2, 0.8)]  # 0.5 * the last = 0.25 * 0.8 - 0.2
        [nan, nan, 0.0]
        """
        if self._is_over:
            return math.nan
        if self._first is None or (math.isnan(self._phi) and frame <= self._first):
            return self._start(frame, progress, is_terminal=is_terminal)
        self._is_over, is_potential = is_terminal, self.config.kind == "potential"
        if math.isnan(progress) and not (is_terminal and is_potential):
            self.unknown_steps += 1
            return math.nan
        if is_potential and not math.isnan(self._phi):
            weight = self.config.gamma ** (frame - self._at - 1)
            if weight < sys.float_info.min:  # the frames before weigh nothing any more
                return self._start(frame, progress, is_terminal=is_terminal)
            self._phi /= weight
        self._at = frame
        return self.reward(progress, is_terminal=is_terminal)

    def _start(self, frame: int, progress: float, *, is_terminal: bool) -> float:
        self.begin(progress)
        self._first, self._at, self._is_over = frame, frame, is_terminal
        return math.nan

    def reward(self, progress: float, *, is_terminal: bool = False) -> float:
        """Returns the reward of the step that led here. NaN while no progress has been known yet.

        is_terminal: the task ended here (done or failed), so that nothing comes after. A time limit is not that.
        """
        before, now = self._phi, progress
        if math.isnan(now):
            self.unknown_steps += 1
            now = before
        self._phi = now
        if math.isnan(before):  # the first known progress has none to compare with
            before = now
        config = self.config
        if config.kind == "absolute":
            value = now
        elif config.kind == "difference":
            value = now - before
        else:
            value = (0.0 if is_terminal else config.gamma * now) - before
        value *= config.scale
        return value if config.clip is None or math.isnan(value) else max(-config.clip, min(config.clip, value))

    def skip(self) -> None:
        """Counts a step without a reward of its own, because its progress is not known and its learner is told so.

        With "potential" the next reward makes up for it, discounted as the learner discounts: the sum stays the telescope that it is.

        >>> shaper = milepost.Shaper(milepost.ShapingConfig(gamma=0.5))
        >>> shaper.begin(0.2)
        >>> shaper.skip()
        >>> shaper.reward(0.8)  # 0.5 * this = 0.25 * 0.8 - 0.2, the two steps together
        0.0
        """
        self.unknown_steps += 1
        if self.config.kind == "potential":
            self._phi /= self.config.gamma
