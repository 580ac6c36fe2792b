"""The report of `annotate`: episodes of each head, durations of stages, the most doubtful episodes, and every failure with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from milepost import annotation, datasets, metrics
from milepost.cli.annotation_output import Answers, disagreements
from milepost.cli.console import say, table, warn
from milepost.core import bare_reason, to_json

DOUBTED = 10
"""Rows in the table of doubtful episodes."""
REASON = 400
"""Most letters of a reason on the terminal; the store and --json have the full text."""


def report(
    dataset: datasets.LeRobotDataset,
    answers: Answers,
    requested: Mapping[str, Sequence[int]],
    *,
    lists: Mapping[str, annotation.SubtaskList],
    unanswered: Mapping[int, str],
    facts: Mapping[str, Any],
    as_json: bool,
) -> int:
    """Prints the report; returns the exit code, 1 if an episode has no annotation. facts: store, folder, written, uploaded, figures."""
    by_head = {head: {n: answers[head][n] for n in requested[head] if n in answers[head]} for head in lists}
    failed = {head: {n: answer.failure for n, answer in by_episode.items() if answer.failure} for head, by_episode in by_head.items()}
    by_disagreement = disagreements(by_head)
    order = metrics.ranked(by_disagreement)
    skipped = {head: len(dataset) - len(requested[head]) for head in lists}
    missing = {head: [n for n in requested[head] if n not in by_head[head]] for head in lists}
    code = 1 if unanswered or any(failed.values()) or any(missing.values()) else 0
    if as_json:
        annotated = {head: sorted(n for n, answer in by_episode.items() if answer.segments) for head, by_episode in by_head.items()}
        summary = {"annotated": annotated, "failed": failed, "unanswered": unanswered, "skipped": skipped, "missing": missing}
        say(to_json({**summary, "disagreement": {n: by_disagreement[n] for n in order}, **facts}))
        return code
    table(
        "annotation",
        ("head", "annotated", "failed", "not answered", "skipped", "answers", "put right", "farthest move, s"),
        [_row(head, by_head[head], len(failed[head]), len(missing[head]), skipped[head]) for head in lists],
    )
    for head, subtasks in lists.items():
        if rows := _stage_rows([a for a in by_head[head].values() if a.segments], subtasks, dataset.fps):
            table(f"{head} stages", ("stage", "episodes", "mean, s", "shortest", "longest"), rows)
    if order:
        rows = [
            (number, f"{by_disagreement[number]:.1%}", _without_answer(by_head, number), *_widest(by_head, number))
            for number in order[:DOUBTED]
        ]
        columns = ("episode", "frames that differ", "failed repeats", "widest border", "over, s")
        table("most disagreed on: look at these first (a failed repeat differs on every frame)", columns, rows)
    _say_failures(failed, unanswered, facts)
    _say_places(facts)
    return code


def _row(head: str, by_episode: Mapping[int, annotation.Answer], failed: int, missing: int, skipped: int) -> tuple[object, ...]:
    good = [answer for answer in by_episode.values() if answer.segments]
    moved = max((float(answer.notes.get("moved_s") or 0.0) for answer in good), default=0.0)
    return (
        head,
        len(good),
        failed,
        missing,
        skipped,
        sum(a.attempts for a in by_episode.values()),
        sum(bool(a.repairs) for a in good),
        f"{moved:.2f}",
    )


def _stage_rows(answers: Sequence[annotation.Answer], subtasks: annotation.SubtaskList, fps: float) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for name in subtasks.names if answers else ():
        lengths = [s.stop - s.start for answer in answers for s in answer.segments or () if s.name == name]
        seconds = np.array(lengths) / fps
        count = sum(any(s.name == name for s in answer.segments or ()) for answer in answers)
        numbers = (f"{seconds.mean():.2f}", f"{seconds.min():.2f}", f"{seconds.max():.2f}") if len(seconds) else ("-", "-", "-")
        rows.append((name, count, *numbers))
    return rows


def _without_answer(answers: Answers, number: int) -> str:
    """Returns how many of the repeats of an episode gave no annotation, over all heads."""
    notes = [each[number].notes for each in answers.values() if number in each and "repeats" in each[number].notes]
    return f"{sum(len(each['failed']) for each in notes)} of {sum(each['repeats'] for each in notes)}"


def _widest(answers: Answers, number: int) -> tuple[object, ...]:
    """Returns the boundary where repeats differ most, over all heads, and its spread."""
    boundaries = [boundary for each in answers.values() if number in each for boundary in each[number].notes.get("borders", ())]
    if not boundaries:
        return "-", "-"
    widest = max(boundaries, key=lambda boundary: boundary["spread_s"])
    return widest["border"], f"{widest['spread_s']:.2f}"


def _say_failures(failed: Mapping[str, Mapping[int, str]], unanswered: Mapping[int, str], facts: Mapping[str, Any]) -> None:
    for head, by_episode in failed.items():
        for number, reason in by_episode.items():
            reason = bare_reason(reason, number)
            warn(f"episode {number}, {head}: no annotation, {reason[:REASON]}{'...' if len(reason) > REASON else ''}")
    for number, reason in unanswered.items():
        warn(f"episode {number}: not answered, {bare_reason(reason, number)}")
    if any(failed.values()):
        warn(f"the model's words are in {facts['store']}; ask again with --retry-failed, or write these by hand (--to-file, --import)")
    if unanswered:
        warn("the same command asks about those not answered again")


def _say_places(facts: Mapping[str, Any]) -> None:
    if facts.get("folder"):
        say(f"written into {facts['folder']}: {', '.join(facts['written']) or 'nothing, all of it was there'}")
    if facts.get("uploaded"):
        say(f"uploaded to {facts['uploaded']}")
    if facts.get("store"):
        say(f"answers: {facts['store']}")
    if facts.get("figures"):
        say(f"figures: {facts['figures']}")
