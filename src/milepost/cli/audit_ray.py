"""`milepost audit --ray`: processes of a Ray cluster judge the edited copies of episodes. This one stores, and asks for consent.

Each process makes its own plan of the same episodes; what earlier runs have stored is sent to it, since the store is read and written here
alone.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from milepost import datasets, models, progress, scale
from milepost.cli.annotate_ray import use_door
from milepost.cli.audit_models import beside, prepared_for
from milepost.cli.console import bars, warn_all
from milepost.cli.ray_process import Unsaid, absolute, say_once, warnings_of
from milepost.core import UnreadableError

AT_ONCE = 8
"""Default number of requests to a server at once, over the whole job."""


@dataclass(frozen=True)
class Audited:
    """What is audited. model: its folder, Hub id or name. options: of all kinds. episodes: their numbers."""

    dataset: str
    revision: str | None
    episodes: tuple[int, ...]
    model: str
    options: Any
    config: progress.AuditConfig
    task: str | None
    device: str

    def elsewhere(self) -> Audited:
        """Returns it with absolute paths."""
        bare = models.is_bare(self.model, models.kind_of(self.model))
        return dataclasses.replace(self, dataset=absolute(self.dataset), model=self.model if bare else absolute(self.model))

    def opened(self) -> models.Prepared:
        """Returns the model, ready for the episodes."""
        dataset = datasets.open_dataset(self.dataset, revision=self.revision).only(list(self.episodes))
        return prepared_for(self.model, self.options, dataset, self.config.head, self.task, self.device)

    def plan(self, prepared: models.Prepared) -> progress.AuditPlan:
        """Returns what a process will do of which nothing is stored."""
        return progress.plan_audit(
            prepared.model, prepared.dataset, config=self.config, folder=Path("nowhere") / "here",
            options=prepared.arguments, settings=prepared.settings,
        )  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """What one process of the cluster says of an audit. made_by: of its curves. questions: that a server is asked about each episode and
    each of its copies; None if there is no server."""

    made_by: Mapping[str, str]
    cameras: list[str]
    questions: Mapping[int, Mapping[str, int]] | None
    messages: list[str]


def plan(audited: Audited, cluster: scale.Cluster) -> Planned:
    """Returns what one process of the cluster says of the audit, whose model need not fit on this machine."""
    planned: Planned = scale.once(cluster, partial(_planned, audited.elsewhere()))
    say_once(planned.messages, set())
    return planned


def _planned(audited: Audited) -> Planned:
    with warnings_of() as messages:
        prepared = audited.opened()
        planned = audited.plan(prepared)
        about = prepared.questions
        questions = None if about is None else {episode.index: planned.counted(episode, about) for episode in planned.episodes}
        assert planned.store is not None
        return Planned(planned.store.made_by, list(prepared.dataset.cameras), questions, messages())


@dataclass(frozen=True)
class _Make:
    """What makes the work of a process. audited: with absolute paths. stored, begun: of the plan here. door: of a server's gate."""

    audited: Audited
    stored: Mapping[int, Any]
    begun: Mapping[int, Any]
    door: scale.Door | None
    api_key_env: str
    paid: bool

    def __call__(self) -> Callable[[int], tuple[progress.Judged, list[str]]]:
        messages = ExitStack().enter_context(warnings_of())  # as long as the process lives
        if self.door is not None:
            use_door(self.door, self.api_key_env)
        prepared = self.audited.opened()
        planned = dataclasses.replace(self.audited.plan(prepared), stored=self.stored, begun=self.begun, store=None)
        others = beside(self.audited.model, prepared.model, self.audited.config.seed)
        episodes, unsaid, judged_any = {episode.index: episode for episode in planned.episodes}, Unsaid(messages), list[int]()

        def work(item: int) -> tuple[progress.Judged, list[str]]:
            judged = progress.judge(planned, episodes[item], others, paid=self.paid and not judged_any)
            judged_any.extend([item] if judged.curves else [])
            return judged, unsaid.take()

        return work


def run(audited: Audited, cluster: scale.Cluster, plan: progress.AuditPlan, *, paid: bool) -> progress.AuditRun:
    """Carries out a plan on a cluster. paid: whether each question costs."""
    tally = scale.Tally.of(cluster)
    with bars() as bar, cluster.joined() as ray:
        server = _server(audited.options) if paid else None
        env = (server.api_key_env or "OPENAI_API_KEY") if server else ""
        most = (server.concurrency or AT_ONCE) if server else 0
        door = scale.Door.opened(ray, most, os.environ.get(env, "").strip()) if server else None
        make = _Make(audited.elsewhere(), dict(plan.stored), dict(plan.begun), door, env, paid)
        with closing(_results(cluster, make, plan, tally)) as results:
            result = progress.audit_elsewhere(plan, results, on_progress=bar("audit"))
    warn_all(tally.lines())
    return result


def _server(options: Any) -> Any:
    """Returns the options of the model's server, None if none is named."""
    return next((each for each in vars(options).values() if getattr(each, "base_url", None) is not None), None)


def _results(cluster: scale.Cluster, make: _Make, plan: progress.AuditPlan, tally: scale.Tally) -> Generator[progress.Judged, None, None]:
    """Yields what is said of each episode, as it comes back."""
    warned, lengths = set[str](), {episode.index: episode.length for episode in plan.episodes}
    with closing(scale.spread(cluster, make, list(lengths), threads=1)) as answers:
        for answer in answers:
            if isinstance(answer, scale.Failure):
                yield progress.Judged(answer.item, error=UnreadableError(f"episode {answer.item}: {answer.reason}"))
                continue
            judged, messages = answer.value
            say_once(messages, warned)
            tally.add(answer, item=answer.item, frames=lengths[answer.item])
            yield judged
