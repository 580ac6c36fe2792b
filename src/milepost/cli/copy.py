"""Copy a dataset, with progress and weights as columns of every frame.

LeRobot can read the columns, and the Hub's viewer plots them.

The dataset itself is not changed. Columns: progress (progress_sparse and progress_dense where a file has both), weight; NaN is unknown.
--episode-columns writes what is known of each episode into meta/episodes, for LeRobot's episode_filter.
--trim-idle leaves out the frames in which the robot does not move yet, or no more. --without leaves out episodes by number, --drop and
--keep by their marks.
With --restamp, every row's time stamp in the copy is frame / fps. Use it for recordings with real clock times, which LeRobot refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import numpy as np
import tyro

from milepost import datasets, progress, weights
from milepost.cli import copied, copy_choice, episode_columns
from milepost.cli.console import say, table, warn, warn_all
from milepost.cli.effects import Effect, require_effects
from milepost.core import DataError

MarkKind: TypeAlias = Literal["keep", "drop", "unsure", "unmarked"]


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset: a folder, a Hub id or an address (s3://...)."""
    output_dir: Path
    """Folder of the copy; it must not exist."""
    progress: Annotated[Path | None, tyro.conf.arg(aliases=["--progress-file"])] = None
    """Progress file; default: the one beside the dataset. It is optional where another option says what to do. If frames or episodes are
    left out, a file that is named here is also written into the copy, its rows numbered anew."""
    weights: Path | None = None
    """Weights file of `milepost weigh`; it becomes a column too."""
    episode_columns: tuple[Path, ...] | None = None
    """Also write final_progress, mean_weight, the counts of events, mark and success of each episode into meta/episodes. Without files: the
    usual progress file, weights.parquet and the marks of the review page, as far as they are there."""
    episodes: str | None = None
    """Episodes to copy, such as 0-9,12 or 0 1 2; default: all. They are numbered from 0 in the copy."""
    without: str | None = None
    """Leave out these episodes, such as 3,7: damaged ones, as milepost info names them."""
    trim_idle: Literal["start", "end", "both"] | None = None
    """Leave out the idle frames at the start or the end of each episode; annotations and time stamps are shifted, no video is encoded."""
    trim_threshold: float | None = None
    """With --trim-idle: the robot moves once a channel of state or action has left its value at the first (or last) frame by more than this
    part of the channel's range in the dataset (1st to 99th percentile). Default: 0.02."""
    trim_margin_s: float | None = None
    """With --trim-idle: seconds of rest that stay before the first motion and after the last one. Default: 0.5."""
    drop: tuple[MarkKind, ...] | None = None
    """Leave out the episodes with these marks of the review page."""
    keep: tuple[MarkKind, ...] | None = None
    """Leave out all episodes but those with these marks."""
    review_file: Path | None = None
    """With --drop or --keep: file of marks; default: DATASET.review.json beside the dataset; for a Hub dataset, in the current folder."""
    restamp: bool = False
    """Write frame / fps as the time stamps of the copy; every row must have exactly one image. The number of changes is reported."""
    even_damaged: bool = False
    """Also copy a dataset that LeRobot cannot open, without repair."""
    revision: str | None = None


