"""`milepost label --ray`: the same models on the processes of a Ray cluster, and the same files.

Each process opens the dataset and makes the models ready as the verb does here. This process keeps what comes back, and alone writes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from milepost import datasets, models, progress, scale
from milepost.cli.label_models import Ready, lasting, origins, ready, request
from milepost.cli.label_options import Args
from milepost.cli.label_report import threshold_of
from milepost.cli.ray_process import absolute, item_of, parts_of_item, say_once, warnings_of
from milepost.cli.several_datasets import reason_of
from milepost.core import DataError, Tick, UnreadableError, number_at


@dataclass(frozen=True)
class Planned:
    """What one process of the cluster says of the models. made_by, thresholds: of each model. cameras: what they look at."""

    made_by: list[dict[str, str]]
    thresholds: list[float]
    cameras: list[str]


def plan(args: Args, cluster: scale.Cluster) -> Planned:
    """Returns what one process of the cluster says of the models, which need not fit on this machine."""
    planned, messages = scale.once(cluster, partial(_planned, elsewhere(args)))
    say_once(messages, set())
    renamed = [{**each, "model_path": name} for each, name in zip(planned.made_by, args.model, strict=True)]
    return dataclasses.replace(planned, made_by=renamed)


def _planned(args: Args) -> tuple[Planned, list[str]]:
    with warnings_of() as messages:
        here = _ready(args)
        planned = Planned(origins(args, here), [threshold_of(each.model) for each in here.prepared], list(here.dataset.cameras))
    return planned, messages()


def _ready(args: Args) -> Ready:
    """Returns the models of the command, ready for its dataset, in a process that has opened neither."""
    return ready(args, request(args), datasets.open_dataset(args.dataset, revision=args.revision, episodes=args.episodes))


def elsewhere(args: Args) -> Args:
    """Returns the command with absolute paths, as a process needs it that runs in another folder."""
    names = tuple(name if models.is_bare(name, models.kind_of(name)) else absolute(name) for name in args.model)
    return dataclasses.replace(args, dataset=absolute(args.dataset), model=names)


def misfits(each: Sequence[Args], cluster: scale.Cluster) -> dict[str, str]:
    """Returns why models do not fit a dataset, by its name, for the command of each dataset. One process of the cluster asks them all."""
    if not each:
        return {}
    answer, messages = scale.once(cluster, partial(_misfits, [elsewhere(args) for args in each]))
    say_once(messages, set())
    return {args.dataset: answer[place] for place, args in enumerate(each) if place in answer}


def _misfits(each: Sequence[Args]) -> tuple[dict[int, str], list[str]]:
    reasons = dict[int, str]()
    with warnings_of() as messages, lasting() as models_of_all:
        for place, args in enumerate(each):
            try:
                models_of_all.check(
                    args, request(args), datasets.open_dataset(args.dataset, revision=args.revision, episodes=args.episodes)
                )
            except (DataError, OSError) as error:
                reasons[place] = reason_of(error)
    return reasons, messages()


@dataclass(frozen=True)
class _Make:
    """What makes the work of a process. args: the command, with absolute paths."""

    args: Args

    def __call__(self) -> Callable[[int], tuple[list[progress.EpisodeOutcome], list[str]]]:
        with warnings_of() as messages:
            here = _ready(self.args)
            for each in here.prepared:
                each.begin()
        predictors = [progress.Predictor(each.model, each.arguments) for each in here.prepared]
        waiting = messages()

        def label(item: int) -> tuple[list[progress.EpisodeOutcome], list[str]]:
            position, lacking = parts_of_item(item, len(predictors))
            with warnings_of() as now:
                outcomes = list(progress.in_turn(predictors, here.dataset, [(position, lacking)]))
            messages_of_all = [*waiting, *now()]
            waiting.clear()
            return outcomes, messages_of_all

        return label


def compute(
    args: Args, cluster: scale.Cluster, dataset: datasets.LeRobotDataset, tally: scale.Tally, on_progress: Tick, episodes: progress.Plan
) -> Iterator[progress.EpisodeOutcome]:
    """Yields what the models say of the episodes of a plan, as it comes back from the cluster. tally: counts it."""
    count, warned = len(args.model), set[str]()
    items = [item_of(position, lacking, count) for position, lacking in episodes if lacking]
    on_progress(len(dataset) - len(items), len(dataset))
    for done, answer in enumerate(scale.spread(cluster, _Make(elsewhere(args)), items), start=len(dataset) - len(items) + 1):
        if isinstance(answer, scale.Failure):
            yield from _failed(answer, dataset, count)
        else:
            outcomes, messages = answer.value
            say_once(messages, warned)
            frames = max((0 if each.rows is None else len(each.rows) for each in outcomes), default=0)
            tally.add(answer, item=number_at(dataset, parts_of_item(answer.item, count)[0]), frames=frames)
            yield from outcomes
        on_progress(done, len(dataset))


def _failed(failure: scale.Failure, dataset: datasets.LeRobotDataset, count: int) -> Iterable[progress.EpisodeOutcome]:
    """Returns that an episode has no curve of any model that lacks it."""
    position, lacking = parts_of_item(failure.item, count)
    number = number_at(dataset, position)
    error = UnreadableError(f"episode {number}: {failure.reason}")
    return [progress.EpisodeOutcome(place, number, error=error, place=progress.rows_of(dataset, number)) for place in lacking]
