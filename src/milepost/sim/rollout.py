"""Physics first: attempts are simulated, checked and accepted or rejected before any image is rendered, because rendering costs most.

Every attempt has its own scene. If the outcome is not that of its kind (a success that failed, a failure that succeeded), it is repeated
with other noise in the same scene, then in the next scene; the number of rejections is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float32

from milepost.core import DataError, require_integers
from milepost.sim.behaviours import FAILURES, INSTEAD, KINDS, TREMOR, CommandScript, paced
from milepost.sim.pool import Run, pool
from milepost.sim.stagewise import FLICKER, finish, stages_of
from milepost.sim.tasks import STAGES, TASKS, Task, Trace
from milepost.sim.world import EVERY, SceneState, World, metaworld, scripted, world

OnStageProgress = Callable[[str, int, int], None]
"""Called with (name of the stage, finished items, all items)."""

TRIES, SCENES = 3, 40
"""Tries in a scene before the next scene, and scenes before the kind counts as impossible."""

DEMO_TASKS = ("assembly-v3", "drawer-open-v3", "peg-insert-side-v3")
DEMO_EPISODES = {
    "expert": 24,
    "hesitating": 8,
    "clumsy": 8,
    "backtracking": 8,
    "giving_up": 8,
    "failing_early": 8,
    "dropping": 8,
}


@dataclass(frozen=True)
class SimConfig:
    """What to simulate. Equal configs give equal datasets.

    tasks: Meta-World names. episodes: kind -> how many of it in each task; a kind a task cannot have is made up for by another
    (`INSTEAD`). size: image side in pixels, even. seed: any number >= 0. references: expert attempts per task that the truth ranks
    against, at least; attempts beyond those in `episodes` are simulated and not stored. codec: of the videos.
    DataError where a name is unknown or a number impossible.
    """

    tasks: tuple[str, ...] = DEMO_TASKS
    episodes: Mapping[str, int] = field(default_factory=lambda: dict(DEMO_EPISODES))
    size: int = 96
    seed: int = 0
    references: int = 24
    codec: str = "libsvtav1"

    def __post_init__(self) -> None:
        require_integers(self)
        for what, names, choices in (("task", self.tasks, TASKS), ("kind", self.episodes, KINDS)):
            unknown = [name for name in names if name not in choices]
            if unknown or not names:
                raise DataError(f"unknown {what} '{', '.join(unknown)}'; choose from: {', '.join(choices)}")
        if len(set(self.tasks)) < len(self.tasks):
            raise DataError(f"each task once, got {self.tasks}")
        if min(self.episodes.values()) < 0 or sum(self.episodes.values()) < 1:
            raise DataError(f"episodes must be counts >= 0, at least one of them above 0, got {dict(self.episodes)}")
        if self.size < 16 or self.size % 2:
            raise DataError(f"size must be an even number of pixels, at least 16, got {self.size}")
        if self.seed < 0 or self.references < 1:
            raise DataError(f"seed must be >= 0 and references >= 1, got {self.seed} and {self.references}")


@dataclass(frozen=True)
class AttemptSpec:
    """An attempt to make. number tells the scenes it may use apart from everybody else's: number, number + of, number + 2 of ..."""

    task: str
    kind: str
    number: int
    of: int
    seed: int
    stored: bool = True


@dataclass(frozen=True, eq=False)
class Rollout:
    """An attempt that was kept, one row a stored frame (20 a second).

    scene: its start state, an integer no other attempt shares. success: did it end successful. rejected: tries thrown away before
    it. action: the mean command until the next frame, hand motion (1 = 1 cm in 1/80 s) and gripper effort, each in [-1, 1]. joints,
    bodies, sites: what a picture needs of the simulator. stored: False for one that is only there to rank others.
    """

    task: str
    kind: str
    scene: int
    success: bool
    rejected: int
    trace: Trace
    action: Float32[np.ndarray, "T 4"]
    joints: Float[np.ndarray, "T Q"]
    bodies: Float[np.ndarray, "N 3"]
    sites: Float[np.ndarray, "M 3"]
    stored: bool = True

    def __len__(self) -> int:
        return len(self.trace)


class NoAttemptError(ValueError):
    """A kind of attempt could not be brought about within the allowed tries."""


def attempts_of(config: SimConfig) -> list[AttemptSpec]:
    """Returns every attempt of a config in a random order (the order of the episodes), then the attempts that are only references."""
    stored = [
        (task, INSTEAD.get((kind, task), kind), True) for task in config.tasks for kind, n in config.episodes.items() for _ in range(n)
    ]
    order = np.random.default_rng(config.seed).permutation(len(stored))
    lack = max(0, config.references - config.episodes.get("expert", 0))
    rows = [stored[place] for place in order] + [(task, "expert", False) for task in config.tasks for _ in range(lack)]
    return [AttemptSpec(task, kind, n, len(rows), config.seed, keep) for n, (task, kind, keep) in enumerate(rows)]


