"""Lines of runs -> success rates and paired differences with 95 % bootstrap intervals. numpy only.

A draw resamples the seeds of every task, and the start scenes of every seed drawn; all arms share it, so differences are paired. Only cells
(task, seed) in which every arm compared has been run are counted. With few seeds intervals are too narrow: five say little, two nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from milepost.metrics import Estimate

DRAWS = 2000
Lines = Iterable[Mapping[str, Any]]


def cells(lines: Lines, proportion: float, arms: Sequence[str]) -> dict[str, list[Float[np.ndarray, "A S"]]]:
    """Returns task -> for every seed that has all of these arms, success by arm and start scene."""
    by_cell: dict[tuple[str, int], dict[str, list[int]]] = {}
    for line in lines:
        if line["share"] == proportion:
            by_cell.setdefault((line["task"], line["seed"]), {})[line["arm"]] = line["success"]
    out: dict[str, list[np.ndarray]] = {}
    for (task, _), by_arm in sorted(by_cell.items()):
        if all(arm in by_arm for arm in arms):
            out.setdefault(task, []).append(np.array([by_arm[arm] for arm in arms], dtype=float))
    return out


def resampled(tables: Mapping[str, Sequence[Float[np.ndarray, "A S"]]], rng: np.random.Generator, draws: int = DRAWS) -> np.ndarray:
    """Returns success rates by arm, the mean over tasks of the mean over seeds: (1 + draws, A); the first row is the measured one."""
    by_task = []
    for seeds in tables.values():
        rates_by_seed = np.stack([_scenes(table, rng, draws) for table in seeds])
        counts = np.concatenate([np.ones((1, len(seeds))), rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), size=draws)])
        by_task.append(np.einsum("ds,sda->da", counts / len(seeds), rates_by_seed))
    return np.mean(by_task, axis=0)


def _scenes(table: Float[np.ndarray, "A S"], rng: np.random.Generator, draws: int) -> Float[np.ndarray, "D A"]:
    count = table.shape[1]
    weight = np.concatenate([np.ones((1, count)), rng.multinomial(count, np.full(count, 1 / count), size=draws)])
    return weight @ table.T / count


def estimate(values: Float[np.ndarray, "D"], cells_used: int) -> Estimate:
    """Returns the first number with the interval of the others."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return Estimate(float(values[0]), float(low), float(high), cells_used)


def rates(lines: Lines, proportion: float, arms: Sequence[str], base: str = "uniform") -> dict[str, tuple[Estimate, Estimate]]:
    """Returns arm -> (success rate, difference from `base` over the cells that have both). Arms that were not run are left out."""
    lines, out = list(lines), {}
    for arm in arms:
        tables = cells(lines, proportion, [base, arm])
        if tables:
            samples, used = resampled(tables, np.random.default_rng(0)), sum(map(len, tables.values()))
            out[arm] = estimate(samples[:, 1], used), estimate(samples[:, 1] - samples[:, 0], used)
    return out


def recovered(
    lines: Lines, proportion: float, *, arm: str = "rabc-sarm", oracle: str = "rabc-true", base: str = "uniform"
) -> Estimate | None:
    """Returns the proportion of the oracle's gain that an arm reaches: (arm - base) / (oracle - base). None if no cell has all three."""
    tables = cells(lines, proportion, [base, oracle, arm])
    if not tables:
        return None
    samples = resampled(tables, np.random.default_rng(0))
    gain = samples[:, 1] - samples[:, 0]
    gain = np.where(np.abs(gain) < 1e-9, np.nan, gain)
    ratio = (samples[:, 2] - samples[:, 0]) / gain
    ratios = np.concatenate([ratio[:1], ratio[1:][~np.isnan(ratio[1:])]])
    if np.isnan(ratio[0]) or len(ratios) < 2:
        return None
    return estimate(ratios, sum(map(len, tables.values())))


def points(one: Estimate, *, signed: bool = False) -> str:
    """Formats an estimate in points of success: "+35.0 [+20, +48]"."""
    sign = "+" if signed else ""
    return f"{100 * one.value:{sign}.1f} [{100 * one.low:{sign}.0f}, {100 * one.high:{sign}.0f}]"


def rows(lines: Lines, proportion: float, arms: Sequence[str]) -> list[tuple[str, str, str, str, str]]:
    """Returns (arm, policies, mean weight, success, minus uniform) for a table."""
    lines = list(lines)
    out = []
    for arm, (rate, gap) in rates(lines, proportion, arms).items():
        weights = [line["mean_weight"] for line in lines if line["share"] == proportion and line["arm"] == arm]
        out.append((arm, str(rate.episodes), f"{np.mean(weights):.2f}", points(rate), "" if arm == "uniform" else points(gap, signed=True)))
    return out


HEADER = ("arm", "policies", "mean weight", "success, %", "minus uniform, points")
