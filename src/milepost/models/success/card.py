"""The README.md and evaluation.json of a success head: what it is, its labels, its threshold, what it scored on unseen episodes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from milepost.metrics import Threshold, in_words
from milepost.models.success.config import SuccessConfig
from milepost.models.success.targets import EARLY_S
from milepost.models.training.card import card_fields, settings_of, write_card
from milepost.models.training.recipe import TrainResult

TEMPLATE = """---
library_name: milepost
pipeline_tag: robotics
tags: [reward-model, robotics, success]
datasets: [{dataset}]
---

# Success in `{dataset}`

The probability at every frame that the task is done ({members} small networks on frozen features), trained with milepost on {train};
{held} held out, split by start scene where the dataset names one. It is no progress: it is near 0 until the end.

    import milepost
    model = milepost.load_model("path/to/this/folder")
    curve = model.predict(milepost.open_dataset("path/to/dataset")[0]).main   # curve.value (T,) in [0, 1], curve.signals["detected"]

Cameras: {cameras}. Robot state: {state}. Labels: {labels}.

{threshold}

## Training

{training}
{doubts}
`milepost train` settings: {settings}.

## Held-out episodes, 95 % intervals

{table}

`elapsed` is a clock. AUC is how often a success ends above a failure. Error and order compare with progress, which this is not.
{left_out}{audit}"""


NAMED = ("encoder", "n_obs_steps", "gap_s", "members", "success_labels", "positive_s", "without_state", "hold")
"""Fields of the config that the card names."""


def labels_in_words(config: SuccessConfig) -> str:
    """Returns where the labels came from."""
    if config.success_labels == "next.success":
        return "`next.success`, frame by frame"
    return f"the outcome: the last {config.positive_s:g} s of a success are positive, as many before them are not learnt from"


def threshold_in_words(config: SuccessConfig, threshold: Threshold | None) -> str:
    """Returns the rule by which an attempt counts as done, and how well it does."""
    rule = (
        f"An attempt counts as done after {config.hold} frames in a row at or above {config.rule.threshold:.3f}, until one below "
        f"{config.rule.release:.3f}"
    )
    if threshold is None:
        return f"{rule}. The threshold was not fitted: there were no episodes of both outcomes that the weights were not learnt from."
    interval = "" if not config.threshold_interval else " (95 % interval {:.3f} to {:.3f})".format(*config.threshold_interval)
    fitted = f"{rule}. The threshold{interval} was fitted on episodes that the weights were not learnt from: {threshold.counts()}."
    if threshold.false_alarms is None:
        return f"{fitted} They are too few to say how good it is."
    when = (
        f"Too early is more than {EARLY_S:g} s before the first frame that is labelled as done"
        if threshold.early is not None
        else "The labels do not tell when an attempt was done, so nothing is known of successes that are called done too early"
    )
    return (
        f"{fitted} Each judged by a threshold fitted without it, the balanced accuracy is "
        f"{in_words(threshold.accuracy, *threshold.accuracy_interval)}: {threshold.mistakes()}. {when}."
    )


def save_card(folder: Path, result: TrainResult, dataset: str, *, fingerprint: str = "") -> None:
    """Writes README.md and evaluation.json beside the weights. fingerprint: of the dataset it learnt from."""
    config: SuccessConfig = result.model.config
    settings = settings_of(result, {name: getattr(config, name) for name in NAMED})
    card = TEMPLATE.format(
        members=config.members,
        state="not looked at" if config.without_state else f"{len(config.state_mean)} numbers",
        labels=labels_in_words(config),
        threshold=threshold_in_words(config, result.threshold),
        doubts="".join(f"\n{words[0].upper()}{words[1:]}.\n" for words in result.doubts),
        **card_fields(result, dataset, settings),
    )
    fitted = None if result.threshold is None else dataclasses.asdict(result.threshold)
    write_card(folder, card, result, dataset, settings, fingerprint=fingerprint, doubts=result.doubts, threshold=fitted)
