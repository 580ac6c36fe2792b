"""Two models on the same episodes: the difference of each measure, with an interval over episodes that are drawn in pairs.

A pair is one episode under both models. What makes an episode hard is in both of its numbers, so the interval of the difference is narrower
than those of the two models suggest. An episode that one of them knows nothing of is in no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter

import numpy as np
from jaxtyping import Float

from milepost.metrics.evaluation import MEASURES, PER_EPISODE, EpisodeScore, Estimate, mean_estimate
from milepost.metrics.outcomes import OUTCOME_RULES, Rule, of_one
from milepost.metrics.scores import interval


def paired_differences(first: Sequence[EpisodeScore], other: Sequence[EpisodeScore], rng: np.random.Generator) -> dict[str, Estimate]:
    """Returns, for each measure, how much `other` has more than `first`, with a 95 % bootstrap interval over their common episodes.

    A measure of which no common episode tells anything is NaN. Where lower is better (error, regret), a negative difference is better.
    """
    by_number = {score.episode: score for score in other}
    both = [(score, by_number[score.episode]) for score in first if score.episode in by_number]
    good = [pair for pair in both if pair[0].success is not False]
    rows = {name: _difference(good, attrgetter(name), rng) for name in ("error", "stage_accuracy", "order")}
    ends = {side: _known_pairs([(a.final, b.final) for a, b in both if a.success is side]) for side in (True, False)}
    rules = dict(OUTCOME_RULES)
    rows["auc"] = _of_outcomes(rules.pop("auc"), ends[True], ends[False], rng)
    for name, side in (("final_success", True), ("final_failure", False)):
        rows[name] = mean_estimate((ends[side][:, 1] - ends[side][:, 0]).tolist(), rng)
    rows |= {name: _difference(good, partial(_measure, name), rng) for name in PER_EPISODE}
    return rows | {name: _of_outcomes(rule, ends[True], ends[False], rng) for name, rule in rules.items()}


def difference_table(first: str, differences: dict[str, dict[str, Estimate]]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Returns (columns, rows): one row for each model, with what it has more than the model `first`."""
    return ("", *MEASURES.values()), [
        (f"{name} minus {first}", *(rows[measure] for measure in MEASURES)) for name, rows in differences.items()
    ]


def _difference(
    pairs: Sequence[tuple[EpisodeScore, EpisodeScore]], of: Callable[[EpisodeScore], float], rng: np.random.Generator
) -> Estimate:
    values = _known_pairs([(of(a), of(b)) for a, b in pairs])
    return mean_estimate((values[:, 1] - values[:, 0]).tolist(), rng)


def _measure(name: str, score: EpisodeScore) -> float:
    return score.measures.get(name, float("nan"))


def _known_pairs(pairs: Sequence[tuple[float, float]]) -> Float[np.ndarray, "N 2"]:
    """Returns the pairs of which both numbers are known."""
    values = np.array(pairs, np.float64).reshape(-1, 2)
    return values[~np.isnan(values).any(axis=1)]


def _of_outcomes(
    rule: Rule,
    success: Float[np.ndarray, "S 2"],
    failure: Float[np.ndarray, "F 2"],
    rng: np.random.Generator,
) -> Estimate:
    """Returns the difference of a measure that needs successes and failures together."""

    def gap(successes: Float[np.ndarray, "D S 2"], failures: Float[np.ndarray, "D F 2"]) -> Float[np.ndarray, "D"]:
        return rule(successes[..., 1], failures[..., 1]) - rule(successes[..., 0], failures[..., 0])

    value = of_one(rule, success[:, 1], failure[:, 1]) - of_one(rule, success[:, 0], failure[:, 0])
    return Estimate(value, *interval(gap, success, failure, rng=rng, vectorized=True), len(success) + len(failure))
