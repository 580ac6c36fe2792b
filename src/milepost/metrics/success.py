"""Predicts success from a score: fits a threshold on episodes whose success is known, and estimates its accuracy. numpy only.

An episode's score is the mean of the last three values of its raw curve (TOPReward, arXiv 2602.19313, section 4.3). An episode whose score
is above the threshold is called a success. The accuracy is measured on episodes that were left out of the fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from milepost.metrics.inputs import Values, without_nan
from milepost.metrics.scores import interval, separation


@dataclass(frozen=True)
class Threshold:
    """A fitted threshold with 95 % bootstrap intervals over episodes: (low, high).

    accuracy: balanced accuracy, the mean of the proportions of successes and of failures that are classified correctly, each by a threshold
    fitted without it. auc: the probability that a success scores above a failure; it needs no threshold.
    """

    value: float
    interval: tuple[float, float]
    accuracy: float
    accuracy_interval: tuple[float, float]
    auc: float
    auc_interval: tuple[float, float]
    successes: int
    failures: int


def fit_threshold(success: Float[np.ndarray, "N"], failure: Float[np.ndarray, "M"]) -> float:
    """Returns the threshold with the highest balanced accuracy on these scores; NaN if one side is empty.

    It lies halfway between two neighbouring scores. Of several best thresholds the middle one is taken.
    """
    if not len(success) or not len(failure):
        return float("nan")
    levels = np.unique(np.concatenate([success, failure]))
    cuts = np.concatenate(
        [[levels[0] - 1e-6], (levels[1:] + levels[:-1]) / 2]
    )  # below the first threshold no score lies: it classifies every episode as a success
    right = balanced_accuracy(success, failure, cuts)
    best = np.flatnonzero(right >= right.max() - 1e-12)
    return float(cuts[best[(len(best) - 1) // 2]])


def balanced_accuracy(
    success: Float[np.ndarray, "N"], failure: Float[np.ndarray, "M"], thresholds: Float[np.ndarray, "K"]
) -> Float[np.ndarray, "K"]:
    """Returns, for each threshold, the mean of the proportion of successes above it and of failures not above it."""
    above = 1 - np.searchsorted(np.sort(success), thresholds, side="right") / len(success)
    below = np.searchsorted(np.sort(failure), thresholds, side="right") / len(failure)
    return (above + below) / 2


def success_threshold(success: Values, failure: Values, *, rng: np.random.Generator) -> Threshold:
    """Fits a threshold on the scores of successful and failed episodes; NaN scores are left out. A field is NaN if a side is too small."""
    success, failure = (
        without_nan(side, what).astype(np.float64) for side, what in ((success, "the successes"), (failure, "the failures"))
    )
    right, wrong = left_out(success, failure, 1), left_out(failure, success, -1)

    def balanced(right: Float[np.ndarray, "N"], wrong: Float[np.ndarray, "M"]) -> float:
        return float((np.mean(right) + np.mean(wrong)) / 2)

    return Threshold(
        value=fit_threshold(success, failure),
        interval=interval(fit_threshold, success, failure, rng=rng, draws=300),  # a fit costs far more than a mean: 300 draws, not 1000
        accuracy=balanced(right, wrong) if len(right) and len(wrong) else float("nan"),
        accuracy_interval=interval(balanced, right, wrong, rng=rng),
        auc=separation(success, failure),
        auc_interval=interval(separation, success, failure, rng=rng),
        successes=len(success),
        failures=len(failure),
    )


def left_out(side: Float[np.ndarray, "N"], other: Float[np.ndarray, "M"], sign: int) -> Float[np.ndarray, "L"]:
    """Returns, for each episode of one side, 1 if the threshold fitted without it classifies it correctly, else 0.

    sign: 1 if `side` are the successes, -1 if they are the failures. Empty if a side has too few episodes for a fit.
    """
    if len(side) < 2 or not len(other):
        return np.zeros(0)
    cuts = [fit_threshold(*((np.delete(side, i), other)[::sign])) for i in range(len(side))]
    return np.array([(score > cut) == (sign > 0) for score, cut in zip(side, cuts, strict=True)], dtype=np.float64)
