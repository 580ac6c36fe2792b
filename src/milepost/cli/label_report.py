"""What `milepost label` prints of finished progress files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from milepost import metrics, progress
from milepost.cli.console import warn
from milepost.core import Judges, RewardModel, count_noun, shortlist


@dataclass(frozen=True, eq=False)
class Labelled:
    """A finished file, and of which episodes it was asked for. threshold: a final score above it is a success; minus infinity for none."""

    path: Path
    table: progress.ProgressTable
    threshold: float
    asked_for: Sequence[int]

    @property
    def unknown(self) -> dict[int, int]:
        """Returns episode -> its frames without progress, of those asked for."""
        return {number: count for number, count in progress.unknown_frames(self.table).items() if number in set(self.asked_for)}

    @property
    def code(self) -> int:
        """Returns the exit code: 1 if frames of the requested episodes are unknown."""
        rowless = set(self.asked_for) - set(self.table.episode_index.tolist())  # their rows cannot be read, so they are not in the file
        return 1 if self.unknown or rowless else 0

    @property
    def ends(self) -> dict[int, float]:
        """Returns episode -> the mean of its last three scores, where it has any."""
        curve = self.table.main
        if not curve.score:
            return {}
        score, numbers = curve.signals[curve.score].values, np.unique(self.table.episode_index)
        ends = {int(number): metrics.final(score[self.table.episode_index == number]) for number in numbers}
        return {number: end for number, end in ends.items() if not math.isnan(end)}

    @property
    def successes(self) -> dict[int, bool] | None:
        """Returns episode -> whether its final score is above the threshold; None without a threshold. An episode without scores is left
        out."""
        if not math.isfinite(self.threshold) or not self.table.main.score:
            return None
        return {number: end > self.threshold for number, end in self.ends.items()}

    def numbers(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        episodes = len(np.unique(self.table.episode_index))
        numbers: dict[str, Any] = {
            "path": str(self.path),
            "frames": len(self.table.main.value),
            "episodes": episodes,
            "unknown_frames": sum(self.unknown.values()),
        }
        if self.successes is not None:
            numbers["successes"] = [number for number, success in self.successes.items() if success]
        return numbers

    def row(self) -> dict[str, object]:
        """Returns column -> cell of a table."""
        curve = self.table.main.value
        mean = f"{np.nanmean(curve):.3f}" if not np.isnan(curve).all() else "-"
        episodes = len(np.unique(self.table.episode_index))
        row: dict[str, object] = {"episodes": episodes, "frames": len(curve), "unknown": sum(self.unknown.values()), "mean": mean}
        if self.table.main.score:
            row[f"mean final {self.table.main.score}"] = f"{np.mean(list(self.ends.values())):.3f}" if self.ends else "-"
        return row

    def warn(self, who: str = "") -> None:
        """Warns of what is not known. who: the words in front of each line."""
        signals, score = self.table.main.signals, self.table.main.score
        if f"{score}_bound" in signals:
            has_question = ~np.isnan(signals[f"{score}_bound"].values)
            missing = int(np.isnan(signals[score].values[has_question]).sum())
            warn(
                f"{who}to {missing} of the questions the server did not list the answer among its likeliest tokens: their score is NaN, "
                f"and raw_{score}_bound says what it is at most"
            )
        if unknown := self.unknown:
            count, where = sum(unknown.values()), "episode" if len(unknown) == 1 else "episodes"
            has = "has" if count == 1 else "have"
            warn(f"{who}{count_noun(count, 'frame')} {has} no progress, in {where} {shortlist(sorted(unknown))}")


def threshold_of(model: RewardModel) -> float:
    """Returns the score above which an attempt is a success; minus infinity if the model has none."""
    return model.success_threshold if isinstance(model, Judges) else -math.inf


def successes_in_words(successes: Mapping[int, bool]) -> str:
    """Returns how many of the episodes are above the success threshold."""
    return f"{sum(successes.values())} of {count_noun(len(successes), 'episode')}"
