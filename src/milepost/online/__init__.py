"""Progress while the robot moves: attempts by session, reward shaping, events of an unfinished curve."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
