"""From progress to the reward of a learner, for many environments at once. The wrappers of all libraries use this, and add no arithmetic.

An answer that is unknown, or older than the budget, is not used: the reward of that step is then the environment's alone, and `info` says
why. Potential-based shaping stays a telescope across such steps (see `Shaper.follow`), and across another instruction.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from milepost.core import DataError
from milepost.metrics import SuccessDetector, SuccessRule
from milepost.online.client import RewardClient
from milepost.online.sessions import NO_NUMBER, NO_SESSION, FrameProgress, Observation, SessionConfig, SessionLimits, Sessions
from milepost.online.shaping import Shaper, ShapingConfig
from milepost.online.stream import NO_ANSWER, RewardStream
from milepost.online.tripwires import FirstFrame, Tripwires
from milepost.online.wrappers.inputs import FrameData

_LONG = 10**9
"""Frames and seconds that no attempt has: in one's own process nothing ends an attempt but its environment."""


@dataclass(frozen=True)
class RewardConfig:
    """How progress joins the environment's reward. ValueError for numbers that cannot be.

    reward = env_weight * the environment's + model_weight * the shaped progress + success_bonus at the first success of an attempt.
    success: when an attempt counts as done. terminate_on_success: end the episode there. max_age_s: an answer older than that is not used.
    Its age is the time since the frame that the model computed, and with a server the time that it took to answer; with a budget, a server
    that fails counts as one that does not know. None uses every answer, and a server's failure is an error. tripwires: what watches for
    rewards without deeds; it may be shared by several environments of one wrapper.

    >>> milepost.RewardConfig(env_weight=0.0).shaping.kind
    'potential'
    """

    shaping: ShapingConfig = field(default_factory=ShapingConfig)
    model_weight: float = 1.0
    env_weight: float = 1.0
    success: SuccessRule = field(default_factory=SuccessRule)
    success_bonus: float = 0.0
    terminate_on_success: bool = False
    max_age_s: float | None = None
    tripwires: Tripwires | None = None

    def __post_init__(self) -> None:
        for name in ("model_weight", "env_weight", "success_bonus"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be a finite number, got {getattr(self, name)}")
        if self.max_age_s is not None and not self.max_age_s > 0:
            raise ValueError(f"max_age_s must be above 0, got {self.max_age_s:g}")


@dataclass(frozen=True, eq=False)
class EnvStep:
    """What one environment returned. place: its number. frame: what the model sees. task: the instruction, None for the same as before.

    reward: the environment's. is_terminal: it says that the task ended, which a time limit does not. is_first: it was reset.
    """

    place: int
    frame: FrameData
    task: str | None = None
    reward: float = 0.0
    is_terminal: bool = False
    is_first: bool = False


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a learner gets of one environment. reward: mixed. is_terminal: the task ended. is_success: by the model. info: raw values."""

    reward: float
    is_terminal: bool
    is_success: bool
    info: Mapping[str, Any]


class _Attempt:
    """One environment's episode, or the part of it under one instruction.

    name: of its session, "" if none could begin, and then `fault` says why. before: the part before it, None for the first of an episode.
    With "potential" the shaping goes on from it: phi depends on the instruction as on the state, and the sum stays a telescope.
    """

    def __init__(self, name: str, task: str, fps: float, config: RewardConfig, *, before: _Attempt | None = None, fault: str = "") -> None:
        self.name, self.task, self.fault, self.frame = name, task, fault, -1
        self._fps, self._config, self._fresh_frame, self._had_success = fps, config, -1, False
        self._shaper, self._detector = Shaper(config.shaping), SuccessDetector(config.success)
        self._earlier = 0
        if before is not None and config.shaping.kind == "potential":
            self._shaper, self._earlier = before._shaper, before._earlier + before.frame + 1

    def observation(self, step: EnvStep) -> Observation:
        """Returns the next frame, as a source takes it."""
        self.frame += 1
        state = None if step.frame.state is None else np.asarray(step.frame.state, dtype=np.float32).reshape(-1)
        return Observation(self.name, step.frame.images, state, self.frame, step.is_terminal)

    def outcome(self, step: EnvStep, result: FrameProgress, taken_s: float) -> Outcome:
        """Returns what the learner gets. taken_s: the seconds that a server took to answer."""
        config = self._config
        if result.fresh:
            self._fresh_frame = result.frame
        age_s = taken_s + (self.frame - self._fresh_frame) / self._fps if self._fresh_frame >= 0 else math.nan
        reason = result.reason
        if not reason and config.max_age_s is not None and age_s > config.max_age_s:
            reason = f"the answer is {age_s:.3g} s old, the budget is {config.max_age_s:g} s"
        progress = math.nan if reason else result.progress
        is_success = self._detector.update(progress)
        is_terminal = step.is_terminal or (config.terminate_on_success and is_success)
        shaped = self._shaper.follow(self._earlier + self.frame, progress, is_terminal=is_terminal)
        reward = config.env_weight * step.reward + (0.0 if math.isnan(shaped) else config.model_weight * shaped)
        if is_success and not self._had_success:
            self._had_success = True
            reward += config.success_bonus
        info = {
            "progress": result.progress, "frame": self.frame, "fresh": result.fresh, "age_s": age_s, "is_success": is_success,
            "events": tuple(result.events), "signals": dict(result.signals), "env_reward": float(step.reward), "model_reward": shaped,
            "is_used": not reason or not math.isnan(shaped), "reason": reason, "task": self.task,
        }  # fmt: skip
        return Outcome(reward, is_terminal, is_success, info)


class Attempts:
    """The episodes of `count` environments, behind one model or server.

    source: a model that follows attempts, `Sessions` of one, a `RewardClient`, or a `RewardStream` for one environment that must not wait;
    its answers are those of earlier frames. fps: frames a second, one for each step of an environment. DataError if the model cannot follow
    an attempt, or not so many, or if fps is not above 0.
    """

    def __init__(self, source: Any, count: int, fps: float, config: RewardConfig | None = None) -> None:
        if not (math.isfinite(fps) and fps > 0):
            raise DataError(f"fps must be above 0 and finite, got {fps}: it is the number of steps a second of the environment")
        self.config, self.fps = config or RewardConfig(), float(fps)
        limits = SessionLimits(sessions=count, frames=_LONG, idle_s=float(_LONG))
        if isinstance(source, RewardStream):
            if count > 1:
                raise DataError(f"a RewardStream follows one environment, and there are {count}: give a RewardClient")
            source = _Streamed(source)
        is_ready = isinstance(source, Sessions | RewardClient | _Streamed)
        self._source = source if is_ready else Sessions(source, SessionConfig(limits=limits))
        self._attempts: dict[int, _Attempt] = {}
        self._fitting: set[int] = set()
        self._answered: set[int] = set()

    @property
    def _may_fail(self) -> bool:
        """Returns whether a failure of the source is something not known, and no error: that of a server, with a budget."""
        return self.config.max_age_s is not None and not isinstance(self._source, Sessions)

    def advance(self, steps: Sequence[EnvStep]) -> list[Outcome]:
        """Returns what the learner gets of the next step of each of these environments, from one pass of the model.

        One that was reset begins an attempt, and the model is shown its first frame. So does one with another instruction: with
        "potential" that step gives the old instruction's phi back and takes the new one's on, with the other kinds its reward is the
        environment's alone. DataError if an environment was not reset, if an instruction is missing or does not fit, if the very first
        frame of an environment does not fit the model, or if a server fails and there is no budget.
        """
        for step in steps:
            before = self._attempts.get(step.place)
            if before is None and not step.is_first:
                raise DataError(f"environment {step.place} was not reset: call reset() before step()")
            if step.is_first or (before is not None and step.task is not None and step.task != before.task):
                self._begin(step.place, step.task, is_first=step.is_first)
        outcomes = self._pass(steps)
        by_place = {step.place: outcome for step, outcome in zip(steps, outcomes, strict=True)}
        self._require_fitting({place: outcome for place, outcome in by_place.items() if place in self._answered})
        return outcomes

    def close(self) -> None:
        """Ends all attempts. A server that has gone away ends them by itself."""
        for place, attempt in self._attempts.items():
            self._judge(place, attempt)
        names = [attempt.name for attempt in self._attempts.values()]
        self._attempts = {}
        for name in filter(None, names):
            with contextlib.suppress(DataError):  # the server has ended it, or does not answer any more
                self._source.end(name)

    def _require_fitting(self, outcomes: Mapping[int, Outcome]) -> None:
        """Raises DataError if the very first frame of an environment does not fit the model: no later one would."""
        for place in outcomes.keys() - self._fitting:
            info = outcomes[place].info
            if math.isnan(info["progress"]) and info["reason"] not in ("", NO_NUMBER, NO_ANSWER):
                raise DataError(f"the model cannot use the first frame of environment {place}: {info['reason']}")
        self._fitting |= outcomes.keys()

    def _begin(self, place: int, task: str | None, *, is_first: bool) -> None:
        before = self._attempts.get(place)
        if task is None:
            raise DataError(f"environment {place} names no instruction at its reset: give task= as text, or as a function that returns it")
        if before is not None:
            self._judge(place, before)
        fault = ""
        try:
            name = self._name_for(before, task)
        except DataError as error:
            if before is None or not self._may_fail:
                raise
            # a server that is gone for now: every frame gets this reason
            name, fault = "", f"the server could not begin this episode at its {'reset' if is_first else 'new instruction'}: {error}"
        self._attempts[place] = _Attempt(name, task, self.fps, self.config, before=None if is_first else before, fault=fault)
        if self.config.tripwires is not None:
            self.config.tripwires.begin(place, task)

    def _judge(self, place: int, attempt: _Attempt) -> None:
        """Ends what the tripwires watch of an attempt; they may ask the model about its first frame."""
        if self.config.tripwires is None:
            return

        def peak_of_frozen(first: FirstFrame, numbers: Sequence[int]) -> float:
            if not attempt.name or isinstance(self._source, _Streamed):
                return math.nan
            try:
                results = self._shown_again(attempt, first, numbers)
                if any(result.reason not in ("", NO_NUMBER) for result in results):  # a model that needs every frame
                    results = self._shown_again(attempt, first, range(numbers[-1] + 1))
            except DataError:  # a server that is gone: this wire was not tried
                return math.nan
            return max((result.progress for result in results if math.isfinite(result.progress)), default=math.nan)

        self.config.tripwires.end(place, peak_of_frozen)

    def _shown_again(self, attempt: _Attempt, first: FirstFrame, numbers: Sequence[int]) -> list[FrameProgress]:
        """Returns what the model says of one frame under these numbers, in the place of an attempt that is over."""
        name = self._source.begin(task=attempt.task, fps=self.fps, session=attempt.name)
        frames = [Observation(name, first.images, first.state, number) for number in numbers]
        return [result for frame in frames for result in self._source_results([frame])]

    def _name_for(self, before: _Attempt | None, task: str) -> str:
        """Returns the name of a new attempt: the one before, if the source still knows it."""
        if before is not None and before.name:
            try:
                return self._source.begin(task=task, fps=self.fps, session=before.name)
            except DataError as error:
                if NO_SESSION not in str(error):  # else it was idle for too long, or the server began anew
                    raise
        return self._source.begin(task=task, fps=self.fps)

    def _pass(self, steps: Sequence[EnvStep]) -> list[Outcome]:
        """Returns the outcome of each step; all go through the model together."""
        begun_s = time.monotonic()
        observations = [self._attempts[step.place].observation(step) for step in steps]
        results = self._results(steps, observations)
        # in one process the environment waits for the model, and a stream does not wait for its server
        taken_s = time.monotonic() - begun_s if isinstance(self._source, RewardClient) else 0.0
        outcomes = [self._attempts[step.place].outcome(step, result, taken_s) for step, result in zip(steps, results, strict=True)]
        if self.config.tripwires is not None:
            for observation, step, outcome in zip(observations, steps, outcomes, strict=True):
                self.config.tripwires.add(step.place, observation.images, observation.state, outcome.info["progress"])
        return outcomes

    def _source_results(self, observations: Sequence[Observation]) -> Sequence[FrameProgress]:
        return self._source.advance(observations) if isinstance(self._source, Sessions) else self._source.step_all(observations)

    def _results(self, steps: Sequence[EnvStep], observations: Sequence[Observation]) -> Sequence[FrameProgress]:
        """Returns the result of each observation, and keeps which environments the source answered."""
        results = [
            FrameProgress("", each.frame or 0, reason=self._attempts[step.place].fault)
            for step, each in zip(steps, observations, strict=True)
        ]
        live = [number for number, each in enumerate(observations) if each.session]
        self._answered = set()
        try:
            answers = self._source_results([observations[number] for number in live]) if live else []
            self._answered = {steps[number].place for number in live}
        except DataError as error:
            if not self._may_fail:
                raise
            answers = [dataclasses.replace(results[number], reason=str(error)) for number in live]
        for number, answer in zip(live, answers, strict=True):
            if answer.frame < 0 and isinstance(self._source, RewardClient) and not self._may_fail:
                raise DataError(
                    f"{answer.reason}: reset the environment, or give max_age_s= to go on with the environment's reward alone until then"
                )
            results[number] = answer
        return results


class _Streamed:
    """A stream, as a source of one environment."""

    def __init__(self, stream: RewardStream) -> None:
        self._stream = stream

    def begin(self, *, task: str, fps: float, session: str | None = None) -> str:
        self._stream.begin(task=task, fps=fps)
        return "stream"

    def step_all(self, observations: Sequence[Observation]) -> list[FrameProgress]:
        (observation,) = observations
        images = {camera: image if isinstance(image, bytes) else np.array(image) for camera, image in observation.images.items()}
        self._stream.show(images, observation.state, is_terminal=observation.is_terminal)
        return [self._stream.latest]

    def end(self, session: str) -> None:
        """Leaves the stream as it is: it ends its attempt when another begins, or when it is closed."""
