"""Measures of progress: scores against the truth, success, events, and the agreement of annotations."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
