"""Simulated demonstrations whose progress is known: Meta-World tasks, scripted experts and several ways of doing worse.

    config = SimConfig(tasks=("drawer-open-v3",), episodes={"expert": 4, "giving_up": 4})
    make_dataset(Path("drawer"), config)

Needs the extra `sim` and, for pictures, OpenGL through EGL. Importing this loads neither.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
