"""What the configs of models of one window have in common: cameras, window, networks, encoder, statistics. Plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from milepost.core import DataError, gap_frames, require_integers
from milepost.models.model_config import ModelConfig

SIZES: Mapping[str, Sequence[str]] = {"size": ("hidden_dim", "image_dim", "text_dim"), "window": ("n_obs_steps",), "layers": ("members",)}
C = TypeVar("C", bound="WindowedConfig")


@dataclass(frozen=True)
class WindowedConfig(ModelConfig):
    """The fields of every model that is an ensemble of small networks on the features of a causal window."""

    image_key: str = "observation.images.top"
    more_image_keys: tuple[str, ...] = ()
    """Further cameras."""
    n_obs_steps: int = 3
    """Frames of history, the last one now; the window is the episode's first frame and these."""
    gap_s: float = 0.2
    """Seconds between the frames of the window."""
    members: int = 3
    """Networks of the ensemble."""
    hidden_dim: int = 256
    dropout: float = 0.3
    feature_noise: float = 0.5
    """Gaussian noise on the standardised image features in training."""
    language_perturbation_probability: float = 0.1
    """Proportion of the samples that get a wrong instruction, and the target of a failure."""
    encoder: str = "pixels"
    """"pixels", the built-in one, or the folder or `owner/name` of a CLIP- or SigLIP-type model."""
    encoder_fingerprint: str = ""
    image_dim: int = 32
    text_dim: int = 32
    tasks: tuple[str, ...] = ()
    """The instructions that it learnt from."""
    state_mean: tuple[float, ...] = ()
    state_std: tuple[float, ...] = ()
    blank_task: bool = False
    """It learnt from episodes without an instruction. If not, a blank one is refused."""
    device: str | None = None
    pretrained_path: str | None = None

    def __post_init__(self) -> None:
        require_integers(self)
        self.check(SIZES)
        if not 0 < self.gap_s < math.inf:
            raise ValueError(f"gap_s must be above 0 and finite, got {self.gap_s}")
        if not 0 <= self.feature_noise < math.inf:
            raise ValueError(f"feature_noise must be at least 0 and finite, got {self.feature_noise}")
        for name in ("dropout", "language_perturbation_probability"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")

    def gap(self, fps: float) -> int:
        """Returns the frames between the frames of the window."""
        return gap_frames(self.gap_s, fps)

    @classmethod
    def from_dict(cls: type[C], values: Mapping[str, Any]) -> C:
        """Returns the config in config.json. DataError names the key that is unknown or has an impossible value."""
        fields = cls.saved_fields(values)
        try:
            return cls(**fields)
        except (ValueError, TypeError) as error:
            raise DataError(f"the {cls.NAME} config cannot be used: {error}") from error
