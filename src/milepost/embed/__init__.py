"""Frames and words -> feature vectors, each frame decoded once and encoded once, kept on disk in half precision.

`load_encoder` finds an encoder by name, `FeatureCache` keeps what it makes; `PixelEncoder` is the built-in one, which needs no download.
The names here are imported when first used: what only resizes pictures needs no pyarrow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milepost.embed.clip import ClipEncoder as ClipEncoder
    from milepost.embed.encoder import Encoder as Encoder
    from milepost.embed.encoder import load_encoder as load_encoder
    from milepost.embed.features import FeatureCache as FeatureCache
    from milepost.embed.features import cache_folder as cache_folder
    from milepost.embed.pixels import PIXELS as PIXELS
    from milepost.embed.pixels import PixelEncoder as PixelEncoder
    from milepost.embed.pixels import PixelImages as PixelImages
    from milepost.embed.pixels import embed_text as embed_text
    from milepost.embed.pixels import reduce_images as reduce_images
    from milepost.embed.preprocess import Preprocessing as Preprocessing

_WHERE = {
    "ClipEncoder": "clip",
    "Encoder": "encoder",
    "FeatureCache": "features",
    "PIXELS": "pixels",
    "PixelEncoder": "pixels",
    "PixelImages": "pixels",
    "Preprocessing": "preprocess",
    "cache_folder": "features",
    "embed_text": "pixels",
    "load_encoder": "encoder",
    "reduce_images": "pixels",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'milepost.embed' has no attribute '{name}'")
    return getattr(importlib.import_module(f"milepost.embed.{_WHERE[name]}"), name)
