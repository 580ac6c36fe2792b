"""Asks a vision-language model where the stages of every episode begin and end: sample frames, ask, check, ask again, store.

An answer is on disk as soon as it is accepted or given up, so a run that is killed anywhere continues there and asks nothing twice. Frames
of the next episodes are read while the model answers. Nothing is written into the dataset here (`datasets.annotations` does that).
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from milepost.annotation.checks import Checked, check_reply, trivial_answer
from milepost.annotation.faults import Fault, quoted, reask
from milepost.annotation.question import question
from milepost.annotation.reply import json_schema
from milepost.annotation.sampling import BUDGET, RATE_HZ, FrameSample, sample_frames
from milepost.annotation.sheets import beside, sheets, stamped
from milepost.annotation.store import AnnotationStore, Answer
from milepost.annotation.subtasks import SubtaskList
from milepost.core import (
    DataError,
    Episode,
    Tick,
    UnreadableError,
    names_of,
    parse_json,
    quiet,
    refuses_unknown_options,
    require_integers,
    require_one_of,
)
from milepost.datasets import LeRobotDataset
from milepost.metrics import Annotation, consensus
from milepost.vlm import FINAL, ChatModel, Message, RefusedError, ServerError

AHEAD = 2
"""Episodes whose images are read while others are asked about. More would only hold more images in memory: reading is faster than
answering.
"""
UNANSWERED = 5
"""The run ends after at least so many episodes in a row without an answer from the server."""
AT_FIRST = 3
"""The same limit as long as the server has not answered at all."""
THOUGHTS = 20_000
"""The most letters of a model's reasoning that are stored where it wrote nothing else."""
WARM = 0.7
"""Temperature of a repeat that can show no other frames, because the dataset has no others: at 0 it would only repeat the answer."""


Look = Literal["sheets", "frames"]
"""Contact sheets, or images one by one."""


@refuses_unknown_options()
@dataclass(frozen=True)
class AskConfig:
    """How a model is asked. cameras: full keys, shown side by side. look: contact sheets, or stamped images one by one.

    rate_hz, frames: shown a second, and at most in an episode. repeats: how often the whole question is asked, from the second time on with
    other frames. tries: answers in one conversation before it is given up. temperature: 0 is greedy. task: of episodes without one.
    """

    cameras: tuple[str, ...]
    look: Look = "sheets"
    rate_hz: float = RATE_HZ
    frames: int = BUDGET
    repeats: int = 1
    tries: int = 3
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 2048
    task: str = ""

    def __post_init__(self) -> None:
        require_integers(self)
        require_one_of(self.look, get_args(Look), "look")
        object.__setattr__(self, "cameras", names_of(self.cameras))
        if not self.cameras:
            raise DataError("annotation looks at pictures; name at least one camera")
        if min(self.repeats, self.tries, self.max_tokens) < 1:
            raise DataError(f"repeats, tries and max_tokens are at least 1, got {self.repeats}, {self.tries} and {self.max_tokens}")
        if not 0 <= self.temperature < 10 or not self.rate_hz > 0 or self.frames < 2:
            got = f"{self.temperature}, {self.rate_hz} and {self.frames}"
            raise DataError(f"temperature is 0 or more, rate_hz above 0, frames at least 2; got {got}")


@dataclass(frozen=True, eq=False)
class Prompted:
    """What a model sees of an episode at once: the sampled frames, and their images as its chat model takes them."""

    sample: FrameSample
    images: tuple[Any, ...]


@dataclass(frozen=True)
class Conversation:
    """One question until its answer is accepted or given up. replies: all of the model's words; faults: of the last reply."""

    segments: Annotation | None
    replies: tuple[str, ...]
    repairs: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    moved_s: float = 0.0


def provenance(dataset: LeRobotDataset, model: Mapping[str, str], subtasks: SubtaskList, config: AskConfig) -> dict[str, str]:
    """Returns what the answers for one head depend on, for its store: with other frames, model, stages, words or settings they are other
    answers.

    model: its name, and what tells its weights from others. Where it ran is no part of it.
    """
    questions = [question("task", subtasks, sample_frames(300, 30.0), look=config.look, success=success) for success in (None, False)]
    text = "".join(each.before + each.after for each in questions) + reask([Fault("gap", "")])
    return {
        "dataset_footage": dataset.footage_fingerprint,
        **model,
        "stages": json.dumps(asdict(subtasks), ensure_ascii=False, allow_nan=False),
        "asking": json.dumps(asdict(config), allow_nan=False),
        "words": hashlib.sha256(text.encode()).hexdigest()[:16],
    }


