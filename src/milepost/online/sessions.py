"""Follows many attempts by session: frames in, in any mixture of robots; for each a result out that says which frame it belongs to.

Nothing that is unknown becomes a number: a result without progress has NaN and a reason.
"""

from __future__ import annotations

import math
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from milepost.core import DataError, Follows, Judges, Online, Step, shown
from milepost.metrics import EventRules, SuccessDetector, SuccessRule
from milepost.online.image_sizes import ImageSizes
from milepost.online.shaping import Shaper, ShapingConfig
from milepost.online.trend import Trend

NO_NUMBER = "the model has no number of this attempt yet"
"""The reason of a frame that fits, from a model that has said nothing so far."""

CAN_RESTORE = ("snapshot", "restore")
"""What an attempt has that can be made again what it was, after a model that failed."""

NO_SESSION = "there is no session"
"""How a reason begins where the name of an attempt is not known."""


@dataclass(frozen=True)
class SessionLimits:
    """What a run of sessions may take. ValueError unless all are above 0.

    sessions: attempts at once. frames: of one attempt; a model that keeps every frame needs memory for them. idle_s: an attempt without a
    frame for so long makes room for another.
    """

    sessions: int = 64
    frames: int = 20_000
    idle_s: float = 600.0

    def __post_init__(self) -> None:
        if self.sessions < 1 or self.frames < 1 or not self.idle_s > 0:
            raise ValueError("sessions, frames and idle_s must be above 0")


@dataclass(frozen=True)
class SessionConfig:
    """What results say beside progress. success: when an attempt counts as done. events: when it stands still or falls back."""

    success: SuccessRule = field(default_factory=SuccessRule)
    events: EventRules = field(default_factory=EventRules)
    shaping: ShapingConfig = field(default_factory=ShapingConfig)
    limits: SessionLimits = field(default_factory=SessionLimits)


def success_rule(model: Any, threshold: float | None = None, release: float | None = None, hold: int = 5) -> SuccessRule:
    """Returns when an attempt counts as done. threshold: None for the model's own, else 0.9. release: None for 0.1 below the threshold."""
    own = model.success_threshold if isinstance(model, Judges) else -math.inf
    threshold = threshold if threshold is not None else own if math.isfinite(own) else 0.9
    return SuccessRule(threshold, threshold - 0.1 if release is None else release, hold)


@dataclass(frozen=True, eq=False)
class Observation:
    """The newest frame of an attempt.

    session: its name, of `Sessions.begin`. images: what the model takes: camera name -> image. state: robot state, raw units. frame: its
    number, counted from 0 at the session's rate; None for the next one, also after one that could not be used. is_terminal: the task ended
    here, which a time limit does not do. received_s: when it came, in seconds of `time.monotonic`; None for now. fault: why it cannot be
    shown to the model, "" if it can.
    """

    session: str
    images: Any
    state: Float[np.ndarray, "S"] | None = None
    frame: int | None = None
    is_terminal: bool = False
    received_s: float | None = None
    fault: str = ""


@dataclass(frozen=True)
class FrameProgress:
    """What is said of one frame of an attempt.

    frame: its number; -1 if the session is not known. progress: in [0, 1], NaN if unknown. signals: the model's raw numbers. fresh: whether
    the model computed this very frame; else progress is that of the last one it did. is_success: with hysteresis. events: "stalled",
    "plateau", "regressed". reward: the shaped reward of the step that led here, by `Shaper.follow`. age_s: from the frame's arrival to
    this answer. reason: why there is no progress, "" if there is.
    """

    session: str
    frame: int
    progress: float = math.nan
    signals: Mapping[str, float] = field(default_factory=dict)
    fresh: bool = False
    is_success: bool = False
    events: tuple[str, ...] = ()
    reward: float = math.nan
    age_s: float = math.nan
    reason: str = ""


