"""Ask a vision-language model where the stages of every episode begin and end: look, ask, check, ask again, keep.

An answer is on disk the moment it is accepted or given up, so a run killed anywhere goes on where it was and asks nothing twice. Frames of
the next episodes are read while the model thinks. Nothing is written into the dataset here (`annotation.export`).
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from milepost.annotation.checks import Checked, judge, unasked
from milepost.annotation.faults import Fault, quoted, reask
from milepost.annotation.question import question
from milepost.annotation.reply import json_schema
from milepost.annotation.sheets import beside, sheets, stamped
from milepost.annotation.shown import BUDGET, RATE_HZ, Shown, shown_frames
from milepost.annotation.store import AnnotationStore, Answer
from milepost.annotation.subtasks import SubtaskList
from milepost.core import DataError, Episode, UnreadableError, parse_json
from milepost.datasets import LeRobotDataset
from milepost.metrics import Annotation, consensus
from milepost.vlm import FINAL, RefusedError, ServerError, Speaker, Turn

AHEAD = 2
"""Episodes whose pictures are read while others are asked about."""
UNANSWERED = 5
"""Episodes in a row, at least, after which a server that gives no answer is given up."""
AT_FIRST = 3
"""As many, where it has not given any."""
THOUGHTS = 20_000
"""Letters of a model's thoughts that are kept where it said nothing else."""
WARM = 0.7
"""Temperature of a repeat that has the same frames to look at, since the dataset has no others."""


@dataclass(frozen=True)
class Asking:
    """How a model is asked. cameras: full keys, shown side by side. look: contact sheets, or stamped images one by one.

    rate_hz, frames: shown a second, and at most in an episode. repeats: how often the whole question is asked, from the second time on
    with other frames. tries: answers in one conversation before it is given up. temperature: 0 is greedy. task: of episodes without one.
    """

    cameras: tuple[str, ...]
    look: Literal["sheets", "frames"] = "sheets"
    rate_hz: float = RATE_HZ
    frames: int = BUDGET
    repeats: int = 1
    tries: int = 3
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 2048
    task: str = ""

    def __post_init__(self) -> None:
        if not self.cameras:
            raise DataError("annotation looks at pictures; name at least one camera")
        if min(self.repeats, self.tries, self.max_tokens) < 1:
            raise DataError(f"repeats, tries and max_tokens are at least 1, got {self.repeats}, {self.tries} and {self.max_tokens}")
        if not 0 <= self.temperature < 10 or not self.rate_hz > 0 or self.frames < 2:
            got = f"{self.temperature}, {self.rate_hz} and {self.frames}"
            raise DataError(f"temperature is 0 or more, rate_hz above 0, frames at least 2; got {got}")


@dataclass(frozen=True, eq=False)
class View:
    """What a model sees of an episode at once: the frames, and the pictures of them as its speaker takes them."""

    shown: Shown
    pictures: tuple[Any, ...]


@dataclass(frozen=True)
class Conversation:
    """One question until its answer was accepted or given up. replies: all of the model's words; faults: of the last ones."""

    segments: Annotation | None
    replies: tuple[str, ...]
    repairs: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    moved_s: float = 0.0


def provenance(dataset: LeRobotDataset, model: Mapping[str, str], subtasks: SubtaskList, asking: Asking) -> dict[str, str]:
    """What the answers for one head depend on, for its store: other frames, model, stages, words or settings are other answers.

    model: its name, and what tells its weights from others. Where it ran is no part of it.
    """
    words = [question("task", subtasks, shown_frames(300, 30.0), look=asking.look, success=done) for done in (None, False)]
    said = "".join(each.before + each.after for each in words) + reask([Fault("gap", "")])
    return {
        "dataset_footage": dataset.footage_fingerprint,
        **model,
        "stages": json.dumps(asdict(subtasks), ensure_ascii=False),
        "asking": json.dumps(asdict(asking)),
        "words": hashlib.sha256(said.encode()).hexdigest()[:16],
    }


def stages_of(told: Mapping[str, str]) -> SubtaskList:
    """The list of stages in a store's provenance."""
    return SubtaskList.from_dict(parse_json(told["stages"], source="the annotation's provenance"))


def look(episode: Episode, speaker: Speaker, asking: Asking, repeat: int = 0) -> View:
    """Read the frames, each once, and draw number and time over them. repeat: from 1 on inner frames are moved inside their half-steps."""
    rng = np.random.default_rng((asking.seed, episode.index, repeat)) if repeat else None
    shown = shown_frames(episode.length, episode.fps, rate_hz=asking.rate_hz, budget=asking.frames, rng=rng)
    images = beside([episode.camera(camera)[shown.frames] for camera in asking.cameras])
    drawn = (sheets if asking.look == "sheets" else stamped)(images, shown.times_s)
    return View(shown, tuple(speaker.picture(image) for image in drawn))


