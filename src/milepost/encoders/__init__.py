"""Images and words -> feature vectors, each frame decoded once and encoded once, stored in half precision.

`load_encoder` returns an encoder by name, `FeatureCache` stores what it computes; `PixelEncoder` is the built-in one, which needs no
download. The names here are imported when they are first used: code that only resizes images needs no pyarrow.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
