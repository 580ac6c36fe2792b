"""Which measures of a table are known: those of which nothing is known are left out, with a sentence that says why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from milepost import progress

Columns: TypeAlias = "tuple[str, ...]"
Rows: TypeAlias = "list[tuple[object, ...]]"
OF_TRUTH = ("error", "stage accuracy", "milestone coverage")
"""Words of the measures that compare a curve with the truth."""
OF_CURVES = ("VOC", "VOC-r", "stagnation", "regret")
"""Words of the measures of the curve alone. All others compare successes with failures."""


def known_rows(columns: Columns, rows: Rows) -> tuple[Columns, Rows, list[str]]:
    """Returns the table without the rows that are dashes alone, and the words of these rows.

    >>> known_rows(("", "sarm"), [("error", "-"), ("VOC", "0.9")])
    (('', 'sarm'), [('VOC', '0.9')], ['error'])
    """
    unknown = [row for row in rows if all(str(cell) == "-" for cell in row[1:])]
    return columns, [row for row in rows if row not in unknown], [str(row[0]) for row in unknown]


def known_columns(columns: Columns, rows: Rows) -> tuple[Columns, Rows, list[str]]:
    """Returns the table without the columns that are dashes alone, and the titles of these columns.

    >>> known_columns(("", "error", "VOC"), [("sarm", "-", "0.9")])
    (('', 'VOC'), [('sarm', '0.9')], ['error'])
    """
    present = [place == 0 or any(str(row[place]) != "-" for row in rows) for place in range(len(columns))]
    kept_rows = [tuple(cell for cell, is_present in zip(row, present, strict=True) if is_present) for row in rows]
    titles = tuple(title for title, is_present in zip(columns, present, strict=True) if is_present)
    return titles, kept_rows, [title for title, is_present in zip(columns, present, strict=True) if not is_present]


def why_unknown(unknown: Sequence[str], evaluation: progress.Evaluation) -> list[str]:
    """Returns a sentence for each reason why measures are left out. unknown: the words of these measures."""
    groups: dict[str, list[str]] = {}
    for words in unknown:
        groups.setdefault(_reason(words, evaluation), []).append(words)
    return [f"left out, because {reason}: {'; '.join(names)}" for reason, names in groups.items()]


def _reason(words: str, evaluation: progress.Evaluation) -> str:
    """Returns why nothing is known of a measure."""
    outcomes = {score.success for score in evaluation.episodes}
    if not evaluation.events:
        return "no curve is known"
    if words in OF_TRUTH and not evaluation.sources - {"none"}:
        return "no truth is known (no annotation, no column truth.progress)"
    if outcomes == {False}:
        return "no episode succeeded"
    if words in OF_TRUTH:
        return "no stages are known"
    if words in OF_CURVES:
        return "the episodes are too short"
    if True in outcomes:
        return "no episode failed"
    return "the dataset does not say which episodes succeeded (no fact 'success', no column next.success)"
