"""milepost: how far along is the task, for every frame of a robot demonstration. The public names, imported when first used."""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = [*__all__, "__version__"]
