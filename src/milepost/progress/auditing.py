"""Runs a model over edited copies of a dataset's own episodes, which is what `milepost audit` does. A frame is decoded once for all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from milepost.core import (
    MAIN_HEAD,
    ArrayFrames,
    Brief,
    Curve,
    DataError,
    Dataset,
    EditedFrames,
    Episode,
    KnowsEpisodes,
    Prepares,
    RewardModel,
    Tick,
    UnreadableError,
    has_words,
    number_at,
    quiet,
    read_json_object,
    require_integers,
    to_json,
    write_text,
)
from milepost.datasets import as_dataset
from milepost.metrics import CONTROLS, FEWEST, Audit, EpisodeCurves, audit_curves, copies, time_channels
from milepost.progress.labelling import predicted, provenance, require_model

REFUSABLE = ("empty_task", "other_task")
"""Controls whose copies a model may refuse: it is not judged by them then."""
MEMORY = 1 << 30
"""Bytes of images of one episode that are held while its copies are computed; a larger episode is decoded for every copy."""


@dataclass(frozen=True, eq=False, repr=False)
class AuditRun(Brief):
    """What an audit computed. audit: the verdicts. curves: every curve, by episode. clocks: the channels of the state that tell the time.

    unreadable: episodes that were left out, and why. beside: the same for other models, such as the clock.
    """

    audit: Audit
    curves: tuple[EpisodeCurves, ...]
    clocks: tuple[int, ...] = ()
    unreadable: Mapping[int, str] = field(default_factory=dict)
    beside: Mapping[str, Audit] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Returns verdicts, properties and rows in JSON's types, as `audit.json` has them; the curves are not among them."""
        return {
            **_plain(self.audit),
            "episodes": [each.episode for each in self.curves],
            "clocks": list(self.clocks),
            "beside": {name: _plain(audit) for name, audit in self.beside.items()},
            "unreadable": {str(number): reason for number, reason in self.unreadable.items()},
        }


def _plain(audit: Audit) -> dict[str, object]:
    rows = {name: dataclasses.asdict(row) for name, row in audit.rows.items()}
    properties = [dataclasses.asdict(each) for each in audit.properties]
    return {"verdict": audit.verdict, "properties": properties, "rows": rows, "missing": dict(audit.missing)}


@dataclass(frozen=True)
class AuditConfig:
    """What an audit runs.

    head: whose curve. controls: names of the controls, all if empty. seed: of shuffled frames, noise and the bootstrap. ValueError for a
    control that does not exist, or a negative seed.
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


def audit(
    model: RewardModel,
    dataset: Dataset | Path | str,
    *,
    config: AuditConfig | None = None,
    beside: Mapping[str, RewardModel] = MappingProxyType({}),
    folder: Path | str | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
    settings: Mapping[str, Any] = MappingProxyType({}),
    on_progress: Tick = quiet,
) -> AuditRun:
    """Audits a model: does its curve follow what is seen, or the time? Returns the verdicts with what they rest on.

    config: what is run. beside: other models that are shown the same copies, by name. folder: where the curves of each episode are kept, so
    that the same call goes on after an interruption; those of another model or dataset are replaced. options: further arguments of
    `model.predict`. settings: what else identifies the model, such as its package and its code. The dataset is
    not changed. A model that asks a server is asked at once: one question for each prefix, episode and control, of which there are
    `len(metrics.CONTROLS)`. `figures.write_audit` writes what `milepost audit` writes. DataError if no episode can be read.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> run = milepost.audit(milepost.ElapsedModel(), milepost.open_dataset("dots"))
    >>> run.audit.verdict
    'cannot be said'
    """
    require_model(model, "audit")
    dataset = as_dataset(dataset) if isinstance(dataset, str | Path) else dataset
    config = config or AuditConfig()
    head, seed = config.head, config.seed
    if isinstance(model, Prepares):
        model.prepare_for(dataset)
    tasks = sorted({dataset.task_of(index) for index in dataset.episode_indices}) if isinstance(dataset, KnowsEpisodes) else []
    questions = {**settings, "head": head, "seed": seed, "controls": sorted(config.controls), **options}
    store = None if folder is None else _Store(Path(folder), provenance(model, dataset, "", **questions))
    episodes, unreadable = _readable(dataset)
    clocks = time_channels(episodes)
    tasks = [task for task in tasks or sorted({episode.task for episode in episodes}) if has_words(task)]
    curves: dict[str, list[EpisodeCurves]] = {name: [] for name in ("", *beside)}
    missing: dict[str, str] = {}
    for done, episode in enumerate(episodes):
        on_progress(done, len(episodes))
        try:
            in_memory = with_images_in_memory(episode)
            edited = copies(in_memory, tasks=tasks, clocks=clocks, seed=seed, only=config.controls or None)
            missing |= missing_controls(episode, edited, config.controls, len(tasks))
            stored = None if store is None else store.read(episode)
            result = stored or _curves(model, in_memory, edited, head, options, seed)
            others = {name: _curves(each, in_memory, edited, head, {}, seed) for name, each in beside.items()}
            for name, each in {"": result, **others}.items():
                curves[name].append(each)
            if store is not None and stored is None:
                store.write(result, episode)
        except UnreadableError as error:
            unreadable[episode.index] = str(error)
    on_progress(len(episodes), len(episodes))
    if not curves[""]:
        raise DataError(f"no episode of {dataset.name} can be audited: {next(iter(unreadable.values()))}")
    audits = {name: audit_curves(each, missing=missing, seed=seed) for name, each in curves.items()}
    return AuditRun(audits.pop(""), tuple(curves[""]), clocks, unreadable, audits)


def missing_controls(episode: Episode, edited: Mapping[str, Episode], requested: Sequence[str], tasks: int) -> dict[str, str]:
    """Returns control -> why it has no copy of this episode, or no curve if the model refuses the copy."""
    reasons = {
        "other_camera": "there is one camera" if episode.cameras else "there is no camera",
        "other_task": "the dataset has one instruction" if tasks < 2 else "this episode has no other instruction",
        **dict.fromkeys(("images_frozen", "states_frozen"), "there are no states beside the images, or no images"),
        "half_rate": "the episode is too short",
    }
    absent = {
        name: "it was not asked for" if requested and name not in requested else reasons.get(name, "it cannot be made")
        for name in CONTROLS
        if name not in edited
    }
    return absent | {name: "the model refuses such a copy" for name in REFUSABLE if name in edited}


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


def with_images_in_memory(episode: Episode) -> Episode:
    """Returns the episode with its images decoded into memory, or as it is if they need more than `MEMORY`."""
    cameras = {}
    room = MEMORY
    for name, frames in episode.cameras.items():
        size = frames[np.array([0])].nbytes * episode.length
        room -= size
        cameras[name] = ArrayFrames(np.concatenate(list(frames.chunks()))) if room >= 0 else frames
    return dataclasses.replace(episode, cameras=cameras)


def score_of(curve: Curve) -> np.ndarray:
    """Returns what can be compared between copies: the raw signal that was scaled to progress over each episode, else progress itself."""
    signal = curve.signals.get(curve.score)
    if signal is None:
        return curve.value
    return signal.values if signal.rises else -signal.values


def _readable(dataset: Dataset) -> tuple[list[Episode], dict[int, str]]:
    """Returns the episodes whose rows can be read, and why each other one's cannot. DataError if there is none."""
    episodes, unreadable = [], {}
    for position in range(len(dataset)):
        try:
            episodes.append(dataset[position])
        except UnreadableError as error:
            unreadable[number_at(dataset, position)] = str(error)
    if not episodes:
        raise DataError(f"no episode of {dataset.name} can be read: {next(iter(unreadable.values()), 'there is none')}")
    return episodes, unreadable