class _Session:
    """One attempt and all that follows it."""

    def __init__(self, attempt: Any, task: str, fps: float, config: SessionConfig) -> None:
        self.attempt, self.task, self.fps = attempt, task, fps
        self.frame, self.touched_s = -1, time.monotonic()
        self._next, self._end, self._sizes, self._breakdown = 0, -1, ImageSizes(), ""
        self._detector, self._trend, self._shaper = SuccessDetector(config.success), Trend(fps, config.events), Shaper(config.shaping)

    def number_of(self, observation: Observation) -> int:
        """Returns the number of an observation's frame."""
        return self._next if observation.frame is None else observation.frame

    def touch(self) -> None:
        """Counts the attempt as in use."""
        self.touched_s = time.monotonic()

    def fault(self, observation: Observation, limits: SessionLimits) -> str:
        """Returns why this observation cannot be the next one of the attempt; "" if it can."""
        number = self.number_of(observation)
        if self._breakdown:
            return self._breakdown
        if self._end >= 0:
            return f"the attempt ended with its terminal frame {self._end}: begin anew"
        if number <= self.frame:
            return f"frame {number} came after frame {self.frame}, and frames are followed in order: send newer ones, or begin again"
        if number >= limits.frames:
            return f"an attempt has at most {limits.frames} frames here: begin a new one"
        if number > self.frame + 1 and self.frame >= 0 and not hasattr(self.attempt, "hold"):
            return f"frames {self.frame + 1} to {number - 1} are missing, and this model needs every frame"
        return observation.fault or self._sizes.fault(observation.images)

    def fill(self, number: int) -> None:
        """Says which frames before this number never came, so that the model's window stays at the session's rate. It takes effect with
        the next frame that the model can use, so one that it refuses changes nothing.
        """
        if self.frame >= 0 and hasattr(self.attempt, "hold"):
            self.attempt.hold(number - self.frame - 1)

    def snapshot(self) -> Any:
        """Returns what `restore` needs, None if the attempt cannot be restored."""
        return (self.attempt.snapshot(),) if all(hasattr(self.attempt, name) for name in CAN_RESTORE) else None

    def restore(self, snapshot: Any, fault: BaseException | None) -> None:
        """Makes the attempt what it was before a pass that failed by this fault. One that cannot be restored is over."""
        if snapshot is None:
            self._breakdown = (
                f"the model failed ({type(fault).__name__}: {fault}), and how far it took this attempt is not known, so the attempt is "
                "over: begin anew"
            )
        else:
            self.attempt.restore(*snapshot)

    def refuse(self, observation: Observation, reason: str) -> FrameProgress:
        """Returns what is said of a frame that cannot be used. It takes its number all the same, and an end of the task is an end."""
        number, reward = self.number_of(observation), math.nan
        if self._end < 0 and number > self.frame:
            reward = self._pass(number, math.nan, observation)
        return FrameProgress(observation.session, number, reward=reward, reason=reason)

    def _pass(self, number: int, progress: float, observation: Observation) -> float:
        """Goes on to a frame, and returns the reward of the step that led there."""
        self._next = max(self._next, number + 1)
        if observation.is_terminal:
            self._end = number
        return self._shaper.follow(number, progress, is_terminal=observation.is_terminal)

    def result(self, observation: Observation, step: Step) -> FrameProgress:
        """Returns what is said of a frame that the model has seen."""
        number = self.number_of(observation)
        behind, self.frame = number - self.frame, number
        self._sizes.keep(observation.images)
        reward = self._pass(number, step.progress, observation)
        return FrameProgress(
            observation.session,
            number,
            step.progress,
            dict(step.signals),
            step.fresh,
            self._detector.update(step.progress),
            tuple(sorted(self._trend.update(step.progress, behind))),
            reward,
            reason=NO_NUMBER if math.isnan(step.progress) else "",
        )


