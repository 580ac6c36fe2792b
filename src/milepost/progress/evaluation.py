"""A progress file against the truth or the annotations of its dataset, beside a clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from milepost.core import (
    MAIN_HEAD,
    RAW,
    Attempt,
    Curve,
    DataError,
    Episode,
    Stages,
    Tick,
    UnreadableError,
    annotated_stages,
    count_noun,
    quiet,
    warn_user,
)
from milepost.datasets import LeRobotDataset, as_dataset
from milepost.metrics import (
    EpisodeScore,
    Event,
    Summary,
    Threshold,
    clock,
    final,
    find_events,
    score_episode,
    success_threshold,
    summarise,
    summary_table,
    truth_of,
)
from milepost.progress.matching import MatchedProgress, find_progress, match_progress, require_rows
from milepost.progress.table import ProgressTable

CLOCK, CURVE = "elapsed", "progress"
"""What the clock is called in every table, and the curve among the signals of its file."""


@dataclass(eq=False, repr=False)
class Evaluation:
    """What a progress file is worth, episode by episode.

    scores: the file's name, and the clock's -> one score an episode, in the same order. sources: where the truth comes from: "truth",
    "annotation" or "none". ends: of each episode whose success is known, whether it succeeded, and its last progress and signals by name.
    events: episode -> what happens in its curve; episodes without progress are not in it. unreadable: episode -> why it is left out.
    absent: episodes of the dataset of which the file has no row: they are left out too.
    """

    scores: dict[str, list[EpisodeScore]]
    sources: set[str] = field(default_factory=set)
    ends: list[tuple[bool, dict[str, float]]] = field(default_factory=list)
    events: dict[int, list[Event]] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)
    absent: tuple[int, ...] = ()

    def __repr__(self) -> str:
        if not self.episodes:
            return "Evaluation(no episode)"
        columns, rows = summary_table(self.summaries())
        lines = ["".join(f"{each!s:<22}" for each in row).rstrip() for row in (columns, *rows)]
        without = {"unreadable": self.unreadable, "not in the file": self.absent}
        left_out = "".join(f", {len(numbers)} {why}" for why, numbers in without.items() if numbers)
        return "\n".join(
            [f"Evaluation of {count_noun(len(self.episodes), 'episode')}{left_out}, truth: {', '.join(sorted(self.sources))}", *lines]
        )

    @property
    def episodes(self) -> list[EpisodeScore]:
        """Returns the scores of the file."""
        return next(iter(self.scores.values()))

    def summaries(self, seed: int = 0) -> dict[str, Summary]:
        """Returns the file's and the clock's means with 95 % intervals. seed: of the bootstrap."""
        return {name: summarise(rows, np.random.default_rng(seed)) for name, rows in self.scores.items()}

    def thresholds(self, seed: int = 0) -> dict[str, Threshold]:
        """Returns, for progress and every signal, the threshold that parts successes from failures; nothing if there are not both."""
        if len({success for success, _ in self.ends}) < 2:
            return {}
        sides = {
            name: [np.array([end.get(name, np.nan) for success, end in self.ends if success is side]) for side in (True, False)]
            for name in dict.fromkeys(name for _, end in self.ends for name in end)
        }
        return {name: success_threshold(*both, rng=np.random.default_rng(seed)) for name, both in sides.items()}

    def add(self, episode: Episode, curve: Curve, stages: Stages | None, head: str) -> None:
        """Adds an episode that the file has, beside the clock."""
        self.sources.add(truth_of(episode, stages, head).source)
        if not np.isnan(curve.value).all():
            self.events[episode.index] = find_events(curve.value, episode.fps)
        for rows, each in zip(self.scores.values(), (curve, Curve(clock(episode.length))), strict=True):
            rows.append(score_episode(each, episode, stages, head))
        if episode.success is not None:
            self.ends.append((episode.success, _ends(curve, head)))


def evaluate(
    dataset: LeRobotDataset | Path | str,
    progress: MatchedProgress | ProgressTable | Path | str | None = None,
    *,
    head: str = MAIN_HEAD,
    on_progress: Tick = quiet,
) -> Evaluation:
    """Compares a progress file with the truth, or with the annotations, of the dataset's episodes.

    dataset: one that is open, or a folder or Hub id. progress: the file, matched or not, or its table; without it the one beside the
    dataset. An episode whose rows cannot be read is left out and named in `Evaluation.unreadable`. DataError if the file is another
    dataset's, or has none of these episodes.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> evaluation = milepost.evaluate(milepost.open_dataset("dots"), "dots/elapsed_progress.parquet")
    >>> sorted(evaluation.summaries())
    ['elapsed', 'elapsed (file)']
    """
    dataset = as_dataset(dataset)
    if isinstance(progress, ProgressTable):
        require_rows("the progress table", progress, dataset)
        path, name, table = "the progress table", progress.name, progress
    else:
        matched = progress if isinstance(progress, MatchedProgress) else _matched(dataset, progress)
        path, name, table = str(matched.path), matched.path.stem.removesuffix("_progress"), matched.table
    present = set(table.episode_index.tolist())
    in_file = [index for index in dataset.episode_indices if index in present]
    absent = tuple(index for index in dataset.episode_indices if index not in present)
    evaluation = Evaluation({f"{name} (file)" if name == CLOCK else name: [], CLOCK: []}, absent=absent)
    stages = dataset.stages.get(head) or _annotated(dataset, head)
    for done, index in enumerate(in_file, start=1):
        try:
            episode = dataset.episode(index)
            evaluation.add(episode, table.curve(index, episode.length, head), stages, head)
        except UnreadableError as error:
            evaluation.unreadable[index] = str(error)
        on_progress(done, len(in_file))
    if not evaluation.episodes:
        raise DataError(f"{path} has none of these episodes{'' if not evaluation.unreadable else ' that can be read'}")
    return evaluation


def _matched(dataset: LeRobotDataset, path: Path | str | None) -> MatchedProgress:
    """Returns the progress file at a path, or the usual one; what is uncertain about it is a warning at the user's line."""
    matched = find_progress(dataset) if path is None else match_progress(Path(path), dataset)
    for words in matched.warnings:
        warn_user(words)
    return matched


def _annotated(dataset: LeRobotDataset, head: str) -> Stages | None:
    """Returns the stages of the annotation itself, where no proportions file has them; as in training."""
    records = dataset.meta.episodes.values()
    attempts = [Attempt(each.index, "", segments, each.success) for each in records if (segments := each.sound_segments.get(head))]
    return annotated_stages(attempts) if attempts else None


def _ends(curve: Curve, head: str) -> dict[str, float]:
    """Returns where an episode ends, by every number the file has of it. A signal called as the curve is named as its column."""
    signals = {f"raw_{head}" if name == RAW else f"raw_{name}" if name == CURVE else name: each for name, each in curve.signals.items()}
    return {CURVE: final(curve.value), **{name: final(signal.values) for name, signal in signals.items()}}
