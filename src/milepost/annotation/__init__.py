"""Which stage each frame of an episode shows: a vision-language model is asked, its answers are checked, compared, stored, and written into
datasets.

Questions are words and images, answers are text. This room does not know which model answers.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
