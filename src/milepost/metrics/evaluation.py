"""Scores curves against the truth for each episode, then makes one row for each model, with 95 % bootstrap intervals over episodes.

The truth is the simulator's (`truth.*` columns) where the dataset has it, else progress from the annotations (SARM eq. 2).
Error, stage accuracy and order are means over successful episodes. Of a failed episode only its final progress counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from milepost.core import Brief, Curve, DataError, Episode, Stages, UnreadableError, annotation_fault, progress, targets
from milepost.metrics.curves import milestone_coverage, regret, stagnation, voc, voc_r
from milepost.metrics.outcomes import OUTCOME_RULES, auc, of_one
from milepost.metrics.scores import final, in_words, interval, mean_error, stage_accuracy


@dataclass(frozen=True, eq=False)
class Truth:
    """The true progress (T,) in [0, 1], NaN where unknown, and the true stage (T,), -1 where unknown. source: where they come from."""

    progress: Float[np.ndarray, "T"]
    stage: Int[np.ndarray, "T"]
    source: str


def truth_of(episode: Episode, stages: Stages | None, head: str = "sparse") -> Truth:
    """Returns the simulator's truth if there is one, else that of the annotation, else an unknown truth.

    The simulator's stages are the sparse ones. For the dense head the annotation therefore comes first, and without one no stage is known.
    Raises UnreadableError if the annotation cannot be true.
    """
    prefers_annotation = head != "sparse" and stages is not None and (episode.segments.get(head) or head in episode.annotation_faults)
    if "truth.progress" in episode.columns and not prefers_annotation:
        unknown = np.full(episode.length, -1)
        stage = episode.columns.get("truth.stage", unknown) if head == "sparse" else unknown
        value = np.asarray(episode.columns["truth.progress"], dtype=np.float32).reshape(-1)
        return Truth(value, np.asarray(stage, dtype=np.int64).reshape(-1), "simulator")
    segments = episode.segments.get(head, ())
    if stages is not None and (fault := annotation_fault(episode, head, stages)):
        raise UnreadableError(f"episode {episode.index}: {fault}; annotate it again")
    if stages is not None and segments:
        stage, tau = targets(segments, stages.names, episode.length, episode.success)
        return Truth(progress(stage, tau, stages), stage, "annotation")
    return nothing_known(episode)


def nothing_known(episode: Episode) -> Truth:
    """Returns the truth of an episode without simulator and annotation: all NaN, all -1."""
    return Truth(np.full(episode.length, np.nan, np.float32), np.full(episode.length, -1), "none")


@dataclass(frozen=True, repr=False)
class EpisodeScore(Brief):
    """One episode's numbers. NaN where there is no truth."""

    episode: int
    task: str
    kind: str
    success: bool | None
    error: float
    stage_accuracy: float
    order: float
    final: float
    true_final: float
    measures: Mapping[str, float] = field(default_factory=dict)
    """VOC-r, stagnation, regret and milestone coverage by the names of `MORE`."""


def score_episode(curve: Curve, episode: Episode, stages: Stages | None, head: str = "sparse") -> EpisodeScore:
    """Scores one curve against the truth of `head`, whose stages are `stages`.

    If the curve has no stage probabilities, its stage is where its value falls between the starts of the stages.
    """
    truth = truth_of(episode, stages, head)
    stage = curve.stage
    if (stage is None or stages is None or stage.shape[1] != len(stages)) and stages is not None:
        stage_index = np.searchsorted(stages.starts, np.nan_to_num(curve.value), side="right") - 1
        stage = np.eye(len(stages), dtype=np.float32)[stage_index]
    return EpisodeScore(
        episode=episode.index,
        task=episode.task,
        kind=str(episode.facts.get("kind", "")),
        success=episode.success,
        error=mean_error(curve.value, truth.progress),
        stage_accuracy=stage_accuracy(stage, truth.stage) if stage is not None else float("nan"),
        order=voc(curve.value),
        final=final(curve.value),
        true_final=final(truth.progress),
        measures={
            "voc_r": voc_r(curve.value),
            "stagnation": stagnation(curve.value),
            "regret": regret(curve.value),
            "milestone_coverage": milestone_coverage(curve.value, stages.starts[1:]) if stages is not None else float("nan"),
        },
    )


@dataclass(frozen=True, repr=False)
class Estimate:
    """A number, its 95 % interval, and the number of episodes it was computed from."""

    value: float
    low: float
    high: float
    episodes: int

    def __str__(self) -> str:
        if self.episodes == 1 and not np.isnan(self.value):
            return f"{self.value:z.3f} (n = 1)"
        return in_words(self.value, self.low, self.high)

    __repr__ = __str__