class Sessions:
    """All attempts that a model follows now. It may be called from many threads; the model works for one call at a time.

    DataError if the model cannot follow an attempt frame by frame.

    >>> from milepost.online import Observation, Sessions
    >>> from milepost.testing import dot_episodes, tiny_sarm
    >>> episode, sessions = dot_episodes(1)[0], Sessions(tiny_sarm())
    >>> name = sessions.begin(task=episode.task, fps=episode.fps)
    >>> images = {camera: next(frames.chunks(1))[0] for camera, frames in episode.cameras.items()}
    >>> (result,) = sessions.advance([Observation(name, images, episode.state[0])])
    >>> result.frame, 0 <= result.progress <= 1
    (0, True)
    """

    def __init__(self, model: Any, config: SessionConfig | None = None) -> None:
        self.model, self.config = model, config or SessionConfig()
        if not isinstance(model, Follows | Online):
            raise DataError(f"{type(model).__name__} cannot follow an attempt frame by frame: it has no reset and step")
        self._follows = model if isinstance(model, Follows) else _Alone(model)
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def follows_one(self) -> bool:
        """Returns whether the model follows one attempt at a time."""
        return isinstance(self._follows, _Alone)

    def begin(self, *, task: str, fps: float, session: str | None = None) -> str:
        """Begins an attempt and returns its name. session: a name in use, whose attempt ends; None for a new one.

        DataError if the task or the rate does not fit, the name is not known, or there are too many attempts.
        """
        if not (math.isfinite(fps) and fps > 0):
            raise DataError(f"fps must be above 0 and finite, got {fps}")
        with self._lock:
            if session is not None and session not in self._sessions:
                raise DataError(f"{NO_SESSION} {shown(session, 100)} here: begin one without a name")
            self._make_room(0 if session else 1)
            attempt = self._follows.begin(task=task, fps=fps)
            name = session or secrets.token_hex(8)
            self._sessions[name] = _Session(attempt, task, fps, self.config)
        return name

    def end(self, session: str) -> bool:
        """Ends an attempt. Returns whether there was one of this name."""
        with self._lock:
            return self._sessions.pop(session, None) is not None

    def advance(self, observations: Sequence[Observation]) -> list[FrameProgress]:
        """Returns the result of each observation, in their order; those of different sessions go through the model together.

        Several observations of one session are taken in their order. One that does not fit gets a reason, and its attempt stays as it was.
        What the model fails by is raised; the attempts of its pass are then what they were before it, or over, see `core.Follows`.
        """
        arrived = time.monotonic()
        answers: list[FrameProgress | None] = [None] * len(observations)
        with self._lock:
            for turn in turns(observations):
                for place, result in zip(turn, self._turn([observations[place] for place in turn]), strict=True):
                    answers[place] = result
        now = time.monotonic()
        return [
            _aged(answer, now - (arrived if observation.received_s is None else observation.received_s))
            for answer, observation in zip(answers, observations, strict=True)
            if answer is not None
        ]

    def refuse(self, observation: Observation, reason: str) -> FrameProgress:
        """Returns the result of a frame that cannot be shown to the model, such as one whose image is damaged. It takes its number."""
        now = time.monotonic()
        with self._lock:
            session = self._sessions.get(observation.session)
            if session is None:
                result = _unknown(observation)
            else:
                result = session.refuse(observation, session.fault(observation, self.config.limits) or reason)
        return _aged(result, now - (now if observation.received_s is None else observation.received_s))

    def _turn(self, observations: Sequence[Observation]) -> list[FrameProgress]:
        """Returns the results of observations of different sessions."""
        results: dict[int, FrameProgress] = {}
        live: list[tuple[int, _Session]] = []
        for place, observation in enumerate(observations):
            session = self._sessions.get(observation.session)
            if session is None:
                results[place] = _unknown(observation)
            elif fault := session.fault(observation, self.config.limits):
                results[place] = session.refuse(observation, fault)
            else:
                live.append((place, session))
        fitting = [observations[place] for place, _ in live]
        for (_, session), observation in zip(live, fitting, strict=True):
            session.fill(session.number_of(observation))
        steps = self._steps([session for _, session in live], fitting) if live else []
        for (place, session), observation, step in zip(live, fitting, steps, strict=True):
            session.touch()
            if isinstance(step, Step):
                results[place] = session.result(observation, step)
            else:
                results[place] = session.refuse(observation, str(step))
        return [results[place] for place in range(len(observations))]

    def _steps(self, live: Sequence[_Session], fitting: Sequence[Observation]) -> list[Step | DataError]:
        """Returns the model's answer for each session, or raises what it fails by, with no session half a frame further."""
        snapshots, is_whole = [session.snapshot() for session in live], False
        try:
            answers = list(self._follows.advance(
                [session.attempt for session in live], [each.images for each in fitting], [each.state for each in fitting]
            ))  # fmt: skip
            if len(answers) != len(live):
                raise ValueError(f"the model was shown {len(live)} frames and answered {len(answers)}")
            steps = [_checked(answer) for answer in answers]
            is_whole = True
        finally:
            if not is_whole:
                for session, snapshot in zip(live, snapshots, strict=True):
                    session.restore(snapshot, sys.exception())
        return steps

    def _make_room(self, count: int) -> None:
        """Ends attempts that have been idle for too long. DataError if there is then no room for so many more."""
        limits, now = self.config.limits, time.monotonic()
        for name in [name for name, each in self._sessions.items() if now - each.touched_s > limits.idle_s]:
            del self._sessions[name]
        most = 1 if self.follows_one else limits.sessions
        if len(self._sessions) + count > most:
            why = "this model follows one attempt at a time" if most == 1 else f"at most {most} attempts are followed at once"
            raise DataError(f"{why}: end one, or wait until one has been idle for {limits.idle_s:g} s")


