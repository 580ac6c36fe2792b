"""`lerobot-rollout --strategy.type=milepost`: ends an episode on success, and records progress while it happens.

LeRobot imports this package by its prefix, or `lerobot_policy_milepost` does where LeRobot does not look for strategies yet (0.6.1). The
strategy is registered if the rollout is what runs; training loads nothing of it. In Python: `lerobot_strategy_milepost.strategy`.
"""

import sys

if "lerobot.rollout" in sys.modules:
    from lerobot_strategy_milepost.strategy import install

    install()
