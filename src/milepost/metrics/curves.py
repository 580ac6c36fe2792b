"""Measures of one curve, or of the final values of many, under the names of the papers that define them. numpy only.

Every function says what it does with ties, constant curves and NaN. None of them alone tells a reward from a clock: see `audit`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from milepost.metrics.inputs import Values, numbers, same_frames, without_nan
from milepost.metrics.outcomes import auprc, of_one
from milepost.metrics.scores import order_correlation

_POINTS = 101
"""Points at which curves of different lengths are compared."""


def filled(value: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T"]:
    """Returns the curve with NaN interpolated between known frames and continued flat at both ends; all NaN if none is known.

    >>> filled(np.array([np.nan, 1.0, np.nan, 3.0]))
    array([1., 1., 2., 3.])
    """
    frames = np.flatnonzero(~np.isnan(value))
    if not len(frames):
        return value
    return np.interp(np.arange(len(value)), frames, value[frames])


def voc(value: Values) -> float:
    """Returns the value-order correlation (GVL, arXiv 2411.04549): Spearman's correlation with time, ties at their mean rank.

    A constant curve is 0, because it orders nothing. NaN for fewer than two known frames.

    >>> voc(np.array([0.0, 0.5, 0.5, 1.0])).__round__(3), voc(np.zeros(4))
    (0.949, 0.0)
    """
    order = order_correlation(value)
    return 0.0 if np.isnan(order) and len(without_nan(value)) > 1 else order


def voc_r(value: Values) -> float:
    """Returns Pearson's correlation with a straight line over time, which Robometer calls VOC-r; a constant curve is 0, as there.

    NaN for fewer than two known frames.
    """
    value = numbers(value)
    frames = np.flatnonzero(~np.isnan(value))
    if len(frames) < 2:
        return float("nan")
    values = value[frames] - value[frames].mean()
    time = frames - frames.mean()
    spread = float(np.sqrt((values**2).sum() * (time**2).sum()))
    return float(np.clip((values * time).sum() / spread, -1, 1)) if spread > 1e-12 else 0.0  # rounding may leave [-1, 1]


def ends(value: Values, frames: int = 3) -> float:
    """Returns how far a curve moves: the mean of its last known frames minus the mean of its first ones; NaN if none is known."""
    values = without_nan(value)
    return float(values[-frames:].mean() - values[:frames].mean()) if len(values) else float("nan")


def slope_beside(value: Float[np.ndarray, "T"], other: Float[np.ndarray, "T"]) -> float:
    """Returns how much a curve rises with time alone, over the whole curve, once what it has in common with another curve is taken away.

    It is the coefficient of the time in the least-squares fit of `value` by a constant, the time and `other`, times T - 1. With a constant
    `other` it is the slope of the straight line that fits best. A frame that is NaN in one of them is left out; NaN for fewer than two.
    """
    frames = np.flatnonzero(~np.isnan(value) & ~np.isnan(other))
    if len(frames) < 2:
        return float("nan")
    columns = np.stack([frames - frames.mean(), other[frames] - other[frames].mean()], axis=1).astype(float)
    coefficients = np.linalg.lstsq(columns, value[frames].astype(float) - value[frames].mean(), rcond=1e-6)[0]
    return float(coefficients[0] * (len(value) - 1))


def average_precision(success: Values, failure: Values) -> float:
    """Returns the area under the precision-recall curve of successes against failures (AUPRC), as scikit-learn's average_precision_score.

    It is the sum over thresholds of precision times the gain in recall; equal values are one threshold. Values that are NaN are left out;
    the result is NaN if nothing is left on one side. By chance it is the proportion of successes.
    """
    return of_one(auprc, without_nan(success, "the successes"), without_nan(failure, "the failures"))


def tau_a(value: Values, reference: Values) -> float:
    """Returns Kendall's tau-a: concordant minus discordant pairs over all n (n - 1) / 2 pairs; a tie on either side counts 0.

    By chance it is 0. With S successes and F failures as the reference, a perfect order has 2 S F / (n (n - 1)), and not 1.
    Pairs of values of which one is NaN are left out. The result is NaN for fewer than two that are left.
    """
    both = np.array(same_frames(value, reference))
    sides = both[:, ~np.isnan(both).any(axis=0)]
    count = sides.shape[1]
    if count < 2:
        return float("nan")
    signs = np.prod([np.sign(side[:, None] - side[None, :]) for side in sides], axis=0)
    return float(np.triu(signs, 1).sum() / (count * (count - 1) / 2))


def max_progress(value: Values) -> float:
    """Returns the highest known progress; NaN if none is known."""
    values = without_nan(value)
    return float(values.max()) if len(values) else float("nan")


def milestone_coverage(value: Values, milestones: Values) -> float:
    """Returns the proportion of milestones, values of progress, that the curve reaches. Those that are NaN are left out.

    The result is NaN without a known frame or a milestone.
    """
    values, milestones = without_nan(value), without_nan(milestones, "the milestones")
    return float((values.max() >= milestones).mean()) if len(values) and len(milestones) else float("nan")


def stagnation(value: Values, step: float = 0.01) -> float:
    """Returns the proportion of frames at which the curve is not above its highest value so far by at least `step`, after the first frame.

    After Outcome-Process-Diagnosis (arXiv 2603.21669), whose appendix defines its own. NaN for fewer than two known frames.

    >>> stagnation(np.array([0.0, 0.5, 0.5, 0.4, 1.0]))
    0.5
    """
    values = without_nan(value)
    if len(values) < 2:
        return float("nan")
    best = np.maximum.accumulate(values)[:-1]
    return float((values[1:] < best + step - 1e-6).mean())  # 1e-6: float32 curves that rise by exactly `step` do not stand still


def regret(value: Values) -> float:
    """Returns the mean distance below the highest value so far: 0 for a curve that never falls. NaN if no frame is known.

    After the cumulative regret area of arXiv 2603.21669, divided by the frames.
    """
    values = without_nan(value)
    return float((np.maximum.accumulate(values) - values).mean()) if len(values) else float("nan")


def path_efficiency(value: Values) -> float:
    """Returns how far a curve gets over how far it travels: 1 for one that never falls, 0 for one that returns or stands still.

    NaN for fewer than two known frames.
    """
    values = without_nan(value)
    if len(values) < 2:
        return float("nan")
    travel = float(np.abs(np.diff(values)).sum())
    return max(0.0, float(values[-1] - values[0])) / travel if travel > 0 else 0.0


def beside_time(curves: Sequence[Float[np.ndarray, "_"]]) -> dict[str, Float[np.ndarray, "N 2"]]:
    """Returns what the time explains of each curve, by how it is counted: in "frames", and as the elapsed "part" of the episode.

    Columns: the mean squared distance from the mean of the n - 1 other curves at the same time, times (n - 1) / n, so that few others
    do not look like a larger distance; and the curve's variance. One minus the ratio of their means is the R^2 of the time. Times that no
    other curve reaches are left out; a row is NaN where nothing is left.
    """
    longest = max((len(curve) for curve in curves), default=0)
    frames = np.full((len(curves), longest), np.nan)
    part = np.full((len(curves), _POINTS), np.nan)
    for row, stretched, curve in zip(frames, part, curves, strict=True):
        value = filled(numbers(curve))
        row[: len(value)] = value
        if len(value):
            stretched[:] = np.interp(np.linspace(0, 1, _POINTS), np.linspace(0, 1, len(value)), value)
    return {"frames": _beside_others(frames), "part": _beside_others(part)}


def _beside_others(table: Float[np.ndarray, "N M"]) -> Float[np.ndarray, "N 2"]:
    is_known = ~np.isnan(table)
    count, total = is_known.sum(axis=0), np.where(is_known, table, 0).sum(axis=0)
    out = np.full((len(table), 2), np.nan)
    for place, row in enumerate(table):
        at = is_known[place] & (count >= 2)
        if at.any():
            others = (total[at] - row[at]) / (count[at] - 1)
            out[place] = np.mean((row[at] - others) ** 2 * (count[at] - 1) / count[at]), row[at].var()
    return out
