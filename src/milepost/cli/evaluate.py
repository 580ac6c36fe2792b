"""Compare progress with the truth, beside a clock; or compare two annotations.

The truth is in the dataset: its true progress if it was simulated, else its annotations.

error: the mean distance from the true progress. stage accuracy: the part of the frames whose stage is right. VOC: how well the order of
the values agrees with the order of the frames (Spearman's correlation with time, 1 for a curve that always rises). VOC-r: how straight the
curve rises (Pearson's correlation with time). A clock has 1 in both. milestone coverage: the part of the stages' starts that the curve
reaches. stagnation: the part of the frames that bring the curve no higher than before. regret: the mean distance below the highest value
so far, 0 for a curve that never falls.

The other measures compare where the curves of successes and failures end. AUC: how often a success ends above a failure; 0.5 is chance.
AUPRC: the mean precision when episodes are taken from the highest end down; chance stands beside it. tau-a: how far the order of the ends
agrees with the outcomes (Kendall's tau-a); 0 is chance, and a perfect order stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from milepost import datasets, metrics, progress
from milepost.cli.console import bars, say, table, warn, warn_all
from milepost.cli.evaluate_annotations import dataset_in, evaluate_annotations
from milepost.cli.evaluate_several import evaluate_several, threshold_rows
from milepost.cli.known_measures import known_rows, names_of_rows, where_explained, why_unknown
from milepost.cli.progress_io import name_of
from milepost.cli.taught import say_what_taught
from milepost.core import bare_reason, count_noun, shortlist, to_json


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")] = None
    """LeRobot dataset; optional if --annotations or --against is a dataset."""
    progress: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--progress-file"])] = ()
    """Progress file; default: the one beside the dataset. Several: a row for each, and the differences from the first."""
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


def main(args: Args) -> int:
    """Compares and prints; returns 1 if an episode cannot be read."""
    if args.annotations is not None or args.against is not None:
        if args.annotations is None or args.against is None or args.progress:
            raise ValueError("give --annotations together with --against, and without --progress")
        opened = datasets.open_dataset(args.dataset or dataset_in(args.annotations, args.against), episodes=args.episodes)
        return evaluate_annotations(opened, args.annotations, args.against, head=args.head_mode, seed=args.seed, as_json=args.json)
    if args.dataset is None:
        raise ValueError("give DATASET, or --annotations and --against")
    dataset = datasets.open_dataset(args.dataset, episodes=args.episodes)
    if len(set(args.progress)) > 1:
        return _beside(args, dataset)
    progress_file = progress.find_progress(dataset, args.progress[0] if args.progress else None)
    warn_all(progress_file.warnings)
    with bars() as bar:
        compared = progress.evaluate(dataset, progress_file, head=args.head_mode, on_progress=bar("compare"))
    summaries, lines = compared.summaries(args.seed), compared.thresholds(args.seed)
    if args.json:
        numbers: dict[str, Any] = {
            "success": {name: asdict(line) for name, line in lines.items()},
            "events": {str(number): [asdict(event) for event in its] for number, its in compared.events.items()},
        }
        models = {f"{name} (file)" if name in numbers else name: summary.to_dict() for name, summary in summaries.items()}
        say(to_json(models | numbers))
    else:
        model = Path(progress_file.table.metadata.get(f"{progress.METADATA_PREFIX}model_path", ""))
        say_what_taught(model, dataset, {score.episode for score in compared.episodes})
        _print(compared, summaries, lines)
    if absent := compared.absent:
        warn(
            f"{progress_file.path.name} has no row of {count_noun(len(absent), 'episode')} ({shortlist(absent)}), which the numbers leave "
            "out: a model that fails on hard episodes looks better than it is"
        )
    for number, reason in compared.unreadable.items():
        warn(f"episode {number} is left out: {bare_reason(reason, number)}")
    return 1 if compared.unreadable else 0


def _beside(args: Args, dataset: datasets.LeRobotDataset) -> int:
    """Compares several files and prints; returns 1 if an episode cannot be read."""
    matches = [progress.match_progress(path, dataset) for path in dict.fromkeys(args.progress)]
    for each in matches:
        warn_all(each.warnings)
    paths = [each.path for each in matches]
    files = {name_of(each.path, paths): each for each in matches}
    return evaluate_several(dataset, files, head=args.head_mode, seed=args.seed, as_json=args.json)


def _print(compared: progress.Evaluation, summaries: Mapping[str, metrics.Summary], lines: Mapping[str, metrics.Threshold]) -> None:
    """Prints the tables, and which measures they leave out."""
    count = len(compared.episodes)
    columns, rows = metrics.summary_table(summaries, more=True)
    rows, unknown = known_rows(names_of_rows(), rows)
    table(f"{count_noun(count, 'episode')} against: {', '.join(sorted(compared.sources))} (95 % intervals)", columns, rows)
    for line in filter(None, (where_explained(names_of_rows(), unknown), *why_unknown(unknown, compared))):
        say(line)
    if next(iter(summaries.values())).failures:
        table("where failures end (final progress)", *metrics.failure_table(summaries))
    with_progress = [score for score in compared.episodes if score.episode in compared.events]
    if with_progress:
        table("episodes with such events", *_event_table(with_progress, compared.events))
    if len(with_progress) < count:
        lacking = count - len(with_progress)
        verbs = ("has", "counts") if lacking == 1 else ("have", "count")
        say(f"{count_noun(lacking, 'episode')} {verbs[0]} no progress at all and {verbs[1]} in no share of events")
    if lines:
        _show(lines)


def _event_table(
    scores: Sequence[metrics.EpisodeScore], events: Mapping[int, Sequence[metrics.Event]]
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Returns (columns, rows): one row per kind of episode, with the percentage of its episodes in which each event occurs."""
    groups: dict[str, list[int]] = {}
    for score in scores:
        success = {True: "success", False: "failure", None: "unknown outcome"}[score.success]
        groups.setdefault(f"{success}, {score.kind}" if score.kind else success, []).append(score.episode)
    rows = []
    for name, numbers in sorted(groups.items(), key=lambda group: (not group[0].startswith("success"), group[0])):
        counts = [sum(any(event.kind == kind for event in events[number]) for number in numbers) for kind in metrics.KINDS]
        rows.append((name, len(numbers), *(f"{100 * count / len(numbers):.0f} %" if count else "-" for count in counts)))
    return ("", "episodes", *(kind.replace("_", " ") for kind in metrics.KINDS)), rows


def _show(lines: Mapping[str, metrics.Threshold]) -> None:
    first = next(iter(lines.values()))
    words = f"success from where a curve ends: {first.counts()}"
    table(words, ("score", "AUC", "threshold", "balanced accuracy, left out"), threshold_rows(lines))
    line = lines.get("logprob")
    if line is not None and line.accuracy_interval[0] > 0.5:
        say(f"to use it: --success-threshold {line.value:.4g}")
    elif line is not None:
        say("by these episodes the score does not tell successes from failures: its accuracy on episodes left out may be chance")
