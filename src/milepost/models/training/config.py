"""How to train: the settings of the training loop, as plain values. No torch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from milepost.core import refuses_unknown_options, require_integers
from milepost.models.training.tracking import Tracking


@refuses_unknown_options()
@dataclass(frozen=True)
class TrainConfig:
    """How to train. The optimiser's defaults are the paper's.

    >>> milepost.TrainConfig(steps=200, batch_size=8).lr
    5e-05
    """

    steps: int = 5000
    epochs: float | None = None
    """Passes over the labelled training frames. If given, it decides `steps`."""
    batch_size: int = 32
    """Samples a step, of each process."""
    accumulate: int = 1
    """Parts of a process's batch that are computed one after the other; their gradients are summed before the step."""
    lr: float = 5e-5
    weight_decay: float = 1e-3
    warmup: float = 0.1
    """Proportion of the steps in which the learning rate rises."""
    clip: float = 1.0
    seed: int = 0
    device: str = "cpu"
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """auto: bf16 on a CUDA GPU that has it, else no."""
    validation: float | None = 0.0
    """Proportion of the training scenes set aside as validation set, which chooses the best checkpoint. None: 0.1 if there are enough
    episodes.
    """
    eval_every: int | None = None
    """Steps between evaluations; default: a twentieth of the steps."""
    patience: int | None = None
    """Stop after that many evaluations without a better one."""
    checkpoint_s: float = 20.0
    """Seconds between checkpoints."""
    overwrite: bool = False
    """Start over where the folder holds an unfinished run with other settings or data, which is refused otherwise."""
    tracking: Tracking = field(default_factory=Tracking)
    more_follows: bool = False
    """More than the steps belongs to this run (a card, an upload): until the caller's `finish_run`, the same call returns what was done."""

    def __post_init__(self) -> None:
        require_integers(self)
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(f"steps and batch_size must be at least 1, got {self.steps} and {self.batch_size}")
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise ValueError(f"accumulate must divide batch_size, got {self.accumulate} and {self.batch_size}")
        if not (0 <= self.lr < math.inf):
            raise ValueError(f"lr must be at least 0 and finite, got {self.lr}")
        if self.epochs is not None and not self.epochs > 0:
            raise ValueError(f"epochs must be above 0, got {self.epochs}")
        if self.validation is not None and not 0 <= self.validation < 1:
            raise ValueError(f"validation must lie in [0, 1), got {self.validation}")
        for name in ("eval_every", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.mixed_precision not in ("auto", "no", "bf16", "fp16"):
            raise ValueError(f"mixed_precision must be auto, no, bf16 or fp16, got '{self.mixed_precision}'")

    def with_steps(self, frames: int, processes: int) -> TrainConfig:
        """Returns the config with `steps` from `epochs`, if those are given: an epoch is as many samples as there are labelled training
        frames.
        """
        if self.epochs is None:
            return self
        return dataclasses.replace(self, steps=math.ceil(self.epochs * frames / (self.batch_size * processes)))

    def deciding(self) -> dict[str, Any]:
        """Returns the fields that the result depends on: not how often a checkpoint is written, what it replaces, or which trackers are
        used.
        """
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in ("checkpoint_s", "overwrite", "tracking", "more_follows")}
