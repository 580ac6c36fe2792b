"""The strategy as LeRobot knows it: a config, and LeRobot's own episodic recording with a follower beside it.

LeRobot 0.6.1 chooses a strategy in `create_strategy` from a fixed list, and makes a dataset without asking a strategy for its features.
`install` therefore puts a function before that one, in memory, and `setup` adds the features to the dataset while it is still empty. Both
places are checked first; a LeRobot where they have changed is refused with the reason.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from dataclasses import dataclass
from typing import Any

from lerobot.datasets.io_utils import write_info
from lerobot.rollout import strategies
from lerobot.rollout.configs import EpisodicStrategyConfig, RolloutStrategyConfig
from lerobot.rollout.strategies import EpisodicStrategy, factory

from lerobot_strategy_milepost.follow import FEATURES, Follower, Recorder
from milepost import load_model
from milepost.metrics import SuccessRule

LOOP = {"dataset", "events", "fps", "single_task"}
"""What the loop of one episode is called with, as of LeRobot 0.6.1."""
logger = logging.getLogger(__name__)


@RolloutStrategyConfig.register_subclass("milepost")
@dataclass
class MilepostStrategyConfig(EpisodicStrategyConfig):
    """Episodic recording that ends an episode on success. Thresholds are of progress in [0, 1]."""

    model_path: str = ""
    """The reward model: a folder, or a repository of the Hub."""
    threshold: float = 0.9
    """The progress at which success begins."""
    release: float = 0.8
    """The progress below which it ends again."""
    hold_s: float = 0.5
    """For how many seconds progress must stay at the threshold."""
    stop_on_success: bool = True
    """Whether the episode ends there. If not, it goes on, and `next.success` says when it was successful."""
    every: int = 1
    """The model looks at every n-th frame. Choose more than 1 if the loop becomes slower than the robot."""
    model_device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.model_path:
            raise ValueError("the milepost strategy needs a reward model: add --strategy.model_path=FOLDER")
        if self.hold_s < 0:
            raise ValueError(f"--strategy.hold_s must not be negative, got {self.hold_s:g}")
        SuccessRule(self.threshold, self.release)

    def rule(self, fps: float) -> SuccessRule:
        """Returns the rule for frames that come at `fps`."""
        return SuccessRule(self.threshold, self.release, max(1, round(self.hold_s * fps / self.every)))

    def extra_dataset_features(self) -> dict[str, dict[str, Any]]:
        """Returns the features that are recorded beside the robot's own; later versions of LeRobot ask for them."""
        return {name: dict(feature) for name, feature in FEATURES.items()}


class MilepostStrategy(EpisodicStrategy):
    """LeRobot's episodic recording; a reward model watches each episode, and may end it."""

    config: MilepostStrategyConfig

    def setup(self, ctx: Any) -> None:
        """Loads the model and adds the features to the dataset, before the robot moves."""
        model = load_model(self.config.model_path, device=self.config.model_device)
        self._follower = Follower(model, self.config.rule(ctx.runtime.cfg.fps), every=self.config.every)
        _add_features(ctx.data.dataset, self.config.extra_dataset_features())
        super().setup(ctx)

    def _policy_loop(self, **loop: Any) -> None:
        events = loop["events"]

        def on_success() -> None:
            logger.info("milepost: success")
            if self.config.stop_on_success:
                events["exit_early"] = True

        self._follower.begin(loop["single_task"], loop["fps"])
        super()._policy_loop(**{**loop, "dataset": Recorder(loop["dataset"], self._follower, on_success)})


def install() -> None:
    """Makes LeRobot know the strategy. A second call does nothing. ImportError if LeRobot has changed where it is put in."""
    lacking = LOOP - set(inspect.signature(EpisodicStrategy._policy_loop).parameters)
    if lacking:
        raise ImportError(
            f"LeRobot's EpisodicStrategy has changed (no {', '.join(sorted(lacking))}): install a newer lerobot_strategy_milepost"
        )
    if hasattr(RolloutStrategyConfig, "extra_dataset_features") or hasattr(factory.create_strategy, "__wrapped__"):
        return  # that LeRobot finds a plugin's strategy itself, or it is installed
    original = factory.create_strategy
    if list(inspect.signature(original).parameters) != ["config"]:
        raise ImportError("LeRobot's create_strategy has changed: install a newer lerobot_strategy_milepost")

    @functools.wraps(original)
    def create_strategy(config: RolloutStrategyConfig) -> Any:
        return MilepostStrategy(config) if isinstance(config, MilepostStrategyConfig) else original(config)

    names = ("lerobot.rollout", "lerobot.scripts.lerobot_rollout", "__main__")
    for module in (factory, strategies, *(sys.modules[name] for name in names if name in sys.modules)):
        if getattr(module, "create_strategy", None) is original:
            module.create_strategy = create_strategy


def _add_features(dataset: Any, features: dict[str, dict[str, Any]]) -> None:
    """Adds features to a dataset that has no frame yet. ValueError if it has frames, or such a feature of another kind."""
    lacking = {name: feature for name, feature in features.items() if name not in dataset.meta.features}
    wrong = [name for name in features if name not in lacking and dataset.meta.features[name]["dtype"] != features[name]["dtype"]]
    if wrong:
        raise ValueError(f"the dataset has a feature '{wrong[0]}' of another kind; choose another --dataset.repo_id")
    if lacking and dataset.meta.total_frames:
        raise ValueError(f"the dataset was recorded without '{next(iter(lacking))}'; do not --resume it, record a new one")
    if lacking:
        dataset.meta.features.update(lacking)
        write_info(dataset.meta.info, dataset.meta.root)
        dataset.clear_episode_buffer()  # the empty one has no place for them
