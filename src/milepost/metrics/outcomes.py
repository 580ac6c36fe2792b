"""What separates successes from failures by their final values, for many bootstrap draws at once: AUC, AUPRC, tau-a, difference of means.

Each function takes the values of successes (D, N) and of failures (D, M), none of them NaN, N and M at least 1, and returns (D,). A row is
one draw of the episodes. `separation` and `average_precision` are the rules for one draw; `tau_a` says the same of one draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

Draws: TypeAlias = Float[np.ndarray, "D _"]
Rule: TypeAlias = Callable[[Draws, Draws], Float[np.ndarray, "D"]]


def by_level(success: Draws, failure: Draws) -> tuple[Float[np.ndarray, "D K"], Float[np.ndarray, "D K"]]:
    """Returns how many successes, and how many failures, of each draw have each of the K different values, in rising order."""
    rows, count = len(success), success.shape[1]
    levels, places = np.unique(np.concatenate([success, failure], axis=1), return_inverse=True)
    cells = places.reshape(rows, -1) + len(levels) * np.arange(rows)[:, None]
    good, bad = (
        np.bincount(part.ravel(), minlength=rows * len(levels)).reshape(rows, len(levels)).astype(np.float64)
        for part in (cells[:, :count], cells[:, count:])
    )
    return good, bad


def auc(success: Draws, failure: Draws) -> Float[np.ndarray, "D"]:
    """Returns the probability that a success has the higher value; ties count half."""
    good, bad = by_level(success, failure)
    return (good * (np.cumsum(bad, axis=1) - bad / 2)).sum(axis=1) / (success.shape[1] * failure.shape[1])


def auprc(success: Draws, failure: Draws) -> Float[np.ndarray, "D"]:
    """Returns the area under the precision-recall curve."""
    good, bad = (side[:, ::-1] for side in by_level(success, failure))
    hits, calls = np.cumsum(good, axis=1), np.cumsum(good + bad, axis=1)
    precision = np.divide(hits, calls, out=np.zeros_like(hits), where=calls > 0)
    return (good * precision).sum(axis=1) / success.shape[1]


def tau(success: Draws, failure: Draws) -> Float[np.ndarray, "D"]:
    """Returns Kendall's tau-a with the outcome: pairs of a success and a failure in order minus those in disorder, over all pairs."""
    n, m = success.shape[1], failure.shape[1]
    return (2 * auc(success, failure) - 1) * 2 * n * m / ((n + m) * (n + m - 1))


def gap(success: Draws, failure: Draws) -> Float[np.ndarray, "D"]:
    """Returns the mean of the successes minus the mean of the failures."""
    return success.mean(axis=1) - failure.mean(axis=1)


OUTCOME_RULES: Mapping[str, Rule] = {"auc": auc, "auprc": auprc, "tau_a": tau, "succ_fail_diff": gap}
"""Name of a measure -> its function."""


def of_one(rule: Rule, success: Float[np.ndarray, "N"], failure: Float[np.ndarray, "M"]) -> float:
    """Returns a rule's value for one group of successes and one of failures; NaN if there are not both."""
    return float(rule(success[None], failure[None])[0]) if len(success) and len(failure) else float("nan")
