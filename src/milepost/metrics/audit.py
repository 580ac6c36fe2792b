"""Verdicts on a reward model: what its curves over edited copies of episodes say, with bootstrap intervals over episodes.

Numbers are computed for each episode first. A proportion such as `frozen` is a ratio of two means over successful episodes, so that no
episode in which nothing moves can decide. The bounds separated 24 models of known nature without a false alarm at 10 episodes
(docs/audit.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float

from milepost.core import count_noun
from milepost.metrics.controls import FAULTS, WORDS, orders
from milepost.metrics.curves import ends, filled, slope_beside, voc, voc_r
from milepost.metrics.evaluation import MORE, Estimate, outcome_rows
from milepost.metrics.scores import final, interval

State = Literal["passes", "fails", "cannot be said"]
FEWEST = 5
"""Episodes below which no verdict is given: at 3 episodes 42 of 1,600 clocks were missed, at 5 there were 13, at 10 none."""
LEAST_RISE = 0.2
"""Progress over a successful episode below which a model says nothing."""
CLOCK, PART = 0.5, 0.15
"""The share of the real rise that a frozen or shuffled episode keeps, from which a model is a clock, and from which it is partly one."""
LEAST_FOLLOW, BACKWARDS = 0.5, -0.5
"""How much of the real curve shuffled frames must bring back. A model that needs neighbouring frames brings back less: then its curve must
fall by half its rise when the recording is played backwards."""
BLIND = 0.1
KNOWS_END = 0.15
MOST_CHANGE = 0.1
"""The mean change of progress under a fault of the camera that a model should bear, as a share of the rise."""


@dataclass(frozen=True, eq=False)
class EpisodeCurves:
    """One episode's curves. real: as recorded; controls: by name. All are (T,) scores, NaN where unknown, of the length of their copy.

    success: None if unknown. seed: that of the copies, from which the order of the shuffled frames is made again. scaled: whether the
    scores are progress in [0, 1]; raw scores have no least rise.
    """

    episode: int
    task: str
    success: bool | None
    real: Float[np.ndarray, "T"]
    controls: Mapping[str, np.ndarray]
    seed: int = 0
    scaled: bool = True


@dataclass(frozen=True)
class Property:
    """One line of the verdict. name: the property in words. evidence: the numbers behind the state, or what is missing."""

    name: str
    state: State
    evidence: str


@dataclass(frozen=True, eq=False)
class Audit:
    """What is known of a model. verdict: one of VERDICTS, or "cannot be said". rows: measure -> estimate. properties: the lines."""

    verdict: str
    rows: Mapping[str, Estimate]
    properties: Sequence[Property]
    episodes: int
    missing: Mapping[str, str] = field(default_factory=dict)
    """Control -> why it could not be made."""

    @property
    def passes(self) -> bool:
        """Returns whether no property fails."""
        return all(each.state != "fails" for each in self.properties)


VERDICTS = {
    "reward": "its curve follows what is seen",
    "partly a clock": "part of its rise comes with time alone",
    "clock": "it rises with time, whatever is seen",
    "says nothing": "it does not rise over successful episodes",
    "cannot be said": f"fewer than {FEWEST} successful episodes, or controls that were left out",
}


ROWS = {
    "rise": "rise, last frames minus first",
    "frozen": "part of the rise over frozen frames",
    "shuffled": "part of the rise over shuffled frames",
    "follow": "follows the frames (1) or the time (0)",
    "backwards": "part of the rise when played backwards",
    "images_share": "the images' part of its changes",
    "end_ahead": "a half recording ends ahead by",
    "voc": "VOC",
    "voc_r": MORE["voc_r"],
    "voc_frozen_first": "VOC, first frame frozen",
    "voc_reversed": "VOC, reversed",
    "voc_shuffled": "VOC, shuffled",
    "stalled": "part of the rise while it stands still",
    "regressed": "falls when played back, of the rise there",
    "final": "final",
    "final_cut_50": "final, first half only",
    "final_cut_80": "final, first 80 % only",
    "instruction_contrast": "final minus that of another instruction",
    "final_empty_task": "final without instruction",
    "auc": "AUC",
    **{name: MORE[name] for name in ("auprc", "tau_a", "succ_fail_diff")},
    "change_other_camera": "changes with another camera by",
    **{f"change_{name}": f"changes by, {WORDS[name]}" for name in FAULTS},
}
"""Name of each row -> its words in a table. Changes are proportions of the rise."""


def numbers_of(curves: EpisodeCurves) -> dict[str, float]:
    """Returns one episode's numbers by name; NaN where a control is missing or nothing is known."""
    real, controls = filled(curves.real), {name: filled(value) for name, value in curves.controls.items()}
    length, unknown = len(real), float("nan")
    order = orders(length, np.random.default_rng([curves.seed, curves.episode]))["shuffled"]
    numbers = {"rise": ends(curves.real), "voc": voc(curves.real), "voc_r": voc_r(curves.real), "final": final(curves.real)}
    frozen = [ends(controls[name]) for name in ("frozen_first", "frozen_middle", "frozen_last") if name in controls]
    numbers["reversed_rise"] = ends(controls["reversed"]) if "reversed" in controls else unknown
    numbers["frozen_rise"] = float(np.mean(frozen)) if frozen else unknown
    for name in ("frozen_first", "reversed", "shuffled"):
        numbers[f"voc_{name}"] = voc(curves.controls[name]) if name in curves.controls else unknown
    shuffled = controls.get("shuffled")
    numbers["shuffled_rise"] = unknown if shuffled is None else slope_beside(shuffled, real[order])
    numbers["covariance"] = unknown if shuffled is None else float(np.mean((shuffled - shuffled.mean()) * (real[order] - real.mean())))
    numbers["variance"] = float(real.var())
    for name in ("images_frozen", "states_frozen", "other_camera", *FAULTS):
        numbers[f"change_{name}"] = float(np.abs(controls[name] - real).mean()) if name in controls else unknown
    half = controls.get("cut_50")
    numbers["end_ahead"] = unknown if half is None else 2 * float(half[-1] - real[len(half) - 1])
    for name in ("cut_50", "cut_80", "other_task", "empty_task"):
        numbers[f"final_{name}"] = final(curves.controls[name]) if name in curves.controls else unknown
    third = length // 3
    stalled, regressed = controls.get("stalled"), controls.get("regressed")
    if third < 2:
        return numbers | dict.fromkeys(("stalled_rise", "regressed_fall", "third_rise"), unknown)
    numbers["stalled_rise"] = unknown if stalled is None else float(stalled[2 * third - 1] - stalled[third])
    numbers["regressed_fall"] = unknown if regressed is None else float(regressed[2 * third - 1] - regressed[3 * third - 2])
    numbers["third_rise"] = float(real[2 * third - 1] - real[third])
    return numbers