def stages_of(provenance_keys: Mapping[str, str]) -> SubtaskList:
    """Returns the list of stages in a store's provenance."""
    return SubtaskList.from_dict(parse_json(provenance_keys["stages"], source="the annotation's provenance"))


def prepare_prompt(episode: Episode, chat_model: ChatModel, config: AskConfig, repeat: int = 0) -> Prompted:
    """Reads the frames, each once, draws number and time over them, and returns them as images. repeat: from 1 on, inner frames move inside
    their half-steps.
    """
    rng = np.random.default_rng((config.seed, episode.index, repeat)) if repeat else None
    sample = sample_frames(episode.length, episode.fps, rate_hz=config.rate_hz, budget=config.frames, rng=rng)
    images = beside([episode.camera(camera)[sample.frames] for camera in config.cameras])
    pictures = (sheets if config.look == "sheets" else stamped)(images, sample.times_s)
    return Prompted(sample, tuple(chat_model.prepare_image(image) for image in pictures))


def converse(
    chat_model: ChatModel,
    prompted: Prompted,
    subtasks: SubtaskList,
    config: AskConfig,
    *,
    episode: Episode,
    repeat: int = 0,
    warm: bool = False,
) -> Conversation:
    """Asks about one head of one episode until the answer has no fault, or no try is left. warm: samples at a temperature of at least 0.7
    even if `config.temperature` is 0.

    An answer whose faults are not fatal counts if no better one follows. Raises ServerError, or DataError of a local model, if there is no
    answer at all.
    """
    prompt = question(
        episode.task.strip() or config.task,
        subtasks,
        prompted.sample,
        look=config.look,
        cameras=len(config.cameras),
        success=episode.success,
    )
    messages = [Message("user", (prompt.before, *prompted.images, prompt.after))]
    temperature = max(config.temperature, WARM) if warm else config.temperature
    conversation = Conversation(None, ())
    for attempt in range(config.tries):
        seed = _seed(config.seed, episode.index, repeat, attempt) if temperature else None
        reply = chat_model.reply(
            messages, json_schema=json_schema(subtasks), max_tokens=config.max_tokens, temperature=temperature, seed=seed
        )  # fmt: skip
        text = reply.text or reply.refusal
        replies = (*conversation.replies, text or reply.reasoning[-THOUGHTS:])
        checked = check_reply(reply.text, subtasks, prompted.sample, cut=reply.cut, success=episode.success)
        if reply.reasoning and not text.strip() and not reply.cut:
            reason = "the answer is empty; the server kept all words apart as reasoning"
            checked = Checked(
                None, (), (Fault("no JSON", reason, advice="see the server's --reasoning-parser, or switch thinking off there"),)
            )
        if was_refused := bool(reply.refusal and not reply.text):
            checked = Checked(None, (), (Fault("no JSON", f"the model refuses to answer: {quoted(reply.refusal)}"),))
        segments, repairs, moved_s = checked.segments, tuple(repair.message for repair in checked.repairs), checked.moved_s
        if segments is None:
            segments, repairs, moved_s = conversation.segments, conversation.repairs, conversation.moved_s
        conversation = Conversation(segments, replies, repairs, checked.faults, moved_s)
        if not checked.faults or was_refused:
            break
        messages += [Message("assistant", (text or "(nothing)",)), Message("user", (reask(checked.faults),))]
    return conversation


def _seed(*numbers: int) -> int:
    # A hash and no sum: (seed 0, episode 1) and (seed 1, episode 0) must not draw the same words.
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def answer_of(conversations: Sequence[Conversation], prompts: Sequence[Prompted], episode: Episode) -> Answer:
    """Returns the repeats of one head as one answer: the stages of the majority, at the median of their boundaries."""
    accepted = [each.segments for each in conversations if each.segments]
    several = len(conversations) > 1
    where = [f"repeat {number}: " if several else "" for number in range(1, len(conversations) + 1)]
    replies = tuple(reply for each in conversations for reply in each.replies)
    repairs = tuple(f"{at}{repair}" for at, each in zip(where, conversations, strict=True) for repair in each.repairs)
    notes: dict[str, Any] = {"frames_shown": len(prompts[0].sample), "step_s": round(prompts[0].sample.step_s, 6)}
    notes |= {"moved_s": round(max(each.moved_s for each in conversations), 6)}
    if remaining := [
        f"{at}{fault.message}" for at, each in zip(where, conversations, strict=True) for fault in each.faults if each.segments
    ]:
        notes["left"] = remaining
    failures = [_reason(at, each) for at, each in zip(where, conversations, strict=True) if not each.segments]
    if not accepted:
        return Answer(failure="; ".join(failures), replies=replies, notes=notes)
    if not several:
        return Answer(accepted[0], replies=replies, repairs=repairs, notes=notes)
    agreement = consensus(accepted, length=episode.length, fps=episode.fps, failed=len(failures))
    notes |= {
        "repeats": agreement.repeats,
        "support": agreement.support,
        "disagreement": round(agreement.disagreement, 6),
        "borders": [
            {"border": str(each.boundary), "frame": each.boundary.frame, "spread_s": round(each.spread_s, 6)}
            for each in agreement.boundaries
        ],
        "failed": failures,
        "each": [None if each.segments is None else [[s.name, s.start, s.stop] for s in each.segments] for each in conversations],
    }
    return Answer(agreement.segments, replies=replies, repairs=repairs, notes=notes)


