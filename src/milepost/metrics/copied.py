"""One episode's curves over its recording and over edited copies of it, and the numbers that an audit takes from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from milepost.metrics.controls import FAULTS, orders
from milepost.metrics.curves import ends, filled, slope_beside, voc, voc_r
from milepost.metrics.scores import final

FROZEN = ("frozen_first", "frozen_middle", "frozen_last")
LEAST_FALL = 0.02
SHORTEST = 6
"""Frames below which an episode says nothing: its first three and its last three would be the same."""
FEWEST_KNOWN = 4
"""Frames in which a curve must be known. TOPReward asks about some prefixes: between two of them there is only a straight line."""


@dataclass(frozen=True, eq=False)
class EpisodeCurves:
    """One episode's curves. real: as recorded; controls: by name. All are (T,) scores, NaN where unknown, of the length of their copy.

    success: None if unknown. seed: that of the copies, from which the order of the shuffled frames is made again. scaled: whether the
    scores are progress in [0, 1]; raw scores have no least rise. has_states: whether the episode has a state beside its images.
    """

    episode: int
    task: str
    success: bool | None
    real: Float[np.ndarray, "T"]
    controls: Mapping[str, np.ndarray]
    seed: int = 0
    scaled: bool = True
    has_states: bool = True


def can_be_judged(value: Float[np.ndarray, "T"]) -> bool:
    """Returns whether a curve is of `SHORTEST` frames or more and known in `FEWEST_KNOWN` of them."""
    return len(value) >= SHORTEST and int((~np.isnan(value)).sum()) >= FEWEST_KNOWN


def falls(curves: EpisodeCurves) -> bool:
    """Returns whether a curve falls, over the recording or over a copy, by more than `LEAST_FALL` of all that these curves range over."""
    finite = [value[~np.isnan(value)] for value in (curves.real, *curves.controls.values())]
    finite = [value for value in finite if len(value)]
    span = max((value.max() for value in finite), default=0.0) - min((value.min() for value in finite), default=0.0)
    return any(float(np.max(np.maximum.accumulate(value) - value)) > LEAST_FALL * span for value in finite)


def numbers_of(curves: EpisodeCurves) -> dict[str, float]:
    """Returns one episode's numbers by name; NaN where a control is missing, and everywhere if the episode cannot be judged."""
    numbers = _of_order(curves) | _of_changes(curves) | _of_thirds(curves)
    return numbers if can_be_judged(curves.real) else dict.fromkeys(numbers, float("nan"))


def _of_order(curves: EpisodeCurves) -> dict[str, float]:
    """Returns what frozen, reversed and shuffled frames leave of the curve."""
    real, controls, unknown = filled(curves.real), _filled(curves), float("nan")
    order = orders(len(real), np.random.default_rng([curves.seed, curves.episode]))["shuffled"]
    frozen = [ends(controls[name]) for name in FROZEN if name in controls]
    shuffled = controls.get("shuffled")
    return {
        "rise": ends(curves.real), "voc": voc(curves.real), "voc_r": voc_r(curves.real), "final": final(curves.real),
        "variance": float(real.var()),
        "frozen_rise": float(np.mean(frozen)) if frozen else unknown,
        "reversed_rise": ends(controls["reversed"]) if "reversed" in controls else unknown,
        "shuffled_rise": unknown if shuffled is None else slope_beside(shuffled, real[order]),
        "covariance": unknown if shuffled is None else float(np.mean((shuffled - shuffled.mean()) * (real[order] - real.mean()))),
        **{f"voc_{name}": voc(curves.controls[name]) if name in controls else unknown for name in ("frozen_first", "reversed", "shuffled")},
    }  # fmt: skip


def _of_changes(curves: EpisodeCurves) -> dict[str, float]:
    """Returns how much the curve changes with each input, and where it ends."""
    real, controls, unknown = filled(curves.real), _filled(curves), float("nan")
    beside = dict.fromkeys(("images_frozen", "states_frozen", "other_camera", *FAULTS), real)
    beside |= {"half_rate": real[::2], "double_rate": np.repeat(real, 2)}
    numbers = {
        f"change_{name}": float(np.abs(controls[name] - matching).mean()) if name in controls else unknown
        for name, matching in beside.items()
    }
    numbers["either"] = numbers["change_images_frozen"] + numbers["change_states_frozen"]
    numbers["states_rise"] = ends(controls["images_frozen"]) if "images_frozen" in controls else unknown
    half = controls.get("cut_50")
    numbers["end_ahead"] = unknown if half is None else 2 * float(half[-1] - real[len(half) - 1])
    for name in ("cut_50", "cut_80", "other_task", "empty_task"):
        numbers[f"final_{name}"] = final(curves.controls[name]) if name in controls else unknown
    return numbers | {"contrast": final(curves.real) - numbers["final_other_task"]}


def _of_thirds(curves: EpisodeCurves) -> dict[str, float]:
    """Returns what the curve does while the second third stands still, and while it is played back."""
    real, controls, unknown = filled(curves.real), _filled(curves), float("nan")
    third = len(real) // 3
    if third < 2:
        return dict.fromkeys(("stalled_rise", "regressed_fall", "third_rise"), unknown)
    stalled, regressed = controls.get("stalled"), controls.get("regressed")
    return {
        "stalled_rise": unknown if stalled is None else float(stalled[2 * third - 1] - stalled[third]),
        "regressed_fall": unknown if regressed is None else float(regressed[2 * third - 1] - regressed[3 * third - 2]),
        "third_rise": float(real[2 * third - 1] - real[third]),
    }


def _filled(curves: EpisodeCurves) -> dict[str, np.ndarray]:
    return {name: filled(value) for name, value in curves.controls.items()}