def audit_curves(curves: Sequence[EpisodeCurves], *, missing: Mapping[str, str] | None = None, seed: int = 0) -> Audit:
    """Returns the audit of one model from its curves over episodes and their edited copies.

    missing: control -> why it is not there. seed: of the bootstrap. Successful episodes count, and those of
    unknown success; failed ones count in the comparison with successes alone.
    """
    rng, scaled = np.random.default_rng(seed), all(each.scaled for each in curves)
    numbers = [numbers_of(each) for each in curves]
    good = [each for each, of in zip(numbers, curves, strict=True) if of.success is not False]
    rows = _rows(good, rng) | _outcome_rows(curves, numbers, rng)
    properties = [
        _rises(rows, scaled), _follows(rows), _sees(rows), _knows_end(rows), _reads(rows), _tells_success(rows), *_bears(rows, curves),
    ]  # fmt: skip
    return Audit(_verdict(rows, scaled, len(good)), rows, properties, len(curves), missing or {})


def _mean(numbers: Sequence[Mapping[str, float]], name: str, rng: np.random.Generator) -> Estimate:
    values = np.array([each[name] for each in numbers], dtype=float)
    values = values[~np.isnan(values)]
    if not len(values):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    return Estimate(float(values.mean()), *interval(lambda x: float(x.mean()), values, rng=rng), len(values))