def roll_out(config: SimConfig, *, workers: int = 1, on_progress: OnStageProgress | None = None) -> list[Rollout]:
    """Simulates all attempts of a config: those to store, in the order of the episodes, then the references.

    The same for any number of worker processes. MissingSimulatorError if Meta-World is not installed; NoAttemptError if a kind cannot be
    brought about.
    """
    with pool(workers) as run:
        return roll_out_with(run, config, on_progress=on_progress)


def roll_out_with(run: Run, config: SimConfig, *, on_progress: OnStageProgress | None = None) -> list[Rollout]:
    """Runs `roll_out` with existing workers."""
    metaworld()
    jobs, rollouts = attempts_of(config), []
    for rollout in run(attempt, jobs):
        rollouts.append(rollout)
        if on_progress is not None:
            on_progress("simulating", len(rollouts), len(jobs))
    return rollouts


def attempt(job: AttemptSpec) -> Rollout:
    """Simulates until the outcome is that of the kind. NoAttemptError after TRIES tries in each of SCENES scenes."""
    for place in range(SCENES):
        scene = 1_000_000 * job.seed + job.number + place * job.of
        for again in range(TRIES):
            rng = np.random.default_rng([job.seed, scene, again])
            ever_done, rollout = _try(job, scene, rng, rejected=TRIES * place + again)
            if keeps_promise(rollout, ever_done):
                return rollout
    raise NoAttemptError(f"{job.task}: no '{job.kind}' attempt came out as one in {SCENES} scenes with {TRIES} tries each")


def keeps_promise(rollout: Rollout, ever: bool) -> bool:
    """Returns whether the outcome is that of the kind. A success passes through all three stages; an expert never goes back; a failure is
    never done.

    ever: was the task done at any moment, be it for one step.
    """
    stage = stages_of(rollout.task, rollout.trace)
    moved = bool((stage > 0).any())
    if rollout.kind in FAILURES:
        return not ever and {"dropping": moved and int(stage[-1]) == 0, "failing_early": not moved}.get(rollout.kind, True)
    if rollout.kind == "expert" and bool((np.diff(stage) < 0).any()):
        return False
    return rollout.success and len(set(stage.tolist())) == len(STAGES)


def _try(job: AttemptSpec, scene: int, rng: np.random.Generator, *, rejected: int) -> tuple[bool, Rollout]:
    """Simulates one attempt, whatever its outcome. Returns also whether the task was done at any moment."""
    task, place = TASKS[job.task], world(job.task)
    view = place.reset(scene)
    failing = job.kind in FAILURES
    frames = int(task.usual * (rng.uniform(0.9, 1.4) if failing else 3.0))
    script = KINDS[job.kind](task, paced(task, scripted(job.task)), view, rng)
    linger = frames if failing else int(rng.integers(FLICKER, 7))
    views: list[SceneState] = []
    actions, joints, ever = [], [], False
    for state, action, qpos, done in _frames(place, task, view, script, rng):
        views.append(state)
        actions.append(action)
        joints.append(qpos)
        ever = ever or any(done)
        if len(views) == frames or (all(done) and _done_for(task, views, linger)):
            break
    trace = trace_of(views)
    success = finish(job.task, trace) is not None and bool(task.done(trace)[-1])
    scene_arrays = (np.array(joints), place.model.body_pos.copy(), place.model.site_pos.copy())
    return ever, Rollout(job.task, job.kind, scene, success, rejected, trace, np.array(actions, np.float32), *scene_arrays, job.stored)


def _frames(
    place: World, task: Task, view: SceneState, script: CommandScript, rng: np.random.Generator
) -> Iterator[tuple[SceneState, Float[np.ndarray, "4"], Float[np.ndarray, "Q"], list[bool]]]:
    """Yields every stored frame: the state, the mean of the commands until the next frame, the joints, and whether the task was done in
    each step since the frame before. A mean command that is repeated for the whole frame moves the hand like the four commands did; the
    first of the four may not."""
    command, done_flags = next(script), []
    while True:
        done_flags.append(_done(task, view))
        state, joints, flags, commands, done_flags = view, place.data.qpos.copy(), done_flags, [], []
        for step in range(EVERY):
            if step:
                done_flags.append(_done(task, view))
            commands.append(np.clip(command + np.append(rng.normal(0, TREMOR, 3), 0), -1, 1))
            place.step(commands[-1])
            view = place.view()
            command = script.send(view)
        yield state, np.mean(commands, axis=0), joints, flags


def _done(task: Task, view: SceneState) -> bool:
    return bool(task.done(trace_of([view]))[0])


def _done_for(task: Task, views: Sequence[SceneState], frames: int) -> bool:
    return len(views) >= frames and bool(task.done(trace_of(views[-frames:])).all())


def trace_of(views: Sequence[SceneState]) -> Trace:
    """Returns the states of one scene as positions, one row per state."""
    hand, opening, thing, tip = (np.array([getattr(view, name) for view in views]) for name in ("hand", "opening", "thing", "tip"))
    return Trace(hand, opening, thing, tip, views[0].goal)
