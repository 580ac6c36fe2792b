"""LeRobot's reward factory: the functions of `milepost.models` under its module's name."""

from milepost.models import make_reward_model, make_reward_model_config, make_reward_pre_post_processors

__all__ = ["make_reward_model", "make_reward_model_config", "make_reward_pre_post_processors"]
