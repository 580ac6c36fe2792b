"""milepost in LeRobot: the reward models `milepost_sarm` and `milepost_topreward`, and `--sample_weighting.type=milepost`.

LeRobot imports this package when its programs start, because of its name; importing it registers all three. No file of LeRobot is changed.
"""

from lerobot_policy_milepost.requirements import require_lerobot

require_lerobot()

from lerobot_policy_milepost.configuration_milepost_sarm import MilepostSARMConfig  # noqa: E402
from lerobot_policy_milepost.configuration_milepost_topreward import MilepostTOPRewardConfig  # noqa: E402
from lerobot_policy_milepost.weighting import offer_weights  # noqa: E402

offer_weights()

__all__ = ["MilepostSARMConfig", "MilepostTOPRewardConfig"]
