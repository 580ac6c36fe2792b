"""The reward models of `rl_study.py`, as sources of `ProgressReward`: SARM, trained on scripted demonstrations alone; the truth; a clock.

SARM sees one camera, the hand and the gripper, at the rate of the decisions. It learns from successes and failures of the scripted
behaviours, in scenes that no policy is trained or evaluated in, and never sees what a policy does. `wide` adds failed attempts in which the
hand goes anywhere, so that the model has seen more places than those on a demonstrator's way.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rl_world import CAMERA, RATE, SIZE, true_curve
from milepost.core import ArrayFrames, Episode, Segment, Step, write_text
from milepost.metrics import final, mean_error, separation
from milepost.models import PRESETS, SARMModel, train_sarm
from milepost.online import Familiar, Tripwires
from milepost.online.tripwires import WIRES, FirstFrame, row_of
from milepost.sim.behaviours import FOREVER, OPEN, CommandScript, going
from milepost.sim.rollout import Rollout, SimConfig, _frames, roll_out, trace_of
from milepost.sim.scene import painter
from milepost.sim.stagewise import runs
from milepost.sim.tasks import STAGES, TASKS
from milepost.sim.truth import RolloutTruth, truth_of_rollouts
from milepost.sim.world import FPS, SceneState, world

KINDS = {"expert": 30, "hesitating": 15, "clumsy": 15, "backtracking": 15, "slow": 15, "giving_up": 20, "failing_early": 20}
DEMO_SEED, STEPS, HOLDOUT = 302, 700, 0.2
EVERY_SECOND = FPS // RATE
WANDERING, WANDERING_FRAMES, WANDERING_SCENE = 60, 80, 400_000_000
"""Attempts in which the hand goes anywhere, their stored frames (4 s), and where their start scenes begin."""
WORKSPACE = np.array([[-0.5, 0.4, 0.05], [0.5, 1.0, 0.45]])
"""Metres: the corners of the box that Meta-World keeps the hand in, up to a height."""


class TrueProgress:
    """A source that reads the progress which the environment put in place of an image."""

    def begin(self, *, task: str, fps: float) -> None:
        """Begins an attempt; there is nothing to remember."""

    def advance(self, attempts: Sequence[Any], frames: Sequence[Mapping[str, Any]], states: Sequence[Any]) -> list[Step]:
        """Returns the progress of each frame."""
        return [Step(float(frame["progress"])) for frame in frames]


class Clock:
    """A source that knows the time alone: progress rises evenly to 1 at the time limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def begin(self, *, task: str, fps: float) -> list[int]:
        """Begins an attempt: the number of its next frame."""
        return [0]

    def advance(self, attempts: Sequence[list[int]], frames: Sequence[Any], states: Sequence[Any]) -> list[Step]:
        """Returns the proportion of the time limit that is over."""
        answers = []
        for attempt in attempts:
            answers.append(Step(min(1.0, attempt[0] / self.limit)))
            attempt[0] += 1
        return answers


def sarm(task: str, folder: Path, *, wide: bool = False) -> SARMModel:
    """Returns the SARM of a task, trained once and kept in `folder/sarm-TASK`; how good it is lies in `folder/sarm-TASK.json`."""
    name = f"sarm-wide-{task}" if wide else f"sarm-{task}"
    place, card = folder / name, folder / f"{name}.json"
    if not card.is_file():
        write_text(card, json.dumps(_train(task, place, wide=wide)))
    return SARMModel.from_pretrained(place)


def wander(task: str, number: int) -> Rollout:
    """Simulates an attempt that goes from one random point to the next, a failure: where it succeeds by chance, another one is made."""
    place, rng = world(task), np.random.default_rng([DEMO_SEED, number])
    for again in range(40):
        scene = WANDERING_SCENE + number + again * WANDERING
        view = place.reset(scene)
        views, actions, joints, ever = [], [], [], False
        for state, action, qpos, flags in _frames(place, TASKS[task], view, _wandering(view, rng), rng):
            views.append(state)
            actions.append(action)
            joints.append(qpos)
            ever = ever or any(flags)
            if len(views) == WANDERING_FRAMES:
                break
        if not ever:
            bodies, sites = place.model.body_pos.copy(), place.model.site_pos.copy()
            columns = (trace_of(views), np.array(actions, np.float32), np.array(joints))
            return Rollout(task, "wandering", scene, False, again, *columns, bodies, sites)
    raise ValueError(f"{task}: 40 attempts to wander about ended in success; leave the task out")


def beyond_demonstrations(task: str, folder: Path, count: int = 20) -> list[dict[str, Any]]:
    """Returns what each SARM of a task says of attempts that go anywhere, in scenes that none of them learnt from: before any policy is
    trained, this tells what a policy will find. progress, truth: means over frames. far: proportion of frames at 0.8 and above."""
    others = [wander(task, 1_000_000 + number) for number in range(count)]
    truth = np.concatenate([true_curve(task, rollout.trace)[::EVERY_SECOND] for rollout in others])
    rows = []
    for wide in (False, True):
        model = sarm(task, folder, wide=wide)
        value = np.concatenate([model.predict(_seen(number, rollout)).value for number, rollout in enumerate(others)])
        means = {"progress": value.mean(), "truth": truth.mean(), "far": (value >= 0.8).mean()}
        rows.append(
            {"task": task, "model": "sarm-wide" if wide else "sarm", **{name: round(float(mean), 3) for name, mean in means.items()}}
        )
    return rows


