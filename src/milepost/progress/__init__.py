"""Progress files: write them episode by episode, read them, and match them with a dataset."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
