"""Simulated demonstrations whose progress is known: Meta-World tasks, scripted experts and several ways of doing worse.

    config = SimConfig(tasks=("drawer-open-v3",), episodes={"expert": 4, "giving_up": 4})
    make_dataset(Path("drawer"), config)

Needs the extra `sim` and, for pictures, OpenGL through EGL. Importing this loads neither.
"""

from milepost.sim.behaviours import FAILURES, INSTEAD, KINDS, SUCCESSES, episodes_by_kind
from milepost.sim.closed_loop import observations, succeeds, success_of
from milepost.sim.dataset import RECIPE, describe, make_dataset
from milepost.sim.rollout import NoAttemptError, Rollout, SimConfig, roll_out
from milepost.sim.scene import CAMERAS, NoRendererError, Painter, require_renderer
from milepost.sim.tasks import STAGES, TASKS, Trace
from milepost.sim.truth import Truth, tell
from milepost.sim.world import FPS, MissingSimulatorError

__all__ = [
    "CAMERAS",
    "FAILURES",
    "FPS",
    "INSTEAD",
    "KINDS",
    "RECIPE",
    "STAGES",
    "SUCCESSES",
    "TASKS",
    "MissingSimulatorError",
    "NoAttemptError",
    "NoRendererError",
    "Painter",
    "Rollout",
    "SimConfig",
    "Trace",
    "Truth",
    "describe",
    "episodes_by_kind",
    "make_dataset",
    "observations",
    "require_renderer",
    "roll_out",
    "succeeds",
    "success_of",
    "tell",
]
