"""Predicts success from a score: fits a threshold on episodes whose success is known, and estimates its accuracy. numpy only.

An episode's score is the mean of the last three values of its raw curve (TOPReward, arXiv 2602.19313, section 4.3), or the level that its
curve holds (`detection.sustained_score`). An episode whose score is above the threshold is called a success. A success can have an early
score as well, that of its frames before it was done: a threshold below it would call it a success too early. The accuracy is measured on
episodes that were left out of the fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from milepost.core import DataError, count_noun
from milepost.metrics.inputs import Values, same_frames, without_nan
from milepost.metrics.outcomes import auc
from milepost.metrics.scores import interval, separation


@dataclass(frozen=True)
class Threshold:
    """A fitted threshold with 95 % bootstrap intervals over episodes: (low, high).

    accuracy: balanced accuracy, the mean of the proportions of successes and of failures that are classified correctly, each by a threshold
    fitted without it. auc: the probability that a success scores above a failure; it needs no threshold. Counted in the same way as the
    accuracy: false_alarms, the failures that are called a success; missed, the successes that are not; early, those that are called one too
    early. These are None where a side has too few episodes, and early where no early scores were given.
    """

    value: float
    interval: tuple[float, float]
    accuracy: float
    accuracy_interval: tuple[float, float]
    auc: float
    auc_interval: tuple[float, float]
    successes: int
    failures: int
    false_alarms: int | None = None
    missed: int | None = None
    early: int | None = None

    def counts(self) -> str:
        """Returns in words how many episodes there were of each outcome."""
        return f"{count_noun(self.successes, 'success')}, {count_noun(self.failures, 'failure')}"

    def mistakes(self) -> str:
        """Returns in words how many episodes were called wrongly, with Wilson's 95 % intervals; empty if nobody knows."""
        counts = (
            ("false alarms", self.false_alarms, self.failures, "failures"), ("missed", self.missed, self.successes, "successes"),
            ("called done too early", self.early, self.successes, "successes"),
        )  # fmt: skip
        return ", ".join(
            "{}: {} of {} {} ({:.2f} [{:.2f}, {:.2f}])".format(what, count, of, side, count / of, *proportion_interval(count, of))
            for what, count, of, side in counts
            if count is not None
        )


