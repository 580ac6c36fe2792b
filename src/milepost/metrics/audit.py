"""Verdicts on a reward model: what its curves over edited copies of episodes say, with bootstrap intervals over episodes.

Numbers are computed for each episode first. A proportion such as `frozen` is a ratio of two means over successful episodes, so that no
episode in which nothing moves can decide. The bounds separated 24 models of known nature without a false alarm at 10 episodes
(docs/audit.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
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
FROZEN = ("frozen_first", "frozen_middle", "frozen_last")
BLIND = 0.1
KNOWS_END = 0.15
NO_HELP = 0.7
"""The AUC that a model's interval must reach for it to be possible that it tells successes from failures."""
SHORTEST = 6
"""Frames below which an episode says nothing: its first three and its last three would be the same. A curve may be known in fewer of them:
TOPReward asks about some prefixes."""
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
    """What is known of a model. verdict: one of VERDICTS. rows: measure -> estimate. properties: the lines.

    missing: control -> why it was not made, for those that no episode has.
    """

    verdict: str
    rows: Mapping[str, Estimate]
    properties: Sequence[Property]
    episodes: int
    missing: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""

    @property
    def passes(self) -> bool:
        """Returns whether no property fails."""
        return all(each.state != "fails" for each in self.properties)


VERDICTS = {
    "reward": "its curve follows what is seen",
    "partly a clock": "part of its rise comes with time alone",
    "clock": "it rises with time, whatever is seen",
    "follows nothing": "it rises, but not with what is seen and not with time alone",
    "says nothing": "it does not rise over successful episodes",
    "cannot be said": f"there are fewer than {FEWEST} successful episodes that can be judged, or controls were left out",
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
    "change_half_rate": "changes at half the frame rate by",
    "change_double_rate": "changes at double the frame rate by",
    **{f"change_{name}": f"changes by, {WORDS[name]}" for name in FAULTS},
}
"""Name of each row -> its words in a table. Changes are proportions of the rise."""


def numbers_of(curves: EpisodeCurves) -> dict[str, float]:
    """Returns one episode's numbers by name; NaN where a control is missing, or the episode is shorter than SHORTEST."""
    numbers = _numbers_of(curves)
    return numbers if len(curves.real) >= SHORTEST else dict.fromkeys(numbers, float("nan"))


def _numbers_of(curves: EpisodeCurves) -> dict[str, float]:
    real, controls = filled(curves.real), {name: filled(value) for name, value in curves.controls.items()}
    length, unknown = len(real), float("nan")
    order = orders(length, np.random.default_rng([curves.seed, curves.episode]))["shuffled"]
    numbers = {"rise": ends(curves.real), "voc": voc(curves.real), "voc_r": voc_r(curves.real), "final": final(curves.real)}
    frozen = [ends(controls[name]) for name in FROZEN if name in controls]
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
    for name, matching in (("half_rate", real[::2]), ("double_rate", np.repeat(real, 2))):
        numbers[f"change_{name}"] = float(np.abs(controls[name] - matching).mean()) if name in controls else unknown
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
    rng = np.random.default_rng(seed)
    numbers = [numbers_of(each) for each in curves]
    good = [each for each, of in zip(numbers, curves, strict=True) if of.success is not False]
    rows = _rows(good, rng) | _outcome_rows(curves, numbers, rng)
    run = frozenset(name for each in curves for name in each.controls)
    facts = _Facts(rows, len(good), run, missing or {}, all(each.scaled for each in curves))
    properties = [_rises(facts), _follows(facts), _sees(facts), _knows_end(facts), _reads(facts), _tells_success(facts), *_bears(facts)]
    return Audit(_verdict(facts), rows, properties, len(curves), {name: why for name, why in facts.missing.items() if name not in run})


@dataclass(frozen=True)
class _Facts:
    """What verdicts rest on. good: how many episodes succeeded, or may have. run: controls that were run. scaled: see EpisodeCurves."""

    rows: Mapping[str, Estimate]
    good: int
    run: Set[str]
    missing: Mapping[str, str]
    scaled: bool

    def few(self, name: str, estimate: Estimate, *controls: str) -> Property:
        """Returns the line of a property of which nothing can be said, with the reason."""
        return Property(name, "cannot be said", self._lack(estimate, controls))

    def _lack(self, estimate: Estimate, controls: Sequence[str]) -> str:
        absent = [control for control in controls if control not in self.run]
        if absent:
            return "; ".join(f"{control}: {self.missing.get(control, 'it was not run')}" for control in absent)
        rise = self.rows["rise"]
        if rise.episodes >= FEWEST and rise.low <= 0:
            return f"it does not rise: {rise}"
        whole = f"{count_noun(self.good, 'episode')} that succeeded or may have"
        if estimate.episodes == self.good:
            return f"there {'is' if self.good == 1 else 'are'} {whole}; {FEWEST} are needed"
        return (
            f"of {whole}, {estimate.episodes} can be judged; {FEWEST} are needed (of {SHORTEST} frames or more, with a "
            "curve that is not all unknown)"
        )


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
    rows |= {
        f"change_{name}": _ratio(good, f"change_{name}", "rise", rng) for name in ("other_camera", "half_rate", "double_rate", *FAULTS)
    }
    return rows | {"backwards": _ratio(good, "reversed_rise", "rise", rng)}


