"""LeRobot's module names (`lerobot.rewards`), so that its snippets and commands run with another import line."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
