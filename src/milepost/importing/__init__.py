"""Turns recordings in other layouts (videos, HDF5, Zarr, RLDS, older LeRobot versions) into LeRobot v3.0 datasets."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
