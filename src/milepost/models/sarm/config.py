"""What a SARM model is: sizes, window, stages, statistics. Plain values; all of it is saved in the model's config.json.

Defaults are the paper's (arXiv 2509.25358), names are LeRobot's; `gap_s`, `decode` and `unfinished` are ours. What LeRobot does
differently has a named value ("centred", "lerobot"), so that its checkpoints run here as they do there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from milepost.core import WHOLE, DataError, Stages, gap_frames, refuses_unknown_options
from milepost.models.model_config import ModelConfig

CLIP = "openai/clip-vit-base-patch32"
"""The paper's encoder, and that of every LeRobot checkpoint: 512 numbers an image or a sentence."""
AnnotationMode = Literal["single_stage", "sparse_only", "dense_only", "dual"]
GONE = {"loss": "masked", "samples": "own"}
"""Fields that configs of earlier versions have, with the one value that is left."""

_SIZES = {
    "size": ("hidden_dim", "image_dim", "text_dim", "max_state_dim"),
    "layers": ("num_layers", "num_heads"),
    "window": ("n_obs_steps",),
}
"""Fields by the kind of number they hold."""


@refuses_unknown_options()
@dataclass(frozen=True)
class SARMConfig(ModelConfig):
    """Stage-aware reward model: a stage network and a within-stage progress network over a window of frames.

    >>> config = milepost.SARMConfig(image_key="observation.images.top", frame_gap=5)
    >>> config.n_obs_steps, config.encoder
    (8, 'openai/clip-vit-base-patch32')
    """

    TYPE = "sarm"
    NAME = "SARM"

    annotation_mode: AnnotationMode = "single_stage"
    """single_stage: the episode is one stage. sparse_only, dense_only, dual: use those subtask annotations."""
    image_key: str = "observation.images.top"
    more_image_keys: tuple[str, ...] = ()
    """Further cameras, each a stream of its own."""
    state_key: str = "observation.state"
    n_obs_steps: int = 8
    """Frames of history; the window is the episode's first frame and these. Centred: half of them before now, half after."""
    gap_s: float = 1.0
    """Seconds between the frames of the window."""
    frame_gap: int | None = None
    """Frames between the frames of the window, whatever the frame rate (LeRobot); `gap_s` then counts for nothing."""
    max_rewind_steps: int = 4
    rewind_probability: float = 0.8
    language_perturbation_probability: float = 0.2
    gt_stage_ratio: float = 0.75
    """Proportion of samples whose within-stage network is shown the true stage in training; the others get the predicted one."""
    hidden_dim: int = 768
    num_layers: int = 8
    num_heads: int = 12
    dropout: float = 0.1
    max_state_dim: int = 32
    feature_noise: float = 0.0
    """Gaussian noise on the image features in training, in standard deviations of theirs."""
    augmentation: float = 0.0
    """Strength of the changes of light, contrast, colour, place and noise in training, 0 for none. The built-in encoder draws them for each
    window; any other encodes four changed copies of each training episode, so that encoding costs five times as much."""
    encoder: str = CLIP
    """The folder or `owner/name` of a CLIP- or SigLIP-type model, or "pixels": the built-in one, which needs no download."""
    encoder_fingerprint: str = ""
    """Its weights and preprocessing when this model was trained; another encoder is refused. Empty (LeRobot): not known, not checked."""
    image_dim: int = 512
    text_dim: int = 512
    window: Literal["causal", "centred"] = "causal"
    """causal: nothing after now, works online. centred: LeRobot's, half of it after now, which attention="lerobot" sees."""
    attention: Literal["time", "lerobot"] = "time"
    """time: a token sees every stream up to its own frame. lerobot: every token before it in the order cameras, text, state, stage."""
    decode: Literal["expected", "argmax"] = "expected"
    """expected: mean progress over the stage probabilities. argmax: the likeliest stage's (the paper)."""
    unfinished: Literal["mask", "zero"] = "mask"
    """tau of a run that did not advance: left out of the loss, or taught as 0."""

    sparse_subtask_names: tuple[str, ...] = ()
    sparse_temporal_proportions: tuple[float, ...] = ()
    dense_subtask_names: tuple[str, ...] = ()
    dense_temporal_proportions: tuple[float, ...] = ()
    state_mean: tuple[float, ...] = ()
    state_std: tuple[float, ...] = ()
    state_stats_from: str = "training episodes"
    """Source of state_mean and state_std. Empty for LeRobot checkpoints, which have none: set `state_stats` before such a model takes robot
    states.
    """
    blank_task: bool = False
    """It learnt from episodes without an instruction. If not, a blank one is refused: it would count as a wrong one, and end near 0."""
    device: str | None = None
    pretrained_path: str | None = None
    """Where `make_reward_model` puts the model, and what it loads. Not saved: they are no part of what the model is."""

    def __post_init__(self) -> None:
        self.check(_SIZES)
        if not 0 <= self.augmentation <= 3:
            raise ValueError(f"augmentation must lie in [0, 3], got {self.augmentation}")
        if not self.gap_s > 0 or not np.isfinite(self.gap_s):
            raise ValueError(f"gap_s must be above 0 and finite, got {self.gap_s}")
        if self.hidden_dim % self.num_heads:
            raise ValueError(f"hidden_dim must be a multiple of num_heads, got {self.hidden_dim} and {self.num_heads}")
        if self.max_rewind_steps < 0 or self.max_rewind_steps >= self.n_obs_steps:
            raise ValueError(f"need 0 <= max_rewind_steps < n_obs_steps, got {self.max_rewind_steps} and {self.n_obs_steps}")
        for name in ("rewind_probability", "language_perturbation_probability", "gt_stage_ratio", "dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not self.encoder:
            raise ValueError("encoder must be 'pixels', or the folder or owner/name of a CLIP- or SigLIP-type model, got ''")
        if self.frame_gap is not None and self.frame_gap < 1:
            raise ValueError(f"frame_gap must be at least 1 frame, got {self.frame_gap}")
        if self.window == "centred" and self.n_obs_steps % 2:
            raise ValueError(f"a centred window needs an even n_obs_steps, half before now and half after, got {self.n_obs_steps}")

    def gap(self, fps: float) -> int:
        """Returns the frames between the frames of the window."""
        return self.frame_gap if self.frame_gap is not None else gap_frames(self.gap_s, fps)

    @property
    def now(self) -> int:
        """Returns the place of the current frame in the window: its last, or the middle of a centred one."""
        return self.n_obs_steps // 2 if self.window == "centred" else self.n_obs_steps

    @property
    def annotated_heads(self) -> tuple[str, ...]:
        """Returns the heads that learn from annotations: the columns the dataset must have."""
        return {"single_stage": (), "sparse_only": ("sparse",), "dense_only": ("dense",), "dual": ("sparse", "dense")}[self.annotation_mode]

    @property
    def heads(self) -> Mapping[str, Stages]:
        """Returns head name -> its stages. "sparse" always exists; without its own annotation it is the whole task as one stage."""
        heads = {"sparse": WHOLE}
        for head in self.annotated_heads:
            names, shares = getattr(self, f"{head}_subtask_names"), getattr(self, f"{head}_temporal_proportions")
            if not names:
                raise DataError(f"annotation_mode '{self.annotation_mode}' needs {head} stages, and this config has none")
            heads[head] = Stages(tuple(names), tuple(shares))
        return heads

    @property
    def judged_head(self) -> str:
        """Returns the head whose curve is compared with the truth of held-out episodes."""
        return "dense" if self.annotation_mode == "dense_only" else "sparse"

    @property
    def own_stages(self) -> Stages | None:
        """Returns the stages of that head which the model learnt; None for a model of the whole task."""
        return self.heads[self.judged_head] if self.judged_head in self.annotated_heads else None

    def chosen_heads(self, heads: Sequence[str] | None) -> list[str]:
        """Returns the model's heads among these, in their order; None is all. The sparse one is always among them."""
        return [head for head in self.heads if heads is None or head == "sparse" or head in heads]

    def run_settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the options of `predict` that are written down of a run, those that were not given too."""
        return {"heads": self.chosen_heads(options.get("heads")), "stride": options.get("stride", 1)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SARMConfig:
        """Returns the config in config.json. Unknown keys are refused by name, and LeRobot's way to train, which earlier versions had, by a
        sentence.
        """
        for name in GONE:
            if values.get(name) == "lerobot":
                raise DataError(
                    f'{name}: "lerobot" in the SARM config was removed: it restated LeRobot\'s training, mistakes included; train the '
                    "model again, and see benchmarks/lerobot_recipe.py, which has it to be compared with"
                )
        return cls(**cls.saved_fields({name: value for name, value in values.items() if name not in GONE or value != GONE[name]}))
