"""Several progress files of one dataset beside each other, on the episodes that all of them have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from milepost.core import MAIN_HEAD, Brief, DataError, Tick, quiet
from milepost.datasets import LeRobotDataset, as_dataset
from milepost.metrics import Estimate, Summary, model_table, paired_differences, summarise
from milepost.progress.evaluation import CLOCK, Evaluation, evaluate
from milepost.progress.matching import MatchedProgress, match_progress


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Brief):
    """What several progress files are worth on the same episodes.

    evaluations: the file's name -> its numbers, of the episodes that all files have; the first file is the one that the others are compared
    with. left_out: the file's name -> how many more episodes it has.
    """

    evaluations: Mapping[str, Evaluation]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        columns, rows = model_table(self.summaries())
        return "\n".join("".join(f"{cell!s:<22}" for cell in row).rstrip() for row in (columns, *rows))

    @property
    def clock(self) -> Evaluation:
        """Returns the evaluation from which the clock's scores are taken; they are the same in all."""
        return next(iter(self.evaluations.values()))

    @property
    def clock_name(self) -> str:
        """Returns what the clock is called beside the files."""
        return f"{CLOCK} (computed)" if CLOCK in self.evaluations else CLOCK

    def summaries(self, seed: int = 0) -> dict[str, Summary]:
        """Returns each file's means, and those of the clock, with 95 % intervals. seed: of the bootstrap."""
        rows = {name: each.episodes for name, each in self.evaluations.items()} | {self.clock_name: self.clock.scores[CLOCK]}
        return {name: summarise(scores, np.random.default_rng(seed)) for name, scores in rows.items()}

    def differences(self, seed: int = 0) -> dict[str, dict[str, Estimate]]:
        """Returns, for each file but the first, measure -> what it has more than the first, in pairs of episodes. seed: the bootstrap's."""
        first, *others = self.evaluations
        scores = self.evaluations[first].episodes
        return {name: paired_differences(scores, self.evaluations[name].episodes, np.random.default_rng(seed)) for name in others}


def evaluate_several(
    dataset: LeRobotDataset | Path | str,
    files: Mapping[str, MatchedProgress | Path | str],
    *,
    head: str = MAIN_HEAD,
    on_progress: Tick = quiet,
) -> Comparison:
    """Compares several progress files with the truth, or with the annotations, on the episodes that all of them have.

    files: a name -> the file, matched or not. The first is the one that the others are compared with. DataError if a file is another
    dataset's, or no episode is in all of them.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> dataset = milepost.open_dataset("dots")
    >>> _ = milepost.label(milepost.ElapsedModel(), dataset, "dots/again_progress.parquet")
    >>> files = {"one": "dots/elapsed_progress.parquet", "two": "dots/again_progress.parquet"}
    >>> milepost.evaluate_several(dataset, files).differences()["two"]["error"].value
    0.0
    """
    dataset = as_dataset(dataset)
    matches = {name: each if isinstance(each, MatchedProgress) else match_progress(Path(each), dataset) for name, each in files.items()}
    if not matches:
        raise DataError("no progress file is named; give at least one")
    in_file = {name: set(each.table.episode_index.tolist()) & set(dataset.episode_indices) for name, each in matches.items()}
    common = [number for number in dataset.episode_indices if all(number in numbers for numbers in in_file.values())]
    if not common:
        raise DataError(f"no episode is in all of these files: {', '.join(str(each.path) for each in matches.values())}")
    subset = dataset.only(common)
    evaluations = {}
    for place, (name, each) in enumerate(matches.items()):
        evaluations[name] = evaluate(subset, each, head=head)
        on_progress(place + 1, len(matches))
    return Comparison(evaluations, {name: len(numbers) - len(common) for name, numbers in in_file.items()})
