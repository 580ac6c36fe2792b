"""The report of the verb `weigh`: its tables, and what `--json` prints."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from milepost import weights
from milepost.cli.console import say, table

ROWS = 12
"""Tasks or qualities in a table."""


@dataclass(frozen=True, eq=False)
class WeightReport:
    """Everything that is printed and drawn. better: the weights by the recommended options, and their diagnosis on the frames that stand
    still by today's deltas; None if nothing is recommended."""

    result: weights.WeightResult
    diagnosis: weights.Diagnosis
    groups: Mapping[str, list[weights.WeightGroup]]
    sweep: Sequence[weights.Sweep]
    advice: Sequence[weights.Advice]
    better: tuple[weights.WeightResult, weights.Diagnosis] | None
    notes: Mapping[int, weights.EpisodeInfo]


def summary(result: weights.WeightResult, diagnosis: weights.Diagnosis) -> dict[str, float]:
    """Returns the numbers that LeRobot logs during training, and more, before any training."""
    one = result.one_kappa
    return {
        "frames": float(len(result.weight)),
        "delta_mean": result.delta_mean,
        "delta_std": result.delta_std,
        "kappa": float(result.kappa.mean()) if one is None else one,
        "share_full": result.full,
        "share_soft": result.soft,
        "share_zero": result.zero,
        "share_unknown": result.unknown,
        "mean_weight": float(np.mean(result.weight, dtype=np.float64)),
        "effective_share": result.effective,
        "standing_still_share": diagnosis.still_share,
        "standing_still_weight": diagnosis.still_weight,
        "last_tenth_weight": diagnosis.end_weight,
        "rest_weight": diagnosis.rest_weight,
        "frame_noise": diagnosis.noise,
    }


def show(report: WeightReport) -> None:
    """Prints the tables."""
    rows = summary(report.result, report.diagnosis)
    better = None if report.better is None else summary(*report.better)
    columns = ("what", "value") if better is None else ("what", "now", "recommended")
    sides = [each for each in (rows, better) if each is not None]
    cells = [
        [name.replace("_", " ").replace("share", "proportion"), *(f"{each[name]:{'.0f' if name == 'frames' else '.4g'}}" for each in sides)]
        for name in rows
    ]
    table("Sample weights", columns, cells)
    for heading, members in report.groups.items():
        few = sorted(members, key=lambda group: group.mean_weight)[:ROWS] if len(members) > ROWS else members
        per = [(g.name, g.episodes, g.frames, f"{g.mean_weight:.2f}", f"{g.zero:.0%}", f"{g.full:.0%}", f"{g.share:.0%}") for g in few]
        table(f"By {heading}", (heading, "episodes", "frames", "mean weight", "zero", "full", "of all"), per)
        if len(few) < len(members):
            say(f"the {ROWS} lightest of {len(members)}; --json has all")
    if report.sweep:
        one = report.result.one_kappa is not None
        outcome_known = not all(np.isnan(row.successes) and np.isnan(row.failures) for row in report.sweep)
        ends = ("successes", "failures") if outcome_known else ()
        body = []
        for row in report.sweep:
            now = " (now)" if (row.kappa == report.result.one_kappa if one else row.factor == 1) else ""
            first = f"{row.kappa:.3g}{now}" if one else f"{row.factor:g} x{now}"
            numbers = [row.mean_weight, row.full, row.zero, row.effective, *([row.successes, row.failures] if outcome_known else [])]
            body.append([first, *("-" if np.isnan(number) else f"{number:.2f}" for number in numbers)])
        table("Other kappas", ("kappa", "mean weight", "full", "zero", "effective", *ends), body)
    each = weights.by_episode(report.result)
    light = [f"{each.episode_index[i]} ({each.mean[i]:.2f})" for i in np.argsort(each.mean, kind="stable")[:8]]
    say(f"lightest episodes (mean weight): {', '.join(light)}")


def as_json(report: WeightReport) -> dict[str, Any]:
    """Returns everything that `show` prints, every episode, and the recommended options."""
    each = weights.by_episode(report.result)
    options = {} if report.better is None else dataclasses.asdict(report.better[0].config)
    columns = zip(each.episode_index.tolist(), each.frames.tolist(), each.mean.tolist(), each.dropped.tolist(), strict=True)
    return summary(report.result, report.diagnosis) | {
        "groups": {heading: [dataclasses.asdict(group) for group in members] for heading, members in report.groups.items()},
        "sweep": [dataclasses.asdict(row) for row in report.sweep],
        "episodes": [dict(zip(("episode", "frames", "mean_weight", "share_dropped"), row, strict=True)) for row in columns],
        "filtered_episodes": report.result.filtered.tolist(),
        "recommended": {name: value for name, value in options.items() if report.better and report.better[0].config.changed(name)},
        "recommended_flags": "" if report.better is None else weights.flags(report.better[0].config),
    }
