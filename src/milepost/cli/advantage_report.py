"""Who became positive, and what speaks against these labels: the report of the verb `advantage`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from milepost import weights
from milepost.cli.console import say, table

BY_TIME = 0.98
"""The R^2 of the curves by the time from which they may be a clock's; the audit has the same. The true progress of simulated
demonstrations of mixed quality had 0.83, clocks 0.993 and more. That of scripted experts alone had 0.987, and is warned of."""
BY_EPISODE = 0.8
"""The part of the labels' variance between successful episodes from which the labels choose episodes and no frames."""
TIED = 0.1
"""How far the proportion of positive frames may be above the one that was asked for, by ties at the threshold."""
OUTCOMES = {True: "succeeded", False: "failed", None: "unknown outcome"}
ROWS = 12
"""Tasks in a table."""


def report_of(
    episodes: Sequence[weights.EpisodeProgress], labels: weights.AdvantageLabels, beside: weights.AdvantageLabels | None
) -> dict[str, Any]:
    """Returns everything that is shown. beside: another model's labels of the same episodes."""
    groups: dict[str, list[Any]] = {
        "task": [each.task for each in episodes],
        "outcome": [OUTCOMES[each.success] for each in episodes],
        "tenth": [weights.tenths(len(each.progress)) for each in episodes],
    }
    successes = [of for each, of in zip(episodes, labels.episodes, strict=True) if not each.has_failed]
    forced = [np.zeros(len(each.progress), bool) if each.intervention is None else each.intervention for each in episodes]
    by_person, is_positive = np.concatenate(forced), np.concatenate([each.is_positive for each in labels.episodes])
    return {
        "frames": len(is_positive),
        "positive": float(is_positive.mean()),
        "positive_by_threshold": float(is_positive[~by_person].mean()) if not by_person.all() else float("nan"),
        "unknown": sum(int(np.isnan(each.advantage).sum()) for each in labels.episodes),
        "interventions": int(by_person.sum()),
        "config": asdict(labels.config),
        "thresholds": dict(labels.thresholds),
        "durations": dict(labels.durations),
        "groups": {heading: [asdict(group) for group in weights.by_group(labels.episodes, names)] for heading, names in groups.items()},
        "by_time": weights.explained_by_time(episodes),
        "between_episodes": weights.between_episodes(successes),
        "agreement": None if beside is None else weights.agreement(labels.episodes, beside.episodes),
    }


def show(report: dict[str, Any]) -> None:
    """Prints the tables."""
    say(f"positive: {report['positive']:.1%} of {report['frames']} frames")
    if report["interventions"]:
        say(f"frames with a person's intervention, all positive: {report['interventions']}")
    groups = {heading: sorted(members, key=lambda group: group["positive"]) for heading, members in report["groups"].items()}
    groups["tenth"].sort(key=lambda group: int(group["name"]))
    for heading, members in groups.items():
        rows = [(_name(heading, group["name"]), group["frames"], f"{group['positive']:.0%}") for group in members]
        table(f"Positive by {heading}", (heading, "frames", "positive"), rows[:ROWS])
        if len(rows) > ROWS:
            say(f"the {ROWS} with the fewest positives, of {len(rows)}; --json has all")
    if not np.isnan(report["by_time"]):
        say(f"the time explains {report['by_time']:.2f} of the curves of successful episodes (R^2; a clock: 1)")
    if not np.isnan(report["between_episodes"]):
        say(f"of what divides positive from negative in them, {report['between_episodes']:.2f} lies between episodes, the rest inside them")
    if report["agreement"] is not None:
        same, kappa = report["agreement"]["same"], report["agreement"]["kappa"]
        say(f"the other model labels {same:.0%} of the frames alike (Cohen's kappa {kappa:.2f})")


def _name(heading: str, name: str) -> str:
    return f"{int(name) * 10} to {int(name) * 10 + 10} %" if heading == "tenth" else name or "no task"


def doubts(report: dict[str, Any]) -> list[str]:
    """Returns what speaks against these labels, in sentences."""
    lines = []
    if report["by_time"] >= BY_TIME:
        lines.append(
            f"the time explains {report['by_time']:.3f} of the curves, so either all episodes go alike, or these are the labels of a "
            "clock, which tell long episodes from short ones and no good frame from a bad one; ask milepost audit before you train on them"
        )
    elif np.isnan(report["by_time"]):
        lines.append("no task has two successful episodes, so nobody can tell these labels from those of a clock")
    if report["between_episodes"] >= BY_EPISODE:
        lines.append("nearly all frames of an episode have one label, so these labels choose episodes; a smaller --horizon chooses frames")
    elif np.isnan(report["between_episodes"]):
        lines.append("all frames of the successful episodes have one label, so these labels say no more than the outcome")
    outcomes = {group["name"]: group["positive"] for group in report["groups"]["outcome"]}
    if "failed" not in outcomes:
        lines.append("no episode is known to have failed, so positive means no more than faster than the others")
    elif outcomes["failed"] >= max(outcomes.get(name, 0.0) for name in (OUTCOMES[True], OUTCOMES[None])):
        lines.append("frames of failed episodes are positive as often as those of the others, so the progress does not know a failure")
    if report["positive_by_threshold"] > report["config"]["positive"] + TIED:
        lines.append(
            f"{report['positive_by_threshold']:.0%} of the frames are positive, where {report['config']['positive']:.0%} were asked for, "
            "because many have the very advantage of the threshold; choose a smaller --positive"
        )
    if OUTCOMES[None] in outcomes:
        lines.append("episodes of unknown outcome count as successes, as LeRobot counts them")
    if report["unknown"]:
        lines.append(f"frames of unknown advantage: {report['unknown']}, each is negative unless a person intervened")
    few = [group["name"] for group in report["groups"]["tenth"] if group["positive"] == 0]
    if len(few) >= 5:
        lines.append(f"{len(few)} of the ten tenths of an episode have no positive frame at all: the labels follow the time in the episode")
    return lines
