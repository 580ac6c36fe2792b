"""`--reward_model.type=milepost_sarm`: milepost's SARM config as LeRobot's programs read and write it.

The fields are `milepost.SARMConfig`'s, with its defaults; below them is how the model is trained. What a dataset decides (cameras, stages,
state statistics, the encoder's fingerprint) is filled in when training begins, and saved.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from lerobot.configs.rewards import RewardModelConfig
from lerobot.optim.optimizers import AdamWConfig
from lerobot.optim.schedulers import CosineDecayWithWarmupSchedulerConfig, LRSchedulerConfig

from lerobot_policy_milepost.requirements import options_named
from lerobot_policy_milepost.shared import with_fields
from milepost import SARMConfig

FAR = 10**6
"""Frames before an episode's first one: LeRobot's data loader then gives the first one."""


PLACE = ("device", "pretrained_path")
"""Fields of milepost's config that LeRobot's own config has."""


@RewardModelConfig.register_subclass("milepost_sarm")
@dataclass
@with_fields(SARMConfig, without=PLACE, image_key=(str, ""))
class MilepostSARMConfig(RewardModelConfig):
    """milepost's SARM. Empty fields are decided by the dataset."""

    keep_features: bool = True
    """The encoder's features of the frames are kept on disk ($MILEPOST_CACHE, else ~/.cache/milepost/features)."""
    optimizer_lr: float = 5e-5
    optimizer_weight_decay: float = 1e-3
    optimizer_grad_clip_norm: float = 1.0
    trained_steps: int = 0
    """Steps learnt so far; a resumed run goes on with the samples that follow."""

    def __post_init__(self) -> None:
        super().__post_init__()
        with options_named(self):
            _ = self.sarm  # refuses values that cannot be, before anything is read

    @property
    def sarm(self) -> SARMConfig:
        """Returns milepost's config. ValueError names a value that cannot be."""
        names = {field.name for field in dataclasses.fields(SARMConfig)} - set(PLACE)
        values = {name: getattr(self, name) for name in names}
        return SARMConfig(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    def take(self, config: SARMConfig) -> None:
        """Takes over the values of milepost's config, with what the dataset decided."""
        for name, value in config.to_dict().items():
            if name != "type":
                setattr(self, name, value)

    def count_step(self) -> int:
        """Counts a training step, and returns its number."""
        self.trained_steps += 1
        return self.trained_steps

    def window_indices(self, fps: float) -> list[int]:
        """Returns the frames of a window relative to its own, for `delta_timestamps` of a LeRobotDataset whose batches are to be scored.

        A causal window begins with the episode's first frame, which LeRobot gives for any frame before it.
        """
        gap, count = self.sarm.gap(fps), self.n_obs_steps
        if self.window == "centred":
            return [(i - count // 2) * gap for i in range(count + 1)]
        return [-FAR, *(-i * gap for i in reversed(range(count)))]

    def get_optimizer_preset(self) -> AdamWConfig:
        return AdamWConfig(
            lr=self.optimizer_lr, weight_decay=self.optimizer_weight_decay, grad_clip_norm=self.optimizer_grad_clip_norm, betas=(0.9, 0.999)
        )

    def get_scheduler_preset(self) -> LRSchedulerConfig:
        """Returns milepost's schedule: a tenth of the steps to warm up, then a cosine down to a tenth of the rate, whatever the steps."""
        steps = 10**9  # LeRobot scales both numbers down to the steps of the run
        return CosineDecayWithWarmupSchedulerConfig(
            num_warmup_steps=steps // 10, num_decay_steps=steps, peak_lr=self.optimizer_lr, decay_lr=self.optimizer_lr / 10
        )

    def validate_features(self) -> None:
        """Checks nothing: the model reads the dataset's features itself."""
