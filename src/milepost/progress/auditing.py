"""Runs a model over edited copies of a dataset's own episodes, which is what `milepost audit` does. A frame is decoded once for all.

`plan_audit` says what is to be done, and asks the model nothing; `run_audit` does it; `audit` is both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from milepost.core import (
    MAIN_HEAD,
    Brief,
    Curve,
    DataError,
    Dataset,
    Episode,
    KnowsEpisodes,
    Prepares,
    Progress,
    RewardModel,
    Tick,
    UnreadableError,
    bare_reason,
    has_words,
    quiet,
    read_episodes,
    require_integers,
)
from milepost.datasets import as_dataset, episode_numbers
from milepost.metrics import CONTROLS, FEWEST, EpisodeCurves, audit_curves, copies, steady_channels, time_channels
from milepost.progress.audit_result import AuditRun
from milepost.progress.curve_store import AskedCurves, CurveStore
from milepost.progress.held import with_images_in_memory, with_shared_features
from milepost.progress.labelling import provenance, require_model
from milepost.progress.labels import predicted

REFUSABLE = ("empty_task", "other_task")
"""Controls that change the instruction: why a model refuses such a copy needs no more words."""


@dataclass(frozen=True)
class AuditConfig:
    """What an audit runs.

    head: whose curve. controls: names of the controls, all if empty. seed: of shuffled frames, noise and the bootstrap. ValueError for a
    control that does not exist or is named twice, or a negative seed.
    """

    head: str = MAIN_HEAD
    controls: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        require_integers(self)
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")
        for name in self.controls:
            if name not in CONTROLS:
                raise ValueError(f"there is no control '{name}'; there are {', '.join(CONTROLS)}")
            if self.controls.count(name) > 1:
                raise ValueError(f"the controls have '{name}' twice; name each of them once")


@dataclass(frozen=True, eq=False, repr=False)
class AuditPlan(Brief):
    """What an audit will do. `plan_audit` makes one, `run_audit` carries it out.

    options: further arguments of `model.predict`. episodes: those whose rows can be read. unreadable: episode index -> why its rows cannot.
    tasks: instructions of the dataset, of which a copy may get another one. clocks: channels of the state that tell the time. controls:
    episode index -> names of the copies that the episode gets. missing: control -> why no episode gets it. stored: episode index -> its
    curves, if earlier runs have stored all. begun: the same, if they have stored some. store: where new curves go; None for nowhere.
    """

    model: RewardModel
    dataset: Dataset
    config: AuditConfig
    options: Mapping[str, Any]
    episodes: tuple[Episode, ...]
    unreadable: Mapping[int, str]
    tasks: tuple[str, ...]
    clocks: tuple[int, ...]
    controls: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    stored: Mapping[int, AskedCurves] = field(default_factory=dict)
    begun: Mapping[int, AskedCurves] = field(default_factory=dict)
    store: CurveStore | None = None

    @property
    def left(self) -> tuple[Episode, ...]:
        """Returns the episodes that the model has to be run on: no earlier run has stored all their curves."""
        return tuple(episode for episode in self.episodes if episode.index not in self.stored)

    def copies(self, episode: Episode) -> dict[str, Episode]:
        """Returns the copies that the episode gets, by the control's name; no image is read."""
        only = self.config.controls or None
        return copies(episode, tasks=self.tasks, clocks=self.clocks, seed=self.config.seed, only=only)

    def questions(self, about: Callable[[Episode], int]) -> int:
        """Returns how many questions are still to be asked. about: an episode or a copy -> how many are asked about it, 0 if it is refused.

        Of an episode that is refused as it was recorded, no copy is asked about.
        """
        return self.questions_left({episode.index: self.counted(episode, about) for episode in self.left})

    def counted(self, episode: Episode, about: Callable[[Episode], int]) -> dict[str, int]:
        """Returns how many questions are asked about an episode, by the name "", and about each of its copies, by the control's."""
        count = about(episode)
        return {"": count, **{name: about(copy) for name, copy in self.copies(episode).items()}} if count else {}

    def questions_left(self, counts: Mapping[int, Mapping[str, int]]) -> int:
        """Returns how many questions are still to be asked. counts: episode index -> what `counted` says."""
        total = 0
        for episode in self.left:
            begun, of_episode = self.begun.get(episode.index), counts[episode.index]
            names = ["", *self.copies(episode)] if begun is None else list(begun.lacks(self.copies(episode)))
            total += sum(of_episode.get(name, 0) for name in names)
        return total