def _reason(at: str, conversation: Conversation) -> str:
    answers = len(conversation.replies)
    faults = "; ".join(f"{fault.kind}: {fault.message}{f' ({fault.advice})' if fault.advice else ''}" for fault in conversation.faults)
    return f"{at}after {answers} answers: {faults}" if answers > 1 else f"{at}{faults}"


def to_ask(
    stores: Mapping[str, AnnotationStore], episodes_by_head: Mapping[str, Sequence[int]], *, failed: bool = False
) -> dict[int, tuple[str, ...]]:
    """Returns episode -> the heads that still have to be asked about. failed: includes those whose answers were given up."""
    todo: dict[int, tuple[str, ...]] = {}
    for head, episodes in episodes_by_head.items():
        for episode in stores[head].missing(episodes, [head], failed=failed):
            todo[episode] = (*todo.get(episode, ()), head)
    return dict(sorted(todo.items()))


def annotate_episodes(
    dataset: LeRobotDataset,
    chat_model: ChatModel,
    todo: Mapping[int, Sequence[str]],
    *,
    stages: Mapping[str, SubtaskList],
    stores: Mapping[str, AnnotationStore],
    config: AskConfig,
    workers: int = 1,
    on_progress: Tick = quiet,
) -> dict[int, str]:
    """Asks about these heads of these episodes. The answers, also those that were given up, go into the stores one by one.

    Returns episode -> why it was not asked or not answered: damaged images, no task, a server's time-out. They are in no store, so that the
    next run tries them again. workers: episodes asked about at once, from threads of their own; with 1 it is this thread. RefusedError
    (wrong key, no such model) and a server that answers nothing end the run at once; close the chat model then.
    """

    def store(episode: int, head: str, answer: Answer) -> None:
        stores[head].add(episode, {head: answer})

    annotator = Annotator(dataset, chat_model, stages, config, workers=workers, on_answer=store)
    with closing(annotator.results(todo)) as results:
        return _unanswered(results, len(todo), workers, on_progress)


def annotate_elsewhere(
    results: Iterator[Asked], count: int, *, stores: Mapping[str, AnnotationStore], workers: int = 1, on_progress: Tick = quiet
) -> dict[int, str]:
    """Puts the answers that other processes got into the stores, as they come back. Everything else is as in `annotate_episodes`.

    results: of `Annotator.ask`, in any order. count: of how many episodes. workers: requests at once, over all processes.
    """

    def stored() -> Iterator[Asked]:
        for each in results:
            for head, answer in each.answers.items():
                stores[head].add(each.episode, {head: answer})
            yield each

    return _unanswered(stored(), count, workers, on_progress)


def _unanswered(results: Iterator[Asked], count: int, workers: int, on_progress: Tick) -> dict[int, str]:
    """Returns episode -> why it has not all its answers. Raises what ends a run."""
    unanswered: dict[int, str] = {}
    in_a_row, answered = 0, False
    on_progress(0, count)
    for done, outcome in enumerate(results, start=1):
        error = outcome.error
        if isinstance(error, RefusedError) and error.status in FINAL:
            raise error
        on_progress(done, count)
        if error is None or not isinstance(error, UnreadableError):  # one that is too long says nothing about the others
            in_a_row = in_a_row + 1 if isinstance(error, ServerError) else 0
        if error is not None:
            unanswered[outcome.episode] = str(error)
        answered = answered or error is None
        if in_a_row >= (max(UNANSWERED, 2 * workers) if answered else AT_FIRST):
            raise DataError(f"{in_a_row} episodes in a row got no answer, the last one: {error}. What was answered is kept") from error
    return dict(sorted(unanswered.items()))


