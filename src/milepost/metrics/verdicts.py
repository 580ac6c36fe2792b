"""What an audit says of a model, and why: one verdict, and a line for each property, from numbers with intervals.

A line passes or fails only where its whole interval is on one side of the bound. The bounds separated models of known nature
(docs/audit.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from milepost.core import count_noun
from milepost.metrics.controls import FAULTS, WORDS
from milepost.metrics.copied import FEWEST_KNOWN, FROZEN, SHORTEST
from milepost.metrics.evaluation import Estimate

State = Literal["passes", "fails", "cannot be said"]
FEWEST = 5
"""Episodes below which no verdict is given: at 3 episodes 42 of 1,600 clocks were missed, at 5 there were 13, at 10 none."""
LEAST_RISE = 0.2
"""Progress over a successful episode below which a model says nothing. A raw score must rise at all."""
CLOCK, PART = 0.5, 0.15
"""The share of the real rise that a frozen or shuffled episode keeps, from which a model is a clock, and from which it is partly one."""
LEAST_FOLLOW, BACKWARDS = 0.5, -0.5
"""How much of the real curve shuffled frames must bring back. A model that needs neighbouring frames brings back less: then its curve must
fall by half its rise when the recording is played backwards."""
BLIND = 0.1
KNOWS_END = 0.15
BY_STATES, BY_TIME = 0.5, 0.98
"""The share of the real rise that the states make alone, and the R^2 of that curve by the time, from which a clock may hide in the states.
Clocks hidden in a state had 0.99 or more, honest states of demonstrations by hand 0.77 to 0.95."""
NO_HELP = 0.7
"""The AUC that a model's interval must reach for it to be possible that it tells successes from failures."""
NO_CONTRAST = 0.1
"""The part of the rise that a model's interval must reach for it to be possible that it tells the right instruction from another one."""
MOST_CHANGE = 0.1
"""The mean change of progress under a fault of the camera that a model should bear, as a share of the rise."""
TOO_WIDE = "the interval is too wide for more"


@dataclass(frozen=True)
class Property:
    """One line of the verdict. name: the property in words. evidence: the numbers behind the state, or what is missing."""

    name: str
    state: State
    evidence: str


VERDICTS = {
    "reward": "its curve follows what is seen",
    "partly a clock": "part of its rise comes with time alone",
    "clock": "it rises with time, whatever is seen",
    "follows nothing": "it rises, but not with what is seen and not with time alone",
    "says nothing": "it hardly rises over successful episodes, if at all",
    "cannot be said": "these episodes and controls do not decide",
}


@dataclass(frozen=True)
class Facts:
    """What verdicts rest on. good: how many episodes succeeded, or may have. run: controls that were run. scaled: see EpisodeCurves.

    missing: control -> why it was not run. tasks: instruction -> the rise over its episodes. has_states: whether episodes have a state.
    falls: whether a curve falls anywhere, in any copy. steady: the channels of the state that grow evenly in nearly every episode, at a
    pace of its own, and so may tell the time (`steady_channels`).
    """

    rows: Mapping[str, Estimate]
    good: int
    run: Set[str]
    missing: Mapping[str, str] = field(default_factory=dict)
    scaled: bool = True
    tasks: Mapping[str, Estimate] = field(default_factory=dict)
    has_states: bool = True
    falls: bool = True
    steady: Sequence[int] = ()

    @property
    def least(self) -> float:
        """Returns the rise that a successful episode needs at least, in units of the score."""
        return LEAST_RISE if self.scaled else 0.0

    def lack(self, estimate: Estimate, *controls: str) -> str:
        """Returns why nothing can be said of a number that rests on these controls."""
        absent = [control for control in controls if control not in self.run]
        if absent:
            return "; ".join(f"{control}: {self.missing.get(control, 'it was not run')}" for control in absent)
        rise = self.rows["rise"]
        if rise.episodes >= FEWEST and rise.low <= 0:
            return f"it may not rise at all: {rise}"
        whole = f"{count_noun(self.good, 'episode')} that succeeded or may have"
        if estimate.episodes == self.good:
            return f"there {'is' if self.good == 1 else 'are'} {whole}; {FEWEST} are needed"
        return (
            f"of {whole}, {estimate.episodes} can be judged; {FEWEST} are needed (of {SHORTEST} frames or more, with a curve that is known "
            f"in {FEWEST_KNOWN} of them)"
        )