def fit_threshold(success: Float[np.ndarray, "N"], failure: Float[np.ndarray, "M"], early: Float[np.ndarray, "N"] | None = None) -> float:
    """Returns the threshold with the highest balanced accuracy on these scores; NaN if one side is empty.

    It lies halfway between two neighbouring scores. Of several best thresholds the middle one is taken. early: the early scores of the
    successes, NaN for none; a success is right only if the threshold lies between its two scores.
    """
    if not len(success) or not len(failure):
        return float("nan")
    levels = np.unique(np.concatenate([success, failure, [] if early is None else early[~np.isnan(early)]]))
    cuts = np.concatenate(
        [[levels[0] - 1e-6], (levels[1:] + levels[:-1]) / 2, [] if early is None else [levels[-1] + 1e-5]]
    )  # below the first threshold no score lies: it classifies every episode as a success; the last one calls none a success too early
    right = balanced_accuracy(success, failure, cuts, early)
    best = np.flatnonzero(right >= right.max() - 1e-12)
    return float(cuts[best[(len(best) - 1) // 2]])


def balanced_accuracy(
    success: Float[np.ndarray, "N"],
    failure: Float[np.ndarray, "M"],
    thresholds: Float[np.ndarray, "K"],
    early: Float[np.ndarray, "N"] | None = None,
) -> Float[np.ndarray, "K"]:
    """Returns, for each threshold, the mean of the proportion of successes above it and of failures not above it.

    early: the early scores of the successes, NaN for none, never above their scores. A success whose early score is above a threshold is
    not right there.
    """
    too_early = 0 if early is None else _above(early, thresholds)
    right = (_above(success, thresholds) - too_early) / len(success)
    return (right + 1 - _above(failure, thresholds) / len(failure)) / 2


def _above(scores: Float[np.ndarray, "N"], thresholds: Float[np.ndarray, "K"]) -> Int[np.ndarray, "K"]:
    """Returns, for each threshold, how many of the scores that are not NaN are above it."""
    known_scores = np.sort(scores[~np.isnan(scores)])
    return len(known_scores) - np.searchsorted(known_scores, thresholds, side="right")


def success_threshold(success: Values, failure: Values, *, early: Values | None = None, rng: np.random.Generator) -> Threshold:
    """Fits a threshold on the scores of successful and failed episodes; NaN scores are left out. A field is NaN if a side is too small.

    early: the early score of each success, NaN for none. DataError if one is above the episode's own score.
    """
    score, before = same_frames(success, np.full(len(success), np.nan) if early is None else early, "the early scores")
    if (before > score).any():
        raise DataError(
            f"the early score of success {int(np.argmax(before > score))} is above its score; it is that of a part of the episode"
        )
    pairs = np.stack([score, before], 1)[~np.isnan(score)].astype(np.float64)
    failure = without_nan(failure, "the failures").astype(np.float64)
    cuts, other = cuts_without(pairs[:, 0], failure, pairs[:, 1])
    is_judged = len(pairs) > 1 and len(failure) > 1
    right, wrong = (pairs[:, 0] > cuts) & ~(pairs[:, 1] > cuts), failure <= other

    def fit(pairs: Float[np.ndarray, "N 2"], failure: Float[np.ndarray, "M"]) -> float:
        return fit_threshold(pairs[:, 0], failure, pairs[:, 1])

    def balanced_draws(right: Float[np.ndarray, "D N"], wrong: Float[np.ndarray, "D M"]) -> Float[np.ndarray, "D"]:
        return (right.mean(axis=1) + wrong.mean(axis=1)) / 2

    return Threshold(
        value=fit(pairs, failure),
        interval=interval(fit, pairs, failure, rng=rng, draws=300),  # a fit costs far more than a mean: 300 draws, not 1000
        accuracy=float((right.mean() + wrong.mean()) / 2) if is_judged else float("nan"),
        accuracy_interval=interval(balanced_draws, right, wrong, rng=rng, vectorized=True) if is_judged else (float("nan"), float("nan")),
        auc=separation(pairs[:, 0], failure),
        auc_interval=interval(auc, pairs[:, 0], failure, rng=rng, vectorized=True),
        successes=len(pairs),
        failures=len(failure),
        false_alarms=int((failure > other).sum()) if is_judged else None,
        missed=int((pairs[:, 0] <= cuts).sum()) if is_judged else None,
        early=int((pairs[:, 1] > cuts).sum()) if is_judged and early is not None else None,
    )


def proportion_interval(count: int, of: int) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of a proportion, which is not empty where nothing, or everything, was counted. (NaN, NaN) of 0.

    >>> [round(each, 3) for each in proportion_interval(0, 20)]
    [0.0, 0.161]
    """
    if of == 0:
        return float("nan"), float("nan")
    square, proportion = 1.959964**2, count / of
    middle, half = proportion + square / (2 * of), np.sqrt(square * (proportion * (1 - proportion) + square / (4 * of)) / of)
    scale = 1 + square / of
    return max(0.0, float((middle - half) / scale)), min(1.0, float((middle + half) / scale))


def cuts_without(
    success: Float[np.ndarray, "N"], failure: Float[np.ndarray, "M"], early: Float[np.ndarray, "N"] | None = None
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "M"]]:
    """Returns, for each success and for each failure, the threshold that is fitted without it; NaN if its side has no other episode."""
    before = np.full(len(success), np.nan) if early is None else early
    without = [fit_threshold(np.delete(success, i), failure, np.delete(before, i)) for i in range(len(success))]
    other = [fit_threshold(success, np.delete(failure, i), before) for i in range(len(failure))]
    return np.array(without, dtype=np.float64), np.array(other, dtype=np.float64)
