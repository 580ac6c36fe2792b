"""Compare a progress file with the truth (or the annotations) of its dataset, beside a clock; or two annotations with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from milepost import datasets, metrics, models, progress
from milepost.cli.console import bars, say, table, warn, warn_all
from milepost.cli.evaluate_annotations import dataset_in, evaluate_annotations
from milepost.core import RAW, Attempt, DataError, Episode, Stages, UnreadableError, annotated_stages, read_json_object, to_json


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")] = None
    """LeRobot dataset; optional if --annotations or --against is a dataset."""
    progress: Annotated[Path | None, tyro.conf.arg(aliases=["--progress-file"])] = None
    """Progress file; default: the one beside the dataset."""
    annotations: str | None = None
    """Compare annotations instead of progress: a dataset, a .csv or .json file, or a store of `milepost annotate`."""
    against: str | None = None
    """The reference: another of these, or "truth" for the simulator's stages."""
    head_mode: Literal["sparse", "dense"] = "sparse"
    episodes: str | None = None
    """Episodes to compare, such as 0-9,12 or 0 1 2; default: all in the file."""
    seed: int = 0
    """Seed of the bootstrap."""
    json: bool = False


def _warn_of_training_episodes(progress_table: progress.ProgressTable, dataset: datasets.LeRobotDataset, episodes: set[int]) -> None:
    """Warns about episodes that the model was trained on, where its errors are too small; its evaluation.json names them."""
    record = Path(progress_table.metadata.get(f"{progress.METADATA_PREFIX}model_path", "")) / "evaluation.json"
    if not record.is_file():
        return
    about = read_json_object(record)
    groups = ("train_episodes", "validation_episodes", "held_out")
    learning, choosing, unseen = ({n for n in about.get(key) or () if isinstance(n, int)} for key in groups)
    seen_in_training = episodes & (learning | choosing)
    same = about["dataset_fingerprint"] == dataset.fingerprint if "dataset_fingerprint" in about else about.get("dataset") == dataset.name
    if seen_in_training and same:
        rest = ",".join(map(str, sorted(unseen)))
        say(
            f"{len(seen_in_training)} of these {len(episodes)} episodes taught this model; "
            f"those it never saw: --episodes {rest or '(none)'}"
        )


@dataclass(eq=False)
class _Compared:
    """The state of the comparison: scores by model, sources of the truth, final values of known successes and failures, events by
    episode."""

    scores: dict[str, list[metrics.EpisodeScore]]
    sources: set[str] = field(default_factory=set)
    ends: list[tuple[bool, dict[str, float]]] = field(default_factory=list)
    happened: dict[int, list[metrics.Event]] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)

    @property
    def first(self) -> list[metrics.EpisodeScore]:
        return next(iter(self.scores.values()))

    def add(self, episode: Episode, progress_table: progress.ProgressTable, stages: Stages | None, head: str) -> None:
        """Adds an episode that the file has, beside the clock."""
        self.sources.add(metrics.truth_of(episode, stages, head).source)
        curve = progress_table.curve(episode.index, episode.length, head)
        if not np.isnan(curve.value).all():
            self.happened[episode.index] = metrics.find_events(curve.value, episode.fps)
        for rows, one in zip(self.scores.values(), (curve, models.ElapsedModel().predict(episode).main), strict=True):
            rows.append(metrics.score_episode(one, episode, stages, head))
        if episode.success is not None:
            self.ends.append((episode.success, _ends(progress_table, episode, head)))


def main(args: Args) -> int:
    """Compares and prints; returns 1 if an episode cannot be read."""
    if args.annotations is not None or args.against is not None:
        if args.annotations is None or args.against is None or args.progress is not None:
            raise ValueError("give --annotations together with --against, and without --progress")
        opened = datasets.open_dataset(args.dataset or dataset_in(args.annotations, args.against), episodes=args.episodes)
        return evaluate_annotations(opened, args.annotations, args.against, head=args.head_mode, seed=args.seed, as_json=args.json)
    if args.dataset is None:
        raise ValueError("give DATASET, or --annotations and --against")
    dataset = datasets.open_dataset(args.dataset, episodes=args.episodes)
    progress_file = progress.find_progress(dataset, args.progress)
    warn_all(progress_file.warnings)
    path, progress_table = progress_file.path, progress_file.table
    compared = _compare(dataset, progress_table, path, args.head_mode)
    if not compared.first:
        raise DataError(f"{path} has none of these episodes{'' if not compared.unreadable else ' that can be read'}")
    summaries = {name: metrics.summarise(rows, np.random.default_rng(args.seed)) for name, rows in compared.scores.items()}
    lines = _thresholds(compared.ends, args.seed)
    if args.json:
        numbers: dict[str, Any] = {name: summary.to_dict() for name, summary in summaries.items()}
        numbers |= {"success": {name: asdict(line) for name, line in lines.items()}}
        numbers |= {"events": {str(number): [asdict(event) for event in its] for number, its in compared.happened.items()}}
        say(to_json(numbers))
    else:
        _warn_of_training_episodes(progress_table, dataset, {score.episode for score in compared.first})
        _print(compared, summaries, lines)
    for number, reason in compared.unreadable.items():
        warn(f"episode {number} is left out: {reason}")
    return 1 if compared.unreadable else 0


