"""What a value model is: sizes, window, bins, the scale of each task, statistics. Plain values, all of them in the model's config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from milepost.core import DataError, gap_frames, refuses_unknown_options, require_integers
from milepost.models.model_config import ModelConfig

Reduction = Literal["mean", "min"]
Normalise = Literal["task", "lerobot"]
Target = Literal["two_hot", "hl_gauss"]
LEROBOT_FAILURE_FRAMES = 50
"""C of LeRobot's pull request 3764, in frames."""
_SIZES = {"size": ("hidden_dim", "image_dim", "text_dim"), "window": ("n_obs_steps",), "layers": ("members",)}


@refuses_unknown_options()
@dataclass(frozen=True)
class ValueConfig(ModelConfig):
    """An ensemble of small networks on cached features, each of which predicts a distribution over the return of a frame.

    >>> milepost.make_reward_model_config("value", members=5).bins
    201
    """

    TYPE = "value"
    NAME = "value"

    image_key: str = "observation.images.top"
    more_image_keys: tuple[str, ...] = ()
    """Further cameras."""
    n_obs_steps: int = 3
    """Frames of history, the last one now; the window is the episode's first frame and these."""
    gap_s: float = 0.2
    """Seconds between the frames of the window."""
    bins: int = 201
    """Bins of the distribution, evenly over the returns from -1 to 0."""
    target: Target = "hl_gauss"
    """hl_gauss: a normal distribution around the return. two_hot: the two bins around it."""
    sigma_bins: float = 3.0
    """Standard deviation of the hl_gauss target, in bins."""
    members: int = 3
    """Networks of the ensemble."""
    reduction: Reduction = "mean"
    """The members' answer: their mean, or the lowest one (worst of M)."""
    normalise: Normalise = "task"
    """task: by the longest success of the task; a failure is -1. lerobot: by the longest episode of the task and C, as LeRobot does."""
    failure_frames: int | None = None
    """C, the frames that a failure counts more. None: so many that a failure is -1 throughout ("task"), or 50 ("lerobot")."""
    hidden_dim: int = 256
    dropout: float = 0.3
    feature_noise: float = 0.5
    """Gaussian noise on the standardised image features in training."""
    language_perturbation_probability: float = 0.1
    """Proportion of the samples that get a wrong instruction, whose return is -1."""
    encoder: str = "pixels"
    """"pixels", the built-in one, or the folder or `owner/name` of a CLIP- or SigLIP-type model."""
    encoder_fingerprint: str = ""
    image_dim: int = 32
    text_dim: int = 32
    tasks: tuple[str, ...] = ()
    """The instructions that it learnt from."""
    scales: tuple[float, ...] = ()
    """Frames that a return of -1 is, by task."""
    durations: tuple[float, ...] = ()
    """The median success of each task, in frames after the first: how long the task takes."""
    fps: float = 0.0
    """Frames per second of the training episodes, which scales and durations count in."""
    state_mean: tuple[float, ...] = ()
    state_std: tuple[float, ...] = ()
    blank_task: bool = False
    """It learnt from episodes without an instruction. If not, a blank one is refused."""
    device: str | None = None
    pretrained_path: str | None = None

    def __post_init__(self) -> None:
        require_integers(self)
        self.check(_SIZES)
        if not 3 <= self.bins <= 10_001:
            raise ValueError(f"bins must lie in [3, 10001], got {self.bins}")
        if self.failure_frames is not None and self.failure_frames < 0:
            raise ValueError(f"failure_frames must be at least 0, got {self.failure_frames}")
        for name in ("gap_s", "sigma_bins"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, got {getattr(self, name)}")
        if not 0 <= self.feature_noise < math.inf:
            raise ValueError(f"feature_noise must be at least 0 and finite, got {self.feature_noise}")
        for name in ("dropout", "language_perturbation_probability"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if len({len(self.tasks), len(self.scales), len(self.durations)}) != 1:
            raise ValueError("tasks, scales and durations need as many entries")
        if any(not 0 < number < math.inf for number in (*self.scales, *self.durations)):
            raise ValueError(f"scales and durations are above 0 and finite, got {self.scales} and {self.durations}")

    def gap(self, fps: float) -> int:
        """Returns the frames between the frames of the window."""
        return gap_frames(self.gap_s, fps)

    def penalty(self, scale: float) -> float:
        """Returns C in frames for a task of this scale."""
        if self.failure_frames is not None:
            return float(self.failure_frames)
        return scale if self.normalise == "task" else float(LEROBOT_FAILURE_FRAMES)

    @property
    def knows_success(self) -> bool:
        """Returns whether the returns of failures and successes lie apart, so that there is a probability of success."""
        return self.normalise == "task" and all(self.penalty(scale) >= scale for scale in self.scales)

    def pace(self, task: str) -> tuple[float, float]:
        """Returns (scale, duration) of a task in frames; of one that it did not learn from, the medians of all."""
        if task in self.tasks:
            place = self.tasks.index(task)
            return self.scales[place], self.durations[place]
        return (float(np.median(self.scales)), float(np.median(self.durations))) if self.scales else (1.0, 1.0)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ValueConfig:
        """Returns the config in config.json. DataError names the key that is unknown or has an impossible value."""
        fields = cls.saved_fields(values)
        try:
            return cls(**fields)
        except (ValueError, TypeError) as error:
            raise DataError(f"the value config cannot be used: {error}") from error
