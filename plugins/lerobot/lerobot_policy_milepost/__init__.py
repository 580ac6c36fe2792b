"""milepost in LeRobot: the reward models `milepost_sarm` and `milepost_topreward`, `--sample_weighting.type=milepost`, and the processor
step `milepost_reward_processor`.

LeRobot imports this package when its programs start, because of its name; importing it registers all four. No file of LeRobot is changed.
Where `lerobot-rollout` runs, the strategy of `lerobot_strategy_milepost` is registered too, if it is installed: LeRobot 0.6.1 does not look
for it.
"""

import sys
from importlib.util import find_spec

from lerobot_policy_milepost.requirements import require_lerobot

require_lerobot()

from lerobot_policy_milepost.configuration_milepost_sarm import MilepostSARMConfig  # noqa: E402
from lerobot_policy_milepost.configuration_milepost_topreward import MilepostTOPRewardConfig  # noqa: E402
from lerobot_policy_milepost.reward_step import MilepostRewardProcessorStep  # noqa: E402
from lerobot_policy_milepost.weighting import offer_weights  # noqa: E402

offer_weights()
if "lerobot.rollout" in sys.modules and find_spec("lerobot_strategy_milepost") is not None:
    import lerobot_strategy_milepost  # noqa: F401

__all__ = ["MilepostRewardProcessorStep", "MilepostSARMConfig", "MilepostTOPRewardConfig"]