@dataclass(frozen=True)
class Asked:
    """What came of asking about one episode. answers: by head, as far as it got. error: why it has not all of them."""

    episode: int
    answers: Mapping[str, Answer]
    error: DataError | None = None


def _ignored(episode: int, head: str, answer: Answer) -> None:
    """Drops an answer that nobody waits for."""


class Annotator:
    """Asks about episodes. What every thread of one run, or one process of a job, needs.

    workers: episodes asked about at once. on_answer: called with each answer as soon as it is there.
    """

    def __init__(
        self,
        dataset: LeRobotDataset,
        chat_model: ChatModel,
        stages: Mapping[str, SubtaskList],
        config: AskConfig,
        *,
        workers: int = 1,
        on_answer: Callable[[int, str, Answer], None] = _ignored,
    ) -> None:
        self.dataset, self.chat_model, self.stages, self.config = dataset, chat_model, stages, config
        self.workers, self.on_answer = workers, on_answer
        self.stop = threading.Event()
        self.readers = ThreadPoolExecutor(max(AHEAD, min(workers, os.cpu_count() or 1)), "milepost-look")

    def ask(self, episode: int, heads: Sequence[str]) -> Asked:
        """Asks about these heads of one episode. Threads may ask at once, if the chat model can."""
        return self._prepared(episode, heads)()

    def results(self, todo: Mapping[int, Sequence[str]]) -> Generator[Asked, None, None]:
        """Yields what came of each episode, as they are done."""
        jobs = iter(todo.items())
        askers = ThreadPoolExecutor(self.workers, "milepost-ask") if self.workers > 1 else None
        try:
            yield from self._in_this_thread(jobs) if askers is None else self._in_threads(jobs, askers)
        finally:
            self.stop.set()
            for pool in (self.readers, askers):
                if pool is not None:
                    pool.shutdown(wait=False, cancel_futures=True)

    def _in_this_thread(self, jobs: Iterator[tuple[int, Sequence[str]]]) -> Iterator[Asked]:
        waiting: deque[Callable[[], Asked]] = deque()
        while True:
            while len(waiting) <= AHEAD and (job := next(jobs, None)) is not None:
                waiting.append(self._prepared(*job))
            if not waiting:
                return
            yield waiting.popleft()()

    def _in_threads(self, jobs: Iterator[tuple[int, Sequence[str]]], askers: ThreadPoolExecutor) -> Iterator[Asked]:
        pending: set[Future[Asked]] = set()
        while True:
            while len(pending) < self.workers + AHEAD and (job := next(jobs, None)) is not None:
                pending.add(askers.submit(self._prepared(*job)))
            if not pending:
                return
            ready, pending = wait(pending, return_when=FIRST_COMPLETED)
            for one in ready:
                yield one.result()

    def _prepared(self, episode_index: int, heads: Sequence[str]) -> Callable[[], Asked]:
        """Returns a function that asks about this episode, whose images are being read from now on."""
        try:
            episode = self.dataset.episode(episode_index)
        except DataError as error:
            return partial(Asked, episode_index, {}, error)
        has_question = any(trivial_answer(self.stages[head], episode.length) is None for head in heads)
        repeats = range(self.config.repeats if has_question else 0)
        prompts = [self.readers.submit(prepare_prompt, episode, self.chat_model, self.config, repeat) for repeat in repeats]
        return partial(self._ask, episode, heads, prompts)

    def _ask(self, episode: Episode, heads: Sequence[str], prompts: Sequence[Future[Prompted]]) -> Asked:
        answers: dict[str, Answer] = {}
        try:
            for head in heads:
                answers[head] = self._answer(episode, self.stages[head], prompts)
                self.on_answer(episode.index, head, answers[head])
        except DataError as error:
            return Asked(episode.index, answers, error)
        return Asked(episode.index, answers)

    def _answer(self, episode: Episode, subtasks: SubtaskList, futures: Sequence[Future[Prompted]]) -> Answer:
        if (whole := trivial_answer(subtasks, episode.length)) is not None:
            return Answer(whole)
        prompts = [future.result() for future in futures]
        conversations = []
        for repeat, prompted in enumerate(prompts):
            if self.stop.is_set():
                raise CancelledError
            warm = repeat > 0 and np.array_equal(prompted.sample.frames, prompts[0].sample.frames)
            conversations.append(converse(self.chat_model, prompted, subtasks, self.config, episode=episode, repeat=repeat, warm=warm))
        return answer_of(conversations, prompts, episode)
