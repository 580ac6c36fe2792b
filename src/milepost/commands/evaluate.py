"""Compare a progress file with the truth (or the annotations) of its dataset, beside a clock; or two annotations with each other."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from milepost.commands.belonging import parse_episodes, progress_file, require_dataset
from milepost.commands.evaluate_annotations import dataset_in, evaluate_annotations
from milepost.console import bars, say, table
from milepost.evaluate import EpisodeScore, failure_table, score_episode, summarise, summary_table, truth_of
from milepost.events import KINDS, Event, find_events
from milepost.lerobot import open_dataset
from milepost.metrics import final
from milepost.models import ElapsedModel
from milepost.store import METADATA_PREFIX, ProgressTable, read_progress
from milepost.success import Threshold, success_threshold
from milepost.types import DataError, Episode


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")] = None
    """LeRobot dataset; not needed if --annotations or --against is one."""
    progress: Annotated[Path | None, tyro.conf.arg(aliases=["--progress-file"])] = None
    """Progress file; default: the one beside the dataset."""
    annotations: str | None = None
    """Compare annotations instead: a dataset, a .csv or .json file, or a store of `milepost annotate`."""
    against: str | None = None
    """The reference: another of these, or "truth", the simulator's."""
    head_mode: Literal["sparse", "dense"] = "sparse"
    episodes: str | None = None
    """Episodes to compare, such as the held-out ones; default: all in the file."""
    seed: int = 0
    """Of the bootstrap."""
    json: bool = False


def _warn_of_training_episodes(progress: ProgressTable, dataset: str, episodes: set[int]) -> None:
    """A model is good on what it learnt from; its evaluation.json, if it can be found, says what that was."""
    record = Path(progress.metadata.get(f"{METADATA_PREFIX}model_path", "")) / "evaluation.json"
    if not record.is_file():
        return
    about = json_module.loads(record.read_text(encoding="utf-8"))
    learnt = episodes & {*about.get("train_episodes", ()), *about.get("validation_episodes", ())}
    if learnt and about.get("dataset") == dataset:
        held = ",".join(map(str, about.get("held_out", ())))
        say(f"{len(learnt)} of these {len(episodes)} episodes taught this model; those it never saw: --episodes {held or '(none)'}")


def main(args: Args) -> int:
    if args.annotations is not None or args.against is not None:
        if args.annotations is None or args.against is None or args.progress is not None:
            raise ValueError("give --annotations together with --against, and without --progress")
        opened = open_dataset(args.dataset or dataset_in(args.annotations, args.against), episodes=parse_episodes(args.episodes))
        return evaluate_annotations(opened, args.annotations, args.against, head=args.head_mode, seed=args.seed, as_json=args.json)
    if args.dataset is None:
        raise ValueError("give DATASET, or --annotations and --against")
    dataset = open_dataset(args.dataset, episodes=parse_episodes(args.episodes))
    path = progress_file(dataset, args.progress)
    progress = read_progress(path)
    require_dataset(path, progress, dataset)
    stages = dataset.stages.get(args.head_mode)
    name = path.stem.removesuffix("_progress")
    scores: dict[str, list[EpisodeScore]] = {f"{name} (file)" if name == "elapsed" else name: [], "elapsed": []}
    sources, labelled, clock = set(), set(progress.episode_index.tolist()), ElapsedModel()
    ends: list[tuple[bool, dict[str, float]]] = []
    happened: dict[int, list[Event]] = {}
    with bars() as bar:
        tick = bar("compare")
        for i in range(len(dataset)):
            episode = dataset[i]
            if episode.index in labelled:
                sources.add(truth_of(episode, stages, args.head_mode).source)
                curve = progress.progress(episode.index, episode.length, args.head_mode)
                happened[episode.index] = find_events(curve.value, episode.fps)
                for rows, one in zip(scores.values(), (curve, clock.predict(episode)), strict=True):
                    rows.append(score_episode(one, episode, stages, args.head_mode))
                if episode.success is not None:
                    ends.append((episode.success, _ends(progress, episode, args.head_mode)))
            tick(i + 1, len(dataset))
    if not next(iter(scores.values())):
        raise DataError(f"{path} has none of these episodes")
    summaries = {name: summarise(rows, np.random.default_rng(args.seed)) for name, rows in scores.items()}
    lines = _thresholds(ends, args.seed)
    if args.json:
        found = {name: summary.to_dict() for name, summary in summaries.items()}
        found |= {"success": {name: asdict(line) for name, line in lines.items()}}
        found |= {"events": {str(number): [asdict(event) for event in its] for number, its in happened.items()}}
        say(json_module.dumps(_without_nan(found), allow_nan=False))
        return 0
    _warn_of_training_episodes(progress, dataset.name, {score.episode for score in next(iter(scores.values()))})
    count = len(next(iter(scores.values())))
    table(f"{count} episodes against: {', '.join(sorted(sources))} (95 % intervals)", *summary_table(summaries))
    if next(iter(summaries.values())).failures:
        table("where failures end (final progress)", *failure_table(summaries))
    table("episodes with such events", *_event_table(next(iter(scores.values())), happened))
    if lines:
        _show(lines)
    return 0