@dataclass(frozen=True, repr=False)
class Summary(Brief):
    """The scores of one model on one set of episodes."""

    error: Estimate
    stage_accuracy: Estimate
    order: Estimate
    auc: Estimate
    final_success: Estimate
    final_failure: Estimate
    failures: Mapping[str, tuple[Estimate, float]]
    """Kind of failure -> (mean final progress, mean true final progress)."""
    measures: Mapping[str, Estimate] = field(default_factory=dict)
    """The rows of `MORE`, which `milepost audit` has under the same names."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def mean_estimate(values: Sequence[float], rng: np.random.Generator) -> Estimate:
    """Returns the mean of the values that are not NaN, with its bootstrap interval."""
    finite = np.array([value for value in values if not np.isnan(value)])
    if not len(finite):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    low, high = interval(lambda draws: draws.mean(axis=1), finite, rng=rng, vectorized=True)
    return Estimate(float(finite.mean()), low, high, len(finite))


def _known_mean(values: Sequence[float]) -> float:
    finite = [value for value in values if not np.isnan(value)]
    return float(np.mean(finite)) if finite else float("nan")


def summarise(scores: Sequence[EpisodeScore], rng: np.random.Generator) -> Summary:
    """Returns the scores of many episodes as one summary. Raises DataError if there is no episode.

    An episode of unknown success counts as successful for error, stage accuracy and order, and for nothing else.
    """
    if not scores:
        raise DataError("no episode to evaluate")
    good = [score for score in scores if score.success is not False]
    success = np.array([s.final for s in scores if s.success is True and not np.isnan(s.final)])
    failure = np.array([s.final for s in scores if s.success is False and not np.isnan(s.final)])
    low, high = interval(auc, success, failure, rng=rng, vectorized=True)
    kinds: dict[str, list[EpisodeScore]] = defaultdict(list)
    for score in scores:
        if score.success is False:
            kinds[score.kind or "failed"].append(score)
    return Summary(
        error=mean_estimate([s.error for s in good], rng),
        stage_accuracy=mean_estimate([s.stage_accuracy for s in good], rng),
        order=mean_estimate([s.order for s in good], rng),
        auc=Estimate(of_one(auc, success, failure), low, high, len(success) + len(failure)),
        final_success=mean_estimate(success.tolist(), rng),
        final_failure=mean_estimate(failure.tolist(), rng),
        failures={
            kind: (mean_estimate([s.final for s in members], rng), _known_mean([s.true_final for s in members]))
            for kind, members in sorted(kinds.items())
        },
        measures={
            **{name: mean_estimate([s.measures.get(name, float("nan")) for s in good], rng) for name in PER_EPISODE},
            **{name: row for name, row in outcome_rows(success, failure, rng).items() if name != "auc"},
        },
    )


MEASURES = {
    "error": "error",
    "stage_accuracy": "stage accuracy",
    "order": "VOC",
    "auc": "AUC",
    "final_success": "final, successes",
    "final_failure": "final, failures",
}
PER_EPISODE = ("voc_r", "stagnation", "regret", "milestone_coverage")
MORE = {
    "voc_r": "VOC-r",
    "auprc": "AUPRC",
    "auprc_chance": "AUPRC by chance: the proportion of successes",
    "tau_a": "tau-a",
    "tau_a_perfect": "tau-a of a perfect order",
    "succ_fail_diff": "final, successes minus failures",
    "milestone_coverage": "milestone coverage",
    "stagnation": "stagnation",
    "regret": "regret",
}
"""Name of a measure -> its words, here and in `milepost audit`."""


def outcome_rows(success: Float[np.ndarray, "N"], failure: Float[np.ndarray, "M"], rng: np.random.Generator) -> dict[str, Estimate]:
    """Returns what separates successes from failures by their final values: AUC, AUPRC, tau-a and the difference of the means.

    AUPRC and tau-a depend on how many are successes, so what chance or a perfect order would have stands beside them.
    """
    good, bad = len(success), len(failure)
    count = good + bad
    rows = {
        name: Estimate(of_one(rule, success, failure), *interval(rule, success, failure, rng=rng, vectorized=True), count)
        for name, rule in OUTCOME_RULES.items()
    }
    chance, perfect = (good / count, 2 * good * bad / (count * (count - 1))) if good and bad else (float("nan"), float("nan"))
    return rows | {"auprc_chance": Estimate(chance, chance, chance, count), "tau_a_perfect": Estimate(perfect, perfect, perfect, count)}


def summary_table(summaries: Mapping[str, Summary], *, more: bool = False) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Returns (columns, rows) with one row for each measure and one column for each model. more: with those of `MORE`."""
    rows = [(words, *(getattr(summary, name) for summary in summaries.values())) for name, words in MEASURES.items()]
    if more:
        rows += [(words, *(summary.measures[name] for summary in summaries.values())) for name, words in MORE.items()]
    return ("", *summaries), [tuple(row) for row in rows]


def failure_table(summaries: Mapping[str, Summary]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Returns (columns, rows) with one row for each kind of failure: each model's mean final progress, and the true one or a dash."""
    first = next(iter(summaries.values()))
    ends = {kind: "-" if np.isnan(truth) else f"{truth:.3f}" for kind, (_, truth) in first.failures.items()}
    return ("", *summaries, "truth"), [(kind, *(s.failures[kind][0] for s in summaries.values()), end) for kind, end in ends.items()]


def model_table(summaries: Mapping[str, Summary]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Returns (columns, rows) with one row for each model and one column for each measure but those of `MORE`."""
    rows = [(name, *(getattr(summary, measure) for measure in MEASURES)) for name, summary in summaries.items()]
    return ("", *MEASURES.values()), [tuple(row) for row in rows]
