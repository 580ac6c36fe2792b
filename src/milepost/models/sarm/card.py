"""The README.md of a trained model: what it is, what it was trained on, what it scored on episodes it never saw."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from milepost.metrics import Summary
from milepost.models.sarm.config import SARMConfig
from milepost.models.training.card import card_fields, settings_of, write_card
from milepost.models.training.recipe import TrainResult

TEMPLATE = """---
library_name: milepost
pipeline_tag: robotics
tags: [reward-model, robotics, progress, sarm]
datasets: [{dataset}]
---

# Task progress for `{dataset}`

SARM (stage-aware reward model, [arXiv 2509.25358](https://arxiv.org/abs/2509.25358)), annotation mode `{mode}`, trained with milepost on
{train}; {held} kept out, split by start scene where the dataset names one.

    import milepost
    model = milepost.load_model("path/to/this/folder")
    progress = model.predict(milepost.open_dataset("path/to/dataset")[0]).value   # (T,) in [0, 1]

Cameras: {cameras}. Stages: {stages}.

## Training

{training}

`milepost train` settings: {settings}.

## Held-out episodes, 95 % intervals

{table}

Error, stage accuracy and order are over successful episodes; AUC is how often a success ends above a failure. `elapsed` is a clock.
{left_out}{audit}"""


def save_card(folder: Path, result: TrainResult, dataset: str, summaries: Mapping[str, Summary], *, fingerprint: str = "") -> None:
    """Writes README.md and evaluation.json beside the weights. fingerprint: of the dataset it learnt from."""
    result = dataclasses.replace(result, summaries=summaries)
    config: SARMConfig = result.model.config
    names = ("encoder", "window", "n_obs_steps", "gap_s" if config.frame_gap is None else "frame_gap", "state_key", "augmentation")
    settings = settings_of(result, {name: getattr(config, name) for name in names})
    head_lines = [
        f"{head}: " + ", ".join(f"{name} ({proportion:.2f})" for name, proportion in zip(stages.names, stages.shares, strict=True))
        for head, stages in config.heads.items()
    ]
    card = TEMPLATE.format(mode=config.annotation_mode, stages="; ".join(head_lines), **card_fields(result, dataset, settings))
    write_card(folder, card, result, dataset, settings, fingerprint=fingerprint)
