"""`milepost annotate --ray`: episodes are asked about by the processes of a Ray cluster, and the same files are written.

Each process opens the dataset and the chat model, and asks as the verb does here. This process alone puts the answers into the stores. All
requests of the job go through one gate (`scale.Door`), which has the server's key too.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

from milepost import annotation, datasets, scale, vlm
from milepost.cli.annotate_options import ModelOptions, Spent, spent_on, spent_together
from milepost.cli.console import bars, warn, warn_all
from milepost.cli.ray_process import Unsaid, absolute, item_of, parts_of_item, say_once, warnings_of
from milepost.core import UnreadableError


@dataclass(frozen=True)
class Questions:
    """What is asked about which dataset. dataset: a folder or a Hub id. lists: of stages, by head."""

    dataset: str
    revision: str | None
    model: ModelOptions
    lists: Mapping[str, annotation.SubtaskList]
    config: annotation.AskConfig


@dataclass(frozen=True)
class _Said:
    """What a process says of one episode. messages: its warnings since the last one. spent: what it spent so far, in all."""

    outcome: annotation.Asked
    messages: list[str]
    spent: Spent


@dataclass(frozen=True)
class _Make:
    """What makes the work of a process. questions: with absolute paths. door: of the server's gate; None for a local model."""

    questions: Questions
    door: scale.Door | None

    def __call__(self) -> Callable[[int], _Said]:
        questions, heads = self.questions, list(self.questions.lists)
        messages = ExitStack().enter_context(warnings_of())  # as long as the process lives
        dataset = datasets.open_dataset(questions.dataset, revision=questions.revision)
        if self.door is not None:
            use_door(self.door, questions.model.api_key_env)
        chat_model = questions.model.open()
        annotator = annotation.Annotator(dataset, chat_model, questions.lists, questions.config, workers=questions.model.workers)
        unsaid = Unsaid(messages)

        def ask(item: int) -> _Said:
            number, lacking = parts_of_item(item, len(heads))
            outcome = annotator.ask(number, [heads[place] for place in lacking])
            return _Said(outcome, unsaid.take(), spent_on(chat_model))

        return ask


def use_door(door: scale.Door, api_key_env: str) -> None:
    """Lets this process of a job ask through the job's gate, with the key of the machine that the job was started on."""
    if key := door.key():
        os.environ[api_key_env] = key
    scale.pass_through(door.gate)


@dataclass
class _Bill:
    """What the processes of a job spent. parts: process -> the most that it said."""

    begun: float = field(default_factory=time.monotonic)
    parts: dict[str, Spent] = field(default_factory=dict)

    def add(self, actor: str, spent: Spent) -> None:
        """Notes what a process says, if it is no older than what is known."""
        if _size(spent) >= _size(self.parts.get(actor, Spent())):
            self.parts[actor] = spent

    def total(self) -> str:
        """Returns the sum in words."""
        return str(spent_together(list(self.parts.values()), seconds=time.monotonic() - self.begun))


def _size(spent: Spent) -> int:
    usage = spent.usage or vlm.Usage()
    return usage.requests + usage.answers + sum(spent.tokens.values())


def ask_on(
    cluster: scale.Cluster,
    questions: Questions,
    todo: Mapping[int, Sequence[str]],
    stores: Mapping[str, annotation.AnnotationStore],
    opened: datasets.LeRobotDataset,
) -> dict[int, str]:
    """Asks about these heads of these episodes on a cluster, and puts the answers into the stores. Returns episode -> why it has none.

    opened: the dataset, as it is opened here.
    """
    tally, bill = scale.Tally.of(cluster), _Bill()
    try:
        with bars() as bar, cluster.joined() as ray:
            door, threads = _door(ray, cluster, questions.model, len(todo))
            make = _Make(_elsewhere(questions, threads if door else None), door)
            workers = questions.model.workers if door else cluster.most_actors(ray)
            with closing(_results(cluster, make, todo, threads=threads, bill=bill, tally=tally, opened=opened)) as results:
                return annotation.annotate_elsewhere(results, len(todo), stores=stores, workers=workers, on_progress=bar("annotate"))
    finally:
        warn_all(tally.lines())
        if total := bill.total():
            warn(total)


def _elsewhere(questions: Questions, threads: int | None) -> Questions:
    """Returns the questions for a process that runs in another folder. threads: None for a local model."""
    name = questions.model.model if threads else absolute(questions.model.model)
    return dataclasses.replace(
        questions,
        dataset=absolute(questions.dataset),
        model=dataclasses.replace(questions.model, model=name, num_workers=threads),
    )


def _door(ray: Any, cluster: scale.Cluster, model: ModelOptions, episodes: int) -> tuple[scale.Door | None, int]:
    """Returns the gate of the job, None for a local model, and how many episodes a process asks about at once.

    Each has one more than its part of the requests: its images are read while the others are asked about.
    """
    if model.server() is None:
        return None, 1
    actors = min(cluster.most_actors(ray), episodes)
    return scale.Door.opened(ray, model.workers, os.environ.get(model.api_key_env, "").strip()), math.ceil(model.workers / actors) + 1


def _results(
    cluster: scale.Cluster,
    make: _Make,
    todo: Mapping[int, Sequence[str]],
    *,
    threads: int,
    bill: _Bill,
    tally: scale.Tally,
    opened: datasets.LeRobotDataset,
) -> Generator[annotation.Asked, None, None]:
    """Yields what the processes say of each episode, as it comes back."""
    heads, warned = list(make.questions.lists), set[str]()
    items = [item_of(number, [heads.index(head) for head in lacking], len(heads)) for number, lacking in todo.items()]
    with closing(scale.spread(cluster, make, items, threads=threads)) as answers:
        for answer in answers:
            number, _ = parts_of_item(answer.item, len(heads))
            if isinstance(answer, scale.Failure):
                yield annotation.Asked(number, {}, UnreadableError(f"episode {number}: {answer.reason}"))
                continue
            of_process: _Said = answer.value
            say_once(of_process.messages, warned)
            bill.add(answer.actor, of_process.spent)
            tally.add(answer, item=number, frames=opened.length(number))
            yield of_process.outcome