def turns(observations: Sequence[Observation]) -> list[list[int]]:
    """Returns the places of the observations by turns: in each a session is there at most once, and its frames are in their order."""
    counts: Counter[str] = Counter()
    places: list[list[int]] = []
    for place, observation in enumerate(observations):
        turn = counts[observation.session]
        counts[observation.session] += 1
        if turn == len(places):
            places.append([])
        places[turn].append(place)
    return places


def _checked(answer: Any) -> Step | DataError:
    """Returns a model's answer, as plain numbers. One that is no answer becomes a DataError that says so."""
    if isinstance(answer, DataError):
        return answer
    if not isinstance(answer, Step):
        return DataError(f"the model answered {type(answer).__name__}, not a milepost.core.Step")
    try:
        return Step(float(answer.progress), {str(name): float(value) for name, value in answer.signals.items()}, bool(answer.fresh))
    except (TypeError, ValueError, AttributeError) as error:
        return DataError(f"the model answered a Step that has something else than numbers: {error}")


class _Alone:
    """A model that follows one attempt, as one that follows several."""

    def __init__(self, model: Online) -> None:
        self._model = model

    def begin(self, *, task: str, fps: float) -> Any:
        self._model.reset(task=task, fps=fps)
        return self._model

    def advance(self, attempts: Sequence[Any], frames: Sequence[Any], states: Sequence[Any]) -> list[Any]:
        answers: list[Any] = []  # Step or DataError, but a model of another package may return anything
        for frame, state in zip(frames, states, strict=True):
            try:
                answers.append(self._model.step(frame, state))
            except DataError as error:
                answers.append(error)
        return answers


def _unknown(observation: Observation) -> FrameProgress:
    reason = f"{NO_SESSION} {shown(observation.session, 100)} here: it has ended, or the server began anew; begin another"
    if observation.fault and not observation.session:
        reason = observation.fault
    return FrameProgress(observation.session, -1, reason=reason)


def _aged(result: FrameProgress, age_s: float) -> FrameProgress:
    return FrameProgress(**{**vars(result), "age_s": age_s})
