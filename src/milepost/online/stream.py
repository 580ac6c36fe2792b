"""Follows an attempt from a loop that must not wait: frames go to the server in a thread, and only the newest one waits."""

from __future__ import annotations

import dataclasses
import math
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from jaxtyping import Float, Shaped

from milepost.core import DataError
from milepost.online.calls import LostError
from milepost.online.client import RewardClient
from milepost.online.sessions import FrameProgress, Observation

NO_ANSWER = "no frame was answered yet"
_NOTHING = FrameProgress("", -1, reason=NO_ANSWER)


@dataclass(frozen=True, eq=False)
class _Frame:
    """A frame that is to be sent, with the number, the task and the rate of its attempt."""

    attempt: int
    task: str
    fps: float
    observation: Observation


class RewardStream:
    """One robot's attempts at a reward server. `show` never waits.

    `latest` is the newest answer, whose `frame` and `age_s` say how old it is: the seconds since that frame was shown, when it is read.
    While an answer is on its way, one frame waits. A newer frame takes its place, and `dropped` counts the one of this attempt that was not
    sent; the server holds the frame before for it. As soon as the connection is known to be broken, or the server has lost the attempt,
    `latest` has NaN and the reason, while the stream tries for `timeout_s` seconds to connect again. An error of
    any other kind ends the stream: `show` and `wait` then raise DataError, whose cause it is.

    url, token, timeout_s: as of `RewardClient`; a WebSocket (ws://) takes the least time. DataError if the first attempt cannot begin.

    >>> milepost.RewardStream("ws://127.0.0.1:9", task="visit", fps=30.0, timeout_s=0.1)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    milepost.online.calls.LostError: the reward server at ws://127.0.0.1:9 does not answer: ...
    """

    def __init__(self, url: str, *, task: str, fps: float, token: str | None = None, timeout_s: float = 10.0) -> None:
        self._client = RewardClient(url, token=token, timeout_s=timeout_s, reconnect_s=timeout_s, on_lost=self._report_loss)
        self._change = threading.Condition()
        self._on_its_way: _Frame | None = None
        self._shown_s, self._is_trying = math.nan, False
        self._fps, self._session, self._attempt_there = fps, self._client.begin(task=task, fps=fps), 0
        self._attempt, self._task = 0, task
        self._number, self._is_over, self._is_closed = 0, False, False
        self._waiting: _Frame | None = None
        self._latest = _NOTHING
        self.dropped = 0
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="milepost-stream", daemon=True)
        self._thread.start()

    @property
    def latest(self) -> FrameProgress:
        """Returns the newest answer of this attempt, with its age now."""
        with self._change:
            return self._aged()

    def begin(self, *, task: str, fps: float | None = None) -> None:
        """Begins another attempt. What is on its way of the last one is forgotten; the server hears of it with the next frame.

        fps: its frames a second, None for those of the last one. DataError if that is not above 0.
        """
        if fps is not None and not (math.isfinite(fps) and fps > 0):
            raise DataError(f"fps must be above 0 and finite, got {fps}")
        with self._change:
            self._attempt, self._task, self._fps = self._attempt + 1, task, fps or self._fps
            self._number, self._is_over, self._waiting, self.dropped = 0, False, None, 0
            self._latest, self._shown_s = _NOTHING, math.nan

    def show(
        self,
        images: Mapping[str, Shaped[np.ndarray, "..."] | bytes],
        state: Float[np.ndarray, "S"] | None = None,
        *,
        is_terminal: bool = False,
    ) -> int:
        """Takes the newest frame and returns its number. The arrays belong to the stream from now on: give it copies of what you reuse.

        DataError after a terminal frame, until `begin`, and after `close`.
        """
        with self._change:
            self._require_thread()
            if self._is_closed or self._is_over:
                raise DataError("this stream is closed" if self._is_closed else "the attempt ended with its terminal frame: call begin")
            number = self._number
            self.dropped += self._waiting is not None
            observation = Observation("", images, state, number, is_terminal, time.monotonic())
            self._waiting = _Frame(self._attempt, self._task, self._fps, observation)
            self._number, self._is_over = number + 1, is_terminal
            self._change.notify_all()
        return number

    def wait(self, frame: int, timeout_s: float = 10.0) -> FrameProgress:
        """Returns the first answer to this frame or a newer one. DataError if it does not come in time.

        A broken connection is no answer while the stream tries to connect again.
        """
        with self._change:
            is_answered = self._change.wait_for(lambda: self._fault or (self._latest.frame >= frame and not self._is_trying), timeout_s)
            self._require_thread()
            if not is_answered:
                raise DataError(f"frame {frame} was not answered within {timeout_s:g} s: {self._latest.reason or 'an older one was'}")
            return self._aged()

    def close(self) -> None:
        """Ends the attempt. What is on its way is waited for, for as long as an answer may take."""
        with self._change:
            self._is_closed = True
            self._change.notify_all()
        self._thread.join()
        self._client.close()

    def __enter__(self) -> RewardStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _require_thread(self) -> None:
        if self._fault is not None:
            raise DataError(f"the stream ended by an error: {type(self._fault).__name__}: {self._fault}") from self._fault

    def _work(self) -> None:
        try:
            self._follow()
        finally:
            with self._change:
                self._fault = sys.exception()
                self._change.notify_all()

    def _follow(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting is not None or self._is_closed)
                frame, self._waiting = self._waiting, None
                self._on_its_way = frame
            if frame is None:
                self._end()
                return
            self._tell(frame, self._answer(frame))

    def _aged(self) -> FrameProgress:
        return dataclasses.replace(self._latest, age_s=time.monotonic() - self._shown_s)

    def _tell(self, frame: _Frame, result: FrameProgress) -> None:
        """Makes this the newest answer, unless another attempt has begun."""
        with self._change:
            self._is_trying = False
            if frame.attempt == self._attempt:
                self._latest, self._shown_s = result, frame.observation.received_s or math.nan
                self._change.notify_all()

    def _report_loss(self, error: LostError) -> None:
        """Says that the server does not answer, while the frame on its way is tried again; also where another attempt has begun since."""
        with self._change:
            if self._on_its_way is None:
                return
            is_of_another = self._on_its_way.attempt != self._attempt
            self._latest = FrameProgress(self._session, -1 if is_of_another else self._on_its_way.observation.frame or 0, reason=str(error))
            self._shown_s = math.nan if is_of_another else self._on_its_way.observation.received_s or math.nan
            self._is_trying = True

    def _answer(self, frame: _Frame) -> FrameProgress:
        """Returns the answer to one frame, whose attempt begins first if it is another one."""
        number = frame.observation.frame or 0
        try:
            if frame.attempt != self._attempt_there:
                self._end()
                self._session = self._client.begin(task=frame.task, fps=frame.fps)
                self._attempt_there = frame.attempt
            result = self._client.step_all([dataclasses.replace(frame.observation, session=self._session)])[0]
        except DataError as error:
            result = FrameProgress(self._session, number, reason=str(error))
        return dataclasses.replace(result, frame=number)

    def _end(self) -> None:
        try:
            self._client.end(self._session)
        except DataError:  # the server has forgotten it, or is gone: there is nothing left to end
            return
