"""Gathers what is known of each episode for `copy --episode-columns`: where its curve ends, its mean weight, events, mark and success."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from milepost import datasets, metrics, progress, viewer, weights
from milepost.cli.console import say, warn, warn_all
from milepost.core import MAIN_HEAD, DataError, count_noun

FINAL, WEIGHT, MARK, SUCCEEDED = "final_progress", "mean_weight", "mark", "success"


@dataclass(frozen=True)
class Sources:
    """What the columns are made of; None where there is nothing. weights: (R,) by row of the dataset. names: the files, for the report."""

    progress: progress.MatchedProgress | None
    weights: np.ndarray | None
    marks: Path | None
    names: tuple[str, ...] = ()


def sources_of(
    dataset: datasets.LeRobotDataset, files: Sequence[Path], matched: progress.MatchedProgress | None, weight: np.ndarray | None
) -> Sources:
    """Returns the files that are given, else those that the other verbs take by default.

    A `.json` is a file of marks, a parquet file with the columns index and weight is one of weights, any other one is of progress. matched,
    weight: what the per-frame columns are made of, which counts unless another file is given. Raises DataError for two files of one kind.
    """
    by_kind: dict[str, Path] = {}
    for path in (existing(each, dataset) for each in files):
        if (kind := _kind(path)) in by_kind:
            raise DataError(f"{by_kind[kind]} and {path} are both files of {kind}; give --episode-columns one of each kind")
        by_kind[kind] = path
    usual_weights, marks = dataset.root / "weights.parquet", viewer.marks_file(dataset)
    if not files:
        by_kind |= {"marks": marks} if marks.is_file() else {}
        by_kind |= {"weights": usual_weights} if weight is None and weights.is_weights_file(usual_weights) else {}
    if "progress" in by_kind:
        matched = progress.match_progress(by_kind["progress"], dataset)
        warn_all(matched.warnings)
    if "weights" in by_kind:
        matched_weights = weights.match_weights(by_kind["weights"], dataset)
        warn_all(matched_weights.warnings)
        weight = matched_weights.weight
    names = [*([] if matched is None else [matched.path.name]), *(path.name for kind, path in by_kind.items() if kind != "progress")]
    return Sources(matched, weight, by_kind.get("marks"), tuple(names))


def existing(path: Path, dataset: datasets.LeRobotDataset) -> Path:
    """Returns where a file is: as it is named, else beside the dataset. DataError if it is in neither place."""
    places = [path, *([] if path.is_absolute() else [dataset.root / path])]
    for place in places:
        if place.exists() or str(place).startswith("hf:/"):
            return place
    raise DataError(f"there is no file {' and no file '.join(map(str, places))}")


def stale(
    dataset: datasets.LeRobotDataset, ranges: Mapping[int, tuple[int, int]], columns: Mapping[str, datasets.EpisodeColumn]
) -> dict[str, datasets.EpisodeColumn]:
    """Returns the columns of the dataset's own that are not made anew, where they say nothing of a part: unknown in each cut episode.

    ranges: episode -> the frames [start, stop) of it that are copied. columns: those that are made anew. It says which they are.
    """
    records = dataset.meta.episodes
    shorter = [number for number, (start, stop) in ranges.items() if (start, stop) != (0, records[number].length)]
    kinds: dict[str, Literal["number", "count"]] = {FINAL: "number", WEIGHT: "number", **dict.fromkeys(event_columns().values(), "count")}
    names = [name for name in kinds if name not in columns and any(name in records[number].entry for number in ranges)]
    if not shorter or not names:
        return {}
    warn(
        f"{', '.join(names)} of {count_noun(len(shorter), 'cut episode')} are unknown in the copy, because they were of whole episodes: "
        "give --episode-columns with the files to make them of"
    )
    whole = [number for number in ranges if number not in shorter]
    return {name: datasets.EpisodeColumn(kinds[name], {number: records[number].entry.get(name) for number in whole}) for name in names}


def _kind(path: Path) -> str:
    if path.suffix == ".json":
        return "marks"
    return "weights" if {"index", "weight"} <= set(datasets.read_table(datasets.find_file(path)).column_names) else "progress"


def gather(dataset: datasets.LeRobotDataset, sources: Sources, rows: Mapping[int, slice]) -> dict[str, datasets.EpisodeColumn]:
    """Returns the columns of the episodes in `rows`: episode -> its rows of the dataset, fewer than all of them where it is trimmed.

    Raises DataError if nothing at all is known of these episodes, or a file is of another dataset.
    """
    columns: dict[str, datasets.EpisodeColumn] = {}
    if sources.progress is not None:
        columns |= _of_curves(dataset, sources.progress, rows)
    if sources.weights is not None:
        columns[WEIGHT] = datasets.EpisodeColumn("number", {number: mean_of(sources.weights[part]) for number, part in rows.items()})
    if sources.marks is not None:
        marks = viewer.Marks(sources.marks, dataset).all()
        columns[MARK] = datasets.EpisodeColumn("word", {number: marks[number].kind for number in rows if number in marks})
    outcomes = datasets.successes(dataset.files, dataset.meta, list(rows))
    if any(outcome is not None for outcome in outcomes.values()):
        columns[SUCCEEDED] = datasets.EpisodeColumn("outcome", outcomes)
    if not columns:
        raise DataError("nothing is known of the episodes: make progress with milepost label, or marks with milepost view, first")
    _report(dataset, sources, columns)
    return columns


def _of_curves(
    dataset: datasets.LeRobotDataset, matched: progress.MatchedProgress, rows: Mapping[int, slice]
) -> dict[str, datasets.EpisodeColumn]:
    """Returns the final progress and the counts of events of the sparse curve, or of the only one. Unknown curves have neither."""
    by_head = progress.curves_by_row(matched.path, matched.table, dataset)
    curve = by_head[MAIN_HEAD] if MAIN_HEAD in by_head else next(iter(by_head.values()))
    parts = {number: curve[part] for number, part in rows.items()}
    ends = {number: metrics.final(part) for number, part in parts.items()}
    counts = {
        number: metrics.count_events(metrics.find_events(part, dataset.fps)) for number, part in parts.items() if not np.isnan(part).all()
    }
    events = {
        name: datasets.EpisodeColumn("count", {number: each[kind] for number, each in counts.items()})
        for kind, name in event_columns().items()
    }
    return {FINAL: datasets.EpisodeColumn("number", ends), **events}


def event_columns() -> dict[str, str]:
    """Returns kind of event -> the name of its column."""
    return {kind: f"{kind}_count" for kind in metrics.KINDS}


def mean_of(values: np.ndarray) -> float:
    """Returns the mean of the known values; NaN if there is none."""
    finite = values[~np.isnan(values)]
    return float(finite.mean(dtype=np.float64)) if len(finite) else float("nan")


def _report(dataset: datasets.LeRobotDataset, sources: Sources, columns: Mapping[str, datasets.EpisodeColumn]) -> None:
    """Says which columns are written, from which files, and what is replaced or missing."""
    say(f"episode columns: {', '.join(columns)} (from {', '.join(sources.names) or 'the dataset itself'})")
    by_kind = {"progress": sources.progress, "weights": sources.weights, "marks": sources.marks}
    if missing := [what for what, source in by_kind.items() if source is None]:
        say(f"there is no file of {' or '.join(missing)}, so no columns are made of {'it' if len(missing) == 1 else 'them'}")
    there = {name for record in dataset.meta.episodes.values() for name in record.entry} & set(columns)
    if replaced := sorted(there - {SUCCEEDED}):
        say(f"the dataset has {', '.join(replaced)} already; the copy has the new values")
