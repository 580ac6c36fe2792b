"""Verdicts on a reward model: what its curves over edited copies of episodes say, with bootstrap intervals over episodes.

Numbers are computed for each episode first. A proportion such as `frozen` is a ratio of two means over successful episodes, so that no
episode in which nothing moves can decide.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from milepost.metrics.controls import FAULTS, WORDS
from milepost.metrics.copied import EpisodeCurves, can_be_judged, falls, numbers_of
from milepost.metrics.curves import beside_time
from milepost.metrics.evaluation import MORE, Estimate, outcome_rows
from milepost.metrics.verdicts import BY_STATES, Facts, Property, properties_of, verdict_of

DRAWS = 1000
_UNKNOWN = float("nan")


@dataclass(frozen=True, eq=False)
class Audit:
    """What is known of a model. verdict: one of VERDICTS. rows: measure -> estimate. properties: the lines.

    missing: control -> why it was not made, for those that no episode has. reason: what the verdict rests on, in words. tasks:
    instruction -> the rise over its successful episodes.
    """

    verdict: str
    rows: Mapping[str, Estimate]
    properties: Sequence[Property]
    episodes: int
    missing: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    tasks: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        """Returns whether the model is a reward and no property fails."""
        return self.verdict == "reward" and all(each.state != "fails" for each in self.properties)


ROWS = {
    "rise": "rise, last frames minus first",
    "frozen": "part of the rise over frozen frames",
    "shuffled": "part of the rise over shuffled frames",
    "follow": "follows the frames (1) or the time (0)",
    "backwards": "part of the rise when played backwards",
    "images_share": "the images' part of its changes",
    "states_rise": "part of the rise by the states alone",
    "by_time": "of that curve, explained by the time",
    "end_ahead": "a half recording ends ahead by",
    "voc": "VOC",
    "voc_r": MORE["voc_r"],
    "voc_frozen_first": "VOC, first frame frozen",
    "voc_reversed": "VOC, reversed",
    "voc_shuffled": "VOC, shuffled",
    "stalled": "part of the rise while it stands still",
    "regressed": "falls when played back, of the rise there",
    "final": "final",
    "final_cut_50": "final, first half only",
    "final_cut_80": "final, first 80 % only",
    "instruction_contrast": "final minus that of another instruction",
    "final_empty_task": "final without instruction",
    "auc": "AUC",
    **{name: MORE[name] for name in ("auprc", "auprc_chance", "tau_a", "tau_a_perfect", "succ_fail_diff")},
    "change_other_camera": "changes with another camera by",
    "change_half_rate": "changes at half the frame rate by",
    "change_double_rate": "changes at double the frame rate by",
    **{f"change_{name}": f"changes by, {WORDS[name]}" for name in FAULTS},
}
"""Name of each row -> its words in a table. Changes are proportions of the rise."""

MEANS = {
    **{name: name for name in ("rise", "voc", "voc_r", "voc_frozen_first", "voc_reversed", "voc_shuffled", "final")},
    **{name: name for name in ("final_cut_50", "final_cut_80", "final_empty_task")},
    "instruction_contrast": "contrast",
}
"""Row -> the number of each episode whose mean it is."""
RATIOS = {
    "frozen": ("frozen_rise", "rise"),
    "shuffled": ("shuffled_rise", "rise"),
    "follow": ("covariance", "variance"),
    "backwards": ("reversed_rise", "rise"),
    "images_share": ("change_images_frozen", "either"),
    "states_rise": ("states_rise", "rise"),
    "end_ahead": ("end_ahead", "rise"),
    "stalled": ("stalled_rise", "third_rise"),
    "regressed": ("regressed_fall", "third_rise"),
    **{f"change_{name}": (f"change_{name}", "rise") for name in ("other_camera", "half_rate", "double_rate", *FAULTS)},
}
"""Row -> the two numbers of each episode whose means it divides."""


def audit_curves(
    curves: Sequence[EpisodeCurves], *, missing: Mapping[str, str] | None = None, steady: Sequence[int] = (), seed: int = 0
) -> Audit:
    """Returns the audit of one model from its curves over episodes and their edited copies.

    missing: control -> why it is not there. steady: channels of the state that may tell the time (`steady_channels`). seed: of the
    bootstrap. Successful episodes count, and those of unknown success; failed ones count in the comparison with successes alone.
    """
    rng = np.random.default_rng(seed)
    numbers = [numbers_of(each) for each in curves]
    good = [(of, each) for of, each in zip(curves, numbers, strict=True) if of.success is not False]
    rows = _rows([each for _, each in good], rng) | _outcome_rows(curves, numbers, rng)
    by_states = [of for of, _ in good] if rows["states_rise"].high >= BY_STATES else []  # of a curve that hardly moves it says nothing
    rows["by_time"] = _by_time(by_states, rng)
    tasks = {
        task: _mean(np.array([each["rise"] for of, each in good if of.task == task]), rng) for task in sorted({of.task for of, _ in good})
    }
    run = frozenset(name for each in curves for name in each.controls)
    missing = {name: why for name, why in (missing or {}).items() if name not in run}
    facts = Facts(
        rows, len(good), run, missing, all(each.scaled for each in curves), tasks, any(each.has_states for each in curves),
        falls=any(falls(each) for each in curves), steady=steady,
    )  # fmt: skip
    verdict, reason = verdict_of(facts)
    return Audit(verdict, rows, properties_of(facts), len(curves), missing, reason, tasks)


def _mean(values: Float[np.ndarray, "N"], rng: np.random.Generator) -> Estimate:
    values = values[~np.isnan(values)]
    if not len(values):
        return Estimate(_UNKNOWN, _UNKNOWN, _UNKNOWN, 0)
    low, high = np.percentile(_samples(values, rng).mean(axis=1), [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high), len(values))


def _ratio(pairs: Float[np.ndarray, "N 2"], rng: np.random.Generator) -> Estimate:
    """Returns the ratio of two means over the same episodes, with its interval: episodes are drawn, not the two sides.

    It is unknown if the lower mean may be 0: a part of a rise that is none says nothing.
    """
    pairs = pairs[~np.isnan(pairs).any(axis=1)]
    if not len(pairs) or pairs[:, 1].sum() == 0:
        return Estimate(_UNKNOWN, _UNKNOWN, _UNKNOWN, len(pairs))
    sums = _samples(pairs, rng).sum(axis=1)
    if np.percentile(sums[:, 1], 2.5) <= 0:
        return Estimate(_UNKNOWN, _UNKNOWN, _UNKNOWN, len(pairs))
    ratios = sums[:, 0] / np.where(sums[:, 1] == 0, np.nan, sums[:, 1])
    low, high = np.nanpercentile(ratios, [2.5, 97.5])
    return Estimate(float(pairs[:, 0].sum() / pairs[:, 1].sum()), float(low), float(high), len(pairs))


def _samples(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns `DRAWS` bootstrap samples of the rows, along a new first axis."""
    return values[rng.integers(len(values), size=(DRAWS, len(values)))]