def main(args: Args) -> int:
    """Copies the dataset; returns 1 if frames have no value, or an episode in the copy is damaged."""
    by_marks = args.drop is not None or args.keep is not None
    trimming = Effect(("trim_threshold", "trim_margin_s"), args.trim_idle is not None, "with --trim-idle")
    require_effects(args, [trimming, Effect(("review_file",), by_marks, "with --drop or --keep")])
    dataset = datasets.open_dataset(args.dataset, revision=args.revision)
    datasets.require_new_folder(args.output_dir, dataset.root)
    matched = _matched(args, dataset)
    columns = {} if matched is None else _columns(matched, dataset)
    if args.weights is not None:
        matched_weights = weights.match_weights(episode_columns.existing(args.weights, dataset), dataset)
        warn_all(matched_weights.warnings)
        columns["weight"] = matched_weights.weight
    stamps = datasets.changed_stamps(dataset) if args.restamp else None
    ranges = copy_choice.choose(args, dataset)
    firsts = {number: dataset.row_range(number)[0] for number in ranges}
    rows = {number: slice(firsts[number] + start, firsts[number] + stop) for number, (start, stop) in ranges.items()}
    of_episodes = _of_episodes(args, dataset, rows, matched, columns.get("weight"))
    of_episodes = {**of_episodes, **episode_columns.stale(dataset, ranges, of_episodes)}
    columns = _without_own(args, dataset, columns)
    added = copy_choice.Added(columns, of_episodes, restamp=args.restamp, even_damaged=args.even_damaged)
    damage = copy_choice.damage_in(args.dataset, ranges, added, args.revision)
    left_out = copy_choice.write(args.dataset, args.output_dir, dataset, added, ranges, args.revision)
    unknown = _report_columns(dataset, columns, rows)
    if stamps is not None:
        count, worst = stamps
        say(f"time stamps: {count} of {dataset.total_frames} written anew as frame / {dataset.fps:g} fps, the worst was {worst:.3f} s off")
    say(f"copy: {args.output_dir}")
    if args.progress is not None and matched is not None and copy_choice.is_part(dataset, ranges):
        beside = args.output_dir / matched.path.name
        progress.write_part_progress(matched.path, beside, ranges, datasets.open_dataset(args.output_dir))
        say(f"progress of the frames that stay, with their new numbers: {beside}")
    warn_all(copied.left_out_in_words(left_out))
    if any(unknown.values()):
        warn("frames without a value are NaN in the copy: " + ", ".join(f"{count} of {name}" for name, count in unknown.items() if count))
    warn_all(copied.damage_in_words(damage))
    if damage and len(damage) < len(ranges):
        warn(copy_choice.without_damage(list(damage), args, dataset))
    return 1 if damage or any(unknown.values()) else 0


def _matched(args: Args, dataset: datasets.LeRobotDataset) -> progress.MatchedProgress | None:
    """Returns the progress file; None if there is none and something else is copied. DataError if it belongs to another dataset."""
    if args.progress is None and not dataset.files.beside("*_progress.parquet"):
        if _is_optional(args):
            return None
        raise DataError(
            f"there is no progress file beside {args.dataset}, so copy has no column to add: make one with milepost label, "
            "or say what else the copy is for, with --episodes, --without, --drop, --keep, --trim-idle, --restamp or --episode-columns"
        )
    matched = progress.find_progress(dataset, args.progress)
    warn_all(matched.warnings)
    return matched


def _is_optional(args: Args) -> bool:
    """Returns whether something else than columns of every frame is asked for, so that these need not be there."""
    others = (args.episode_columns, args.trim_idle, args.drop, args.keep, args.episodes, args.without)
    return args.restamp or any(each is not None for each in others)


def _without_own(args: Args, dataset: datasets.LeRobotDataset, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the columns but for those that the dataset has itself, if something else is asked for; it says that the copy keeps these."""
    own = [name for name in columns if name in dataset.meta.features] if _is_optional(args) else []
    if own:
        words = "it as it is" if len(own) == 1 else "them as they are"
        say(f"the dataset has {', '.join(own)} of every frame already; the copy keeps {words}")
    return {name: column for name, column in columns.items() if name not in own}


def _columns(matched: progress.MatchedProgress, dataset: datasets.LeRobotDataset) -> dict[str, np.ndarray]:
    """Returns the per-frame columns of the progress file."""
    curves = progress.curves_by_row(matched.path, matched.table, dataset)
    return {"progress" if len(curves) == 1 else f"progress_{head}": curve for head, curve in curves.items()}


def _of_episodes(
    args: Args,
    dataset: datasets.LeRobotDataset,
    rows: Mapping[int, slice],
    matched: progress.MatchedProgress | None,
    weight: np.ndarray | None,
) -> datasets.EpisodeColumns:
    if args.episode_columns is None:
        return {}
    return episode_columns.gather(dataset, episode_columns.sources_of(dataset, args.episode_columns, matched, weight), rows)


def _report_columns(dataset: datasets.LeRobotDataset, columns: Mapping[str, np.ndarray], rows: Mapping[int, slice]) -> dict[str, int]:
    """Prints what became columns of every frame. Returns how many frames of each have no value."""
    has_row = np.zeros(progress.row_count(dataset), bool)
    for part in rows.values():
        has_row[part] = True
    unknown = {name: int(np.isnan(column[has_row]).sum()) for name, column in columns.items()}
    if columns:
        lines = [
            (name, int(has_row.sum()), unknown[name], f"{episode_columns.mean_of(column[has_row]):.3f}") for name, column in columns.items()
        ]
        table("Columns", ("column", "frames", "unknown", "mean"), lines)
    return unknown