def _curves(
    model: RewardModel, episode: Episode, edited: Mapping[str, Episode], head: str, options: Mapping[str, Any], seed: int
) -> EpisodeCurves:
    """Returns the model's curves over an episode and its copies. A copy whose instruction the model refuses is left out."""
    curve = predicted(model, _sharing(episode), options).head(head)
    real = score_of(curve)
    controls = {}
    for name, copy in edited.items():
        try:
            controls[name] = score_of(predicted(model, _sharing(copy), options).head(head))
        except UnreadableError:
            if name not in REFUSABLE:
                raise
    return EpisodeCurves(episode.index, episode.task, episode.success, real, controls, seed, not curve.score)


def _sharing(episode: Episode) -> Episode:
    """Returns the episode with every camera as a copy of itself: a recording's features are kept for its copies, however many there are."""
    cameras = {
        name: frames if isinstance(frames, EditedFrames) else EditedFrames(frames, name, np.arange(len(frames)))
        for name, frames in episode.cameras.items()
    }
    return dataclasses.replace(episode, cameras=cameras)


class _Store:
    """Curves of episodes on disk, one JSON file each, with what made them. Those of another model, dataset or setting are not read."""

    def __init__(self, folder: Path, made_by: Mapping[str, str]) -> None:
        self.folder = folder
        self.made_by = {name: value for name, value in made_by.items() if name != "milepost_version"}
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, episode: Episode) -> Path:
        return self.folder / f"episode_{episode.index:06d}.json"

    def read(self, episode: Episode) -> EpisodeCurves | None:
        path = self._path(episode)
        if not path.is_file():
            return None
        stored = read_json_object(path)
        if stored.get("made_by") != self.made_by:
            return None
        curves = {name: np.array(values, dtype=np.float32) for name, values in stored["curves"].items()}
        return EpisodeCurves(
            episode.index, episode.task, episode.success, curves.pop("real"), curves, int(stored["seed"]), bool(stored["scaled"])
        )

    def write(self, curves: EpisodeCurves, episode: Episode) -> None:
        values = {"real": curves.real, **curves.controls}
        record = {
            "made_by": self.made_by,
            "seed": curves.seed,
            "scaled": curves.scaled,
            "curves": {name: value.tolist() for name, value in values.items()},
        }
        write_text(self._path(episode), to_json(record))