def _wandering(view: SceneState, rng: np.random.Generator) -> CommandScript:
    for _ in range(FOREVER):
        grip, speed = float(rng.choice([OPEN, 1.0])), float(rng.uniform(0.3, 1))
        view = yield from going(rng.uniform(*WORKSPACE), view, grip=grip, speed=speed, steps=60)
    return view


def _train(task: str, place: Path, *, wide: bool) -> dict[str, Any]:
    """Simulates, renders and trains; returns what the held-out demonstrations say, and the seconds of each part."""
    begun_s = time.monotonic()
    pairs = _demonstrations(task, wide=wide)
    episodes = [_annotated(number, *pair) for number, pair in enumerate(pairs)]
    rendered_s = time.monotonic()
    config, train = PRESETS["small"]
    config = dataclasses.replace(config, annotation_mode="sparse_only", image_key=CAMERA, gap_s=1 / RATE)
    train = dataclasses.replace(train, steps=STEPS, seed=0, validation=0.0, overwrite=True)
    result = train_sarm(episodes, config, train, folder=place, stages={}, holdout=HOLDOUT)
    trained_s = time.monotonic()
    aside = [(episodes[number], *pairs[number]) for number in sorted(result.held_out)]
    curves = [result.model.predict(episode).value for episode, _, _ in aside]
    ends = np.array([final(curve) for curve in curves])
    is_good = np.array([rollout.success for _, rollout, _ in aside])
    errors = [mean_error(curve, truth.progress[::EVERY_SECOND]) for curve, (_, _, truth) in zip(curves, aside, strict=True)]
    return {
        "episodes": len(episodes), "held_out": len(aside), "error": float(np.mean(errors)),
        "auc": separation(ends[is_good], ends[~is_good]), "final_failure": float(ends[~is_good].mean()),
        "demonstrations_s": rendered_s - begun_s, "train_s": trained_s - rendered_s,
    }  # fmt: skip


def _demonstrations(task: str, *, wide: bool) -> list[tuple[Rollout, RolloutTruth]]:
    rollouts = roll_out(SimConfig(tasks=(task,), episodes=KINDS, seed=DEMO_SEED))
    rollouts += [wander(task, number) for number in range(WANDERING if wide else 0)]
    truths, _ = truth_of_rollouts(rollouts)
    return [pair for pair in zip(rollouts, truths, strict=True) if pair[0].stored]


def tripped(task: str, folder: Path) -> list[dict[str, Any]]:
    """Returns what tripwires say of the attempts in `folder/worst`, a row for each condition, and of demonstrations that are new to it."""
    episodes = [_seen(number, rollout) for number, (rollout, _) in enumerate(_demonstrations(task, wide=False)) if rollout.success]
    familiar = Familiar([np.stack([row_of(*frame) for frame in _frames_of(episode)]) for episode in episodes if episode.index % 3])
    others = [episode for episode in episodes if episode.index % 3 == 0]
    model = sarm(task, folder)
    attempts = {"demonstrations": [(_frames_of(episode), model.predict(episode).value) for episode in others]}
    for path in sorted((folder / "worst").glob(f"{task}-*.npz")):
        with np.load(path, allow_pickle=False) as file:
            frames = [({CAMERA: image}, state) for image, state in zip(file["images"], file["states"], strict=True)]
            attempts.setdefault(path.stem.removeprefix(f"{task}-").rpartition("-")[0], []).append((frames, file["curve"]))
    rows = []
    for name, own in attempts.items():
        wires, follower = Tripwires(familiar=familiar), sarm(task, folder, wide=name == "sarm-wide")

        def peak(first: FirstFrame, numbers: Sequence[int], follower: SARMModel = follower) -> float:
            following = follower.begin(task=TASKS[task].instruction, fps=float(RATE))
            return max(follower.advance([following], [first.images], [first.state])[0].progress for _ in range(numbers[-1] + 1))

        for frames, curve in own:
            wires.begin(0, task)
            for frame, progress in zip(frames, curve, strict=True):
                wires.add(0, *frame, float(progress))
            wires.end(0, peak)
        counts = {key: wires.counts()[key] for key in ("high", *WIRES)}
        rows.append({"task": task, "attempts": name, **counts, "any": len(wires.attempts())})
    return rows


def _frames_of(episode: Episode) -> list[tuple[dict[str, Any], Any]]:
    images = episode.camera(CAMERA)[np.arange(episode.length)]
    assert episode.state is not None
    return [({CAMERA: image}, state) for image, state in zip(images, episode.state, strict=True)]


def _seen(number: int, rollout: Rollout, segments: tuple[Segment, ...] = ()) -> Episode:
    """Returns every second frame of a rollout: what SARM may see of it."""
    images = np.stack(list(painter(rollout.task, SIZE).frames(rollout, CAMERA)))[::EVERY_SECOND]
    state = np.column_stack([rollout.trace.hand, rollout.trace.opening]).astype(np.float32)[::EVERY_SECOND]
    frames = {CAMERA: ArrayFrames(np.ascontiguousarray(images))}
    by_head = {"sparse": segments} if segments else {}
    return Episode(number, 0, TASKS[rollout.task].instruction, float(RATE), len(state), state, frames, by_head)


def _annotated(number: int, rollout: Rollout, truth: RolloutTruth) -> Episode:
    """Returns what SARM may see of a rollout, with the segments that an annotator would mark in it."""
    unfinished = ~truth.success[::EVERY_SECOND]
    stage = truth.stage[::EVERY_SECOND][unfinished]
    return _seen(number, rollout, tuple(Segment(STAGES[stage[start]], start, stop) for start, stop in runs(stage)))