def verdict_of(facts: Facts) -> tuple[str, str]:
    """Returns the verdict, one of `VERDICTS`, and the reason for it in words."""
    rows, rises, follows, drives = facts.rows, rises_over_successes(facts), follows_what_is_seen(facts), is_not_told_the_time(facts)
    if rises.state == "cannot be said":
        return "cannot be said", rises.evidence
    if rises.state == "fails":
        return "says nothing", rises.evidence
    is_clock = _most_of(rows, "low") >= PART  # one control is enough to find a clock, a reward needs them all
    if is_clock and _most_of(rows, "value") >= CLOCK:
        return "clock", _proportions(rows)
    if follows.state == "fails" and _turns(rows) == "fails":
        if not facts.falls:
            return (
                "cannot be said",
                "the curve falls in no copy, so playing backwards cannot show what it follows; audit it before it is made so",
            )
        return "follows nothing", follows.evidence
    if is_clock:  # no reward; but it may be one that follows nothing
        return ("partly a clock" if _turns(rows) == "passes" else "cannot be said"), follows.evidence
    if follows.state == "fails":
        return "partly a clock", follows.evidence
    for line in (follows, drives):
        if line.state == "cannot be said":
            return "cannot be said", line.evidence
    return "reward", follows.evidence


def properties_of(facts: Facts) -> list[Property]:
    """Returns every property's line."""
    lines = [rises_over_successes(facts), _rises_in_tasks(facts), follows_what_is_seen(facts), _uses_images(facts)]
    lines += [is_not_told_the_time(facts), _knows_end(facts), _reads(facts), _tells_success(facts)]
    return lines + _bears(facts)


def enough(estimate: Estimate) -> bool:
    """Returns whether a number is known, over at least `FEWEST` episodes."""
    return estimate.episodes >= FEWEST and not np.isnan(estimate.value)


def at_least(estimate: Estimate, bound: float) -> State:
    """Returns whether the whole interval is at the bound or above it ("passes"), below it ("fails"), or on both sides."""
    return "passes" if estimate.low >= bound else "fails" if estimate.high < bound else "cannot be said"


def at_most(estimate: Estimate, bound: float) -> State:
    """Returns whether the whole interval is at the bound or below it ("passes"), above it ("fails"), or on both sides."""
    return "passes" if estimate.high <= bound else "fails" if estimate.low > bound else "cannot be said"


def all_of(states: Sequence[State]) -> State:
    """Returns "fails" if one fails, "passes" if all pass, and otherwise "cannot be said"."""
    return "fails" if "fails" in states else "passes" if set(states) == {"passes"} else "cannot be said"


def any_of(states: Sequence[State]) -> State:
    """Returns "passes" if one passes, "fails" if all fail, and otherwise "cannot be said"."""
    return "passes" if "passes" in states else "fails" if set(states) == {"fails"} else "cannot be said"


def _line(name: str, state: State, evidence: str) -> Property:
    return Property(name, state, evidence + (f": {TOO_WIDE}" if state == "cannot be said" else ""))


def _most_of(rows: Mapping[str, Estimate], which: str) -> float:
    """Returns the larger side of what frozen and shuffled frames keep of the rise; -inf where neither is known."""
    sides = [getattr(rows[name], which) for name in ("frozen", "shuffled") if enough(rows[name])]
    return max(sides, default=-np.inf)


