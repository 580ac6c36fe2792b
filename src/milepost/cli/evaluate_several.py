"""`milepost evaluate` with several progress files: a row for each model, and what it has more than the first, in pairs of episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from milepost import datasets, metrics, progress
from milepost.cli.console import bars, say, table, warn
from milepost.cli.known_measures import known_columns, names_of_columns, where_explained, why_unknown
from milepost.cli.taught import taught_by
from milepost.core import bare_reason, count_noun, to_json


def evaluate_several(
    dataset: datasets.LeRobotDataset, files: Mapping[str, progress.MatchedProgress], *, head: str, seed: int, as_json: bool
) -> int:
    """Compares and prints; returns 1 if an episode cannot be read. files: name -> file; the others are compared with the first."""
    with bars() as bar:
        compared = progress.evaluate_several(dataset, files, head=head, on_progress=bar("compare"))
    if as_json:
        say(to_json(_numbers(compared, files, seed)))
    else:
        _print(compared, seed)
        _say_what_taught(compared, files, dataset)
    for number, reason in compared.clock.unreadable.items():
        warn(f"episode {number} is left out: {bare_reason(reason, number)}")
    return 1 if compared.clock.unreadable else 0


def threshold_rows(lines: Mapping[str, metrics.Threshold]) -> list[tuple[str, ...]]:
    """Returns (score, AUC, threshold, balanced accuracy) of each score, with intervals."""
    return [
        (
            name,
            metrics.in_words(line.auc, *line.auc_interval),
            metrics.in_words(line.value, *line.interval),
            metrics.in_words(line.accuracy, *line.accuracy_interval),
        )
        for name, line in lines.items()
    ]  # fmt: skip


def _print(compared: progress.Comparison, seed: int) -> None:
    evaluation = compared.clock
    scores, sources, (first, *_) = evaluation.episodes, evaluation.sources, compared.evaluations
    titles, rows, unknown = known_columns(names_of_columns(), *metrics.model_table(compared.summaries(seed)))
    table(f"{count_noun(len(scores), 'episode')} that all files have, against: {', '.join(sorted(sources))} (95 % intervals)", titles, rows)
    titles, rows, _ = known_columns(names_of_columns(), *metrics.difference_table(first, compared.differences(seed)))
    table(f"differences from {first}, in pairs of episodes (95 % intervals; where one leaves out 0, the two differ)", titles, rows)
    for words in filter(None, (where_explained(names_of_columns(), unknown), *why_unknown(unknown, evaluation))):
        say(words)
    for name, count in compared.left_out.items():
        if count:
            say(f"{name} has {count_noun(count, 'more episode')} that another file lacks; {'it is' if count == 1 else 'they are'} left out")
    table("episodes with such events", *_event_table(compared))
    lines = {f"{name}: {score}": line for name, each in compared.evaluations.items() for score, line in each.thresholds(seed).items()}
    if lines:
        line = next(iter(lines.values()))
        words = f"success from where a curve ends: {line.counts()}"
        table(words, ("score", "AUC", "threshold", "balanced accuracy, left out"), threshold_rows(lines))


def _event_table(compared: progress.Comparison) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Returns (columns, rows): the percentage of each model's episodes with progress in which each event occurs."""
    rows: list[tuple[object, ...]] = []
    for name, each in compared.evaluations.items():
        episodes = list(each.events.values())
        counts = [sum(any(event.kind == kind for event in events) for events in episodes) for kind in metrics.KINDS]
        rows.append((name, len(episodes), *(f"{100 * count / len(episodes):.0f} %" if count else "-" for count in counts)))
    return ("", "episodes", *(kind.replace("_", " ") for kind in metrics.KINDS)), rows


def _say_what_taught(
    compared: progress.Comparison, files: Mapping[str, progress.MatchedProgress], dataset: datasets.LeRobotDataset
) -> None:
    """Says which models learnt from these episodes: their numbers flatter them."""
    episodes = {score.episode for score in compared.clock.episodes}
    for name, each in files.items():
        model = Path(each.table.made_by.get("model_path", ""))
        if words := taught_by(model, dataset, episodes)[1]:
            say(f"{name}: {words}")


def _numbers(compared: progress.Comparison, files: Mapping[str, progress.MatchedProgress], seed: int) -> dict[str, Any]:
    """Returns what `--json` prints: all measures, differences, thresholds and events."""
    summaries = compared.summaries(seed)
    of_files = {
        name: {
            "path": str(files[name].path),
            **summaries[name].to_dict(),
            "success": {score: asdict(line) for score, line in each.thresholds(seed).items()},
            "events": {str(number): [asdict(event) for event in its] for number, its in each.events.items()},
            "episodes_left_out": compared.left_out[name],
        }
        for name, each in compared.evaluations.items()
    }
    differences = {name: {measure: asdict(each) for measure, each in rows.items()} for name, rows in compared.differences(seed).items()}
    return {
        "episodes": [score.episode for score in compared.clock.episodes],
        "files": of_files,
        compared.clock_name: summaries[compared.clock_name].to_dict(),
        "differences_from": next(iter(compared.evaluations)),
        "differences": differences,
    }