def _ratio(numbers: Sequence[Mapping[str, float]], above: str, below: str, rng: np.random.Generator, draws: int = 1000) -> Estimate:
    """Returns the ratio of two means over the same episodes, with its interval: episodes are drawn, not the two sides.

    It is unknown if the lower mean may be 0: a part of a rise that is none says nothing.
    """
    pairs = np.array([[each[above], each[below]] for each in numbers], dtype=float).reshape(-1, 2)
    pairs = pairs[~np.isnan(pairs).any(axis=1)]
    unknown = float("nan")
    if not len(pairs) or pairs[:, 1].sum() == 0:
        return Estimate(unknown, unknown, unknown, len(pairs))
    if interval(lambda x: float(x.mean()), pairs[:, 1], rng=rng)[0] <= 0:
        return Estimate(unknown, unknown, unknown, len(pairs))
    sums = pairs[rng.integers(len(pairs), size=(draws, len(pairs)))].sum(axis=1)
    ratios = sums[:, 0] / np.where(sums[:, 1] == 0, np.nan, sums[:, 1])
    low, high = np.nanpercentile(ratios, [2.5, 97.5])
    return Estimate(float(pairs[:, 0].sum() / pairs[:, 1].sum()), float(low), float(high), len(pairs))


def _rows(good: Sequence[Mapping[str, float]], rng: np.random.Generator) -> dict[str, Estimate]:
    both = [{**each, "either": each["change_images_frozen"] + each["change_states_frozen"]} for each in good]
    contrasts = [{"contrast": each["final"] - each["final_other_task"]} for each in good]
    rows = {name: _mean(good, name, rng) for name in ("rise", "voc", "voc_r", "voc_frozen_first", "voc_reversed", "voc_shuffled")}
    rows |= {
        "frozen": _ratio(good, "frozen_rise", "rise", rng),
        "shuffled": _ratio(good, "shuffled_rise", "rise", rng),
        "follow": _ratio(good, "covariance", "variance", rng),
        "images_share": _ratio(both, "change_images_frozen", "either", rng),
        "end_ahead": _ratio(good, "end_ahead", "rise", rng),
        "stalled": _ratio(good, "stalled_rise", "third_rise", rng),
        "regressed": _ratio(good, "regressed_fall", "third_rise", rng),
        "final_cut_50": _mean(good, "final_cut_50", rng),
        "final_cut_80": _mean(good, "final_cut_80", rng),
        "final": _mean(good, "final", rng),
        "instruction_contrast": _mean(contrasts, "contrast", rng),
        "final_empty_task": _mean(good, "final_empty_task", rng),
    }
    rows |= {f"change_{name}": _ratio(good, f"change_{name}", "rise", rng) for name in ("other_camera", *FAULTS)}
    return rows | {"backwards": _ratio(good, "reversed_rise", "rise", rng)}


def _outcome_rows(curves: Sequence[EpisodeCurves], numbers: Sequence[Mapping[str, float]], rng: np.random.Generator) -> dict[str, Estimate]:
    """Returns what separates successes from failures: by final value, over episodes whose success is known."""
    success, failure = (
        np.array([each["final"] for each, of in zip(numbers, curves, strict=True) if of.success is side and not np.isnan(each["final"])])
        for side in (True, False)
    )
    return outcome_rows(success, failure, rng) | {"failures": Estimate(float(len(failure)), float("nan"), float("nan"), len(failure))}


def _verdict(rows: Mapping[str, Estimate], scaled: bool, count: int) -> str:
    if count < FEWEST or np.isnan(rows["rise"].value):
        return "cannot be said"
    if _rises(rows, scaled).state == "fails":
        return "says nothing"
    frozen, shuffled, follow = (rows[name].value for name in ("frozen", "shuffled", "follow"))
    if frozen >= CLOCK or shuffled >= CLOCK or _is_deaf(rows):  # one control is enough to find a clock, a reward needs them all
        return "clock"
    if np.isnan([frozen, shuffled, follow]).any():
        return "cannot be said"
    return "partly a clock" if frozen >= PART or shuffled >= PART else "reward"


