"""Who became positive, and what speaks against these labels: the report of the verb `advantage`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from milepost import weights
from milepost.cli.console import say, table
from milepost.core import count_noun, shortlist

BY_TIME = 0.98
"""The R^2 of the curves by the time from which they may be a clock's; the audit has the same. The true progress of simulated
demonstrations of mixed quality had 0.83, clocks 0.993 and more. That of scripted experts alone had 0.987, and is warned of."""
BY_EPISODE = 0.8
"""The part of the labels' variance between successful episodes from which the labels choose episodes and no frames."""
TIED = 0.1
"""How far the proportion of positive frames may be above the one that was asked for, by ties at the threshold."""
OUTCOMES = {True: "succeeded", False: "failed", None: "unknown outcome"}
ALIKE = 0.9
"""Failures are said to be positive as often as the others from this part of the others' proportion on."""
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
        "positive_above": _above(episodes, labels),
        "unknown": sum(int(np.isnan(each.advantage).sum()) for each in labels.episodes),
        "interventions": int(by_person.sum()),
        "config": asdict(labels.config),
        "thresholds": dict(labels.thresholds),
        "durations": dict(labels.durations),
        "groups": {heading: [asdict(group) for group in weights.by_group(labels.episodes, names)] for heading, names in groups.items()},
        "failures": _failures(episodes, labels),
        "by_time": weights.explained_by_time(episodes),
        "between_episodes": weights.between_episodes(successes),
        "agreement": None if beside is None else weights.agreement(labels.episodes, beside.episodes),
    }


def _above(episodes: Sequence[weights.EpisodeProgress], labels: weights.AdvantageLabels) -> float:
    """Returns the proportion of known frames, without interventions, whose advantage is above the threshold, and not equal to it."""
    parts = []
    for each, of in zip(episodes, labels.episodes, strict=True):
        threshold = labels.thresholds[each.task if labels.config.per_task else ""]
        stays = ~np.isnan(of.advantage) if each.intervention is None else ~np.isnan(of.advantage) & ~each.intervention
        parts.append(of.advantage[stays] > threshold)
    above = np.concatenate(parts)
    return float(above.mean()) if len(above) else float("nan")


def _failures(episodes: Sequence[weights.EpisodeProgress], labels: weights.AdvantageLabels) -> dict[str, dict[str, float]]:
    """Returns task -> the proportion of positive frames in its failures and in its other episodes, and "" -> in all of both together.

    Where there are episodes that are known to have succeeded, those of unknown outcome do not count. A task without both is left out.
    """
    out = {}
    for task in ("", *dict.fromkeys(each.task for each in episodes)):
        sides: dict[bool | None, list[np.ndarray]] = {}
        for each, of in zip(episodes, labels.episodes, strict=True):
            if task in ("", each.task):
                sides.setdefault(each.success, []).append(of.is_positive)
        others = sides.get(True, sides.get(None))
        if False in sides and others:
            out[task] = {"failed": float(np.concatenate(sides[False]).mean()), "others": float(np.concatenate(others).mean())}
    return out


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


def without_label(report: dict[str, Any], labels: weights.AdvantageLabels, missing: int, left: int, verb: str) -> list[str]:
    """Returns which frames have no label of their own, in sentences. missing: frames without a row in the progress file. left: episodes
    without labels. verb: the one that leaves episodes out of this dataset."""
    lines = []
    if left:
        lines.append(f"{count_noun(left, 'episode')} without labels: negative, of unknown advantage; --form lerobot has no row of them")
    if missing:
        lines.append(f"frames of the dataset without a row in the progress file: {missing}, each is negative")
    if report["unknown"]:
        lines.append(f"frames of unknown advantage: {report['unknown']} of {report['frames']}, each is negative unless a person intervened")
    if unknown := [each.episode for each in labels.episodes if np.isnan(each.advantage).all()]:
        lines.append(
            f"no frame of {count_noun(len(unknown), 'episode')} has a known advantage: {shortlist(unknown)}; that says nothing of their "
            f"quality. Leave such episodes out with --episodes, or make a dataset without them with {verb} --without"
        )
    return lines


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
    lines += _failures_in_words(report["failures"])
    if report["positive_by_threshold"] > report["config"]["positive"] + TIED:
        above = report["positive_above"]
        mend = f"choose --positive below {above:.2g}" if above > 0 else "none is above it, so no --positive changes that, but --horizon may"
        lines.append(
            f"{report['positive_by_threshold']:.0%} of the frames are positive, where {report['config']['positive']:.0%} were asked for, "
            f"because many have the very advantage of the threshold; {mend}"
        )
    if OUTCOMES[None] in outcomes:
        lines.append("episodes of unknown outcome count as successes, as LeRobot counts them")
    few = [group["name"] for group in report["groups"]["tenth"] if group["positive"] == 0]
    if len(few) >= 5:
        lines.append(f"{len(few)} of the ten tenths of an episode have no positive frame at all: the labels follow the time in the episode")
    return lines


def _failures_in_words(failures: dict[str, dict[str, float]]) -> list[str]:
    """Returns a sentence if failures are positive about as often as other episodes, in all tasks together or in some."""
    alike = [task for task, each in failures.items() if each["failed"] > 0 and each["failed"] >= ALIKE * each["others"]]
    if not alike:
        return []
    more = any(failures[task]["failed"] > failures[task]["others"] / ALIKE for task in alike)
    words = f"frames of failed episodes are positive {'at least ' if more else ''}as often as those of the others"
    if alike[0] == "":
        both = failures[""]
        numbers = f"{both['failed']:.0%} and {both['others']:.0%}"
        return [f"{words} ({numbers}), so the progress does not know a failure"]
    some = ", ".join(map(repr, alike[:ROWS])) + (f" and {len(alike) - ROWS} more" if len(alike) > ROWS else "")
    return [f"{words} in {count_noun(len(alike), 'task')}, where the progress does not know a failure: {some}"]
