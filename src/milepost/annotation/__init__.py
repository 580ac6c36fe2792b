"""Which stage each frame of an episode shows: asked of a vision-language model, checked, compared, kept, and written into datasets.

The questions are words and pictures, the answers text: who answers them is not known here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
