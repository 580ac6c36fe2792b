"""Success from a score: where to draw the line, learnt from episodes whose success is known, and how far to trust it. numpy only.

An episode's score is where its raw curve ends: the mean of its last three scores (TOPReward, arXiv 2602.19313, section 4.3). An episode is
called a success if it is above the threshold. The accuracy given is that on episodes the threshold was not learnt from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from milepost.metrics.scores import interval, separation


@dataclass(frozen=True)
class Threshold:
    """A fitted threshold with 95 % bootstrap intervals over episodes: (low, high).

    accuracy: mean of the shares of successes and of failures called right, leaving each episode out of its own threshold's fit. auc: the
    chance that a success scores above a failure, which needs no threshold.
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
    """The threshold with the highest balanced accuracy on these scores; halfway between the scores around it, of several the middle one.

    NaN if one side is empty.
    """
    if not len(success) or not len(failure):
        return float("nan")
    levels = np.unique(np.concatenate([success, failure]))
    cuts = np.concatenate([[levels[0] - 1e-6], (levels[1:] + levels[:-1]) / 2])  # the first calls all of them successes
    right = balanced_accuracy(success, failure, cuts)
    best = np.flatnonzero(right >= right.max() - 1e-12)
    return float(cuts[best[(len(best) - 1) // 2]])


def balanced_accuracy(
    success: Float[np.ndarray, "N"], failure: Float[np.ndarray, "M"], thresholds: Float[np.ndarray, "K"]
) -> Float[np.ndarray, "K"]:
    """Mean of the share of successes above and of failures not above each threshold."""
    above = 1 - np.searchsorted(np.sort(success), thresholds, side="right") / len(success)
    below = np.searchsorted(np.sort(failure), thresholds, side="right") / len(failure)
    return (above + below) / 2


def success_threshold(success: Float[np.ndarray, "N"], failure: Float[np.ndarray, "M"], *, rng: np.random.Generator) -> Threshold:
    """Fit a threshold on the known scores of successful and failed episodes. NaN where a side is too small to say."""
    success, failure = (side[~np.isnan(side)].astype(np.float64) for side in (success, failure))
    right, wrong = left_out(success, failure, 1), left_out(failure, success, -1)

    def balanced(a: Float[np.ndarray, "N"], b: Float[np.ndarray, "M"]) -> float:
        return float((np.mean(a) + np.mean(b)) / 2)

    return Threshold(
        value=fit_threshold(success, failure),
        interval=interval(fit_threshold, success, failure, rng=rng, draws=300),
        accuracy=balanced(right, wrong) if len(right) and len(wrong) else float("nan"),
        accuracy_interval=interval(balanced, right, wrong, rng=rng),
        auc=separation(success, failure),
        auc_interval=interval(separation, success, failure, rng=rng),
        successes=len(success),
        failures=len(failure),
    )


def left_out(side: Float[np.ndarray, "N"], other: Float[np.ndarray, "M"], sign: int) -> Float[np.ndarray, "L"]:
    """Of each episode of one side (sign 1: the successes): is it called right by the threshold the others give? Empty if it is alone."""
    if len(side) < 2 or not len(other):
        return np.zeros(0)
    cuts = [fit_threshold(*((np.delete(side, i), other)[::sign])) for i in range(len(side))]
    return np.array([(score > cut) == (sign > 0) for score, cut in zip(side, cuts, strict=True)], dtype=np.float64)
