"""Frames and words -> feature vectors, each frame decoded once and encoded once, kept on disk in half precision.

`load_encoder` finds an encoder by name, `FeatureCache` keeps what it makes; `PixelEncoder` is the built-in one, which needs no download.
The names here are imported when first used: what only resizes pictures needs no pyarrow.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
