"""Fakes for people who test a reward model of their own: a world whose truth is known, a model server, tiny random models, a check.

No part of the package imports this, and it imports no test framework. docs/testing.md shows it at work.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
