"""Images of stored rollouts, rendered by MuJoCo through EGL; nothing is simulated here.

`top` looks across the table from a corner, closer than Meta-World's own cameras (whose objects are five pixels wide); `wrist` rides
on the gripper. Shadows, reflections, sky and multisampling are off: they cost time and add no information. Markers that Meta-World draws
at goals are hidden where the goal is visible without them (peg, hole, drawer, shelf), so that a marker does not give the answer away;
only pick-place keeps its marker, because its goal has no other visible part.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from milepost.sim.rollout import Rollout
from milepost.sim.tasks import TASKS
from milepost.sim.world import metaworld, world


@dataclass(frozen=True)
class Orbit:
    """A view from `distance` metres away from a point; azimuth and elevation in degrees say where it looks."""

    at: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float


CAMERAS: dict[str, str | Orbit] = {
    "observation.images.top": Orbit(at=(-0.02, 0.72, 0.1), distance=1.1, azimuth=135.0, elevation=-30.0),
    "observation.images.wrist": "gripperPOV",
}
"""Camera of the dataset -> its position, or its name in the simulator."""

NEVER_SEEN = ("pedestal", "base", "l0", "head", "l1")
SEEN_FROM_AFAR = ("l2", "l3", "l4", "l5", "l6")
"""Meshes of the robot that no camera sees, and those the wrist camera does not: more than half of all triangles, which a software
renderer pays for whether they show or not."""

PACKAGES = "libegl1 libgl1-mesa-dri"


class NoRendererError(OSError):
    """No OpenGL context can be made on this machine. The message says what to install."""


def _mujoco() -> Any:
    """Imports mujoco. MissingSimulatorError if Meta-World is not installed."""
    os.environ.setdefault("LP_NUM_THREADS", "1")  # Mesa's own threads make small images slower
    metaworld()
    import mujoco

    return mujoco


def _context(side: int) -> Any:
    """Makes an OpenGL context without a window. On Linux it uses EGL even if mujoco was imported before and looked for a window itself."""
    mujoco = _mujoco()
    _load_triton_first()
    if sys.platform == "linux" and os.environ.get("MUJOCO_GL", "egl") == "egl":
        from mujoco.egl import GLContext

        return GLContext(side, side)
    return mujoco.GLContext(side, side)


def _load_triton_first() -> None:
    """Imports triton if it is installed, as it is with torch for NVIDIA GPUs.

    Mesa draws in software with LLVM. triton, which torch imports with its first optimizer, brings an LLVM of its own, and if it comes after
    Mesa's, the process ends with a segmentation fault; the other way round both work.
    """
    if importlib.util.find_spec("triton") is not None:
        with contextlib.suppress(ImportError):  # a triton that cannot be loaded does no harm
            importlib.import_module("triton")


def require_renderer() -> None:
    """Returns if images can be rendered on this machine. NoRendererError names the Debian packages if not; MissingSimulatorError as
    `roll_out`."""
    mujoco = _mujoco()
    try:
        context = _context(16)
        context.make_current()
        mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100).free()
        context.free()
    except (RuntimeError, ImportError, AttributeError, OSError, mujoco.FatalError) as error:  # as platform and driver have it
        hint = f"on Debian or Ubuntu: apt-get install {PACKAGES}" if sys.platform == "linux" else "see MuJoCo's notes on rendering"
        raise NoRendererError(f"images cannot be rendered on this machine, no OpenGL context ({error}); {hint}") from error


class Painter:
    """A renderer of the rollouts of one task. It has an OpenGL context: close it in the process that made it."""

    def __init__(self, task: str, size: int) -> None:
        mujoco = self._mujoco = _mujoco()
        self.model, self.task = world(task).model, task
        self.model.vis.quality.offsamples = 0
        self._data, self._eye = mujoco.MjData(self.model), mujoco.MjvCamera()
        self._context = _context(size)
        self._context.make_current()
        self._target = mujoco.MjrContext(self.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._target)
        self._scene, self._option = mujoco.MjvScene(self.model, 1000), mujoco.MjvOption()
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_SKYBOX):
            self._scene.flags[flag] = False
        self._rectangle = mujoco.MjrRect(0, 0, size, size)
        self._pixels = np.empty((size, size, 3), dtype=np.uint8)
        for geom in np.flatnonzero(self.model.geom_type == mujoco.mjtGeom.mjGEOM_MESH):
            mesh = self.model.mesh(self.model.geom_dataid[geom]).name
            if mesh in NEVER_SEEN + SEEN_FROM_AFAR:
                self.model.geom_group[geom] = 5 if mesh in NEVER_SEEN else 3  # Meta-World uses 0 to 2, and 4 for collisions
        marker = "goal" if TASKS[task].marker else None
        for site in range(self.model.nsite):
            if self.model.site(site).name != marker:
                self.model.site_rgba[site, 3] = 0

    def close(self) -> None:
        """Frees the OpenGL context."""
        self._context.make_current()
        self._target.free()
        self._context.free()

    def __enter__(self) -> Painter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def frames(self, rollout: Rollout, camera: str) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """Yields the frames of a rollout of this task through a camera of `CAMERAS`, in order, upright."""
        self._context.make_current()
        self.model.body_pos[:], self.model.site_pos[:] = rollout.bodies, rollout.sites
        self._aim(CAMERAS[camera])
        for joints in rollout.joints:
            self._data.qpos[:] = joints
            self._mujoco.mj_forward(self.model, self._data)
            yield self._image()

    def _aim(self, view: str | Orbit) -> None:
        kinds = self._mujoco.mjtCamera
        self._option.geomgroup[3] = not isinstance(view, str)
        if isinstance(view, str):
            self._eye.type, self._eye.fixedcamid = kinds.mjCAMERA_FIXED, self.model.camera(view).id
            return
        self._eye.type, self._eye.fixedcamid = kinds.mjCAMERA_FREE, -1
        self._eye.lookat[:], self._eye.distance = view.at, view.distance
        self._eye.azimuth, self._eye.elevation = view.azimuth, view.elevation

    def _image(self) -> UInt8[np.ndarray, "H W 3"]:
        mujoco = self._mujoco
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self.model, self._data, self._option, None, self._eye, everything, self._scene)
        mujoco.mjr_render(self._rectangle, self._scene, self._target)
        mujoco.mjr_readPixels(self._pixels, None, self._rectangle, self._target)
        return self._pixels[::-1].copy()


_painters: dict[tuple[str, int], Painter] = {}


def painter(task: str, size: int) -> Painter:
    """Returns this process's painter of a task, which stays open until `close_painters`: to open one costs as much as 30 images."""
    if (task, size) not in _painters:
        _painters[task, size] = Painter(task, size)
    return _painters[task, size]


def close_painters() -> None:
    """Closes the painters of this process."""
    while _painters:
        _painters.popitem()[1].close()