def _event_table(scores: Sequence[EpisodeScore], events: Mapping[int, Sequence[Event]]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """(columns, rows): one row a kind of episode; in how many of its episodes each event occurs at all."""
    groups: dict[str, list[int]] = {}
    for score in scores:
        success = {True: "success", False: "failure", None: "success unknown"}[score.success]
        groups.setdefault(f"{success}, {score.kind}" if score.kind else success, []).append(score.episode)
    rows = []
    for name, numbers in sorted(groups.items(), key=lambda group: (not group[0].startswith("success"), group[0])):
        counts = [sum(any(event.kind == kind for event in events[number]) for number in numbers) for kind in KINDS]
        rows.append((name, len(numbers), *(f"{100 * count / len(numbers):.0f} %" if count else "-" for count in counts)))
    return ("", "episodes", *(kind.replace("_", " ") for kind in KINDS)), rows


def _without_nan(value: Any) -> Any:
    """null where a number is not known: JSON has no NaN."""
    if isinstance(value, Mapping):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _ends(progress: ProgressTable, episode: Episode, head: str) -> dict[str, float]:
    """Where an episode ends, by every number the file has of it."""
    curve = progress.progress(episode.index, episode.length, head)
    raws = dict(curve.raws) or ({f"raw_{head}": curve.raw} if curve.raw is not None else {})
    return {"progress": final(curve.value), **{name: final(raw) for name, raw in raws.items()}}


def _thresholds(ends: Sequence[tuple[bool, Mapping[str, float]]], seed: int) -> dict[str, Threshold]:
    """Score -> the threshold that parts successes from failures; nothing if there are not both."""
    if len({success for success, _ in ends}) < 2:
        return {}
    sides = {name: [np.array([end[name] for success, end in ends if success is side]) for side in (True, False)] for name in ends[0][1]}
    return {name: success_threshold(*both, rng=np.random.default_rng(seed)) for name, both in sides.items()}


def _show(lines: Mapping[str, Threshold]) -> None:
    first = next(iter(lines.values()))
    rows = [
        (
            name,
            *(f"{value:.3f} [{low:.2f}, {high:.2f}]" if not np.isnan(value) else "-" for value, (low, high) in (
                (line.auc, line.auc_interval), (line.value, line.interval), (line.accuracy, line.accuracy_interval)
            )),
        )
        for name, line in lines.items()
    ]  # fmt: skip
    words = f"success from where a curve ends: {first.successes} successes, {first.failures} failures"
    table(words, ("score", "AUC", "threshold", "balanced accuracy, left out"), rows)
    line = lines.get("logprob")
    if line is not None and line.accuracy_interval[0] > 0.5:
        say(f"to use it: --success-threshold {line.value:.4g}")
    elif line is not None:
        say("by these episodes the score does not tell successes from failures: its accuracy on episodes left out may be chance")
