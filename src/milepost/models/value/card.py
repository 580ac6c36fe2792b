"""The README.md and evaluation.json of a trained value model: what it is, what it learnt from, what it scored on episodes it never saw."""

from __future__ import annotations

from pathlib import Path

from milepost.models.training.card import card_fields, settings_of, write_card
from milepost.models.training.recipe import TrainResult
from milepost.models.value.config import ValueConfig

TEMPLATE = """---
library_name: milepost
pipeline_tag: robotics
tags: [reward-model, robotics, progress, value]
datasets: [{dataset}]
---

# Value of `{dataset}`

A distribution over the time that is left until success ({bins} bins, {members} networks, reduction `{reduction}`), trained with milepost on
{train}, failures among them; {held} held out, split by start scene where the dataset names one.

    import milepost
    model = milepost.load_model("path/to/this/folder")
    curve = model.predict(milepost.open_dataset("path/to/dataset")[0]).main   # curve.value (T,) in [0, 1], curve.signals

Cameras: {cameras}. Scales: {scales}.

## Training

{training}
{doubts}
`milepost train` settings: {settings}.

## Held-out episodes, 95 % intervals

{table}

`elapsed` is a clock. Error and order are over successful episodes; AUC is how often a success ends above a failure.
{left_out}{audit}"""


NAMED = ("encoder", "n_obs_steps", "gap_s", "bins", "target", "sigma_bins", "members", "reduction", "normalise", "failure_frames")
"""Fields of the config that the card names."""


def save_card(folder: Path, result: TrainResult, dataset: str, *, fingerprint: str = "") -> None:
    """Writes README.md and evaluation.json beside the weights. fingerprint: of the dataset it learnt from."""
    config: ValueConfig = result.model.config
    settings = settings_of(result, {name: getattr(config, name) for name in NAMED})
    card = TEMPLATE.format(
        bins=config.bins,
        members=config.members,
        reduction=config.reduction,
        scales="; ".join(f"`{task}` {scale:.0f} frames" for task, scale in zip(config.tasks, config.scales, strict=True)),
        doubts="".join(f"\n{words[0].upper()}{words[1:]}.\n" for words in result.doubts),
        **card_fields(result, dataset, settings),
    )
    write_card(folder, card, result, dataset, settings, fingerprint=fingerprint, doubts=result.doubts)
