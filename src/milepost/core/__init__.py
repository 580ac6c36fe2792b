"""The types and rules that every room uses: episodes, segments, progress, stages, files that are never half-written."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
