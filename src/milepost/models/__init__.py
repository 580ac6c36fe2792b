"""The reward models. `load_model` and `--model` find them by name, in a folder or on the Hub; `registry.py` says how one is added.

`make_reward_model_config`, `make_reward_model` and `make_reward_pre_post_processors` are LeRobot's names for the same.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