def converse(
    speaker: Speaker, view: View, subtasks: SubtaskList, asking: Asking, *, episode: Episode, repeat: int = 0, warm: bool = False
) -> Conversation:
    """Ask about one head of one episode until the answer has no fault, or no try is left. warm: not greedily, whatever `asking` says.

    An answer whose faults are not fatal is kept if no better one follows. ServerError, or DataError of a local model, if none comes at all.
    """
    asked = question(
        episode.task.strip() or asking.task, subtasks, view.shown, look=asking.look, cameras=len(asking.cameras), success=episode.success
    )
    turns = [Turn("user", (asked.before, *view.pictures, asked.after))]
    temperature = max(asking.temperature, WARM) if warm else asking.temperature
    kept = Conversation(None, ())
    for attempt in range(asking.tries):
        seed = _seed(asking.seed, episode.index, repeat, attempt) if temperature else None
        said = speaker.reply(
            turns, json_schema=json_schema(subtasks), max_tokens=asking.max_tokens, temperature=temperature, seed=seed
        )  # fmt: skip
        words = said.text or said.refusal
        replies = (*kept.replies, words or said.reasoning[-THOUGHTS:])
        checked = judge(said.text, subtasks, view.shown, cut=said.cut, success=episode.success)
        if said.reasoning and not words.strip() and not said.cut:
            reason = "the answer is empty; the server kept all words apart as reasoning"
            checked = Checked(
                None, (), (Fault("no JSON", reason, advice="see the server's --reasoning-parser, or switch thinking off there"),)
            )
        if refused := bool(said.refusal and not said.text):
            checked = Checked(None, (), (Fault("no JSON", f"the model refuses to answer: {quoted(said.refusal)}"),))
        segments, repairs, moved = checked.segments, tuple(repair.message for repair in checked.repairs), checked.moved_s
        if segments is None:
            segments, repairs, moved = kept.segments, kept.repairs, kept.moved_s
        kept = Conversation(segments, replies, repairs, checked.faults, moved)
        if not checked.faults or refused:
            break
        turns += [Turn("assistant", (words or "(nothing)",)), Turn("user", (reask(checked.faults),))]
    return kept


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def answer_of(conversations: Sequence[Conversation], views: Sequence[View], episode: Episode) -> Answer:
    """The repeats of one head as one answer: what most of them say, at the median of their borders."""
    accepted = [each.segments for each in conversations if each.segments]
    several = len(conversations) > 1
    where = [f"repeat {number}: " if several else "" for number in range(1, len(conversations) + 1)]
    replies = tuple(reply for each in conversations for reply in each.replies)
    repairs = tuple(f"{at}{repair}" for at, each in zip(where, conversations, strict=True) for repair in each.repairs)
    notes: dict[str, Any] = {"frames_shown": len(views[0].shown), "step_s": round(views[0].shown.step_s, 6)}
    notes |= {"moved_s": round(max(each.moved_s for each in conversations), 6)}
    if left := [f"{at}{fault.message}" for at, each in zip(where, conversations, strict=True) for fault in each.faults if each.segments]:
        notes["left"] = left
    failed = [_reason(at, each) for at, each in zip(where, conversations, strict=True) if not each.segments]
    if not accepted:
        return Answer(failure="; ".join(failed), replies=replies, notes=notes)
    if not several:
        return Answer(accepted[0], replies=replies, repairs=repairs, notes=notes)
    agreed = consensus(accepted, length=episode.length, fps=episode.fps, failed=len(failed))
    notes |= {
        "repeats": agreed.repeats,
        "support": agreed.support,
        "disagreement": round(agreed.disagreement, 6),
        "borders": [
            {"border": str(each.boundary), "frame": each.boundary.frame, "spread_s": round(each.spread_s, 6)} for each in agreed.boundaries
        ],
        "failed": failed,
        "each": [None if each.segments is None else [[s.name, s.start, s.stop] for s in each.segments] for each in conversations],
    }
    return Answer(agreed.segments, replies=replies, repairs=repairs, notes=notes)


def _reason(at: str, conversation: Conversation) -> str:
    answers = len(conversation.replies)
    faults = "; ".join(f"{fault.kind}: {fault.message}{f' ({fault.advice})' if fault.advice else ''}" for fault in conversation.faults)
    return f"{at}after {answers} answers: {faults}" if answers > 1 else f"{at}{faults}"


def to_ask(
    stores: Mapping[str, AnnotationStore], wanted: Mapping[str, Sequence[int]], *, failed: bool = False
) -> dict[int, tuple[str, ...]]:
    """Episode -> the heads it is still to be asked about. failed: also those whose answers were given up."""
    todo: dict[int, tuple[str, ...]] = {}
    for head, numbers in wanted.items():
        for number in stores[head].missing(numbers, [head], failed=failed):
            todo[number] = (*todo.get(number, ()), head)
    return dict(sorted(todo.items()))


