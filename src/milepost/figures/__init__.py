"""Figures in one style: an episode's frames, curves and stages; weights and deltas. Colour-blind safe, readable in grey.

A stage has the same colour everywhere. matplotlib's Figure is used directly, so no global state and no display.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