def _outcome_rows(curves: Sequence[EpisodeCurves], numbers: Sequence[Mapping[str, float]], rng: np.random.Generator) -> dict[str, Estimate]:
    """Returns what separates successes from failures: by final value, over episodes whose success is known."""
    success, failure = (
        np.array([each["final"] for each, of in zip(numbers, curves, strict=True) if of.success is side and not np.isnan(each["final"])])
        for side in (True, False)
    )
    return outcome_rows(success, failure, rng) | {"failures": Estimate(float(len(failure)), float("nan"), float("nan"), len(failure))}


def _verdict(facts: _Facts) -> str:
    rows = facts.rows
    if not _enough(rows["rise"]):
        return "cannot be said"
    if _rises(facts).state == "fails":
        return "says nothing"
    frozen, shuffled = (rows[name].value for name in ("frozen", "shuffled"))
    if frozen >= CLOCK or shuffled >= CLOCK:  # one control is enough to find a clock, a reward needs them all
        return "clock"
    if not all(_enough(rows[name]) for name in ("frozen", "shuffled", "follow")):
        return "cannot be said"
    if _is_deaf(rows):
        return "follows nothing"
    return "partly a clock" if frozen >= PART or shuffled >= PART else "reward"


def _is_deaf(rows: Mapping[str, Estimate]) -> bool:
    """Returns whether the curve follows frames neither in a random order nor, as far as is known, backwards."""
    return rows["follow"].value < LEAST_FOLLOW and not rows["backwards"].value <= BACKWARDS


def _enough(estimate: Estimate) -> bool:
    return estimate.episodes >= FEWEST and not np.isnan(estimate.value)


def _rises(facts: _Facts) -> Property:
    name, rise = "rises over successful episodes", facts.rows["rise"]
    if not _enough(rise):
        return facts.few(name, rise)
    fails = rise.low <= 0 or (facts.scaled and rise.value < LEAST_RISE)
    return Property(name, "fails" if fails else "passes", f"rise {rise}")


def _follows(facts: _Facts) -> Property:
    name, rows = "follows what is seen, not the time", facts.rows
    if not all(_enough(rows[each]) for each in ("frozen", "shuffled", "follow")):
        return facts.few(name, rows["frozen"], *(() if facts.run & set(FROZEN) else FROZEN[:1]), "shuffled")
    fails = max(rows["frozen"].value, rows["shuffled"].value) >= PART or _is_deaf(rows)
    evidence = (
        f"of its rise, frozen frames keep {rows['frozen']} and shuffled ones {rows['shuffled']}; it follows the frames by {rows['follow']}"
    ) + (f"; played backwards it makes {rows['backwards']} of its rise" if rows["follow"].value < LEAST_FOLLOW else "")
    return Property(name, "fails" if fails else "passes", evidence)


def _sees(facts: _Facts) -> Property:
    name, proportion, controls = "uses the images", facts.rows["images_share"], ("images_frozen", "states_frozen")
    if _rises(facts).state == "fails":
        return Property(name, "cannot be said", "it does not rise, so a change of its curve may be noise")
    if not _enough(proportion):
        if facts.run >= set(controls) and proportion.episodes >= FEWEST:
            return Property(name, "fails", "neither frozen images nor frozen states change it")
        return facts.few(name, proportion, *controls)
    return Property(
        name, "fails" if proportion.value < BLIND else "passes", f"the images' part of its changes is {proportion}, the rest is the states'"
    )


def _knows_end(facts: _Facts) -> Property:
    name, ahead = "does not know where the recording ends", facts.rows["end_ahead"]
    if not _enough(ahead):
        return facts.few(name, ahead, "cut_50")
    return Property(name, "fails" if ahead.value > KNOWS_END else "passes", f"a half recording ends {ahead} of the rise ahead")


def _reads(facts: _Facts) -> Property:
    name, contrast = "reads the instruction", facts.rows["instruction_contrast"]
    if not _enough(contrast):
        return facts.few(name, contrast, "other_task")
    return Property(name, "passes" if contrast.low > 0 else "fails", f"the right instruction ends {contrast} above another one")


def _tells_success(facts: _Facts) -> Property:
    name, auc = "ends higher for successes than for failures", facts.rows["auc"]
    failures = int(facts.rows["failures"].value)
    if np.isnan(auc.value) or min(failures, auc.episodes - failures) < 3:
        counts = f"successes that can be judged: {auc.episodes - failures}, failures: {failures}"
        return Property(name, "cannot be said", f"{counts}; 3 of each are needed")
    state: State = "passes" if auc.low > 0.5 else "fails" if auc.high < NO_HELP else "cannot be said"
    return Property(name, state, f"AUC {auc}" + (": the interval is too wide" if state == "cannot be said" else ""))


def _bears(facts: _Facts) -> list[Property]:
    lines = []
    for name in (name for name in FAULTS if name in facts.run):
        change, words = facts.rows[f"change_{name}"], f"bears {WORDS[name]}"
        if not _enough(change):
            lines.append(facts.few(words, change, name))
        else:
            lines.append(Property(words, "fails" if change.value > MOST_CHANGE else "passes", f"it changes by {change} of the rise"))
    return lines