def _rows(good: Sequence[Mapping[str, float]], rng: np.random.Generator) -> dict[str, Estimate]:
    rows = {row: _mean(np.array([each[name] for each in good], dtype=float), rng) for row, name in MEANS.items()}
    for row, (above, below) in RATIOS.items():
        rows[row] = _ratio(np.array([(each[above], each[below]) for each in good], dtype=float).reshape(-1, 2), rng)
    return rows


def _by_time(curves: Sequence[EpisodeCurves], rng: np.random.Generator) -> Estimate:
    """Returns the R^2, by the time, of the curves that the states make alone, among episodes of the same task.

    The time is counted in frames or in parts of the episode, whichever explains more.
    """
    by_task: dict[str, list[np.ndarray]] = defaultdict(list)
    for each in curves:
        if "images_frozen" in each.controls and can_be_judged(each.real):
            by_task[each.task].append(each.controls["images_frozen"])
    beside = [beside_time(group) for group in by_task.values()]
    counted = [np.concatenate([each[way] for each in beside]) for way in ("frames", "part")] if beside else []
    unexplained = [each for each in (_ratio(pairs, rng) for pairs in counted) if not np.isnan(each.value)]
    if not unexplained:
        return Estimate(_UNKNOWN, _UNKNOWN, _UNKNOWN, 0)
    least = min(unexplained, key=lambda each: each.value)
    return Estimate(1 - least.value, 1 - least.high, 1 - least.low, least.episodes)


def _outcome_rows(curves: Sequence[EpisodeCurves], numbers: Sequence[Mapping[str, float]], rng: np.random.Generator) -> dict[str, Estimate]:
    """Returns what separates successes from failures: by final value, over episodes whose success is known."""
    success, failure = (
        np.array([each["final"] for each, of in zip(numbers, curves, strict=True) if of.success is side and not np.isnan(each["final"])])
        for side in (True, False)
    )
    return outcome_rows(success, failure, rng) | {"failures": Estimate(float(len(failure)), _UNKNOWN, _UNKNOWN, len(failure))}