def _proportions(rows: Mapping[str, Estimate]) -> str:
    return f"of its rise, frozen frames keep {rows['frozen']} and shuffled ones {rows['shuffled']}"


def rises_over_successes(facts: Facts) -> Property:
    """Returns whether the curve rises over successful episodes, by `LEAST_RISE` or more."""
    name, rise = "rises over successful episodes", facts.rows["rise"]
    if not enough(rise):
        return Property(name, "cannot be said", facts.lack(rise))
    state = at_least(rise, facts.least) if facts.scaled else "passes" if rise.low > 0 else "fails" if rise.high <= 0 else "cannot be said"
    return _line(name, state, f"rise {rise}" + (f", where {facts.least:g} is needed" if state == "fails" and facts.scaled else ""))


def _rises_in_tasks(facts: Facts) -> Property:
    name = "rises in every task"
    if len(facts.tasks) < 2:
        return Property(name, "cannot be said", "there is one task")
    few = [task for task, rise in facts.tasks.items() if not enough(rise)]
    least_first = sorted((task for task in facts.tasks if task not in few), key=lambda task: facts.tasks[task].value)
    state = all_of([at_least(facts.tasks[task], facts.least) for task in least_first]) if least_first else "cannot be said"
    lacking = f"{count_noun(len(few), 'task')} of {len(facts.tasks)} with fewer than {FEWEST} episodes that can be judged"
    if not least_first:
        return Property(name, "cannot be said", lacking)
    evidence = f"least in {least_first[0]!r}: {facts.tasks[least_first[0]]}"
    if state == "passes" and few:
        return Property(name, "cannot be said", f"{evidence}; {lacking}")
    return _line(name, state, evidence)


def follows_what_is_seen(facts: Facts) -> Property:
    """Returns whether the curve follows the frames: little is left of its rise over frozen and shuffled ones, and it turns with them."""
    name, rows = "follows what is seen, not the time", facts.rows
    if not all(enough(rows[each]) for each in ("frozen", "shuffled", "follow")):
        if _most_of(rows, "low") >= PART:
            return Property(name, "fails", _proportions(rows))
        lacking = rows["frozen" if not enough(rows["frozen"]) else "shuffled"]
        return Property(name, "cannot be said", facts.lack(lacking, *(() if facts.run & set(FROZEN) else FROZEN[:1]), "shuffled"))
    by_frame = at_least(rows["follow"], LEAST_FOLLOW)
    if by_frame == "fails" and not enough(rows["backwards"]):  # a model that needs neighbouring frames shows itself backwards alone
        return Property(name, "cannot be said", facts.lack(rows["backwards"], "reversed"))
    stays = all_of(["fails" if rows[each].low >= PART else "passes" if rows[each].high < PART else "cannot be said" for each in _SIDES])
    evidence = f"{_proportions(rows)}; it follows the frames by {rows['follow']}"
    states = [stays, _turns(rows)]
    if by_frame != "passes":
        evidence += f"; played backwards it makes {rows['backwards']} of its rise"
        if enough(rows["stalled"]):  # a clock that is wound by motion and turned by its direction passes all but this
            states.append(at_most(rows["stalled"], CLOCK))
            evidence += f", and {rows['stalled']} of it over a standstill"
    return _line(name, all_of(states), evidence)


_SIDES = ("frozen", "shuffled")


def _turns(rows: Mapping[str, Estimate]) -> State:
    """Returns whether the curve turns with the frames: in a random order, or at least backwards."""
    states = [at_least(rows["follow"], LEAST_FOLLOW)]
    return any_of(states + ([at_most(rows["backwards"], BACKWARDS)] if enough(rows["backwards"]) else []))


