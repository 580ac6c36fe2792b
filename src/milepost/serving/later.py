"""Follows whole episodes when no robot waits: for replay buffers whose rewards may come later, and for whole videos."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from milepost.core import DataError
from milepost.online import FrameProgress, Observation, SessionConfig, SessionLimits, Sessions
from milepost.serving.errors import BusyError, broken

TOGETHER = 16
"""Episodes that go through the model at once."""
MOST_FRAMES = 500_000
"""Frames of the episodes that wait, and of the results that are kept; a result takes about a kilobyte."""
MOST_TICKETS = 4096
"""Tickets that are kept; the oldest that is done goes first."""

Image = Callable[[int], Mapping[str, Shaped[np.ndarray, "..."]]]


@dataclass(eq=False)
class WholeEpisode:
    """An episode to follow. images: gives camera name -> image of a frame. state: (T, S) or None. size: bytes that it holds."""

    task: str
    fps: float
    length: int
    images: Image
    state: Float[np.ndarray, "T S"] | None = None
    is_terminal: bool = False
    size: int = 0


class _Job:
    """An episode on its way: its session, once it has begun, and what it has so far."""

    def __init__(self, episode: WholeEpisode) -> None:
        self.episode, self.length, self.size = episode, episode.length, episode.size
        self.results: list[FrameProgress] = []
        self.session = ""
        self.fault: Exception | None = None
        self.is_over = asyncio.Event()

    def begin(self, sessions: Sessions) -> None:
        """Begins its attempt, if it has not begun."""
        self.session = self.session or sessions.begin(task=self.episode.task, fps=self.episode.fps)

    def fail(self, fault: Exception) -> None:
        """Keeps why it failed."""
        self.fault = fault

    def settle(self, sessions: Sessions) -> bool:
        """Returns whether it is over; its attempt then ends, and its frames need no memory any more."""
        if self.fault is None and len(self.results) < self.length:
            return False
        sessions.end(self.session)
        self.episode = dataclasses.replace(self.episode, images=lambda frame: {}, state=None)
        self.is_over.set()
        return True

    def observation(self) -> Observation:
        """Returns the next frame. DataError if it cannot be decoded."""
        frame, episode = len(self.results), self.episode
        state = None if episode.state is None else episode.state[frame]
        return dataclasses.replace(self.without_images(), images=episode.images(frame), state=state)

    def without_images(self) -> Observation:
        """Returns the next frame without what the model would see."""
        frame = len(self.results)
        return Observation(self.session, {}, None, frame, self.episode.is_terminal and frame == self.length - 1)


class Later:
    """Episodes that wait for the model, and their results. `on_work` is called when there is something to do, `on_refusal` when there is no
    room. most_bytes: of the episodes that wait.
    """

    def __init__(self, sessions: Sessions, most_bytes: int, on_work: Callable[[], None], on_refusal: Callable[[], None]) -> None:
        limits = SessionLimits(sessions=TOGETHER, frames=10**9, idle_s=float(10**9))
        config = sessions.config
        self._sessions = Sessions(sessions.model, SessionConfig(config.success, config.events, config.shaping, limits))
        self._most_bytes = most_bytes
        self._on_work, self._on_refusal, self._jobs = on_work, on_refusal, dict[str, _Job]()
        self._queue: list[_Job] = []
        self._together, self._alone = list[_Job](), list[_Job]()

    @property
    def has_work(self) -> bool:
        """Returns whether an episode waits."""
        return bool(self._queue)

    def put(self, episode: WholeEpisode) -> str:
        """Takes an episode and returns its ticket. BusyError if too many wait. DataError if the model follows one attempt at a time."""
        if self._sessions.follows_one:
            raise DataError("this model follows one attempt at a time, which is for a robot: episodes are labelled with milepost label")
        if episode.length > MOST_FRAMES:
            raise DataError(f"an episode has at most {MOST_FRAMES} frames here, this one has {episode.length}: hand it in in parts")
        if episode.size > self._most_bytes:
            raise DataError(
                f"the episode takes {episode.size} bytes, and all that wait may take {self._most_bytes}: hand it in in parts, or begin the "
                "server with another --max-waiting-mb"
            )
        if full := self._full(episode):
            self._on_refusal()
            raise BusyError(f"{len(self._queue)} episodes wait for the model already, {full}: send it again later")
        ticket, job = secrets.token_hex(8), _Job(episode)
        self._jobs[ticket] = job
        self._queue.append(job)
        self._on_work()
        return ticket

    def _full(self, episode: WholeEpisode) -> str:
        """Returns which limit an episode more would break, "" for none."""
        frames, size = (sum(getattr(job, name) for job in self._queue) for name in ("length", "size"))
        if size + episode.size > self._most_bytes:
            return f"which take {size} of {self._most_bytes} bytes (--max-waiting-mb)"
        if frames + episode.length > MOST_FRAMES:
            return f"with {frames} of {MOST_FRAMES} frames"
        return f"and no more than {MOST_TICKETS} may" if len(self._queue) >= MOST_TICKETS else ""

    async def results(self, ticket: str) -> list[FrameProgress]:
        """Returns the results of an episode once it is done, and forgets it. Raises what it failed by."""
        job = self._jobs[ticket]
        await job.is_over.wait()
        self._jobs.pop(ticket, None)
        if job.fault is not None:
            raise job.fault
        return job.results

    def look(self, ticket: str) -> tuple[list[FrameProgress] | None, int, int]:
        """Returns the results if the episode is done, how many frames are, and how many there are. KeyError for an unknown ticket."""
        job = self._jobs[ticket]
        if job.fault is not None:
            raise job.fault
        return (job.results if job.is_over.is_set() else None), len(job.results), job.length

    def work(self) -> None:
        """Advances the first episodes that wait by one frame each, in the model's thread. Those that failed together go alone."""
        observations, live = [], []
        self._together = [self._alone.pop()] if self._alone else self._queue[:TOGETHER]
        for job in self._together:
            try:
                job.begin(self._sessions)
            except DataError as error:
                job.fail(error)
                continue
            try:
                observations.append(job.observation())
                live.append(job)
            except DataError as error:
                job.results.append(self._sessions.refuse(job.without_images(), str(error)))
        for job, result in zip(live, self._sessions.advance(observations), strict=True):
            job.results.append(result)

    def settle(self, fault: BaseException | None) -> None:
        """Lets those that are done go, in the event loop. fault: what the model failed by in the last `work`."""
        if fault is not None and len(self._together) > 1:
            self._alone = self._together[::-1]
            return
        for job in self._together:
            if fault is not None:
                job.fail(broken(fault))
        self._queue = [job for job in self._queue if not job.settle(self._sessions)]
        self._forget()

    def _forget(self) -> None:
        """Forgets the oldest results beyond `MOST_TICKETS` and `MOST_FRAMES`."""
        done = {ticket: len(job.results) for ticket, job in self._jobs.items() if job.is_over.is_set()}
        tickets, frames = len(self._jobs), sum(done.values())
        for ticket, count in done.items():
            if tickets <= MOST_TICKETS and frames <= MOST_FRAMES:
                return
            del self._jobs[ticket]
            tickets, frames = tickets - 1, frames - count