def annotate(
    dataset: LeRobotDataset,
    speaker: Speaker,
    todo: Mapping[int, Sequence[str]],
    *,
    stages: Mapping[str, SubtaskList],
    stores: Mapping[str, AnnotationStore],
    asking: Asking,
    workers: int = 1,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[int, str]:
    """Ask about these heads of these episodes; the answers, refused ones too, go into the stores one by one.

    Returns episode -> why it was not asked or not answered: damaged pictures, no task, a server's time-out. They are in no store, so that
    the next run tries them again. workers: episodes asked about at once, from threads of their own; with 1 it is this thread.
    RefusedError (wrong key, no such model) and a server that answers nothing end the run at once; close the speaker then.
    """
    run = _Run(dataset, speaker, stages, stores, asking, workers)
    unanswered: dict[int, str] = {}
    in_a_row, answered = 0, False
    on_progress(0, len(todo))
    for done, (number, error) in enumerate(run.results(todo), start=1):
        on_progress(done, len(todo))
        if error is None or not isinstance(error, UnreadableError):  # one that is too long says nothing about the others
            in_a_row = in_a_row + 1 if isinstance(error, ServerError) else 0
        if error is not None:
            unanswered[number] = str(error)
        answered = answered or error is None
        if in_a_row >= (max(UNANSWERED, 2 * workers) if answered else AT_FIRST):
            raise DataError(f"{in_a_row} episodes in a row got no answer, the last one: {error}. What was answered is kept") from error
    return dict(sorted(unanswered.items()))


class _Run:
    """What every thread of one call needs."""

    def __init__(
        self,
        dataset: LeRobotDataset,
        speaker: Speaker,
        stages: Mapping[str, SubtaskList],
        stores: Mapping[str, AnnotationStore],
        asking: Asking,
        workers: int,
    ) -> None:
        self.dataset, self.speaker, self.stages, self.stores, self.asking = dataset, speaker, stages, stores, asking
        self.workers = workers
        self.stop = threading.Event()
        self.lookers = ThreadPoolExecutor(max(AHEAD, min(workers, os.cpu_count() or 1)), "milepost-look")

    def results(self, todo: Mapping[int, Sequence[str]]) -> Iterator[tuple[int, DataError | None]]:
        """(episode, why not) as they are done."""
        jobs = iter(todo.items())
        askers = ThreadPoolExecutor(self.workers, "milepost-ask") if self.workers > 1 else None
        try:
            yield from self._here(jobs) if askers is None else self._beside(jobs, askers)
        finally:
            self.stop.set()
            for pool in (self.lookers, askers):
                if pool is not None:
                    pool.shutdown(wait=False, cancel_futures=True)

    def _here(self, jobs: Iterator[tuple[int, Sequence[str]]]) -> Iterator[tuple[int, DataError | None]]:
        waiting: deque[Callable[[], tuple[int, DataError | None]]] = deque()
        while True:
            while len(waiting) <= AHEAD and (job := next(jobs, None)) is not None:
                waiting.append(self._prepared(*job))
            if not waiting:
                return
            yield waiting.popleft()()

    def _beside(self, jobs: Iterator[tuple[int, Sequence[str]]], askers: ThreadPoolExecutor) -> Iterator[tuple[int, DataError | None]]:
        pending: set[Future[tuple[int, DataError | None]]] = set()
        while True:
            while len(pending) < self.workers + AHEAD and (job := next(jobs, None)) is not None:
                pending.add(askers.submit(self._prepared(*job)))
            if not pending:
                return
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            for one in finished:
                yield one.result()

    def _prepared(self, number: int, heads: Sequence[str]) -> Callable[[], tuple[int, DataError | None]]:
        """How to ask about this episode; its pictures are being read from now on."""
        try:
            episode = self.dataset.episode(number)
        except DataError as error:
            return partial(_failed, number, error)
        asked = any(unasked(self.stages[head], episode.length) is None for head in heads)
        repeats = range(self.asking.repeats if asked else 0)
        views = [self.lookers.submit(look, episode, self.speaker, self.asking, repeat) for repeat in repeats]
        return partial(self._ask, episode, heads, views)

    def _ask(self, episode: Episode, heads: Sequence[str], views: Sequence[Future[View]]) -> tuple[int, DataError | None]:
        try:
            for head in heads:
                self.stores[head].add(episode.index, {head: self._answer(episode, self.stages[head], views)})
        except RefusedError as error:
            if error.status in FINAL:
                raise
            return episode.index, error
        except DataError as error:
            return episode.index, error
        return episode.index, None

    def _answer(self, episode: Episode, subtasks: SubtaskList, futures: Sequence[Future[View]]) -> Answer:
        if (whole := unasked(subtasks, episode.length)) is not None:
            return Answer(whole)
        views = [future.result() for future in futures]
        said = []
        for repeat, view in enumerate(views):
            if self.stop.is_set():
                raise CancelledError
            warm = repeat > 0 and np.array_equal(view.shown.frames, views[0].shown.frames)
            said.append(converse(self.speaker, view, subtasks, self.asking, episode=episode, repeat=repeat, warm=warm))
        return answer_of(said, views, episode)


def _failed(number: int, error: DataError) -> tuple[int, DataError]:
    return number, error
