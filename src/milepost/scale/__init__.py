"""Work on many machines: items are given to actors of a Ray cluster, and the answers come back in any order."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