def _uses_images(facts: Facts) -> Property:
    name, proportion, controls = "uses the images", facts.rows["images_share"], ("images_frozen", "states_frozen")
    rises = rises_over_successes(facts)
    if rises.state != "passes":
        why = "it may not rise, so a change of its curve may be noise" if enough(facts.rows["rise"]) else rises.evidence
        return Property(name, "cannot be said", why)
    if not enough(proportion):
        if facts.run >= set(controls) and proportion.episodes >= FEWEST:
            return Property(name, "fails", "neither frozen images nor frozen states change it")
        return Property(name, "cannot be said", facts.lack(proportion, *controls))
    return _line(name, at_least(proportion, BLIND), f"the images' part of its changes is {proportion}, the rest is the states'")


def is_not_told_the_time(facts: Facts) -> Property:
    """Returns whether it can be ruled out that a clock hides in the states: they do not make the curve alone, or the time does not tell it.

    A channel of the state that tells the time cannot be told from a movement that is the same in every episode.
    """
    name, drives, explained = "is not driven by states that tell the time", facts.rows["states_rise"], facts.rows["by_time"]
    if not facts.has_states:
        return Property(name, "passes", "there are no states")
    if not enough(drives):
        return Property(name, "cannot be said", facts.lack(drives, "images_frozen"))
    evidence = f"the states alone make {drives} of its rise"
    if drives.high < BY_STATES:
        return Property(name, "passes", evidence)
    if facts.steady:
        places = f"channel{'s' if len(facts.steady) > 1 else ''} {', '.join(map(str, facts.steady))}"
        grows = "grow" if len(facts.steady) > 1 else "grows"
        return Property(
            name, "cannot be said", f"{evidence}, and {places} of the state {grows} evenly in nearly every episode, as a clock does"
        )
    if not enough(explained):
        return Property(
            name, "cannot be said", f"{evidence}, and {explained.episodes} episodes share a task with another one; {FEWEST} are needed"
        )
    evidence += f", and the time explains {explained} of that curve"
    if explained.high < BY_TIME:
        return Property(name, "passes", evidence)
    return Property(name, "cannot be said", f"{evidence}: a clock in the states would look the same; episodes of other paces would tell")


def _knows_end(facts: Facts) -> Property:
    name, ahead = "does not know where the recording ends", facts.rows["end_ahead"]
    if not enough(ahead):
        return Property(name, "cannot be said", facts.lack(ahead, "cut_50"))
    return _line(name, at_most(ahead, KNOWS_END), f"a half recording ends {ahead} of the rise ahead")


def _reads(facts: Facts) -> Property:
    name, contrast = "reads the instruction", facts.rows["instruction_contrast"]
    if not enough(contrast):
        return Property(name, "cannot be said", facts.lack(contrast, "other_task"))
    bound = NO_CONTRAST * max(facts.rows["rise"].value, facts.least)
    state: State = "passes" if contrast.low > 0 else "fails" if contrast.high < bound or contrast.high <= 0 else "cannot be said"
    return _line(name, state, f"the right instruction ends {contrast} above another one")


def _tells_success(facts: Facts) -> Property:
    name, auc = "ends higher for successes than for failures", facts.rows["auc"]
    failures = int(facts.rows["failures"].value)
    if np.isnan(auc.value) or min(failures, auc.episodes - failures) < FEWEST:
        counts = f"successes that can be judged: {auc.episodes - failures}, failures: {failures}"
        return Property(name, "cannot be said", f"{counts}; {FEWEST} of each are needed")
    return _line(name, "passes" if auc.low > 0.5 else "fails" if auc.high < NO_HELP else "cannot be said", f"AUC {auc}")


def _bears(facts: Facts) -> list[Property]:
    lines = []
    for name in (name for name in FAULTS if name in facts.run):
        change, words = facts.rows[f"change_{name}"], f"bears {WORDS[name]}"
        if not enough(change):
            lines.append(Property(words, "cannot be said", facts.lack(change, name)))
        else:
            lines.append(_line(words, at_most(change, MOST_CHANGE), f"it changes by {change} of the rise"))
    return lines