def plan_audit(
    model: RewardModel,
    dataset: Dataset | Path | str,
    *,
    config: AuditConfig | None = None,
    folder: Path | str | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> AuditPlan:
    """Returns what `run_audit` will do: the rows of all episodes are read, and no image; the model is asked nothing, nothing is written.

    The arguments are those of `audit`. DataError if no episode can be read.
    """
    require_model(model, "audit")
    anything: Any = dataset
    dataset = anything if hasattr(anything, "fingerprint") else as_dataset(anything)
    config = config or AuditConfig()
    if isinstance(model, Prepares):
        model.prepare_for(dataset)
    plan = _unstored(model, dataset, config, options)
    if folder is None:
        return _with_stored(plan, None)
    about = {**settings, "head": config.head, "clocks": list(plan.clocks), **options}
    return _with_stored(plan, CurveStore(Path(folder), provenance(model, dataset, "", **about), config.seed))


def plan_elsewhere(dataset: Dataset, made_by: Mapping[str, str], *, config: AuditConfig, folder: Path | str) -> AuditPlan:
    """Returns what an audit will do whose model is in other processes. made_by: of the store of a plan that one of them made.

    DataError if no episode can be read.
    """
    return _with_stored(_unstored(_Elsewhere(), dataset, config, {}), CurveStore(Path(folder), made_by, config.seed))


class _Elsewhere:
    """Stands for a model that is in other processes."""

    def predict(self, episode: Episode) -> Progress:
        raise DataError("the model of this audit is in other processes")


def _unstored(model: RewardModel, dataset: Dataset, config: AuditConfig, options: Mapping[str, Any]) -> AuditPlan:
    """Returns the plan without what earlier runs have stored. DataError if no episode can be read."""
    episodes, unreadable = read_episodes(dataset)
    tasks = sorted({dataset.task_of(index) for index in dataset.episode_indices}) if isinstance(dataset, KnowsEpisodes) else []
    tasks = [task for task in tasks or sorted({episode.task for episode in episodes}) if has_words(task)]
    return AuditPlan(model, dataset, config, options, tuple(episodes), unreadable, tuple(tasks), time_channels(episodes))


def _with_stored(plan: AuditPlan, store: CurveStore | None) -> AuditPlan:
    """Returns the plan with the copies of each episode, and with what the store has of them."""
    controls: dict[int, tuple[str, ...]] = {}
    stored: dict[int, AskedCurves] = {}
    begun: dict[int, AskedCurves] = {}
    for episode in plan.episodes:
        edited = plan.copies(episode)
        controls[episode.index] = tuple(edited)
        if store is not None and (curves := store.read(episode, edited)) is not None:
            (begun if curves.lacks(edited) else stored)[episode.index] = curves
    return dataclasses.replace(plan, controls=controls, missing=_missing(plan, controls), stored=stored, begun=begun, store=store)


@dataclass(frozen=True, eq=False)
class Judged:
    """What came of one episode. curves: of the audited model, by the name "", and of the others. error: why there are none.

    An error that is no UnreadableError ends the audit.
    """

    episode: int
    curves: Mapping[str, AskedCurves] = field(default_factory=dict)
    error: DataError | None = None


def run_audit(
    plan: AuditPlan, *, beside: Mapping[str, RewardModel] = MappingProxyType({}), on_progress: Tick = quiet, paid: bool = False
) -> AuditRun:
    """Carries out a plan, and stores the curves of each episode as soon as they are computed. Returns the verdicts.

    beside: other models that are shown the same copies, by name. paid: whether each question costs: it stops after the first recording then
    if too few frames of its curve are known. DataError if it stops so, or if no episode can be audited.
    """

    def results() -> Iterator[Judged]:
        is_first = True
        for episode in plan.episodes:
            judged = judge(plan, episode, beside, paid=paid and is_first)
            is_first = is_first and not judged.curves
            yield judged

    return audit_elsewhere(plan, results(), on_progress=on_progress)


def audit_elsewhere(plan: AuditPlan, results: Iterable[Judged], *, on_progress: Tick = quiet) -> AuditRun:
    """Stores what `judge` says of each episode, here or in other processes, as soon as it is there. Returns the verdicts.

    results: in any order. DataError as `run_audit`.
    """
    judged = dict[int, Judged]()
    episodes = {episode.index: episode for episode in plan.episodes}
    on_progress(0, len(episodes))
    for each in results:
        if each.error is not None and not isinstance(each.error, UnreadableError):
            raise each.error
        if plan.store is not None and each.curves and each.episode not in plan.stored:
            episode = episodes[each.episode]
            plan.store.write(each.curves[""], episode, plan.copies(episode))
        judged[each.episode] = each
        on_progress(len(judged), len(episodes))
    return _run_of(plan, [judged[number] for number in episodes if number in judged])


def _run_of(plan: AuditPlan, judged: Sequence[Judged]) -> AuditRun:
    """Returns the verdicts. judged: in the order of the episodes."""
    curves: dict[str, list[EpisodeCurves]] = {name: [] for name in next((each.curves for each in judged if each.curves), {"": None})}
    refused: dict[int, Mapping[str, str]] = {}
    unreadable = dict(plan.unreadable)
    for each in judged:
        if each.error is not None:
            unreadable[each.episode] = str(each.error)
        for name, of_model in each.curves.items():
            curves[name].append(of_model.curves)
            if not name and of_model.refused:
                refused[each.episode] = of_model.refused
    if not curves[""]:
        raise DataError(f"no episode of {plan.dataset.name} can be audited: {next(iter(unreadable.values()))}")
    reasons = {**_why_refused(refused), **plan.missing}
    missing = {name: reasons[name] for name in CONTROLS if name in reasons}  # an audit takes those that no episode has
    steady = steady_channels(plan.episodes)
    audits = {name: audit_curves(each, missing=missing, steady=steady, seed=plan.config.seed) for name, each in curves.items()}
    return AuditRun(audits.pop(""), tuple(curves[""]), plan.clocks, unreadable, audits, refused)


def audit(
    model: RewardModel,
    dataset: Dataset | Path | str,
    *,
    config: AuditConfig | None = None,
    beside: Mapping[str, RewardModel] = MappingProxyType({}),
    folder: Path | str | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
    episodes: Sequence[int] | int | str | None = None,
    on_progress: Tick = quiet,
) -> AuditRun:
    """Audits a model: does its curve follow what is seen, or the time? Returns the verdicts with what they rest on.

    config: what is run. beside: other models that are shown the same copies, by name. folder: where the curves of each episode are kept, so
    that a later call, of other controls too, asks for what is not there; those of another model or dataset are replaced.
    options: further arguments of `model.predict`. episodes: those to audit, such as [0, 1, 5] or "0-2,5"; all by default. The
    dataset is not changed. A model that asks a server is asked at once: one question for each prefix, episode and control, of which there
    are `len(metrics.CONTROLS)`. `figures.write_audit` writes what the command writes; `plan_audit` takes what else identifies the model.
    DataError if no episode can be read, or there is none of such a number.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> run = milepost.audit(milepost.ElapsedModel(), milepost.open_dataset("dots"))
    >>> run.audit.verdict
    'cannot be said'
    """
    if episodes is not None:
        anything: Any = dataset
        dataset = as_dataset(anything).only(episode_numbers(episodes) or [])
    plan = plan_audit(model, dataset, config=config, folder=folder, options=options)
    return run_audit(plan, beside=beside, on_progress=on_progress)


def choose_episodes(outcomes: Mapping[int, object], count: int) -> list[int]:
    """Returns the first `count` episode indices, in order: two others for each failure while there are both, and `FEWEST` others first.

    outcomes: episode_index -> True, False, or None where nobody knows. Verdicts need successes most, and a few failures to compare with.

    >>> choose_episodes({0: False, 1: False, 2: True, 3: True, 4: True, 5: True, 6: True}, 6)
    [0, 2, 3, 4, 5, 6]
    """
    failures = [index for index, success in outcomes.items() if success is False]
    others = [index for index, success in outcomes.items() if success is not False]
    fewest = min(len(failures), max(min(count // 3, count - FEWEST), count - len(others), 0))
    return sorted([*failures[:fewest], *others[: count - fewest]])


def score_of(curve: Curve) -> np.ndarray:
    """Returns what can be compared between copies: the raw signal that was scaled to progress over each episode, else progress itself."""
    signal = curve.signals.get(curve.score)
    if signal is None:
        return curve.value
    return signal.values if signal.rises else -signal.values


def _missing(plan: AuditPlan, controls: Mapping[int, Sequence[str]]) -> dict[str, str]:
    """Returns control -> why no episode gets it."""
    there = {name for names in controls.values() for name in names}
    one_instruction = "the dataset has one instruction" if len(plan.tasks) == 1 else "the dataset has no instruction in words"
    reasons = {
        "other_camera": "there is one camera" if any(episode.cameras for episode in plan.episodes) else "there is no camera",
        "other_task": one_instruction if len(plan.tasks) < 2 else "the episodes have no other instruction",
        "images_frozen": "there are no states",
        "states_frozen": "there are no states beside the images, or no images",
        "half_rate": "the episodes are too short",
    }
    only = plan.config.controls
    return {
        name: "it was not asked for" if only and name not in only else reasons.get(name, "it cannot be made")
        for name in CONTROLS
        if name not in there
    }


def judge(plan: AuditPlan, episode: Episode, beside: Mapping[str, RewardModel], *, paid: bool = False) -> Judged:
    """Returns what the model, and those beside it, say of an episode and its copies. Nothing is stored.

    paid: whether the run should end if too few frames of the recording's curve are known.
    """
    stored = plan.stored.get(episode.index)
    if stored is not None and not beside:
        return Judged(episode.index, {"": stored})
    try:
        in_memory = with_images_in_memory(episode)
        edited = plan.copies(in_memory)
        curves = stored or _curves(plan, plan.model, in_memory, edited, plan.options, plan.begun.get(episode.index), paid=paid)
        others = {name: _curves(plan, each, in_memory, edited, {}) for name, each in beside.items()}
    except DataError as error:
        return Judged(episode.index, error=error)
    return Judged(episode.index, {"": curves} | others)


def _curves(
    plan: AuditPlan,
    model: RewardModel,
    episode: Episode,
    edited: Mapping[str, Episode],
    options: Mapping[str, Any],
    begun: AskedCurves | None = None,
    *,
    paid: bool = False,
) -> AskedCurves:
    """Returns the model's curves over an episode and its copies. begun: those that are there. A copy that the model refuses is left out."""
    head = plan.config.head
    if begun is None:
        curve = _predicted(model, episode, options).head(head)
        has_states = episode.state.shape[1] > 0
        begun = AskedCurves(
            EpisodeCurves(
                episode.index, episode.task, episode.success, score_of(curve), {}, plan.config.seed, not curve.score, has_states
            )
        )  # fmt: skip
    if paid:
        _require_judgeable(begun.curves, options)
    controls, refused = dict(begun.curves.controls), dict(begun.refused)
    is_known = not np.isnan(begun.curves.real).all()
    for name, copy in begun.lacks(edited).items():
        try:
            curve = _predicted(model, copy, options, f", copy {name}").head(head)
        except UnreadableError as error:
            refused[name] = str(error)
            continue
        if is_known and copy.length > 1 and np.isnan(curve.value).all():
            refused[name] = "the model says NaN, which means unknown, of every frame"
        else:
            controls[name] = score_of(curve)
    ordered = {name: controls[name] for name in edited if name in controls}
    return AskedCurves(dataclasses.replace(begun.curves, controls=ordered), refused)


def _predicted(model: RewardModel, episode: Episode, options: Mapping[str, Any], which: str = "") -> Progress:
    """Returns the model's output. DataError for a fault of the model, which names the episode and, with `which`, the copy."""
    try:
        return predicted(model, with_shared_features(episode), options)
    except UnreadableError:
        raise
    except ValueError as error:
        raise DataError(f"{error} (of episode {episode.index}{which})") from error


def _require_judgeable(curves: EpisodeCurves, options: Mapping[str, Any]) -> None:
    """Raises DataError if so few frames of the recording's curve are known that it cannot be judged, however long it is."""
    known_count = int((~np.isnan(curves.real)).sum())
    longer = np.append(curves.real, np.full(len(curves.real) + 10, np.nan, np.float32))
    judged = audit_curves([dataclasses.replace(curves, real=longer, controls={}, success=None)]).rows["rise"].episodes
    if judged or known_count == len(curves.real):
        return
    prefixes = options.get("num_prefixes")
    mend = f"give more than --num-prefixes {prefixes}" if prefixes is not None else "let the model's options make it say more frames"
    raise DataError(
        f"the audit stops before it asks more: episode {curves.episode} is known in {known_count} of {len(curves.real)} frames, too few "
        f"to judge it; {mend}"
    )


def _why_refused(refused: Mapping[int, Mapping[str, str]]) -> dict[str, str]:
    """Returns control -> why the model refuses its copies, by the first episode. refused: episode index -> control -> why."""
    reasons: dict[str, str] = {}
    for index, of_episode in refused.items():
        for name, reason in of_episode.items():
            why = "" if name in REFUSABLE else f": {bare_reason(reason, index)}"
            reasons.setdefault(name, f"the model refuses such a copy{why}")
    return reasons