def _compare(dataset: datasets.LeRobotDataset, progress_table: progress.ProgressTable, path: Path, head: str) -> _Compared:
    name = path.stem.removesuffix("_progress")
    compared = _Compared({f"{name} (file)" if name == "elapsed" else name: [], "elapsed": []})
    stages = dataset.stages.get(head) or _annotated(dataset, head)
    numbers = sorted(set(dataset.episode_indices) & set(progress_table.episode_index.tolist()), key=dataset.episode_indices.index)
    with bars() as bar:
        tick = bar("compare")
        for count, number in enumerate(numbers, start=1):
            try:
                compared.add(dataset.episode(number), progress_table, stages, head)
            except UnreadableError as error:
                compared.unreadable[number] = str(error)
            tick(count, len(numbers))
    return compared


def _annotated(dataset: datasets.LeRobotDataset, head: str) -> Stages | None:
    """Returns the stages of the annotation itself, for a dataset without a proportions file; as in training."""
    records = dataset.meta.episodes.values()
    attempts = [Attempt(r.index, "", s, r.success) for r in records if (s := r.sound_segments.get(head))]
    return annotated_stages(attempts) if attempts else None


def _print(compared: _Compared, summaries: Mapping[str, metrics.Summary], lines: Mapping[str, metrics.Threshold]) -> None:
    """Prints the tables, and why some of their cells are empty."""
    count, sources = len(compared.first), compared.sources - {"none"}
    table(f"{count} episodes against: {', '.join(sorted(compared.sources))} (95 % intervals)", *metrics.summary_table(summaries))
    if not sources:
        say("no truth is known of these episodes (no annotation, no column truth.progress): a dash is what cannot be told without one")
    if all(score.success is None for score in compared.first):
        say("the dataset does not say which episodes succeeded (no fact 'success', no column next.success): those rows are dashes")
    if next(iter(summaries.values())).failures:
        table("where failures end (final progress)", *metrics.failure_table(summaries))
    with_progress = [score for score in compared.first if score.episode in compared.happened]
    if with_progress:
        table("episodes with such events", *_event_table(with_progress, compared.happened))
    if len(with_progress) < count:
        say(f"{count - len(with_progress)} episodes have no progress at all and count in no share of events")
    if lines:
        _show(lines)


def _event_table(
    scores: Sequence[metrics.EpisodeScore], events: Mapping[int, Sequence[metrics.Event]]
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Returns (columns, rows): one row per kind of episode, with the percentage of its episodes in which each event occurs."""
    groups: dict[str, list[int]] = {}
    for score in scores:
        success = {True: "success", False: "failure", None: "success unknown"}[score.success]
        groups.setdefault(f"{success}, {score.kind}" if score.kind else success, []).append(score.episode)
    rows = []
    for name, numbers in sorted(groups.items(), key=lambda group: (not group[0].startswith("success"), group[0])):
        counts = [sum(any(event.kind == kind for event in events[number]) for number in numbers) for kind in metrics.KINDS]
        rows.append((name, len(numbers), *(f"{100 * count / len(numbers):.0f} %" if count else "-" for count in counts)))
    return ("", "episodes", *(kind.replace("_", " ") for kind in metrics.KINDS)), rows


def _ends(progress_table: progress.ProgressTable, episode: Episode, head: str) -> dict[str, float]:
    """Returns the final value of each of the episode's curves in the file."""
    curve = progress_table.curve(episode.index, episode.length, head)
    signals = {f"raw_{head}" if name == RAW else name: signal for name, signal in curve.signals.items()}
    return {"progress": metrics.final(curve.value), **{name: metrics.final(signal.values) for name, signal in signals.items()}}


def _thresholds(ends: Sequence[tuple[bool, Mapping[str, float]]], seed: int) -> dict[str, metrics.Threshold]:
    """Returns score -> the threshold that separates successes from failures; empty if one of them is missing."""
    if len({success for success, _ in ends}) < 2:
        return {}
    sides = {name: [np.array([end[name] for success, end in ends if success is side]) for side in (True, False)] for name in ends[0][1]}
    return {name: metrics.success_threshold(*both, rng=np.random.default_rng(seed)) for name, both in sides.items()}


def _show(lines: Mapping[str, metrics.Threshold]) -> None:
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
