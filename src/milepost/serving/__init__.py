"""Servers of ours: their address, their limits, and the server that says progress while robots move."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
