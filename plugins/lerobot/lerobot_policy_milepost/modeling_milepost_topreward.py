"""milepost's TOPReward as a reward model of LeRobot. Nothing is trained; a saved model is its config.json, which milepost loads too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lerobot.configs.rewards import RewardModelConfig
from lerobot.rewards.pretrained import PreTrainedRewardModel
from torch import Tensor

from lerobot_policy_milepost.configuration_milepost_topreward import MilepostTOPRewardConfig
from milepost import TOPRewardModel


class MilepostTOPRewardRewardModel(PreTrainedRewardModel):
    """The config and, from the first question on, the VLM it names."""

    config_class = MilepostTOPRewardConfig
    name = "milepost_topreward"

    def __init__(self, config: MilepostTOPRewardConfig, dataset_stats: Any = None, dataset_meta: Any = None, **_: Any) -> None:
        super().__init__(config)
        self.config: MilepostTOPRewardConfig = config
        self.topreward = TOPRewardModel(config.topreward)

    def compute_reward(self, batch: dict[str, Any]) -> Tensor:
        """Returns log P("True") of each clip in nats, or 1 and 0 under a threshold, (B,). `batch` has been through the preprocessor."""
        return self.topreward.compute_reward(batch)

    def _save_pretrained(self, save_directory: Path) -> None:
        self.config._save_pretrained(save_directory)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_name_or_path: str | Path, *, config: RewardModelConfig | None = None, **kwargs: Any
    ) -> MilepostTOPRewardRewardModel:
        """Returns the model of a saved config: there are no weights to read."""
        own = {name: kwargs.pop(name) for name in ("dataset_stats", "dataset_meta", "strict") if name in kwargs}
        if config is None:
            config = RewardModelConfig.from_pretrained(pretrained_name_or_path, **kwargs)
        return cls(config, own.get("dataset_stats"), own.get("dataset_meta"))
