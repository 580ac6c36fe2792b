"""Which episodes and frames `copy` copies, and the copying: by marks of the review page, and without idle frames."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from milepost import datasets, viewer
from milepost.cli.console import say, table, warn
from milepost.core import DataError, count_noun, ranges_to_type, shortlist

Range = tuple[int, int]
LISTED = 12
"""Episodes in the table of trimmed ones."""


@runtime_checkable
class Choice(Protocol):
    """The options that choose episodes and frames."""

    @property
    def trim_idle(self) -> Literal["start", "end", "both"] | None: ...
    @property
    def trim_threshold(self) -> float | None: ...
    @property
    def trim_margin_s(self) -> float | None: ...
    @property
    def episodes(self) -> str | None: ...
    @property
    def without(self) -> str | None: ...
    @property
    def drop(self) -> tuple[str, ...] | None: ...
    @property
    def keep(self) -> tuple[str, ...] | None: ...
    @property
    def review_file(self) -> Path | None: ...


@dataclass(frozen=True, eq=False)
class Added:
    """What is new in the copy. columns: by row of the dataset. episode_columns: by episode of the dataset."""

    columns: Mapping[str, np.ndarray]
    episode_columns: datasets.EpisodeColumns
    restamp: bool = False
    even_damaged: bool = False

    @property
    def is_empty(self) -> bool:
        """Returns whether nothing is new."""
        return not (self.columns or self.episode_columns or self.restamp)


def choose(args: Choice, dataset: datasets.LeRobotDataset) -> dict[int, Range]:
    """Returns episode -> frames [start, stop) that are copied, and reports what is left out. DataError if nothing would be left."""
    numbers = _by_number(args, dataset, _by_marks(args, dataset))
    if args.trim_idle is None:
        return {number: (0, dataset.length(number)) for number in numbers}
    datasets.require_parts(dataset, numbers)
    options = {"threshold": args.trim_threshold, "margin_s": args.trim_margin_s}
    plan = datasets.plan_trim(
        dataset, args.trim_idle, episodes=numbers, **{name: each for name, each in options.items() if each is not None}
    )
    _report_trim(plan, dataset)
    return dict(plan.ranges)


def damage_in(source: str, ranges: Mapping[int, Range], added: Added, revision: str | None) -> dict[int, str]:
    """Returns episode -> what is wrong with it, of those that are copied. DataError for damage that LeRobot would not open. With
    --even-damaged nobody looks, and nothing is returned."""
    return {} if added.even_damaged else datasets.require_sound(source, revision, restamp=added.restamp, episodes=ranges)


def without_damage(numbers: Sequence[int], args: Choice, dataset: datasets.LeRobotDataset) -> str:
    """Returns how to leave these episodes of the copy out."""
    if datasets.leave_out_verb(dataset.version) == "milepost import":
        return f"this makes a dataset without damaged episodes: {datasets.import_command(dataset.files, numbers)}"
    before = datasets.episode_numbers(args.without) or []
    return f"to leave damaged episodes out: --without {ranges_to_type(sorted({*before, *numbers}))}, with another --output-dir"


def write(
    source: str, folder: Path, dataset: datasets.LeRobotDataset, added: Added, ranges: Mapping[int, Range], revision: str | None
) -> list[str]:
    """Writes the copy, whatever damage the dataset has: `damage_in` has looked. Returns the data files that no episode needs, which are
    not in it."""
    is_whole = not is_part(dataset, ranges)
    if is_whole and added.is_empty:
        raise DataError(
            "every frame of every episode stays and no column is added, so the copy would be the dataset as it is: none is made"
        )
    if is_whole:
        return _with_columns(source, folder, added, revision)
    where = datasets.require_new_folder(folder, dataset.root)
    if added.is_empty:
        _in_parts(source, where, ranges, added, revision)
        return []
    where.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{where.name}.", suffix=".milepost", dir=where.parent) as scratch:
        left_out = _with_columns(source, Path(scratch) / dataset.root.name, added, revision)
        _in_parts(str(Path(scratch) / dataset.root.name), where, ranges, added, None)
    return left_out


def is_part(dataset: datasets.LeRobotDataset, ranges: Mapping[int, Range]) -> bool:
    """Tells whether a frame or an episode of the dataset is left out."""
    return any(ranges.get(number) != (0, record.length) for number, record in dataset.meta.episodes.items())


def _with_columns(source: str, folder: Path, added: Added, revision: str | None) -> list[str]:
    return datasets.copy_with_columns(
        source,
        folder,
        added.columns,
        episode_columns=added.episode_columns,
        restamp=added.restamp,
        even_damaged=True,
        revision=revision,
    ).left_out


def _in_parts(source: str, folder: Path, ranges: Mapping[int, Range], added: Added, revision: str | None) -> None:
    for words in datasets.copy_parts(source, folder, ranges, even_damaged=True, revision=revision):
        warn(words)


def _by_number(args: Choice, dataset: datasets.LeRobotDataset, numbers: Sequence[int]) -> Sequence[int]:
    """Returns those of these episodes that --episodes names and --without does not. DataError for one that is absent, and if none stays."""
    stay = datasets.numbers_that_stay(numbers, args.episodes, args.without, verb="copy")
    if len(stay) < len(numbers):
        datasets.require_parts(dataset, stay)
        say(f"episodes: {len(stay)} of {len(numbers)} stay; they are numbered 0 to {len(stay) - 1} in the copy")
    return stay


def _by_marks(args: Choice, dataset: datasets.LeRobotDataset) -> Sequence[int]:
    """Returns the episodes that stay by their marks."""
    if args.drop is None and args.keep is None:
        return dataset.episode_indices
    if () in (args.drop, args.keep):
        raise ValueError("--drop and --keep need one mark or more: keep, drop, unsure, unmarked")
    if args.drop is not None and args.keep is not None:
        raise ValueError("--drop and --keep choose the same episodes in two ways: leave one of them out")
    path = args.review_file or viewer.marks_file(dataset)
    if not path.is_file():
        raise DataError(f"there is no file of marks {path}: mark episodes with milepost view, or name the file with --review-file")
    marks = viewer.Marks(path, dataset).all()
    kinds = {number: (marks[number].kind if number in marks else None) or "unmarked" for number in dataset.episode_indices}
    numbers = [number for number, kind in kinds.items() if (kind in args.keep if args.keep is not None else kind not in (args.drop or ()))]
    counts = {kind: list(kinds.values()).count(kind) for kind in ("keep", "drop", "unsure", "unmarked")}
    by_kind = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    if not numbers:
        raise DataError(f"by the marks in {path} no episode stays: {by_kind}")
    if len(numbers) < len(kinds):
        datasets.require_parts(dataset, datasets.numbers_that_stay(numbers, args.episodes, args.without, verb="copy"))
    say(f"episodes: {len(numbers)} of {len(kinds)} stay ({by_kind}, by {path.name}); they are numbered 0 to {len(numbers) - 1} in the copy")
    return numbers


def _report_trim(plan: datasets.TrimPlan, dataset: datasets.LeRobotDataset) -> None:
    """Prints what is cut off."""
    total, fps = sum(plan.lengths.values()), dataset.fps
    left_out = sum(sum(each) for each in plan.shortened.values())
    where = f"in {len(plan.shortened)} of {count_noun(len(plan.lengths), 'episode')}"
    say(f"idle frames: {left_out} of {total} ({left_out / fps:.1f} s) are left out, {where}")
    if plan.shortened:
        longest = sorted(plan.shortened, key=lambda number: -sum(plan.shortened[number]))[:LISTED]
        rows = [
            (n, plan.lengths[n], *(f"{count / fps:.2f}" for count in plan.shortened[n]), plan.lengths[n] - sum(plan.shortened[n]))
            for n in longest
        ]
        table(f"Idle frames, the {len(rows)} longest", ("episode", "frames", "start (s)", "end (s)", "stay"), rows)
    if plan.still:
        warn(f"the robot does not move in episodes {shortlist(plan.still)}: they stay whole; mark them to leave them out")
    if plan.faulty:
        some = shortlist(plan.faulty)
        warn(f"the annotation of episodes {some} has a fault, so they stay whole: milepost info says what is wrong with it")
