"""Which measures of a table are known: those of which nothing is known are left out, with a sentence that says why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from milepost import metrics, progress

Columns: TypeAlias = "tuple[str, ...]"
Rows: TypeAlias = "list[tuple[object, ...]]"
OF_TRUTH = ("error", "stage_accuracy", "milestone_coverage")
"""Measures that compare a curve with the truth."""
OF_CURVES = ("order", "voc_r", "stagnation", "regret")
"""Measures of the curve alone. All others compare successes with failures."""
PLAIN = ("error", "stage_accuracy", "final_success", "final_failure", "succ_fail_diff", "auprc_chance", "tau_a_perfect")
"""Measures whose words say what they are, or which stand beside the one that they belong to."""


def names_of_rows() -> list[str]:
    """Returns the names of the measures in the rows of `metrics.summary_table` with those of `MORE`."""
    return [*metrics.MEASURES, *metrics.MORE]


def names_of_columns() -> list[str]:
    """Returns the names of the measures in the columns of `metrics.model_table`."""
    return list(metrics.MEASURES)


def known_rows(names: Sequence[str], rows: Rows) -> tuple[Rows, list[str]]:
    """Returns the rows that are not dashes alone, and the names of the measures of which nothing is known. names: the measure of each row.

    >>> known_rows(["error", "order"], [("error", "-"), ("VOC", "0.9")])
    ([('VOC', '0.9')], ['error'])
    """
    unknown = [all(str(cell) == "-" for cell in row[1:]) for row in rows]
    pairs = list(zip(names, rows, unknown, strict=True))
    return [row for _, row, is_unknown in pairs if not is_unknown], [name for name, _, is_unknown in pairs if is_unknown]


def known_columns(names: Sequence[str], columns: Columns, rows: Rows) -> tuple[Columns, Rows, list[str]]:
    """Returns the table without the columns that are dashes alone, and the names of their measures. names: the measure of each column
    but the first.

    >>> known_columns(["error", "order"], ("", "error", "VOC"), [("sarm", "-", "0.9")])
    (('', 'VOC'), [('sarm', '0.9')], ['error'])
    """
    present = [place == 0 or any(str(row[place]) != "-" for row in rows) for place in range(len(columns))]
    stay = [place for place, is_present in enumerate(present) if is_present]
    unknown = [name for name, is_present in zip(names, present[1:], strict=True) if not is_present]
    return tuple(columns[place] for place in stay), [tuple(row[place] for place in stay) for row in rows], unknown


def why_unknown(unknown: Sequence[str], evaluation: progress.Evaluation) -> list[str]:
    """Returns a sentence for each reason why measures are left out. unknown: the names of these measures."""
    groups: dict[str, list[str]] = {}
    for name in unknown:
        groups.setdefault(_reason(name, evaluation), []).append(_words(name))
    return [f"left out, because {reason}: {'; '.join(words)}" for reason, words in groups.items()]


def where_explained(names: Sequence[str], unknown: Sequence[str]) -> str:
    """Returns a line that says where to read what the measures of a table mean; "" if their words say it. unknown: those left out."""
    words = [_words(name) for name in names if name not in (*unknown, *PLAIN)]
    return f"milepost evaluate --help says what they mean: {', '.join(words)}" if words else ""


def _words(name: str) -> str:
    return metrics.MEASURES.get(name) or metrics.MORE[name]


def _reason(name: str, evaluation: progress.Evaluation) -> str:
    """Returns why nothing is known of a measure."""
    outcomes = {score.success for score in evaluation.episodes}
    if not evaluation.events:
        return "no curve is known"
    if name in OF_TRUTH and not evaluation.sources - {"none"}:
        return "no truth is known (no annotation, no column truth.progress)"
    if outcomes == {False}:
        return "no episode succeeded"
    if name in OF_TRUTH:
        return "no stages are known"
    if name in OF_CURVES:
        return "the episodes are too short"
    if True in outcomes:
        return "no episode failed"
    return "the dataset does not say which episodes succeeded (no fact 'success', no column next.success)"