def _is_deaf(rows: Mapping[str, Estimate]) -> bool:
    """Returns whether the curve follows frames neither in a random order nor, as far as is known, backwards."""
    return rows["follow"].value < LEAST_FOLLOW and not rows["backwards"].value <= BACKWARDS


def _enough(estimate: Estimate, least: int = FEWEST) -> bool:
    return estimate.episodes >= least and not np.isnan(estimate.value)


def _few(name: str, estimate: Estimate, why: str = "") -> Property:
    return Property(name, "cannot be said", why or f"{count_noun(estimate.episodes, 'episode')}, {FEWEST} are needed")


def _no_rise(rows: Mapping[str, Estimate]) -> str:
    """Returns why nothing can be compared with the rise, if it may be 0; else ""."""
    rise = rows["rise"]
    return f"it does not rise: {rise}" if rise.episodes >= FEWEST and rise.low <= 0 else ""


def _rises(rows: Mapping[str, Estimate], scaled: bool) -> Property:
    name, rise = "rises over successful episodes", rows["rise"]
    if not _enough(rise):
        return _few(name, rise)
    fails = rise.low <= 0 or (scaled and rise.value < LEAST_RISE)
    return Property(name, "fails" if fails else "passes", f"rise {rise}")


def _follows(rows: Mapping[str, Estimate]) -> Property:
    name = "follows what is seen, not the time"
    if not all(_enough(rows[each]) for each in ("frozen", "shuffled", "follow")):
        return _few(name, rows["frozen"], _no_rise(rows))
    fails = max(rows["frozen"].value, rows["shuffled"].value) >= PART or _is_deaf(rows)
    evidence = (
        f"of its rise, frozen frames keep {rows['frozen']} and shuffled ones {rows['shuffled']}; it follows the frames by {rows['follow']}"
    ) + (f"; played backwards it makes {rows['backwards']} of its rise" if rows["follow"].value < LEAST_FOLLOW else "")
    return Property(name, "fails" if fails else "passes", evidence)


def _sees(rows: Mapping[str, Estimate]) -> Property:
    name, proportion = "uses the images", rows["images_share"]
    if not _enough(proportion):
        return _few(
            name, proportion, "nothing changes it" if proportion.episodes else "there are no states beside the images, or no images"
        )
    return Property(
        name, "fails" if proportion.value < BLIND else "passes", f"the images' part of its changes is {proportion}, the rest is the states'"
    )


def _knows_end(rows: Mapping[str, Estimate]) -> Property:
    name, ahead = "does not know where the recording ends", rows["end_ahead"]
    if not _enough(ahead):
        return _few(name, ahead, _no_rise(rows))
    return Property(name, "fails" if ahead.value > KNOWS_END else "passes", f"a half recording ends {ahead} of the rise ahead")


def _reads(rows: Mapping[str, Estimate]) -> Property:
    name, contrast = "reads the instruction", rows["instruction_contrast"]
    if not _enough(contrast):
        return _few(name, contrast, "" if contrast.episodes else "the dataset has one instruction")
    return Property(name, "passes" if contrast.low > 0 else "fails", f"the right instruction ends {contrast} above another one")


def _tells_success(rows: Mapping[str, Estimate]) -> Property:
    name, auc = "ends higher for successes than for failures", rows["auc"]
    failures = int(rows["failures"].value)
    if np.isnan(auc.value) or min(failures, auc.episodes - failures) < 3:
        return Property(
            name, "cannot be said", f"{auc.episodes - failures} known successes and {failures} known failures, 3 of each are needed"
        )
    return Property(name, "passes" if auc.low > 0.5 else "fails", f"AUC {auc}")


def _bears(rows: Mapping[str, Estimate], curves: Sequence[EpisodeCurves]) -> list[Property]:
    names = [name for name in FAULTS if any(name in each.controls for each in curves)]
    lines = []
    for name in names:
        change, words = rows[f"change_{name}"], f"bears {WORDS[name]}"
        if not _enough(change):
            lines.append(_few(words, change, _no_rise(rows)))
        else:
            lines.append(Property(words, "fails" if change.value > MOST_CHANGE else "passes", f"it changes by {change} of the rise"))
    return lines
